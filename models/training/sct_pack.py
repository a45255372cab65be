"""Turn trained synthetic CT weights into a model pack: export, compare, self-test, OOD, card.

    python -m models.training.sct_pack --pairs build/sct --run build/sct-settled --id sct-pelvis
        --version 1.1.0 --region "pelvis and thigh" --shown pelvis legs --out PACK

Needs the ``onnx`` package besides the node's own. The self-test input is a procedural phantom: no
patient data enters a pack. Accuracy is measured here, by the exported network, on the hold-out of
the pairs; a pack without a hold-out says so.
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.engine import OnnxNetwork
from models.pack import (
    MANIFEST,
    DataSource,
    Familiar,
    InputContract,
    SyntheticCtManifest,
    load_pack,
)
from models.phantom_sites import patient
from models.sct_infer import neighbours
from models.sct_net import SctNet, SctNetConfig, config_of
from models.sct_ood import features, fit
from models.training.evaluate_sct import evaluate, evaluation_files
from models.training.loop import RECORD, WEIGHTS
from models.training.onnx_export import export, pack_files
from models.training.sct import training_files
from models.training.sct_data import HELD_OUT
from models.training.sct_pairs import PIXEL_MM, Pair, load_pair

TEST_SHAPE: Final = (12, 64, 80)
SLICE_MM: Final = (1.0, 6.5)
CARD: Final = "CARD.md"
MEASURED: Final = ("STS_", "pelvis")
"""Names of the training CTs whose kind was measured. The other phantoms widen the training, but a
thorax or a head must be refused: nothing says how well the network does there."""
STS: Final = DataSource(
    name="Soft-tissue-Sarcoma, TCIA, by way of the IBSI data sets (Vallieres et al. 2015)",
    licence="CC BY 3.0",
    source="https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS",
    patients=28,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a person says of a pack."""

    id: str
    version: str
    title: str
    body_region: str
    data: tuple[DataSource, ...]
    weights_licence: str = "Apache-2.0"
    regions: tuple[str, ...] = ()
    """Parts of the body that the network may be shown; see `InputContract`."""
    notes: tuple[str, ...] = ()
    """More sentences on the data, for the card."""


def build_pack(
    run: Path, out: Path, described: Description, familiar: Familiar, held: Sequence[Pair]
) -> Path:
    """Write the pack of a training run; return its folder.

    Parameters
    ----------
    run : Path
        Folder that `models.training.sct` wrote.
    out : Path
        The new pack.
    described : Description
    familiar : Familiar
        What a CBCT must be like for the network to run; see `familiar_with`.
    held : sequence of Pair
        Pairs of patients that it has not seen; may be empty.

    Raises
    ------
    ValueError
        If ONNX Runtime answers differently from torch.
    """
    (out / "test").mkdir(parents=True, exist_ok=True)
    training = json.loads((run / RECORD).read_text())
    config = config_of(training["network"])
    shutil.copyfile(run / WEIGHTS, out / "weights.safetensors")
    difference = _exported(out, config)
    network = OnnxNetwork(out / "weights.onnx", 1)
    metrics = evaluate(network, held, config.slices) if held else {}
    training |= {"onnx_difference": difference}
    (out / CARD).write_text(card(described, training, metrics))
    manifest = SyntheticCtManifest(
        schema_version=1,
        id=described.id,
        version=described.version,
        title=described.title,
        kind="synthetic-ct",
        body_region=described.body_region,
        slices=config.slices,
        weights_licence=described.weights_licence,
        data=described.data,
        intended_use="research: synthetic CT from cone-beam CT, to be validated at each site",
        contraindications="MR, diagnostic CT, metal in the field of view, children; "
        "not a medical device",
        metrics=metrics,
        training=training,
        files=pack_files(out),
        contract=InputContract(
            modality="CT",
            pixel_mm=(0.9, PIXEL_MM[1]),
            slice_mm=SLICE_MM,
            hu=(-1000.0, 3000.0),
            regions=described.regions,
        ),
        familiar=familiar,
        gates={},
    )
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return out


def familiar_with(pairs: Iterable[Pair]) -> Familiar:
    """Return what CBCTs like those of `pairs` look like.

    Raises
    ------
    ValueError
        For too few pairs.
    """
    return fit([features(p.cbct, p.body, p.spacing) for p in pairs if p.body.any()])


def _exported(out: Path, config: SctNetConfig) -> float:
    """Write ONNX weights and self-test of ``weights.safetensors``; return the difference."""
    net = SctNet(config).eval()
    net.load_state_dict(load_file(out / "weights.safetensors"))
    return export(out, net, _test_input(config.slices), "sct")


def _test_input(slices: int) -> NDArray[np.float32]:
    """Return three stacks (3, slices, row, column) of a phantom, as float16 holds them."""
    hu = patient("pelvis", TEST_SHAPE, (4.0, 6.0, 6.0), 1)
    stacks = np.stack([hu[neighbours(len(hu), i, slices)] for i in (0, 5, 11)]) / 1000
    return stacks.astype(np.float16).astype(np.float32)


