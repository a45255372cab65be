"""Turn trained contouring weights into a model pack: export, compare, self-test, manifest, card.

    python -m models.training.pack_contour --archive ../shared/data/train_openkbp.tar
        --run build/hn --also build/headneck-openkbp-1.0 --out models/packs/headneck-openkbp

The networks of further packs (``--also``) are taken over and averaged with the trained one. Then
the pack is scored as it is, by ONNX Runtime, on the patients that are held out for ever. Needs the
``onnx`` package besides the node's own where another pack is taken over. The self-test input is
made of random numbers: no patient data enters a pack.

Kernels are stored as float16 and computed with as float32: half the size, and a difference far
below what a change of the processor makes.
"""

import argparse
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from models.engine import OnnxNetwork
from models.pack import (
    MANIFEST,
    TEST_STEP,
    DataSource,
    Manifest,
    Output,
    Pack,
    PackFile,
    file_sha256,
    load_pack,
    member_file,
    self_test_vectors,
)
from models.training.cases import Case, components_of
from models.training.evaluate_contour import Score, score_pack, summary
from models.training.openkbp import held_out, read_cases
from models.unet import UNet, UNetConfig
from models.window import FLAT, Frame

AGREEMENT: Final = 1e-3
"""Largest allowed difference of a logit between torch and ONNX Runtime."""
HALF_AGREEMENT: Final = 0.01
"""The same for a network of another pack, whose kernels are stored as float16 from now on."""
LARGE: Final = 1024
"""Numbers from which an array is stored as float16: kernels, but no statistics or biases."""
COLUMNS: Final = (
    ("dice", "Dice mean", 3),
    ("dice_median", "median", 3),
    ("dice_in_extent", "Dice in extent", 3),
    ("hd95_median_mm", "HD95 median [mm]", 1),
    ("surface_dice_3mm", "surface Dice 3 mm", 2),
    ("added_path_mm", "added path [mm]", 0),
    ("missed", "missed", 0),
)
"""Measure, its title in the card, decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a person says of a pack."""

    id: str
    version: str
    title: str
    body_region: str
    data: tuple[DataSource, ...]
    measured_on: str
    """On whom the metrics were measured, a sentence."""
    contraindications: str
    limits: tuple[str, ...]
    weights_licence: str


def build_pack(
    run: Path,
    out: Path,
    described: Description,
    cases: Sequence[Case],
    metrics: Mapping[str, Score],
    also: Sequence[Path] = (),
) -> Path:
    """Write the pack of a training run (`models.training.contour`); return its folder.

    Parameters
    ----------
    run : Path
        Folder with ``weights.safetensors`` and ``training.json``.
    out : Path
        The new pack.
    described : Description
    cases : sequence of Case
        Whom the network was trained on: plausible volumes and slice spacings come from them.
    metrics : mapping
        Organ -> measures on patients that were not trained on.
    also : sequence of Path
        Packs of the same organs, whose first networks are averaged with this one.

    Raises
    ------
    ValueError
        If ONNX Runtime answers differently from torch, or a pack in `also` has other organs.
    """
    (out / "test").mkdir(parents=True, exist_ok=True)
    training = json.loads((run / "training.json").read_text())
    organs = training["organs"]
    volumes_ml = plausible_volumes(cases, organs)
    spacings = [case.spacing[0] for case in cases]
    frame = Frame.model_validate(training["frame"])
    others = [load_pack(folder) for folder in also]
    training = {k: v for k, v in training.items() if k not in ("frame", "organs")}
    training |= {"onnx_difference": _write_members(load_net(run), frame, others, organs, out)}
    if others:
        training["averaged_with"] = [
            {"pack": other.label, "sha256": other.sha256, **other.manifest.training}
            for other in others
        ]
    (out / "CARD.md").write_text(card(described, training, metrics))
    manifest = Manifest(
        schema_version=1,
        id=described.id,
        version=described.version,
        title=described.title,
        kind="contour",
        body_region=described.body_region,
        frame=frame,
        spacing_mm=(min(spacings), max(spacings)),
        outputs=tuple(
            Output(
                index=index,
                name=organ,
                components=components_of(organ),
                volume_ml=volumes_ml[organ],
            )
            for index, organ in enumerate(organs, start=1)
        ),
        members=1 + len(others),
        other_frames=tuple(other.manifest.frame for other in others),
        weights_licence=described.weights_licence,
        data=described.data,
        intended_use=f"research: draft contours on {described.body_region} planning CT",
        contraindications=described.contraindications,
        metrics={organ: dict(row) for organ, row in metrics.items()},
        training=training,
        files=tuple(
            PackFile(path=n, bytes=(out / n).stat().st_size, sha256=file_sha256(out / n))
            for n in _files(1 + len(others))
        ),
    )
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return out


