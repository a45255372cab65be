"""Reader of RT Dose: Gy on a grid with true positions, or a refusal that says why.

Dose is stored integer × Dose Grid Scaling (PS3.3 C.8.8.3). The grid is described by three unit
vectors and the positions of the samples along each, so descending, uneven and absolute frame
offsets, non-square pixels and every patient position are one case.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import RTDoseStorage

from pipelines.api import InputRejected
from pipelines.dicom.read import read_dataset, refusing_damage, tolerant

DOSE_TYPES = ("PHYSICAL", "EFFECTIVE")
"""Dose types that a DVH may be made of; ERROR is a difference, not a dose."""

_RIGHT_ANGLE = 1e-3
_AXIAL = 1e-3
_SAME_MM = 1e-3


Positions = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Ascending sample positions [mm] along three axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseGrid:
    """One dose distribution."""

    dose: NDArray[np.float64]
    """Shape (frames, rows, columns) [Gy], frames sorted along the normal."""
    origin: NDArray[np.float64]
    """Shape (3,), patient LPS [mm]: the place from which `positions` are counted."""
    axes: NDArray[np.float64]
    """Shape (3, 3): unit vectors in LPS along (frame, row index, column index)."""
    positions: Positions
    """Sample positions [mm] along each axis, ascending, from `origin`."""
    dose_type: str
    summation_type: str
    """Dose Summation Type as stated; empty where the object does not say."""
    frame_of_reference_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    plan_uids: tuple[str, ...]
    """SOP Instance UIDs of the plans that the dose belongs to."""
    beam_numbers: tuple[int, ...]
    """Beams that a dose of summation type BEAM belongs to."""
    dataset: Dataset = field(repr=False, compare=False)
    """The header, without pixels."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Return the mean spacing (frame, row, column) [mm]."""
        plane, row, column = (float((p[-1] - p[0]) / (len(p) - 1)) for p in self.positions)
        return plane, row, column

    def facing(self, axis: int) -> "DoseGrid":
        """Return the same dose with `axis` first, for contours drawn across that axis."""
        order = (axis, *(a for a in range(3) if a != axis))
        first, second, third = (self.positions[a] for a in order)
        return replace(
            self,
            dose=self.dose.transpose(order),
            axes=self.axes[list(order)],
            positions=(first, second, third),
        )

    def to_axes(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return LPS `points`, shape (n, 3) [mm], as (frame, row, column) positions [mm]."""
        return (points - self.origin) @ self.axes.T


def read_dose(path: Path) -> DoseGrid:
    """Read an RT Dose.

    Raises
    ------
    InputRejected
        If the object holds no dose that a DVH can be made of: no RT Dose, no pixels, relative
        or difference dose, one plane or a 1x1 grid, no scaling, frames without a clear place.
    """
    with tolerant(), refusing_damage():
        return _dose_grid(read_dataset(path))


def _dose_grid(dataset: Dataset) -> DoseGrid:
    """Return the dose in a data set."""
    _refuse_unfit(dataset)
    axes, origin = _pose(dataset)
    stored = _pixels(dataset)
    frames, rows, columns = stored.shape
    along = _frame_positions(dataset, axes, origin, frames)
    order = np.argsort(along, kind="stable")
    if np.any(np.diff(along[order]) < _SAME_MM):
        raise InputRejected("two dose frames lie at the same place")
    between_rows, between_columns = _spacing(dataset)
    dose = stored[order].astype(np.float64)
    dose *= _scaling(dataset)
    del stored, dataset.PixelData  # header only from here on
    return DoseGrid(
        dose=dose,
        origin=origin,
        axes=axes,
        positions=(
            along[order],
            between_rows * np.arange(rows, dtype=np.float64),
            between_columns * np.arange(columns, dtype=np.float64),
        ),
        dose_type=_text(dataset, "DoseType"),
        summation_type=_text(dataset, "DoseSummationType"),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        plan_uids=tuple(
            _text(plan, "ReferencedSOPInstanceUID")
            for plan in dataset.get("ReferencedRTPlanSequence") or []
        ),
        beam_numbers=_beams(dataset),
        dataset=dataset,
    )


def _refuse_unfit(dataset: Dataset) -> None:
    """Refuse what is no absolute three-dimensional dose."""
    if dataset.get("SOPClassUID") != RTDoseStorage:
        raise InputRejected(f"an RT Dose was expected, not {dataset.get('SOPClassUID')}")
    units, kind = _text(dataset, "DoseUnits"), _text(dataset, "DoseType")
    if units != "GY":
        raise InputRejected(f"dose units are {units or 'not stated'}; only GY can be evaluated")
    if kind not in DOSE_TYPES:
        raise InputRejected(f"dose type is {kind or 'not stated'}; need PHYSICAL or EFFECTIVE")
    if not dataset.get("PixelData"):
        raise InputRejected("the dose object holds no pixels (perhaps a DVH only)")


def _pixels(dataset: Dataset) -> NDArray[np.integer]:
    """Return the stored integers, shape (frames, rows, columns)."""
    try:
        stored: NDArray[np.integer] = pixel_array(dataset)
    except Exception as error:
        raise InputRejected(f"dose pixels cannot be decoded: {type(error).__name__}") from error
    if stored.ndim != 3 or min(stored.shape) < 2:  # noqa: PLR2004 - frames, rows, columns
        size = "x".join(str(n) for n in stored.shape)
        raise InputRejected(f"the dose grid is {size}; need two samples along every axis")
    return stored


def _pose(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the axes (frame, row index, column index) and the position of the first pixel."""
    orientation = _floats(dataset, "ImageOrientationPatient", 6)
    origin = _floats(dataset, "ImagePositionPatient", 3)
    along_row, along_column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    crooked = abs(float(along_row @ along_column)) > _RIGHT_ANGLE
    if crooked or max(abs(n - 1) for n in lengths) > _RIGHT_ANGLE:
        raise InputRejected("the orientation of the dose grid is no pair of unit vectors at 90°")
    along_row = along_row / lengths[0]
    along_column = along_column - (along_column @ along_row) * along_row
    along_column = along_column / np.linalg.norm(along_column)
    return np.array([np.cross(along_row, along_column), along_column, along_row]), origin


def _frame_positions(
    dataset: Dataset, axes: NDArray[np.float64], origin: NDArray[np.float64], frames: int
) -> NDArray[np.float64]:
    """Return where the frames lie along the normal [mm], from the first one (C.8.8.3.2)."""
    offsets = _floats(dataset, "GridFrameOffsetVector", frames)
    if abs(offsets[0]) < _SAME_MM:
        return offsets
    if abs(offsets[0] - origin[2]) < 10 * _SAME_MM:
        if abs(abs(axes[0, 2]) - 1) > _AXIAL:
            raise InputRejected("absolute frame offsets are defined for axial dose planes only")
        along: NDArray[np.float64] = (offsets - offsets[0]) * axes[0, 2]
        return along
    raise InputRejected(
        f"GridFrameOffsetVector starts with {offsets[0]:g}: neither 0 (relative) nor the z of "
        f"the first plane, {origin[2]:g} (absolute)"
    )


def _spacing(dataset: Dataset) -> tuple[float, float]:
    """Return the distance between rows and between columns [mm]."""
    rows, columns = _floats(dataset, "PixelSpacing", 2)
    if rows <= 0 or columns <= 0:
        raise InputRejected("the pixel spacing of the dose is not positive")
    return float(rows), float(columns)


def _scaling(dataset: Dataset) -> float:
    """Return Dose Grid Scaling [Gy per stored unit]."""
    scaling = float(_floats(dataset, "DoseGridScaling", 1)[0])
    if scaling <= 0:
        raise InputRejected("DoseGridScaling is not positive")
    return scaling


def _beams(dataset: Dataset) -> tuple[int, ...]:
    """Return the beam numbers that the dose names."""
    return tuple(
        int(beam.ReferencedBeamNumber)
        for plan in dataset.get("ReferencedRTPlanSequence") or []
        for group in plan.get("ReferencedFractionGroupSequence") or []
        for beam in group.get("ReferencedBeamSequence") or []
        if beam.get("ReferencedBeamNumber") is not None
    )


def _floats(dataset: Dataset, keyword: str, count: int) -> NDArray[np.float64]:
    """Return `count` finite numbers, or refuse."""
    try:
        values = np.array(dataset.get(keyword), dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise InputRejected(f"the dose needs {count} numbers in {keyword}, has {len(values)}")
    return values


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as upper-case text without padding; empty where it is missing."""
    return str(dataset.get(keyword) or "").strip().upper()
