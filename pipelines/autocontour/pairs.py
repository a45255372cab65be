"""One structure in two sets on one CT: names that mean the same, masks, and their agreement.

Names are paired as TG-263 would write them (`Lung-Left` is `Lung_L`); a part is compared with the
whole. Both the comparison in a report and the scores of approved sets come from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.metrics import Agreement, added_path_mm, agreement
from pipelines.autocontour.morphology import bounding_box
from pipelines.dicom.nomenclature import suggest
from pipelines.dicom.read import text
from pipelines.dicom.rtstruct import Roi
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.polygons import rasterise
from pipelines.imaging.grid import Mask

TOLERANCE_MM: Final = 2.0
"""Of the surface Dice."""
_PLANE: Final = 0.5
"""A contour belongs to the image within this many slices."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """One structure in both sets."""

    name: str
    theirs: str
    """Name in the other set."""
    mine: Mask
    other: Mask
    """Shape of the CT."""
    agreement: Agreement
    added_path_mm: float
    """Contour that would have to be drawn anew to get from ours to theirs."""
    volumes_ml: tuple[float, float]
    """Ours, theirs."""


def counterpart(name: str, rois: Sequence[Roi]) -> Roi | None:
    """Return what one of our structures is called among `rois`; None where nothing is.

    The first of two with one meaning counts.
    """
    named = {suggest(roi.name): roi for roi in reversed(rois) if roi.closed}
    return named.get(suggest(name.replace("~", ""))) or named.get(name)


def paired(name: str, theirs: Roi, mine: Mask, volume: CtVolume) -> Pair | None:
    """Return the agreement of our mask with one of theirs; None where one has no voxel.

    Parameters
    ----------
    name
        Ours.
    mine
        Shape of `volume`.
    """
    other = mask_of(theirs, volume)
    part = bounding_box(mine | other, 1)
    spacing = volume.geometry.spacing
    measured = agreement(mine[part], other[part], spacing, TOLERANCE_MM)
    if measured is None:
        return None
    widths = volume.geometry.slice_widths * spacing[1] * spacing[2] / 1000.0
    ours, others = (float(m.sum(axis=(1, 2)) @ widths) for m in (mine, other))
    return Pair(
        name=name,
        theirs=theirs.name,
        mine=mine,
        other=other,
        agreement=measured,
        added_path_mm=added_path_mm(mine[part], other[part], spacing),
        volumes_ml=(ours, others),
    )


def mask_of(roi: Roi, volume: CtVolume) -> Mask:
    """Return the voxels whose centers lie inside the contours of `roi`, by even-odd."""
    geometry = volume.geometry
    slices = {text(header, "SOPInstanceUID"): k for k, header in enumerate(volume.headers)}
    mask = np.zeros(geometry.shape, np.bool_)
    planes: dict[int, list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    for loop in roi.closed:
        indices = geometry.indices(loop.points)
        nearest = round(float(indices[:, 0].mean()))
        k = slices.get(loop.image_uid or "", nearest)
        if 0 <= k < len(mask) and float(np.abs(indices[:, 0] - k).max()) <= _PLANE:
            planes.setdefault(k, []).append(indices[:, 1:])
    for k, loops in planes.items():
        mask[k] = rasterise(loops, (geometry.rows, geometry.columns))
    return mask
