"""The masks that features were computed on, as DICOM Segmentation on the resampled dose grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtdose import DoseGrid
from pipelines.dicom.rtstruct_writer import ConceptCode
from pipelines.dicom.seg import Segment
from pipelines.dose_radiomics.document import tracking_uid
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.looks import looks
from pipelines.dose_radiomics.recipe import Biological
from pipelines.geometry.stack import StackGeometry
from pipelines.radiomics.coding import finding
from pipelines.radiomics.region import MASK_DECIMALS
from pipelines.radiomics.resample import Axes, aligned, trilinear

_HALF: Final = 0.5
_TARGET: Final = ConceptCode(
    value="49755003", scheme="SCT", meaning="Morphologically Altered Structure"
)
"""Category of a target (CID 7150)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSet:
    """Segments with the grid that they lie on."""

    segments: list[Segment]
    geometry: StackGeometry


def masks(
    grid: DoseGrid,
    results: Sequence[Evaluated],
    convert: Sequence[Biological | None],
    structure_set_uid: str,
    step_mm: float,
) -> MaskSet:
    """Return the masks of all regions with a volume inside the dose.

    Parameters
    ----------
    grid : DoseGrid
    results : sequence of Evaluated
    convert : sequence
        How the dose of each region was converted: a dose band depends on it.
    structure_set_uid : str
        Gives the tracking UIDs, the same as in the report.
    step_mm : float
        Isotropic voxel of the features [mm].
    """
    planes, rows, columns = (aligned(samples, step_mm) for samples in grid.positions)
    whole = (planes, rows, columns)
    flip = _left_handed(grid.axes)
    segments: list[Segment] = []
    for result, look, converted in zip(results, looks(results), convert, strict=True):
        if result.dvh is None:
            continue
        at, corner = _part(whole, result.region.box, step_mm)
        dose = trilinear(grid.dose, grid.positions, at)
        dose = dose if converted is None else converted(dose)
        inside = np.round(result.region.on_voxels(at, dose), MASK_DECIMALS) >= _HALF
        if not inside.any():
            continue
        if flip:
            inside = inside[::-1]
            corner = (len(whole[0]) - corner[0] - len(inside), *corner[1:])
        code = finding(result.roi, derived=bool(result.expression))
        named = result.expression or str(result.roi.number)
        segments.append(
            Segment(
                number=len(segments) + 1,
                label=result.name,
                mask=np.ascontiguousarray(inside),
                corner=corner,
                color=_rgb(look.color),
                code=ConceptCode(value=code.value, scheme=code.scheme, meaning=code.meaning),
                category=_TARGET if code.meaning.endswith("volume") else None,
                description=f"mask of the features, isotropic {step_mm:g} mm",
                algorithm="SEMIAUTOMATIC",
                tracking_uid=tracking_uid(structure_set_uid, named),
            )
        )
    return MaskSet(segments=segments, geometry=_geometry(grid, whole, step_mm, flip=flip))


def _part(
    whole: Axes, box: tuple[NDArray[np.float64], NDArray[np.float64]], step_mm: float
) -> tuple[Axes, tuple[int, int, int]]:
    """Return the voxels around a region, at least two along each axis, and where they begin."""
    low, high = box
    lines, corner = [], []
    for axis, line in enumerate(whole):
        first = int(np.searchsorted(line, low[axis] - step_mm))
        last = max(int(np.searchsorted(line, high[axis] + step_mm)), 2)
        first = min(first, last - 2)
        lines.append(line[first:last])
        corner.append(first)
    return (lines[0], lines[1], lines[2]), (corner[0], corner[1], corner[2])


def _left_handed(axes: NDArray[np.float64]) -> bool:
    """Return whether slices grow against row x column.

    That is so where the dose was turned to face contours that are drawn across another axis.
    """
    return float(np.dot(np.cross(axes[2], axes[1]), axes[0])) < 0


def _geometry(
    grid: DoseGrid,
    whole: Axes,
    step_mm: float,
    *,
    flip: bool,
) -> StackGeometry:
    """Return the resampled grid of the whole dose."""
    slices, rows, columns = whole
    start = slices[-1] if flip else slices[0]
    corner = grid.origin + grid.axes.T @ np.array([start, rows[0], columns[0]])
    row, column = grid.axes[2], grid.axes[1]
    return StackGeometry.regular(
        shape=(len(slices), len(rows), len(columns)),
        spacing=(step_mm,) * 3,
        origin=(float(corner[0]), float(corner[1]), float(corner[2])),
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
    )


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[n : n + 2], 16) for n in (1, 3, 5))
    return red, green, blue
