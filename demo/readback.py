"""Read what came back from the archive, without any code of the node or its pipelines.

Contours are filled by Matplotlib's point-in-polygon test, images are sorted by position, the SR is
walked by its codes: a second opinion on every object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RTStructureSetStorage

from demo.grid import Grid
from demo.push import Sent

MEASUREMENT_GROUP: Final = "125007"
TRACKING_IDENTIFIER: Final = "112039"
DERIVATION: Final = "121401"
ABSORBED_DOSE: Final = "128513"
"""Code values of DCM in TID 1500, TID 1411 and TID 300."""
MEAN: Final = "373098007"
"""SCT: derivation mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The objects of an archive, by kind."""

    structure_sets: list[Dataset] = field(default_factory=list)
    images: dict[str, list[Dataset]] = field(default_factory=dict)
    """Series Instance UID -> slices, sorted along the normal."""
    reports: list[Dataset] = field(default_factory=list)
    others: list[Dataset] = field(default_factory=list)

    def count(self) -> int:
        """Return the number of objects."""
        slices = sum(map(len, self.images.values()))
        return len(self.structure_sets) + slices + len(self.reports) + len(self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One NUM item of an SR."""

    code: str
    meaning: str
    derivation: str
    """Code value of the derivation, or empty."""
    value: float
    unit: str


def read(paths: Sequence[Path]) -> Received:
    """Read `paths` and sort them by what they are."""
    received = Received()
    for path in paths:
        ds = pydicom.dcmread(path)
        if ds.SOPClassUID == RTStructureSetStorage:
            received.structure_sets.append(ds)
        elif ds.SOPClassUID == CTImageStorage:
            received.images.setdefault(str(ds.SeriesInstanceUID), []).append(ds)
        elif ds.Modality == "SR":
            received.reports.append(ds)
        else:
            received.others.append(ds)
    for slices in received.images.values():
        slices.sort(key=_along_normal)
    return received


def came_back(
    received: Received, arrivals: Mapping[str, float], sent: Iterable[Sent]
) -> list[tuple[str, int, str]]:
    """Return kind, number of objects, and how long after the last response to us the first came."""
    last = max((s.at for s in sent), default=0.0)
    kinds = {
        "RTSTRUCT": received.structure_sets,
        "synthetic CT": [ds for slices in received.images.values() for ds in slices],
        "SR": received.reports,
        "other": received.others,
    }
    rows = []
    for kind, objects in kinds.items():
        times = [arrivals[u] for ds in objects if (u := str(ds.SOPInstanceUID)) in arrivals]
        if objects:
            rows.append((kind, len(objects), f"{min(times) - last:.1f} s" if times else "-"))
    return rows


def volume(slices: Sequence[Dataset]) -> tuple[NDArray[np.float32], Grid]:
    """Return HU, shape (slices, rows, columns), and where the voxels lie."""
    hu = np.stack(
        [
            s.pixel_array * np.float32(s.RescaleSlope) + np.float32(s.RescaleIntercept)
            for s in slices
        ]
    ).astype(np.float32)
    first, last = (np.asarray(s.ImagePositionPatient, float) for s in (slices[0], slices[-1]))
    orientation = np.asarray(slices[0].ImageOrientationPatient, float)
    between = float(np.linalg.norm(last - first)) / max(len(slices) - 1, 1)
    rows, columns = (float(v) for v in slices[0].PixelSpacing)
    grid = Grid(
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        spacing=(between, rows, columns),
        origin=_vector(first),
        row_direction=_vector(orientation[:3]),
        column_direction=_vector(orientation[3:]),
    )
    return hu, grid


def roi_names(structure_set: Dataset) -> dict[str, int]:
    """Return ROI name -> ROI number."""
    return {str(r.ROIName): int(r.ROINumber) for r in structure_set.StructureSetROISequence}


def mask(structure_set: Dataset, name: str, grid: Grid) -> NDArray[np.bool_]:
    """Return the voxels of `grid` whose center lies inside the ROI, holes left out.

    The grid must be axial with the directions of a head-first supine scan.
    """
    number = roi_names(structure_set)[name]
    found = np.zeros(grid.shape, bool)
    for roi in structure_set.ROIContourSequence:
        if int(roi.ReferencedROINumber) == number:
            for contour in roi.get("ContourSequence", []):
                points = np.asarray(contour.ContourData, float).reshape(-1, 3)
                _toggle(found, points, grid)
    return found


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient; 1 for two empty masks."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def measurements(report: Dataset) -> dict[str, list[Measurement]]:
    """Return ROI name -> its numbers, from the measurement groups of a TID 1500 report."""
    found: dict[str, list[Measurement]] = {}
    for group in _groups(report):
        items = group.ContentSequence
        name = next(str(i.TextValue) for i in items if _code(i) == TRACKING_IDENTIFIER)
        found[name] = [_measurement(i) for i in items if i.ValueType == "NUM"]
    return found


def _along_normal(ds: Dataset) -> float:
    orientation = np.asarray(ds.ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.dot(normal, np.asarray(ds.ImagePositionPatient, float)))


def _toggle(found: NDArray[np.bool_], points: NDArray[np.float64], grid: Grid) -> None:
    """Flip the voxels inside one contour: a hole inside a shell takes itself out again."""
    k = round((points[0, 2] - grid.origin[2]) / grid.spacing[0])
    if not 0 <= k < grid.shape[0]:
        return
    columns = (points[:, 0] - grid.origin[0]) / grid.spacing[2]
    rows = (points[:, 1] - grid.origin[1]) / grid.spacing[1]
    low = np.maximum(np.floor([rows.min(), columns.min()]).astype(int), 0)
    high = np.minimum(np.ceil([rows.max(), columns.max()]).astype(int) + 1, grid.shape[1:])
    r, c = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    inside = Polygon(np.column_stack([columns, rows])).contains_points(
        np.column_stack([c.ravel(), r.ravel()])
    )
    found[k, low[0] : high[0], low[1] : high[1]] ^= inside.reshape(r.shape)


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        if child.ValueType == "CONTAINER" and _code(child) == MEASUREMENT_GROUP:
            yield child
        else:
            yield from _groups(child)


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _measurement(item: Dataset) -> Measurement:
    value = item.MeasuredValueSequence[0]
    derivation = next(
        (
            str(child.ConceptCodeSequence[0].CodeValue)
            for child in item.get("ContentSequence", [])
            if _code(child) == DERIVATION
        ),
        "",
    )
    return Measurement(
        code=_code(item),
        meaning=str(item.ConceptNameCodeSequence[0].CodeMeaning),
        derivation=derivation,
        value=float(value.NumericValue),
        unit=str(value.MeasurementUnitsCodeSequence[0].CodeValue),
    )


def _vector(v: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(c) for c in v)
    return x, y, z
