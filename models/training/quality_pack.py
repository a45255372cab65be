"""Turn a run of `models.training.quality` into a model pack: export, compare, self-test, card.

Needs the ``onnx`` package besides the node's own. The self-test input is a procedural phantom: no
patient data enters a pack. What was measured is given by whoever measured it, with the classical
method beside the network (`pipelines.image_quality.measure`).
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.torch import load_file

from models.pack import MANIFEST, ImageQualityManifest, InputContract
from models.phantom_sites import patient
from models.quality_net import QualityNet, config_of
from models.sct_infer import neighbours
from models.training.loop import RECORD, WEIGHTS
from models.training.onnx_export import export, pack_files
from models.training.sct_pack import CARD, Description

TEST_SHAPE: Final = (8, 64, 80)
PIXEL_MM: Final = (0.5, 2.2)
SLICE_MM: Final = {"noise-reduction": (1.0, 6.0), "super-resolution": (2.0, 7.0)}
"""Slice distances of what is shown in training, about."""
HU: Final = (-1024.0, 3000.0)
COLUMNS: Final = (
    ("raw_mae", "input"),
    ("classical_mae", "classical"),
    ("network_mae", "network"),
    ("raw_psnr", "input PSNR dB"),
    ("classical_psnr", "classical"),
    ("network_psnr", "network"),
    ("classical_edges", "edges kept, classical"),
    ("network_edges", "network"),
)
"""Measure -> its heading in the card."""
HEAD: Final = {
    "noise-reduction": "y = x + D, |D| at most 100 HU (a route may say less)",
    "super-resolution": "thin slices x - d and x + d, so that they average to the thick slice x "
    "whatever the weights; d leaves the straight line by at most 20 HU plus half the range of the "
    "three slices",
}


def build_pack(
    run: Path, out: Path, described: Description, metrics: Mapping[str, Mapping[str, float]]
) -> Path:
    """Write the pack of a training run; return its folder.

    Parameters
    ----------
    run : Path
        Folder that `models.training.quality` wrote.
    out : Path
        The new pack.
    described : Description
    metrics : mapping
        Case -> measure -> value, measured on images that were not trained on.

    Raises
    ------
    ValueError
        Where ONNX Runtime answers otherwise than torch.
    """
    training = json.loads((run / RECORD).read_text())
    task = training["task"]
    config = config_of(training["network"])
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / WEIGHTS, out / "weights.safetensors")
    net = QualityNet(config).eval()
    net.load_state_dict(load_file(out / "weights.safetensors"))
    hu = patient("pelvis", TEST_SHAPE, (3.0, 5.0, 5.0), 1)
    stacks = [hu[neighbours(len(hu), k, config.slices)] for k in (0, 3, 7)]
    batch = (np.stack(stacks) / 1000).astype(np.float16).astype(np.float32)
    export(out, net, batch, "image")
    (out / CARD).write_text(card(described, training, metrics))
    manifest = ImageQualityManifest(
        schema_version=1,
        id=described.id,
        version=described.version,
        title=described.title,
        kind=task,
        body_region=described.body_region,
        weights_licence=described.weights_licence,
        data=described.data,
        intended_use="Research on image quality of CT; the result is an unapproved draft.",
        contraindications="Not for diagnosis. Images unlike the training images; metal; contrast.",
        metrics={name: dict(row) for name, row in metrics.items()},
        training=training,
        files=pack_files(out),
        slices=config.slices,
        factor=2 if config.factor == 2 else 1,  # noqa: PLR2004 (slices of one)
        contract=InputContract(modality="CT", pixel_mm=PIXEL_MM, slice_mm=SLICE_MM[task], hu=HU),
        gates={},
    )
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return out


def card(
    described: Description, training: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the card, with what was measured and nothing else."""
    recipe, task = training["recipe"], training["task"]
    lines = [
        f"# {described.id} {described.version}",
        "",
        f"{described.title}. A residual network of a few convolutions on five neighbouring slices "
        "(0.14 million parameters; `models/quality_net.py`).",
        "**Research use only; not a medical device.** The node uses the classical method until a "
        "route says `method: network`, and every image of the network then carries a warning.",
        "",
        "## Data",
        f"Body region: {described.body_region}.",
        *(f"- {d.name}: {d.patients} patients, {d.licence}, {d.source}" for d in described.data),
        *described.notes,
        "",
        "## Training",
        f"{training['images']} images, {training['steps']} steps in {training['minutes']} minutes "
        f"of wall time on one thread of a shared CPU, seed {recipe['seed']}, learning rate "
        f"{recipe['learning_rate']}, weighted L1 of values and gradients, bf16, averaged weights "
        "(`models/training/quality.py`).",
        "",
        "## Measured on images that were not trained on",
        *_measured(metrics),
        "",
        "## Bounds and limits",
        f"{HEAD[task]}. Within these bounds the network can be wrong: a structure of the size of "
        "the noise, or of plausible values between two slices, is found by no gate.",
        "",
    ]
    return "\n".join(lines)


def _measured(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not metrics:
        return ["Nothing: there was no image to hold out."]
    return [
        "MAE in the body, HU; PSNR of a range of 4024 HU. The truth has noise of its own.",
        "",
        "| case | " + " | ".join(title for _, title in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{row.get(k, float('nan')):.2f}" for k, _ in COLUMNS)
            + " |"
            for name, row in metrics.items()
        ),
    ]  # fmt: skip
