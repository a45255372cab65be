"""Import a foreign model: read what it says, convert its weights elsewhere, check, write a pack.

Plans and label map are JSON and YAML and are read here. The checkpoint is opened by
`models.foreign.convert` alone, a process without network that may write into its own folder only
and that ends with its time or memory. What it leaves is weights in two formats that cannot run
code; they are checked against its self-test once more, here, before the pack stands.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from models.engine import load_members
from models.foreign.labels import LabelMap, outputs, read_labels
from models.foreign.monai import is_bundle, read_bundle
from models.foreign.nnunet import is_nnunet, read_nnunet
from models.foreign.order import Answer, Order
from models.foreign.source import ForeignRefused, Source
from models.pack import (
    MANIFEST,
    Manifest,
    Output,
    Pack,
    PackFile,
    PackRefused,
    file_sha256,
    load_pack,
    member_file,
)

AGREEMENT: Final = 2e-3
"""Largest allowed difference of a logit between torch and ONNX Runtime."""
SPACING_MM: Final = (0.5, 10.0)
"""Slices that an imported network may be shown; what it was trained with is not known."""
LEAST_AT_BOTTOM: Final = 2
"""Voxels of the self-test along an axis of the coarsest stage; one has no variance to normalize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the converter may use."""

    memory_gb: int = 24
    """Of address space, which is more than what is used."""
    seconds: int = 900


def import_model(  # noqa: PLR0913 (what a person says of an import)
    folder: Path,
    labels: Path,
    out: Path,
    known: Collection[str],
    *,
    trust: bool = False,
    folds: Sequence[str] = (),
    configuration: str = "",
    bounds: Bounds | None = None,
) -> Pack:
    """Make a pack of a foreign model; return it.

    Parameters
    ----------
    folder
        A trained nnU-Net v2 folder, or a MONAI bundle.
    labels
        See `models.foreign.labels`.
    out
        New folder of the pack.
    known
        Names that the node can write.
    trust
        Open checkpoints that hold more than numbers, behind the same walls.
    folds, configuration
        See `read_nnunet`.
    bounds
        Time and memory of the conversion.

    Raises
    ------
    ForeignRefused
        Where the model, the map or the conversion is not fit; nothing is left behind.
    """
    if out.exists():
        raise ForeignRefused(f"{out} is already there: name a new folder")
    mapped = read_labels(labels)
    source = describe(folder, mapped.orientation, folds=folds, configuration=configuration)
    found = outputs(mapped, source, known)
    stated = {"licence": mapped.licence or source.licence,
              "intended_use": mapped.intended_use or source.intended_use}  # fmt: skip
    for key, value in stated.items():
        if not value.strip():
            raise ForeignRefused(f"neither the folder nor {labels.name} states the {key}: add it")
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".importing-", dir=out.parent))
    made = scratch / "pack"
    try:
        made.mkdir()
        answer = _convert(source, made, trust=trust, bounds=bounds or Bounds())
        (made / "CARD.md").write_text(_card(mapped, source, stated, answer), encoding="utf-8")
        manifest = _manifest(mapped, source, found, stated, answer, made)
        (made / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        load_members(load_pack(made), threads=1)
        made.rename(out)
    except (PackRefused, OSError) as error:
        raise ForeignRefused(f"the pack that was made does not hold: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load_pack(out)


def _manifest(
    mapped: LabelMap, source: Source, found: tuple[Output, ...], stated: Mapping[str, str],
    answer: Answer, made: Path,
) -> Manifest:  # fmt: skip
    return Manifest(
        schema_version=1,
        id=mapped.id,
        version=mapped.version,
        title=mapped.title,
        kind="contour",
        body_region=mapped.body_region,
        frame=source.frame,
        spacing_mm=SPACING_MM,
        outputs=found,
        members=len(source.checkpoints),
        weights_licence=stated["licence"],
        data=mapped.data,
        intended_use=stated["intended_use"],
        contraindications=mapped.contraindications,
        metrics={},
        training={
            "imported": source.kind,
            "name": source.name,
            **source.origin,
            "network": source.shape.model_dump(mode="json"),
            "checkpoints": [
                {"file": f"{path.parent.name}/{path.name}", "sha256": file_sha256(path)}
                for path in source.checkpoints
            ],
            "onnx_difference": max(answer.differences),
            "reviewed_by": mapped.reviewed_by,
        },
        files=tuple(
            PackFile(path=n, bytes=(made / n).stat().st_size, sha256=file_sha256(made / n))
            for n in _files(len(source.checkpoints))
        ),
    )


def describe(
    folder: Path, orientation: str, *, folds: Sequence[str] = (), configuration: str = ""
) -> Source:
    """Return what a foreign folder says, without opening a checkpoint.

    Raises
    ------
    ForeignRefused
        Where it is neither nnU-Net v2 nor a MONAI bundle, or one that the node cannot run.
    """
    if is_nnunet(folder):
        if not orientation:
            raise ForeignRefused(
                "nnU-Net does not say how its images lay. State `orientation` in the label map: "
                "RAS where they were turned to it (NIfTI), LPS for axial DICOM as it comes"
            )
        return read_nnunet(
            folder, orientation=orientation, configuration=configuration, folds=folds
        )
    if is_bundle(folder):
        return read_bundle(folder, orientation=orientation)
    raise ForeignRefused(
        f"{folder.name} holds neither plans.json and dataset.json (nnU-Net v2) nor "
        "configs/metadata.json (MONAI bundle)"
    )


def _convert(source: Source, made: Path, *, trust: bool, bounds: Bounds) -> Answer:
    """Run the converter on a source; return its answer. It may write beside `made` and into it."""
    home = made.parent
    order = Order(
        shape=source.shape,
        checkpoints=tuple(str(path.resolve()) for path in source.checkpoints),
        test_size=_test_size(source),
        out=str(made.resolve()),
        trust=trust,
        memory_gb=bounds.memory_gb,
        cpu_s=bounds.seconds,
    )
    (home / "order.json").write_text(order.model_dump_json())
    command = [sys.executable, "-I", "-m", "models.foreign.convert", str(home / "order.json")]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TMPDIR": str(home), "HOME": str(home),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    with subprocess.Popen(  # noqa: S603 (our own module, by our own interpreter)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd=home, start_new_session=True, close_fds=True,
    ) as child:  # fmt: skip
        try:
            said, trouble = child.communicate(timeout=bounds.seconds)
        except subprocess.TimeoutExpired as error:
            os.killpg(child.pid, signal.SIGKILL)
            raise ForeignRefused(f"not converted within {bounds.seconds} s") from error
    try:
        answer = Answer.model_validate_json(said.splitlines()[-1] if said else b"")
    except (ValidationError, IndexError) as error:
        raise ForeignRefused(_died(child.returncode, trouble)) from error
    if answer.refused:
        raise ForeignRefused(answer.refused)
    if not answer.differences or not max(answer.differences) <= AGREEMENT:
        raise ForeignRefused(f"ONNX differs from torch by {max(answer.differences, default=0):.2g}")
    return answer


def _died(code: int, trouble: bytes) -> str:
    """Return why a converter that said nothing ended."""
    last = trouble.decode(errors="replace").strip().splitlines()[-1:]
    if code < 0:
        return f"the converter was ended by signal {-code}: memory or processor time ran out"
    return f"the converter failed: {last[0][:300] if last else f'exit code {code}'}"


def _test_size(source: Source) -> tuple[int, ...]:
    """Return the smallest size that the network can take, at most its own patch."""
    patch = source.frame.patch[-len(source.shape.factors) :]
    return tuple(
        min(LEAST_AT_BOTTOM * factor, size)
        for factor, size in zip(source.shape.factors, patch, strict=True)
    )


def _files(members: int) -> list[str]:
    weights = [
        member_file(name, n)
        for n in range(1, members + 1)
        for name in ("weights.onnx", "weights.safetensors")
    ]
    return ["CARD.md", "test/expected.npz", "test/input.npz", *sorted(weights)]


def _card(mapped: LabelMap, source: Source, stated: Mapping[str, str], answer: Answer) -> str:
    """Return the card, with what is known and what is not."""
    rows = []
    for index, name in source.labels.items():
        label = mapped.labels[name]
        ours = label if isinstance(label, str) else label.name if label else "left out"
        rows.append(f"| {index} | {name} | {ours} |")
    return "\n".join(
        [
            f"# {mapped.id} {mapped.version}",
            "",
            f"{mapped.title}: {source.shape.family}, {answer.parameters / 1e6:.2f} M parameters, "
            f"imported from {source.kind} ({source.name}); checkpoints: {len(source.checkpoints)}.",
            "**Research use only; not a medical device. Every contour is an unapproved draft that "
            "a person must review.**",
            "",
            f"- Licence of the weights: {stated['licence']}",
            f"- Intended use: {stated['intended_use']}",
            f"- Not for: {mapped.contraindications}",
            f"- Body region: {mapped.body_region}",
            f"- Names reviewed by: {mapped.reviewed_by}",
            f"- ONNX Runtime against torch on random numbers: {max(answer.differences):.1e}",
            "",
            "## Measured",
            "Nothing was measured at this node. Accuracy on your own scans is yours to establish.",
            "",
            "## Names",
            "| class | theirs | ours (TG-263) |",
            "|---|---|---|",
            *rows,
            "",
            "## What differs from where it was trained",
            "The image is resampled linearly and cut to the body; windows overlap by half and "
            "their probabilities are blended; nothing is mirrored.",
            "",
        ]
    )
