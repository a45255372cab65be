"""Turn trained contouring weights into a model pack: export, compare, self-test, manifest, card.

    python -m models.training.pack_contour --archive ../shared/data/train_openkbp.tar
        --weights build/hn/weights.safetensors --out models/packs/headneck-openkbp

Needs the ``onnx`` package besides the node's own; ``metrics.json`` of the evaluation must lie
beside the weights. The self-test input is a procedural phantom: no patient data enters a pack.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file

from models.engine import OnnxNetwork
from models.pack import MANIFEST, TEST_STEP, DataSource, Manifest, Output, PackFile, file_sha256
from models.training.evaluate_contour import ELONGATED
from models.training.openkbp import ORGANS, held_out, read_cases
from models.unet25 import UNet25, UNet25Config
from models.window import FIELD_PX

AGREEMENT: Final = 1e-3
"""Largest allowed difference of a logit between torch and ONNX Runtime."""
FILES: Final = (
    "CARD.md",
    "test/expected.npz",
    "test/input.npz",
    "weights.onnx",
    "weights.safetensors",
)


def plausible_volumes(archive: Path) -> dict[str, tuple[float, float]]:
    """Return the 2.5 % and 97.5 % quantiles [ml] of each organ over the training patients."""
    volumes: dict[str, list[float]] = {organ: [] for organ in ORGANS}
    for case in read_cases(archive):
        if held_out(case.name):
            continue
        voxel_ml = float(np.prod(case.spacing)) / 1000
        for label in case.drawn:
            volumes[ORGANS[label - 1]].append(float((case.labels == label).sum()) * voxel_ml)
    return {
        organ: (round(float(np.quantile(v, 0.025)), 1), round(float(np.quantile(v, 0.975)), 1))
        for organ, v in volumes.items()
    }


def export(weights: Path, out: Path) -> float:
    """Write ONNX weights and the self-test; return the largest logit difference to torch."""
    config = UNet25Config()
    net = UNet25(config).eval()
    net.load_state_dict(load_file(weights))
    random = np.random.default_rng(7)
    shape = (3, config.inputs, FIELD_PX, FIELD_PX)
    rows, columns = np.mgrid[:FIELD_PX, :FIELD_PX]
    body = np.hypot((rows - 40) / 30, (columns - 40) / 24) < 1
    batch = np.where(body, random.normal(0, 0.3, shape), -1.0).clip(-1, 1).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices about its successor
        torch.onnx.export(
            net,
            (torch.from_numpy(batch),),
            str(out / "weights.onnx"),
            input_names=["batch"],
            output_names=["logits"],
            dynamic_axes={"batch": {0: "n"}, "logits": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    with torch.inference_mode():
        expected = net(torch.from_numpy(batch)).numpy()
    difference = float(np.abs(OnnxNetwork(out / "weights.onnx", 1)(batch) - expected).max())
    if difference > AGREEMENT:
        raise SystemExit(f"ONNX differs from torch by {difference}")
    (out / "test").mkdir(exist_ok=True)
    np.savez_compressed(out / "test/input.npz", batch=batch.astype(np.float16))
    with torch.inference_mode():
        rounded = torch.from_numpy(batch.astype(np.float16).astype(np.float32))
        logits = net(rounded).numpy()[..., ::TEST_STEP, ::TEST_STEP]
    np.savez_compressed(out / "test/expected.npz", logits=logits)
    return difference


def main() -> None:
    """Build the pack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True, help="CARD.md, written by a person")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.weights, args.out / "weights.safetensors")
    shutil.copyfile(args.card, args.out / "CARD.md")
    difference = export(args.weights, args.out)
    volumes = plausible_volumes(args.archive)
    training = json.loads((args.weights.parent / "training.json").read_text())
    manifest = Manifest(
        schema_version=1,
        id="headneck-openkbp",
        version="1.0.0",
        title="Head-and-neck organs at risk, 2.5D U-Net",
        kind="contour",
        body_region="head and neck",
        slices=training["network"]["slices"],
        spacing_mm=(1.5, 3.3),
        outputs=tuple(
            Output(
                index=index,
                name=organ,
                components="tenth" if organ in ELONGATED else "largest",
                volume_ml=volumes[organ],
            )
            for index, organ in enumerate(ORGANS, start=1)
        ),
        weights_licence="Apache-2.0",
        data=(
            DataSource(
                name="OpenKBP (Babier et al., Med Phys 2021)",
                licence="MIT",
                source="https://github.com/ababier/open-kbp",
                patients=121,
            ),
        ),
        intended_use="research: draft contours of head-and-neck organs at risk on planning CT",
        contraindications="other body regions, MR, CBCT, children; not a medical device",
        metrics=json.loads((args.weights.parent / "metrics.json").read_text()),
        training={k: v for k, v in training.items() if k != "loss"}
        | {"onnx_difference": difference},
        files=tuple(
            PackFile(
                path=name,
                bytes=(args.out / name).stat().st_size,
                sha256=file_sha256(args.out / name),
            )
            for name in FILES
        ),
    )
    (args.out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    print(f"{args.out}: ONNX differs from torch by at most {difference:.1e}")


if __name__ == "__main__":
    main()
