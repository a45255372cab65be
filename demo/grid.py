"""Where the voxels of generated data lie in patient space, for every patient position.

Kept apart from `pipelines.geometry` on purpose: generated data is the truth that the pipelines
are tested against, so it must not be placed by the code under test.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = tuple[float, float, float]
"""x, y, z in patient LPS, mm or a direction cosine."""

DIRECTIONS: Final[dict[str, tuple[Vector, Vector]]] = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
}
"""Patient Position -> Image Orientation (Patient) as a scanner writes it: rows run to the right of
a viewer at the foot of the couch, columns run down (PS3.3 C.7.3.1.1.2, C.7.6.2.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A regular grid of voxels in patient space.

    The slice index grows along ``normal = row_direction × column_direction``.
    """

    shape: tuple[int, int, int]
    """(slices, rows, columns)."""
    spacing: Vector
    """(between slices, between rows, between columns) [mm]."""
    origin: Vector
    """Center of voxel (0, 0, 0), patient LPS [mm]."""
    row_direction: Vector = (1, 0, 0)
    """Direction in which the column index grows."""
    column_direction: Vector = (0, 1, 0)
    """Direction in which the row index grows."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Direction in which the slice index grows, shape (3,), patient LPS."""
        return np.cross(np.asarray(self.row_direction, float), self.column_direction)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Matrix from (slice, row, column) to patient LPS [mm], shape (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, 0] = self.normal * self.spacing[0]
        matrix[:3, 1] = np.asarray(self.column_direction, float) * self.spacing[1]
        matrix[:3, 2] = np.asarray(self.row_direction, float) * self.spacing[2]
        matrix[:3, 3] = self.origin
        return matrix

    def positions(self) -> NDArray[np.float64]:
        """Return the center of every voxel: shape (slices, rows, columns, 3), LPS [mm]."""
        index = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), axis=-1)
        return self.to_patient(index)

    def to_patient(self, index: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
        """Return the LPS position [mm] of (slice, row, column) indices: shape (..., 3)."""
        matrix = self.affine
        return np.asarray(index, float) @ matrix[:3, :3].T + matrix[:3, 3]

    def slice_origin(self, k: int) -> NDArray[np.float64]:
        """Return the center of voxel (k, 0, 0), LPS [mm]: Image Position (Patient)."""
        return self.to_patient(np.array([k, 0, 0]))


def centered_grid(
    shape: tuple[int, int, int],
    spacing: Vector,
    *,
    position: str = "HFS",
    tilt_deg: float = 0.0,
    center: Vector = (0, 0, 0),
) -> Grid:
    """Return a grid whose middle lies at `center`.

    Parameters
    ----------
    shape, spacing
        (slices, rows, columns) and their distances [mm].
    position
        Patient Position, one of `DIRECTIONS`.
    tilt_deg
        Rotation of the image planes about the row direction: an oblique series.
    center
        Patient LPS [mm] of the middle of the grid.
    """
    row, column = (np.asarray(v, float) for v in DIRECTIONS[position])
    angle = math.radians(tilt_deg)
    column = math.cos(angle) * column + math.sin(angle) * np.cross(row, column)
    unplaced = Grid(
        shape=shape,
        spacing=spacing,
        origin=(0, 0, 0),
        row_direction=_vector(row),
        column_direction=_vector(column),
    )
    middle = unplaced.to_patient((np.asarray(shape, float) - 1) / 2)
    return Grid(
        shape=shape,
        spacing=spacing,
        origin=_vector(np.asarray(center, float) - middle),
        row_direction=_vector(row),
        column_direction=_vector(column),
    )


def _vector(v: NDArray[np.float64]) -> Vector:
    """Return `v` as floats without negative zeros."""
    x, y, z = (float(c) + 0.0 for c in v)
    return x, y, z
