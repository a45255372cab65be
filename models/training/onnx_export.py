"""Write a network as ONNX with its self-test, and hold both against torch: any image to image."""

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.engine import OnnxNetwork
from models.pack import TEST_STEP, PackFile, file_sha256

AGREEMENT: Final = 5e-4
"""Largest allowed difference of a value between torch and ONNX Runtime, HU / 1000."""
FILES: Final = (
    "CARD.md",
    "test/expected.npz",
    "test/input.npz",
    "weights.onnx",
    "weights.safetensors",
)
"""What a manifest fixes."""


def export(out: Path, net: nn.Module, batch: NDArray[np.float32], answer: str) -> float:
    """Write ``weights.onnx`` and the self-test of a network; return the difference to torch.

    Parameters
    ----------
    out : Path
        Folder of the pack.
    net : Module
        In evaluation mode; (N, channels, row, column) -> (N, channels, row, column).
    batch : ndarray
        What the self-test shows, as float16 holds it.
    answer : str
        Name of the output.

    Raises
    ------
    ValueError
        Where ONNX Runtime answers otherwise than torch.
    """
    (out / "test").mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("batch", answer)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices about its successor
        torch.onnx.export(
            net,
            (torch.from_numpy(batch),),
            str(out / "weights.onnx"),
            input_names=["batch"],
            output_names=[answer],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    with torch.inference_mode():
        expected = net(torch.from_numpy(batch)).numpy()
    got = OnnxNetwork(out / "weights.onnx", 1)(batch)
    difference = float(np.abs(got - expected).max())
    if not difference <= AGREEMENT:
        raise ValueError(f"ONNX differs from torch by {difference}")
    np.savez_compressed(out / "test/input.npz", batch=batch.astype(np.float16))
    np.savez_compressed(out / "test/expected.npz", logits=expected[..., ::TEST_STEP, ::TEST_STEP])
    return difference


def pack_files(out: Path) -> tuple[PackFile, ...]:
    """Return the files of the pack in `out`, fixed by content."""
    return tuple(
        PackFile(path=n, bytes=(out / n).stat().st_size, sha256=file_sha256(out / n)) for n in FILES
    )