def card(
    described: Description, training: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the card, with what was measured and nothing else."""
    lines = [
        f"# {described.id} {described.version}",
        "",
        f"{described.title}. A 2.5D residual U-Net with a bounded correction (2.03 million "
        "parameters; `models/sct_net.py`).",
        "**Research use only; not a medical device. This network has seen no real CBCT: it was "
        "trained and measured on simulated CBCT alone.** Validate it at your site "
        "(`rtnode sct validate`) before you switch it on; until then the node uses the classical "
        "methods.",
        "",
        "## Data",
        f"Body region: {described.body_region}.",
        *(f"- {d.name}: {d.patients} patients, {d.licence}, {d.source}" for d in described.data),
        "",
        "CBCTs come from `models/cbct_sim.py`, a fan-beam simulator with scatter, beam hardening, "
        "noise, truncation and calibration errors drawn at random for each pair "
        f"({training['pairs']} pairs, `models/training/sct_pairs.py`).",
        *described.notes,
        "",
        "## Training",
        *(_stage(stage) for stage in (*training.get("stages", ()), training)),
        "bf16, averaged weights. Where the schedule follows wall time another run gives similar "
        "weights, not the same ones.",
        "",
        *_measured(metrics),
        "## Bounds",
        "The output is the CBCT plus a smooth field of at most 400 HU plus a detail of at most "
        "150 HU in soft tissue and 600 HU in bone and air. Within these bounds the network can "
        "be wrong: an invented or a lost soft-tissue structure of plausible HU is not detected "
        "by any gate. The cost of the bound was not measured.",
        "",
        "## Limits",
        "- No real CBCT, no metal, no contrast agent, no children, no cone-angle artefacts.",
        "- Contrast that the shading of a CBCT hides does not come back: a tumor some 20 HU darker "
        "than muscle may stay unseen in the synthetic CT. Do not delineate on it.",
        *_for_regions(described.regions),
        "- Where the CBCT looks unlike the training images the node refuses to run it "
        "(`familiar` in model.json).",
        "",
    ]
    return "\n".join(lines)


def _stage(training: Mapping[str, Any]) -> str:
    recipe = training["recipe"]
    more = [
        f"{name.replace('_', ' ')} {recipe[name]}"
        for name in ("learning_rate", "whole", "tissue_weight")
        if recipe.get(name)
    ]
    return (
        f"- `--mode {training['mode']}`, {training['pairs']} pairs, {training['steps']} steps in "
        f"{training['minutes']} minutes of wall time on a shared CPU, seed {recipe['seed']}, "
        f"{', '.join(more)}."
    )


def _for_regions(names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    return [
        f"- For {' and '.join(names)} alone: a CBCT that shows another part of the body is refused "
        "by its cross-sections."
    ]


def _measured(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    cases = {k: v for k, v in metrics.items() if k != "mean"}
    if not cases:
        return ["## Measured", "Nothing: there was no hold-out with a truth.", ""]
    keys = (("raw_mae", "raw MAE"), ("mae", "MAE"), ("me", "ME"), ("soft_mae", "soft"),
            ("bone_mae", "bone"), ("psnr_db", "PSNR dB"))  # fmt: skip
    rows = [*cases.items(), ("**mean**", metrics["mean"])]
    return [
        "## Measured on held-out patients, simulated CBCT",
        "Frozen set: fixed seeds, half fan, 160 x 160 x 40 voxels of 1.6 mm in plane; HU in the "
        "body; by ONNX Runtime.",
        "",
        "| case | " + " | ".join(title for _, title in keys) + " |",
        "|---" * (len(keys) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{row.get(k, float('nan')):.1f}" for k, _ in keys) + " |"
            for name, row in rows
        ),
        "",
    ]


def main() -> None:
    """Build the default pack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--shown", nargs="*", default=[], help="regions that it may be shown")
    parser.add_argument(
        "--familiar-of", type=Path, help="pack whose likeness is kept: settling shows no new images"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    described = Description(
        id=args.id,
        version=args.version,
        title="Synthetic CT from cone-beam CT, trained on simulation",
        body_region=args.region,
        regions=tuple(args.shown),
        data=(STS,),
        notes=(
            "About four of five pairs come from the 28 patients, the others from procedural "
            "phantoms (thorax, pelvis, abdomen, head: `models/phantom.py`, "
            "`models/phantom_sites.py`). "
            "The training CTs are brought to fat -100 and muscle 50 HU (`sct_data.calibrated`). "
            f"Never trained on: {', '.join(sorted(HELD_OUT))}. The images are crops of some 15-20 "
            "cm around a tumor, of PET/CT quality. Attribution: Vallieres et al., Phys Med Biol "
            "60 (2015) 5471; Clark et al., J Digit Imaging 26 (2013) 1045 (TCIA).",
        ),
    )
    if args.familiar_of is None:
        trained = (load_pair(p) for p in training_files(args.pairs))
        familiar = familiar_with(p for p in trained if p.name.startswith(MEASURED))
    else:
        familiar = load_pack(args.familiar_of, SyntheticCtManifest).manifest.familiar
    build_pack(args.run, args.out, described, familiar, evaluation_files(args.pairs))
    print((args.out / CARD).read_text())


if __name__ == "__main__":
    main()
