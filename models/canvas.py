"""Drawing tools of the procedural patients: shapes in millimeters, painted with partial volume.

Conventions as in `models.phantom`: patient LPS in mm; arrays (slice, row, column).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]
Length = float | NDArray[np.floating]

AIR_HU = -1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Anatomical coordinates of every voxel [mm] and the width of an edge."""

    x: Volume
    y: Volume
    z: Volume
    edge_mm: float

    def inside(self, distance: Volume) -> Volume:
        """Return the filled fraction of each voxel from a signed distance [mm], < 0 inside."""
        return np.asarray(np.clip(0.5 - distance / self.edge_mm, 0, 1), dtype=np.float32)

    def ellipsoid(self, center: Vector, radii: Vector) -> Volume:
        """Return an approximate signed distance [mm] to an axis-parallel ellipsoid."""
        q = ((self.x - center[0]) / radii[0]) ** 2
        q += ((self.y - center[1]) / radii[1]) ** 2
        q += ((self.z - center[2]) / radii[2]) ** 2
        return np.asarray((np.sqrt(q) - 1) * min(radii), dtype=np.float32)

    def tube(self, start: Vector, end: Vector, radius: float) -> Volume:
        """Return the signed distance [mm] to a capsule from `start` to `end`."""
        axis = np.subtract(end, start).astype(np.float32)
        p = (self.x - start[0], self.y - start[1], self.z - start[2])
        t = (p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2]) / float(axis @ axis)
        t = np.clip(t, 0, 1)
        squares = sum((c - t * a) ** 2 for c, a in zip(p, axis, strict=True))
        return np.asarray(np.sqrt(squares) - radius, dtype=np.float32)

    def select(self, mask: Mask) -> "Space":
        """Return the coordinates of the voxels in `mask`, as 1-D arrays."""
        return Space(x=self.x[mask], y=self.y[mask], z=self.z[mask], edge_mm=self.edge_mm)


class Canvas:
    """Paints tissues over each other with partial volume at their edges."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.hu = np.full(space.x.shape, AIR_HU, dtype=np.float32)

    def paint(self, distance: Volume, hu: float | Volume) -> Mask:
        """Fill where `distance` < 0 with `hu`; return the mask."""
        fraction = self.space.inside(distance)
        self.hu += fraction * (hu - self.hu)
        return distance < 0


def superellipse(x: Volume, y: Volume, a: Length, b: Length) -> Volume:
    """Return an approximate signed distance [mm] to a rounded box of half-axes `a` and `b`."""
    q = (np.abs(x) / a) ** 2.3 + (np.abs(y) / b) ** 2.3
    return np.asarray((q ** (1 / 2.3) - 1) * np.minimum(a, b), dtype=np.float32)


def waves(
    rng: np.random.Generator, points: tuple[Volume, Volume, Volume], length_mm: float, count: int
) -> Volume:
    """Return a smooth random field with SD 1: a sum of plane waves of about `length_mm`."""
    x, y, z = points
    field = np.zeros(x.shape, dtype=np.float32)
    for _ in range(count):
        k = rng.normal(size=3)
        k *= 2 * np.pi / (length_mm * rng.uniform(0.7, 1.4) * np.linalg.norm(k))
        kx, ky, kz = (np.float32(c) for c in k)
        field += np.cos(kx * x + ky * y + kz * z + np.float32(rng.uniform(0, 2 * np.pi)))
    return field * np.float32(np.sqrt(2 / count))


def axes(shape: tuple[int, ...], spacing: Vector, origin: Vector) -> tuple[Volume, Volume, Volume]:
    """Return z, y, x [mm] as broadcastable arrays for (slice, row, column)."""
    z, y, x = (
        (origin[2 - i] + np.arange(shape[i]) * spacing[i]).astype(np.float32) for i in range(3)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :]


def voxel_grid(
    shape: tuple[int, int, int], spacing: Vector, center: Vector
) -> tuple[Vector, tuple[Volume, Volume, Volume]]:
    """Return the origin (x, y, z) [mm] of a grid around `center`, and x, y, z of its voxels."""
    z0, y0, x0 = (float(center[2 - i] - (shape[i] - 1) / 2 * spacing[i]) for i in range(3))
    origin = (x0, y0, z0)
    z, y, x = np.broadcast_arrays(*axes(shape, spacing, origin))
    return origin, (x, y, z)
