"""The converter: foreign weights to ONNX and safetensors, in a process of its own.

    python -I -m models.foreign.convert <order.json>

Reads one order, gives up its rights (`models.foreign.jail`), opens the checkpoints, writes
``weights*.onnx``, ``weights*.safetensors`` and the self-test into the folder of the order, and
answers one JSON line. Nothing that it says is believed without a look: `models.foreign.importing`
checks what it wrote.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from models.engine import OnnxNetwork
from models.foreign.jail import NoIsolation, die_with_parent, limit, lock
from models.foreign.nnunet_networks import NnUNetShape
from models.foreign.order import Answer, Order
from models.foreign.shapes import build
from models.foreign.weights import WeightsRefused, read_weights
from models.pack import TEST_STEP, member_file


def convert(order: Order) -> Answer:
    """Convert every checkpoint of an order."""
    out = Path(order.out)
    (out / "test").mkdir()
    batch = _test_input(order)
    np.savez_compressed(out / "test/input.npz", batch=batch.astype(np.float16))
    differences: list[float] = []
    parameters = 0
    logits: dict[str, Any] = {}
    for number, checkpoint in enumerate(order.checkpoints, start=1):
        net = build(order.shape)
        _fill(net, Path(checkpoint), trust=order.trust)
        save_file(
            {name: value.contiguous() for name, value in net.state_dict().items()},
            out / member_file("weights.safetensors", number),
        )
        expected, difference = _export(net, batch, out / member_file("weights.onnx", number))
        logits[member_file("logits", number)] = expected[..., ::TEST_STEP, ::TEST_STEP]
        differences.append(difference)
        parameters = sum(p.numel() for p in net.parameters())
    np.savez_compressed(out / "test/expected.npz", **logits)
    return Answer(differences=tuple(differences), parameters=parameters)


def _fill(net: nn.Module, checkpoint: Path, *, trust: bool) -> None:
    weights = read_weights(checkpoint, trust=trust)
    wanted = net.state_dict()
    odd = [f"{name} is missing" for name in wanted if name not in weights]
    odd += [f"{name} is unknown" for name in weights if name not in wanted]
    odd += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if odd:
        raise WeightsRefused(
            f"{checkpoint.name} does not fit its plans: {odd[0]}; {len(odd)} such parameters"
        )
    net.load_state_dict(weights)


def _export(
    net: nn.Module, batch: NDArray[np.float32], to: Path
) -> tuple[NDArray[np.float32], float]:
    """Write ONNX; return torch's answer to the self-test and how far the other one is from it."""
    given = torch.from_numpy(batch)
    free = {0: "n"} | {axis: f"s{axis}" for axis in range(2, given.ndim)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices about its successor
        torch.onnx.export(
            net,
            (given,),
            str(to),
            input_names=["batch"],
            output_names=["logits"],
            dynamic_axes={"batch": free, "logits": free},
            opset_version=17,
            dynamo=False,
        )
    with torch.inference_mode():
        expected: NDArray[np.float32] = net(given).numpy()
    return expected, float(np.abs(OnnxNetwork(to, 1)(batch) - expected).max())


def _test_input(order: Order) -> NDArray[np.float32]:
    """Return noise, as float16 holds it."""
    random = np.random.default_rng(7)
    batch = random.normal(0.0, 1.0, (1, _inputs(order), *order.test_size))
    return batch.astype(np.float16).astype(np.float32)


def _inputs(order: Order) -> int:
    shape = order.shape
    return shape.inputs if isinstance(shape, NnUNetShape) else shape.in_channels


def main(path: str) -> int:
    """Convert what the file `path` orders."""
    die_with_parent()
    order = Order.model_validate_json(Path(path).read_text())
    torch.set_num_threads(1)
    limit(order.memory_gb * 2**30, order.cpu_s)
    try:
        lock(Path(order.out).parent)
        answer = convert(order)
    except (WeightsRefused, NoIsolation) as refusal:
        answer = Answer(refused=str(refusal))
    except ModuleNotFoundError as error:
        answer = Answer(refused=f"the Python package {error.name} is needed to write ONNX")
    except MemoryError:
        answer = Answer(refused=f"{order.memory_gb} GB of memory did not suffice")
    sys.stdout.write(json.dumps(answer.model_dump()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
