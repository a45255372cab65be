"""Contours of a 4DCT: each phase by itself, and what every structure covers in all of them.

Each phase is contoured as any CT is, so its structure set is the one that the node would make of
it. Then the files are read back, and the union over the phases is written on one of the images:
the average where the scanner made one, else the phase of middle ventilation (`reference`). The
average is blurred by motion: it is contoured, and does not enter the union.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipelines.api import InputRejected, Json, Outcome, Provenance, Request
from pipelines.autocontour.names import TABLE, Organ
from pipelines.autocontour.pairs import mask_of
from pipelines.autocontour.pipeline import FILE_NAME, run
from pipelines.dicom.phases import FourD, Phase
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import Structure, WriterProfile, write_structure_set
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.imaging.grid import Mask

MARK: Final = "^4D"
"""Ends the name of a union: a qualifier of our own, as TG-263 writes one."""
NAME_LENGTH: Final = 16
FIRST_NUMBER: Final = 201
EXHALE: Final = 50.0
"""Phase that is taken where no lungs tell the ventilation: the end of exhalation, by convention."""
UNION_NAME: Final = "rtstruct-4d.dcm"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One phase with its structures, read back from its file."""

    phase: Phase
    volume: CtVolume
    masks: Mapping[str, Mask]
    """Name without the mark of a part -> voxels, on the phase's own grid."""


def contour(
    series: FourD,
    request_of: Callable[[Phase, Path], Request],
    provenance: Provenance,
    out: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Json]:
    """Contour every phase and write the union; return the figures.

    Parameters
    ----------
    series
        See `find_phases`.
    request_of
        A phase and its new folder -> the request of an ordinary run.
    provenance
        Of the union: all files are its sources.
    out
        Existing folder; receives a folder for each phase, and the union.
    tell
        Is told each step in words.

    Raises
    ------
    InputRejected
        Where a phase cannot be contoured: a union of some phases would be too small.
    """
    drawn = []
    outcomes: list[Outcome] = []
    for phase in (*series.phases, *((series.average,) if series.average else ())):
        folder = out / f"phase-{phase.name}"
        folder.mkdir()
        try:
            outcomes.append(run(request_of(phase, folder)))
        except InputRejected as error:
            raise InputRejected(f"phase {phase.name}: {error}", hint=error.advice) from error
        drawn.append(_read(phase, folder / FILE_NAME))
        tell(f"phase {phase.name}: {len(drawn[-1].masks)} structures")
    moving = [d for d in drawn if d.phase.percent is not None]
    chosen, why = reference(drawn)
    tell(f"reference: phase {chosen.phase.name}, {why}")
    unions = _unions(moving, chosen)
    objects: list[Json] = [str(o.path.relative_to(out)) for r in outcomes for o in r.objects]
    figures: dict[str, Json] = {
        "phases": [d.phase.name for d in moving],
        "reference": chosen.phase.name,
        "reference_rule": why,
        "structures": {name: _motion(name, moving, union) for name, union in unions.items()},
        "objects": objects,
    }
    if not unions:
        raise InputRejected("no structure was found in every phase")
    _write(unions, chosen, provenance, out / UNION_NAME)
    objects.append(UNION_NAME)
    return figures


def reference(drawn: Sequence[Drawn]) -> tuple[Drawn, str]:
    """Return the image that the union is drawn on, and by which rule.

    The average if there is one. Else middle ventilation: the phase whose lungs have the volume
    nearest to the mean over all phases; of equals the earlier. Without lungs in every phase, the
    one nearest to 50 %.
    """
    for one in drawn:
        if one.phase.percent is None:
            return one, "the average over the phases"
    lungs = [_volume_ml(one, one.masks.get("Lungs")) for one in drawn]
    if all(lungs):
        mean = float(np.mean(lungs))
        at = int(np.argmin([abs(v - mean) for v in lungs]))
        return drawn[at], f"middle ventilation: lungs of {lungs[at]:.0f} ml, mean {mean:.0f} ml"
    at = int(np.argmin([abs((one.phase.percent or 0.0) - EXHALE) for one in drawn]))
    return drawn[at], "nearest to 50 %: not every phase has lungs"


def _read(phase: Phase, path: Path) -> Drawn:
    """Return what was written of a phase, on its grid."""
    volume = read_volume(phase.paths)
    return Drawn(
        phase=phase,
        volume=volume,
        masks={
            roi.name.replace("~", ""): mask_of(roi, volume) for roi in read_structure_set(path).rois
        },
    )


def _unions(moving: Sequence[Drawn], chosen: Drawn) -> dict[str, Mask]:
    """Return for each structure that every phase has the voxels that it covers in any of them."""
    common = [n for n in moving[0].masks if all(n in one.masks for one in moving)]
    place = chosen.volume.geometry
    unions = {}
    for one in moving:
        if not one.volume.geometry.same_grid(place):
            raise InputRejected(
                f"phase {one.phase.name} lies on another grid than phase {chosen.phase.name}",
                hint="reconstruct all phases on one grid",
            )
    for name in common:
        unions[name] = np.logical_or.reduce([one.masks[name] for one in moving])
    return unions


def _write(unions: Mapping[str, Mask], chosen: Drawn, provenance: Provenance, path: Path) -> None:
    """Write the unions on the images of the reference, and read them back."""
    volume = chosen.volume
    structures = [
        Structure(
            number=FIRST_NUMBER + place,
            name=name[: NAME_LENGTH - len(MARK)] + MARK,
            field=union,
            interpreted_type="AVOIDANCE",
            color=TABLE[Organ(name)].color if name in TABLE else (192, 192, 192),
            description=f"derived: union of {name} over all breathing phases",
            remark="derived from automatic contours of every phase; not reviewed",
        )
        for place, (name, union) in enumerate(unions.items())
    ]
    if len({s.name.casefold() for s in structures}) < len(structures):
        raise InputRejected("names of two unions are the same when cut to 16 characters")
    write_structure_set(
        structures, volume.headers, volume.geometry, provenance, path,
        WriterProfile(label="AUTO 4D", series_description=f"AUTO 4D {provenance.model} UNAPPROVED"),
    )  # fmt: skip
    check_structure_set(path, structures, volume.headers, volume.geometry)


def _motion(name: str, moving: Sequence[Drawn], union: Mask) -> dict[str, Json]:
    """Return how a structure moves: volumes, and how far its center travels."""
    centers = [
        one.volume.geometry.points([np.argwhere(one.masks[name]).mean(axis=0)])[0] for one in moving
    ]
    travel = np.ptp(np.array(centers), axis=0)
    return {
        "volume_cc": [round(_volume_ml(one, one.masks[name]), 1) for one in moving],
        "union_cc": round(_volume_ml(moving[0], union), 1),
        "travel_mm": {
            axis: round(float(v), 1)
            for axis, v in zip(("left_right", "front_back", "head_feet"), travel, strict=True)
        },
    }


def _volume_ml(one: Drawn, mask: Mask | None) -> float:
    """Return the volume of voxels on the grid of a phase; 0 for what is not there."""
    if mask is None:
        return 0.0
    geometry = one.volume.geometry
    between_rows, between_columns = geometry.pixel_spacing
    widths = geometry.slice_widths * between_rows * between_columns / 1000.0
    return float(mask.sum(axis=(1, 2)) @ widths)
