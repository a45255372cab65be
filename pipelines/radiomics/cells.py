"""Contours on cells and voxels: square windows in a plane, and covered fractions in 3D."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.geometry.polygons import coverage, rasterise
from pipelines.radiomics.contours import Slab
from pipelines.radiomics.resample import Axes

Floats = NDArray[np.float64]

VOXEL_SCANLINES = 16
"""Lines on which the covered length is taken in every row of voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Square cells in a plane, aligned with the dose rows and columns."""

    size_mm: float
    low: tuple[float, float]
    """(row, column) [mm] of the outer corner of the first cell."""
    shape: tuple[int, int]

    @property
    def centers(self) -> tuple[Floats, Floats]:
        """Return the positions of the cell centers along rows and columns [mm]."""
        rows, columns = (
            start + self.size_mm * (np.arange(n, dtype=np.float64) + 0.5)
            for start, n in zip(self.low, self.shape, strict=True)
        )
        return rows, columns


def indices(slab: Slab, window: Window) -> list[Floats]:
    """Return the loops of a slab in index coordinates of the window."""
    low = np.array(window.low)
    return [(loop - low) / window.size_mm - 0.5 for loop in slab.loops]


def on_voxels(slabs: Sequence[Slab], centers: Axes) -> Floats:
    """Return the covered fraction of voxels by slabs, which are united.

    Parameters
    ----------
    slabs : sequence of Slab
    centers : three ndarrays
        Evenly spaced voxel centers along (plane, row, column) [mm].

    Returns
    -------
    ndarray, shape (planes, rows, columns), float64 in [0, 1]
    """
    planes, rows, columns = centers
    height = planes[1] - planes[0]
    first = np.array([rows[0], columns[0]])
    size = np.array([rows[1] - rows[0], columns[1] - columns[0]])
    covered = np.zeros((len(planes), len(rows), len(columns)))
    bottom, top = planes - height / 2, planes + height / 2
    for slab in slabs:
        share = (np.minimum(top, slab.high) - np.maximum(bottom, slab.low)) / height
        touched = np.flatnonzero(share > 0)
        if not len(touched):
            continue
        loops = [(loop - first) / size for loop in slab.loops]
        (row, rows_end), (column, columns_end) = _extent(loops, covered.shape[1:])
        if row >= rows_end or column >= columns_end:
            continue
        area = coverage(
            [loop - [row, column] for loop in loops],
            (rows_end - row, columns_end - column),
            scanlines=VOXEL_SCANLINES,
            signs=slab.signs,
        )
        part = covered[touched[0] : touched[-1] + 1, row:rows_end, column:columns_end]
        part += share[touched, None, None] * area
    return np.minimum(covered, 1.0)


def on_centers(slabs: Sequence[Slab], centers: Axes) -> NDArray[np.bool_]:
    """Return which voxel centers lie inside slabs, which are united.

    Parameters
    ----------
    slabs : sequence of Slab
    centers : three ndarrays
        Voxel centers along (plane, row, column) [mm]; rows and columns evenly spaced.

    Returns
    -------
    ndarray of bool, shape (planes, rows, columns)
    """
    planes, rows, columns = centers
    first = np.array([rows[0], columns[0]])
    size = np.array([rows[1] - rows[0], columns[1] - columns[0]])
    inside = np.zeros((len(planes), len(rows), len(columns)), dtype=bool)
    for slab in slabs:
        touched = np.flatnonzero((planes >= slab.low) & (planes < slab.high))
        if not len(touched):
            continue
        loops = [(loop - first) / size for loop in slab.loops]
        if slab.signs is None:
            inside[touched] |= rasterise(loops, inside.shape[1:])
            continue
        for loop, sign in sorted(zip(loops, slab.signs, strict=True), key=lambda pair: -pair[1]):
            area = rasterise([loop], inside.shape[1:])
            inside[touched] = inside[touched] | area if sign > 0 else inside[touched] & ~area
    return inside


def _extent(loops: Sequence[Floats], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the rows and the columns, first and one after the last, that loops may cover."""
    low = np.min([loop.min(axis=0) for loop in loops], axis=0)
    high = np.max([loop.max(axis=0) for loop in loops], axis=0)
    return [
        (max(int(np.floor(a + 0.5)), 0), min(int(np.floor(b + 0.5)) + 1, n))
        for a, b, n in zip(low, high, shape, strict=True)
    ]
