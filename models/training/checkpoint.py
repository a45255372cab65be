"""Everything a training run needs to go on, in one safetensors file: nothing is pickled.

Tensors of networks and optimizers under dotted names, the rest (step, random state, losses) as
JSON in the file's metadata. Written beside and moved into place, so an interrupted run keeps its
last good state.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

REST: Final = "rest"
"""Key of the JSON in the metadata."""


def save_checkpoint(
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    rest: Mapping[str, Any],
) -> None:
    """Write the state of a run; `rest` must be JSON."""
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"{name}/{k}": v.detach().contiguous() for k, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{number}/{k}": v.contiguous() for k, v in state.items()}
    beside = path.with_suffix(".part")
    save_file({k: v.clone() for k, v in tensors.items()}, beside, {REST: json.dumps(rest)})
    beside.replace(path)


def load_checkpoint(
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, Any]:
    """Fill networks and optimizers from `path`; return the rest."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        rest: dict[str, Any] = json.loads(file.metadata()[REST])
    for name, network in networks.items():
        network.load_state_dict(_under(name, tensors))
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(name, tensors).items():
            number, _, field = key.partition("/")
            state.setdefault(int(number), {})[field] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return rest


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
