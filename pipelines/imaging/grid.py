"""The coarse grid that the classical methods work on, and the way back to the CT's own grid.

Blocks of whole voxels are averaged, so the coarse grid needs no interpolation and sits exactly
inside the fine one. Results go back as values between 0 and 1, interpolated linearly: the surface
at 0.5 is smoother than the steps of the coarse voxels. Arrays are (slice, row, column).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.geometry.stack import Floats, StackGeometry

Mask = NDArray[np.bool_]
Values = NDArray[np.float32]
Vector = tuple[float, float, float]

FLOOR_HU: Final = -1024
"""Air; scanners that write less (-3024 outside their field of view) mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkImage:
    """A CT averaged over blocks of voxels."""

    hu: Values
    """Shape (slices, rows, columns) [HU], not below -1024."""
    spacing: Vector
    """(slice, row, column) [mm]."""
    directions: Floats
    """Shape (3, 3): unit vectors, patient LPS, along the (slice, row, column) index."""
    centers: tuple[Floats, Floats, Floats]
    """Fine index of each coarse slice, row and column."""
    fine_shape: tuple[int, int, int]

    @property
    def left(self) -> Floats:
        """Patient LPS x [mm] that one step along (slice, row, column) adds: its left component."""
        across: Floats = self.directions[:, 0] * np.array(self.spacing)
        return across

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel [ml]."""
        return float(np.prod(self.spacing)) / 1000.0

    def cropped(self, box: tuple[slice, slice, slice]) -> "WorkImage":
        """Return the part inside `box`, with its own place in the CT."""
        centers = tuple(c[s] for c, s in zip(self.centers, box, strict=True))
        return dataclasses.replace(
            self, hu=self.hu[box], centers=(centers[0], centers[1], centers[2])
        )

    def fine(self, coarse: NDArray[Any]) -> tuple[Values, tuple[int, int, int]]:
        """Return `coarse`, shape of `hu`, on the CT's grid, cropped to where it is above zero.

        Returns
        -------
        values : ndarray, float32
            Interpolated linearly; the outermost coarse values go on to the edge of the CT.
        corner : (slice, row, column)
            Fine index of the first voxel of `values`.
        """
        values = np.asarray(coarse, dtype=np.float32)
        corner = []
        for axis in range(3):
            centers, size = self.centers[axis], self.fine_shape[axis]
            others = tuple(a for a in range(3) if a != axis)
            at = np.flatnonzero((values > 0).any(axis=others))
            low, high = (int(at[0]), int(at[-1])) if at.size else (0, 0)
            first = 0 if low == 0 else int(np.floor(centers[low - 1])) + 1
            stop = size if high == len(centers) - 1 else int(np.ceil(centers[high + 1]))
            values = _interpolate(values, axis, centers, np.arange(first, stop))
            corner.append(first)
        return values, (corner[0], corner[1], corner[2])


def work_image(hu: NDArray[Any], geometry: StackGeometry, target_mm: float) -> WorkImage:
    """Return `hu` averaged to voxels of about `target_mm`, never finer than the CT."""
    factors = [max(1, round(target_mm / step)) for step in geometry.spacing]
    values: NDArray[Any] = np.asarray(hu)
    centers: list[Floats] = []
    for axis, factor in enumerate(factors):
        values, center = _average(values, axis, factor)
        centers.append(center)
    spacing = tuple(f * s for f, s in zip(factors, geometry.spacing, strict=True))
    axes = np.stack([geometry.normal, geometry.column_direction, geometry.row_direction])
    return WorkImage(
        hu=np.maximum(values, FLOOR_HU, dtype=np.float32),
        spacing=(spacing[0], spacing[1], spacing[2]),
        directions=axes,
        centers=(centers[0], centers[1], centers[2]),
        fine_shape=geometry.shape,
    )


def _average(values: NDArray[Any], axis: int, factor: int) -> tuple[NDArray[Any], Floats]:
    """Average blocks of `factor` along `axis`; the last block may hold fewer."""
    starts = np.arange(0, values.shape[axis], factor)
    stops = np.minimum(starts + factor, values.shape[axis])
    if factor > 1:
        sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        values = sums / (stops - starts).astype(np.float32).reshape(shape)
    return values, (starts + stops - 1) / 2.0


def _interpolate(values: Values, axis: int, centers: Floats, wanted: NDArray[np.intp]) -> Values:
    """Return `values` interpolated along `axis` from `centers` to the fine indices `wanted`."""
    if len(centers) == 1:
        return np.repeat(values, len(wanted), axis=axis)
    index = np.interp(wanted, centers, np.arange(len(centers)))
    low = np.minimum(index.astype(np.intp), len(centers) - 2)
    shape = [1, 1, 1]
    shape[axis] = -1
    share = (index - low).astype(np.float32).reshape(shape)
    first, second = np.take(values, low, axis=axis), np.take(values, low + 1, axis=axis)
    second -= first
    second *= share
    second += first
    return second
