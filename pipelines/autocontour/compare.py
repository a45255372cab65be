"""Our draft against the structure set that came with the study: numbers and pictures, no verdict.

Structures are paired by name, as TG-263 would write it (`Lung-Left` is `Lung_L`). The other set is
no truth: people differ too, and it may follow another guideline. What cannot be compared is told,
and never keeps the draft back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipelines.api import Finding, InputRejected, Json, Severity
from pipelines.autocontour.pairs import TOLERANCE_MM, Pair, counterpart, paired
from pipelines.dicom.rtstruct import Roi, read_structure_set
from pipelines.dicom.rtstruct_writer import Structure
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.contours import LEVEL
from pipelines.report.figures import Overlay, Scan, three_planes
from pipelines.report.page import Picture, Section, Table

PICTURES: Final = 3
"""Pairs that are drawn, those with the lowest Dice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What the comparison gives to the report."""

    section: Section | None = None
    figures: Mapping[str, Json] | None = None
    findings: tuple[Finding, ...] = ()


def compare(
    paths: Sequence[Path], structures: Sequence[Structure], volume: CtVolume, folder: Path
) -> Compared:
    """Compare `structures` with the structure set among the inputs, if there is one.

    Parameters
    ----------
    paths
        None, or one RTSTRUCT.
    structures
        As written, on the grid of `volume`.
    volume
        The CT.
    folder
        Where the pictures go.
    """
    if not paths:
        return Compared()
    try:
        rois = read_structure_set(paths[0]).rois
    except InputRejected as refusal:
        return Compared(findings=(_note(f"it cannot be read: {refusal}"),))
    pairs = []
    for structure in structures:
        roi = counterpart(structure.name, rois)
        found = None if roi is None else _pair(structure, roi, volume)
        if found is not None:
            pairs.append(found)
    if not pairs:
        return Compared(findings=(_note("no structure of it has a counterpart on this CT"),))
    return Compared(
        section=Section(
            title="Comparison with the structure set of the study",
            text="The other set is no truth; names are paired as TG-263 writes them.",
            tables=[_table(pairs)],
            pictures=_pictures(pairs, volume, folder),
        ),
        figures={pair.name: _figures(pair) for pair in pairs},
    )


def _note(words: str) -> Finding:
    return Finding(
        code="not-compared",
        severity=Severity.INFO,
        message=f"the structure set of the study was not compared: {words}",
    )


def _pair(structure: Structure, roi: Roi, volume: CtVolume) -> Pair | None:
    """Return the agreement of one structure; None where theirs has no voxel on this CT."""
    mine = np.zeros(volume.geometry.shape, np.bool_)
    box = tuple(
        slice(a, a + n) for a, n in zip(structure.corner, structure.field.shape, strict=True)
    )
    mine[box] = structure.field > LEVEL
    return paired(structure.name, roi, mine, volume)


def _table(pairs: Sequence[Pair]) -> Table:
    return Table(
        head=("structure", "theirs", "Dice", "HD95 [mm]", f"surface Dice {TOLERANCE_MM:g} mm",
              "added path [mm]", "ours [cc]", "theirs [cc]"),
        rows=[
            (p.name, p.theirs, p.agreement.dice, p.agreement.hd95_mm, p.agreement.surface_dice,
             round(p.added_path_mm), p.volumes_ml[0], p.volumes_ml[1])
            for p in pairs
        ],
    )  # fmt: skip


def _figures(pair: Pair) -> dict[str, Json]:
    return {
        "theirs": pair.theirs,
        "dice": round(pair.agreement.dice, 4),
        "hd95_mm": round(pair.agreement.hd95_mm, 2),
        "surface_dice_2mm": round(pair.agreement.surface_dice, 4),
        "added_path_mm": round(pair.added_path_mm, 1),
        "volume_cc": round(pair.volumes_ml[0], 2),
        "volume_theirs_cc": round(pair.volumes_ml[1], 2),
    }


def _pictures(pairs: Sequence[Pair], volume: CtVolume, folder: Path) -> list[Picture]:
    """Draw the pairs that agree least, through the place where they differ most."""
    geometry = volume.geometry
    row, column = geometry.row_direction, geometry.column_direction
    scan = Scan(
        hu=volume.hu,
        spacing=geometry.spacing,
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
    )
    worst = sorted(pairs, key=lambda p: p.agreement.dice)[:PICTURES]
    pictures = []
    for number, pair in enumerate(worst, 1):
        path = three_planes(
            scan,
            folder / f"comparison-{number}.png",
            overlays=[
                Overlay(name="ours", mask=pair.mine, color="#ffb000"),
                Overlay(name="theirs", mask=pair.other, color="#40c0ff"),
            ],
            title=f"{pair.name}: ours and theirs",
            at=_worst_place(pair),
        )
        caption = f"{pair.name}: Dice {pair.agreement.dice:.3f}, where both differ most"
        pictures.append(Picture(path=path, caption=caption))
    return pictures


def _worst_place(pair: Pair) -> tuple[int, int, int]:
    """Return the (slice, row, column) planes with the most voxels in one of the two only."""
    wrong = pair.mine ^ pair.other
    if not wrong.any():
        wrong = pair.mine
    s, r, c = (
        int(np.count_nonzero(wrong, axis=tuple(a for a in range(3) if a != axis)).argmax())
        for axis in range(3)
    )
    return s, r, c
