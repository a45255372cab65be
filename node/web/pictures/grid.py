"""An image turned upright: axes toward head, back and left, whatever way it was acquired.

Three planes are cut from it the way radiologists look: transverse from the feet, coronal from the
front, sagittal from the left. All that is known of places comes from `StackGeometry`; here axes
are only reordered and flipped, so that a voxel and a contour point stay where they are in the
patient.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.geometry.stack import Floats, StackGeometry

TRANSVERSE: Final = 0
CORONAL: Final = 1
SAGITTAL: Final = 2
_TARGETS: Final = (2, 1, 0)
"""LPS component along which each upright axis grows: superior (z), posterior (y), left (x)."""
_LETTERS: Final = (("R", "L"), ("A", "P"), ("I", "S"))
"""Letters of the negative and positive LPS directions."""
_OBLIQUE: Final = 0.35
"""Share of a second direction (20 degrees) from which it is told too."""

_EDGE: Final = 0.5
"""How far beyond the outer voxel centers a voxel reaches. [voxels]"""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Upright:
    """The grid of an image with its axes reordered to (toward head, toward back, toward left)."""

    geometry: StackGeometry
    """The grid as acquired; even."""
    order: tuple[int, int, int]
    """Acquired axis that became each upright axis."""
    flips: tuple[bool, bool, bool]
    """Whether it runs the other way."""

    @classmethod
    def of(cls, geometry: StackGeometry) -> "Upright":
        """Return the upright view of an even grid: each axis goes to its nearest direction."""
        axes = np.stack([geometry.normal, geometry.column_direction, geometry.row_direction])
        first, second, third = max(
            permutations(range(3)),
            key=lambda order: sum(abs(axes[a, t]) for a, t in zip(order, _TARGETS, strict=True)),
        )
        order = (first, second, third)
        flips = tuple(bool(axes[a, t] < 0) for a, t in zip(order, _TARGETS, strict=True))
        return cls(geometry=geometry, order=order, flips=(flips[0], flips[1], flips[2]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(toward head, toward back, toward left) voxels."""
        a, b, c = (self.geometry.shape[axis] for axis in self.order)
        return a, b, c

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The same order [mm]."""
        a, b, c = (self.geometry.spacing[axis] for axis in self.order)
        return a, b, c

    @property
    def directions(self) -> Vector:
        """Unit vectors in patient LPS along the upright axes, shape (3, 3)."""
        g = self.geometry
        axes = np.stack([g.normal, g.column_direction, g.row_direction])[list(self.order)]
        signs = np.where(self.flips, -1.0, 1.0)[:, None]
        return np.asarray(axes * signs)

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `array` (as acquired) with upright axes."""
        turned: NDArray[Any] = array.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def indices(self, points: Floats) -> Floats:
        """Return fractional upright indices, shape (n, 3), of patient LPS points [mm]."""
        found = self.geometry.indices(points)[:, list(self.order)]
        last = np.asarray(self.shape) - 1
        return np.where(self.flips, last - found, found)

    def points(self, indices: Floats) -> Floats:
        """Return patient LPS points [mm] of upright indices, shape (n, 3)."""
        last = np.asarray(self.shape) - 1
        turned = np.where(self.flips, last - indices, indices)
        acquired = np.empty_like(turned)
        acquired[:, list(self.order)] = turned
        return self.geometry.points(acquired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """How one of the three planes lies on the screen: u to the right, v down, w into the stack."""

    u: int
    v: int
    w: int
    """Upright axes."""
    up: bool
    """True where v runs against its axis: the head is on top."""


PLANES: Final = (
    Plane(u=2, v=1, w=0, up=False),
    Plane(u=2, v=0, w=1, up=True),
    Plane(u=1, v=0, w=2, up=True),
)
"""Transverse, coronal, sagittal."""


def cut(upright: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return plane `index` of an upright array as rows (v down) and columns (u to the right)."""
    plane = PLANES[axis]
    taken: NDArray[Any] = np.take(upright, index, axis=plane.w)
    if plane.v > plane.u:
        taken = taken.T
    return taken[::-1] if plane.up else taken


def pixels(grid: Upright, axis: int, index: int, stride: int = 1) -> Floats:
    """Return patient LPS points [mm] of the pixels of a plane, shape (rows * columns, 3)."""
    plane = PLANES[axis]
    rows = np.arange(0, grid.shape[plane.v], stride, dtype=np.float64)
    columns = np.arange(0, grid.shape[plane.u], stride, dtype=np.float64)
    if plane.up:
        rows = grid.shape[plane.v] - 1 - rows
    v, u = np.meshgrid(rows, columns, indexing="ij")
    indices = np.empty((v.size, 3))
    indices[:, plane.v], indices[:, plane.u], indices[:, plane.w] = v.ravel(), u.ravel(), index
    return grid.points(indices)


def letters(direction: Vector) -> str:
    """Return the direction of a unit vector in LPS: ``L``, or ``LA`` where it is oblique."""
    by_size = np.argsort(-np.abs(direction))
    told = [int(c) for c in by_size if abs(direction[c]) > _OBLIQUE]
    return "".join(_LETTERS[c][int(direction[c] > 0)] for c in told)


def sides(grid: Upright, axis: int) -> dict[str, str]:
    """Return the letters at the four sides of a plane."""
    plane = PLANES[axis]
    right = grid.directions[plane.u]
    down = grid.directions[plane.v] * (-1 if plane.up else 1)
    return {
        "left": letters(-right),
        "right": letters(right),
        "top": letters(-down),
        "bottom": letters(down),
    }


def even(array: NDArray[Any], geometry: StackGeometry) -> tuple[NDArray[Any], StackGeometry, bool]:
    """Return image and grid with even slices; an uneven stack shows the nearest slice instead.

    Returns
    -------
    ndarray, StackGeometry, bool
        The last one tells whether slices had to be repeated or left out.
    """
    if geometry.uniform:
        return array, geometry, False
    step = geometry.spacing[0]
    positions = geometry.positions
    count = round(float(positions[-1] - positions[0]) / step) + 1
    wanted = positions[0] + step * np.arange(count)
    nearest = np.abs(wanted[:, None] - positions[None, :]).argmin(axis=1)
    x, y, z = (float(v) for v in geometry.origins[0])
    row, column = geometry.row_direction, geometry.column_direction
    regular = StackGeometry.regular(
        shape=(count, geometry.rows, geometry.columns),
        spacing=(step, *geometry.pixel_spacing),
        origin=(x, y, z),
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
    )
    return array[nearest], regular, True


def trilinear(array: NDArray[Any], indices: Floats, outside: float) -> NDArray[np.float32]:
    """Return `array` at fractional indices, shape (n, 3); `outside` beyond the outer voxel centers.

    Half a voxel beyond the centers still counts as inside: the edge value goes on.
    """
    last = np.asarray(array.shape, dtype=np.float64) - 1
    inside = np.all((indices >= -_EDGE) & (indices <= last + _EDGE), axis=1)
    result = np.full(len(indices), outside, dtype=np.float32)
    at = np.clip(indices[inside], 0.0, last)
    low = np.minimum(at.astype(np.int64), np.maximum(last - 1, 0).astype(np.int64))
    high = np.minimum(low + 1, last.astype(np.int64))
    share = (at - low).astype(np.float32)
    total = np.zeros(len(at), dtype=np.float32)
    for corner in range(8):
        upper = np.array([(corner >> bit) & 1 for bit in range(3)], dtype=bool)
        weight = np.prod(np.where(upper, share, 1.0 - share), axis=1, dtype=np.float32)
        i, j, k = np.where(upper, high, low).T
        total += weight * array[i, j, k]
    result[inside] = total
    return result