def _files(members: int) -> list[str]:
    weights = [
        member_file(name, n)
        for n in range(1, members + 1)
        for name in ("weights.onnx", "weights.safetensors")
    ]
    return ["CARD.md", "test/expected.npz", "test/input.npz", *weights]


def load_net(run: Path) -> UNet:
    """Return the averaged network of a training run."""
    shape = json.loads((run / "training.json").read_text())["network"]
    lists = {key: tuple(value) for key, value in shape.items() if isinstance(value, list)}
    net = UNet(UNetConfig(**shape | lists)).eval()
    net.load_state_dict(load_file(run / "weights.safetensors"))
    return net


def plausible_volumes(
    cases: Iterable[Case], organs: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return the 2.5 % and 97.5 % quantiles [ml] of each organ over the training patients."""
    volumes: dict[str, list[float]] = {organ: [] for organ in organs}
    for case in cases:
        voxel_ml = float(np.prod(case.spacing)) / 1000
        for label in case.drawn:
            volumes[organs[label - 1]].append(float((case.labels == label).sum()) * voxel_ml)
    return {
        organ: (round(float(np.quantile(v, 0.025)), 1), round(float(np.quantile(v, 0.975)), 1))
        for organ, v in volumes.items()
    }


def _write_members(
    net: UNet, frame: Frame, others: Sequence[Pack], organs: Sequence[str], out: Path
) -> float:
    """Write the weights of all members and their self-test; return the largest difference."""
    save_file(halved(net.state_dict()), out / "weights.safetensors")
    batch, logits = _test_input(net.config.inputs, frame), "logits"
    expected, difference = export(net, batch, out / "weights.onnx")
    given, answers = {"batch": batch.astype(np.float16)}, {logits: expected}
    for n, other in enumerate(others, start=2):
        if [o.name for o in other.manifest.outputs] != list(organs):
            raise ValueError(f"{other.label} has other organs, or another order of them")
        batch, answer = self_test_vectors(other)
        weights = out / member_file("weights.onnx", n)
        _halve_onnx(other.folder / "weights.onnx", weights)
        kept = load_file(other.folder / "weights.safetensors")
        save_file(halved(kept), out / member_file("weights.safetensors", n))
        said = OnnxNetwork(weights, 1)(batch)[..., ::TEST_STEP, ::TEST_STEP]
        off = float(np.abs(said - answer).max())
        if not off <= HALF_AGREEMENT:
            raise ValueError(f"{other.label} with kernels of float16 is off by {off}")
        difference = max(difference, off)
        given[member_file("batch", n)] = batch.astype(np.float16)
        answers[member_file(logits, n)] = answer
    np.savez_compressed(out / "test/input.npz", allow_pickle=False, **given)
    np.savez_compressed(out / "test/expected.npz", allow_pickle=False, **answers)
    return difference


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with large arrays as float16."""
    return {
        name: (w.half() if w.is_floating_point() and w.numel() >= LARGE else w).contiguous()
        for name, w in state.items()
    }


class _Widened(nn.Module):
    """A kernel that is stored as float16 and computed with as float32."""

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel.float()


def export(net: UNet, batch: NDArray[np.float32], path: Path) -> tuple[NDArray[np.float32], float]:
    """Write ONNX weights; return every fourth row and column that torch answers, and the error.

    The error is the largest difference of a logit between ONNX Runtime and torch. The network is
    changed: its kernels are float16 afterwards.
    """
    net.load_state_dict(halved(net.state_dict()))
    given = torch.from_numpy(batch)
    with torch.inference_mode():
        expected = net(given).numpy()
    net.to(memory_format=torch.contiguous_format)
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.numel() >= LARGE:
            module.weight = nn.Parameter(weight.detach().half())
            register_parametrization(module, "weight", _Widened(), unsafe=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notices about its successor
        torch.onnx.export(
            net,
            (given,),
            str(path),
            input_names=["batch"],
            output_names=["logits"],
            dynamic_axes={"batch": {0: "n"}, "logits": {0: "n"}},
            opset_version=17,
            do_constant_folding=False,
            dynamo=False,
        )
    difference = float(np.abs(OnnxNetwork(path, 1)(batch) - expected).max())
    if not difference <= AGREEMENT:
        raise ValueError(f"ONNX differs from torch by {difference}")
    return expected[..., ::TEST_STEP, ::TEST_STEP], difference


def _halve_onnx(source: Path, to: Path) -> None:
    """Copy an ONNX network with its kernels stored as float16 and cast where they are used."""
    import onnx  # noqa: PLC0415 (only where another pack is taken over)
    from onnx import numpy_helper  # noqa: PLC0415

    model = onnx.load(str(source))
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= LARGE:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(
                onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(to))


def _test_input(channels: int, frame: Frame) -> NDArray[np.float32]:
    """Return noise inside an ellipse, as float16 holds it: three slices or one volume."""
    random = np.random.default_rng(7)
    rows, columns = frame.patch[1:]
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    flat = frame.dimensions == FLAT
    shape = (3, channels, rows, columns) if flat else (1, channels, *frame.patch)
    batch = np.where(np.hypot(y, x) < 0.8, random.normal(0, 0.3, shape), -1.0).clip(-1, 1)  # noqa: PLR2004 (air around it)
    return batch.astype(np.float16).astype(np.float32)


def card(described: Description, training: Mapping[str, Any], metrics: Mapping[str, Score]) -> str:
    """Return the card, with what was measured and nothing else."""
    recipe, shape = training["recipe"], training["network"]
    kind = {2: "2.5D U-Net", 3: "3D U-Net"}[shape["dimensions"]]
    kind += ", trained against a discriminator" if recipe["gan"] else ""
    kind += f", channels {'-'.join(map(str, shape['channels']))}"
    others = [other["pack"] for other in training.get("averaged_with", ())]
    kind += f", averaged with the network of {', '.join(others)}" if others else ""
    lines = [
        f"# {described.id} {described.version}",
        "",
        f"{described.title}: {kind}.",
        "**Research use only; not a medical device. Every contour is an unapproved draft that a "
        "person must review.**",
        "",
        "## Data",
        f"Body region: {described.body_region}. Patients trained on: {training['patients']}.",
        *(f"- {d.name}: {d.patients} patients, {d.licence}, {d.source}" for d in described.data),
        "",
        "## Training",
        f"{training['steps']} steps in {training['minutes']} minutes of wall time, seed "
        f"{recipe['seed']}; `models/training/contour_recipe.py`. The schedule follows wall time: "
        "another run gives similar weights, not the same ones.",
        "",
        "## Measured",
        described.measured_on,
        "",
        "| organ | n | " + " | ".join(title for _, title, _ in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
        *(_row(organ, row) for organ, row in metrics.items()),
        "",
        '"In extent" counts only the slices where the reference has the organ, because clinicians '
        "end organs at different slices. Added path: contour that would have to be drawn anew.",
        "",
        "## Limits",
        *(f"- {limit}" for limit in described.limits),
        "",
    ]
    return "\n".join(lines)


def _row(organ: str, row: Mapping[str, float]) -> str:
    cells = (f"{row[key]:.{places}f}" if key in row else "-" for key, _, places in COLUMNS)
    return f"| {organ} | {row['n']:.0f} | " + " | ".join(cells) + " |"


HEAD_AND_NECK: Final = Description(
    id="headneck-openkbp",
    version="2.0.0",
    title="Head-and-neck organs at risk",
    body_region="head and neck",
    data=(
        DataSource(
            name="OpenKBP (Babier et al., Med Phys 2021), clinical contours",
            licence="MIT",
            source="https://github.com/ababier/open-kbp",
            patients=121,
        ),
    ),
    measured_on="48 patients that were never trained on (those whose "
    '`int(sha256("pt_N"), 16) % 5 == 0`, and pt_1, pt_2; pt_143 is left out, it is nearly empty) '
    "against the clinical contours, on their own grid of about 2.5 x 3.9 x 3.9 mm, by ONNX Runtime "
    "through the node's engine. Nothing of this pack was chosen on them. The project had looked at "
    "them before: twice for the pack 1.0, three times for networks that were not shipped, and for "
    "two comparisons of methods.",
    contraindications="other body regions, MR, CBCT, children; not a medical device",
    limits=(
        "It has seen 4 mm voxels and images masked to air outside the dose region, hardly any "
        "shoulders. On full-resolution CT of other scanners its accuracy is not established: "
        "look before you switch it on. In some training and test images only the organ itself "
        "is left of a masked slice, which flatters the cord.",
        "Axial CT only, tilted by at most 20 degrees. The orientation is taken from DICOM; a "
        "wrong header gives wrong sides.",
        "Other body regions: left out when at least half of the organs are missing or of "
        "implausible size.",
        "Read larynx and esophagus as hints.",
        "Children, resected organs, large tumors, dental metal: not tested.",
        "Upstream collection terms behind OpenKBP were not checked; its repository states MIT.",
    ),
    weights_licence="Apache-2.0",
)


def main() -> None:
    """Build the default pack from a run of `models.training.contour`, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, help="measured before; default: measure now")
    args = parser.parse_args()
    torch.set_num_threads(1)
    everyone = list(read_cases(args.archive))
    seen = [c for c in everyone if not held_out(c.name)]

    def build(metrics: Mapping[str, Score]) -> Path:
        return build_pack(args.run, args.out, HEAD_AND_NECK, seen, metrics, args.also)

    if args.metrics:
        metrics = json.loads(args.metrics.read_text())
    else:
        unseen = [c for c in everyone if held_out(c.name)]
        metrics = summary(score_pack(load_pack(build({})), unseen))
    build(metrics)
    print((args.out / "CARD.md").read_text())


if __name__ == "__main__":
    main()
