"""Smallest box and smallest ellipsoid about a region (IBSI reference manual, 3.1.19 and 3.1.22).

There are no consensus values: the manual leaves both to an approximation. Here the box is the
smallest of those with one side on a facet of the convex hull and another on one of its edges as
seen along that side, which is exact for boxes; the ellipsoid is the smallest there is, to a
millionth of its volume.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from pipelines.radiomics.mesh import surface
from pipelines.radiomics.morphology import ellipsoid_area

Floats = NDArray[np.float64]
Features = dict[str, float]

ENCLOSING = ("ZH1A", "IQYR", "SWZ1", "BRI8")
_SAME_NORMAL = 6
"""Decimals of a facet's normal that count: triangles of one facet are tried once."""
_ELLIPSOID_TOLERANCE = 1e-6
_ELLIPSOID_STEPS = 10_000


def enclosing(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Features:
    """Return the densities of volume and area in the smallest box and ellipsoid.

    Parameters
    ----------
    mask : ndarray of bool, shape (slices, rows, columns), not empty
    spacing_mm : (slice, row, column)
    """
    mesh = surface(mask, spacing_mm)
    hull = ConvexHull(mesh.vertices)
    points = mesh.vertices[hull.vertices]
    x, y, z = smallest_box(points, hull.equations[:, :3])
    c, b, a = smallest_ellipsoid(points)
    return {
        "ZH1A": mesh.volume_mm3 / (x * y * z),
        "IQYR": mesh.area_mm2 / (2 * (x * y + y * z + x * z)),
        "SWZ1": mesh.volume_mm3 / (4 / 3 * np.pi * a * b * c),
        "BRI8": mesh.area_mm2 / ellipsoid_area(a, b, c),
    }


def smallest_box(points: Floats, normals: Floats) -> tuple[float, float, float]:
    """Return the edges [mm] of the smallest box about a convex hull.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        Corners of the hull [mm].
    normals : ndarray, shape (m, 3)
        Unit normals of its facets.
    """
    ahead = normals * np.where(_leading(normals) < 0, -1.0, 1.0)[:, None]
    best, edges = np.inf, (0.0, 0.0, 0.0)
    for normal in np.unique(np.round(ahead, _SAME_NORMAL), axis=0):
        unit = normal / np.linalg.norm(normal)
        height = float(np.ptp(points @ unit))
        aside = np.linalg.svd(unit[None])[2][1:]  # two directions across
        width, length = _smallest_rectangle(points @ aside.T)
        if width * length * height < best:
            best, edges = width * length * height, (width, length, height)
    return edges


def smallest_ellipsoid(points: Floats) -> tuple[float, float, float]:
    """Return the semi-axes of the smallest ellipsoid about points, shape (n, 3), ascending.

    Khachiyan's ascent with steps away from points that it does not need (Todd and Yildirim 2007).
    """
    number, size = points.shape
    lifted = np.vstack([points.T, np.ones(number)])
    weight = np.full(number, 1 / number)
    for _ in range(_ELLIPSOID_STEPS):
        inverse = np.linalg.inv((lifted * weight) @ lifted.T)
        reach = np.einsum("in,ij,jn->n", lifted, inverse, lifted)
        far = int(reach.argmax())
        near = int(np.where(weight > 0, reach, np.inf).argmin())
        above, below = reach[far] / (size + 1) - 1, 1 - reach[near] / (size + 1)
        if max(above, below) < _ELLIPSOID_TOLERANCE:
            break
        moved = far if above > below else near
        step = (reach[moved] - size - 1) / ((size + 1) * (reach[moved] - 1))
        if moved == near and above <= below:
            step = max(step, -weight[near] / (1 - weight[near]))
        weight *= 1 - step
        weight[moved] += step
    center = points.T @ weight
    shape = (points.T * weight) @ points - np.outer(center, center)
    minor, middle, major = np.sqrt(size * np.linalg.eigvalsh(shape))
    return float(minor), float(middle), float(major)


def _leading(normals: Floats) -> Floats:
    """Return the first component of each normal that is not zero."""
    first = (np.abs(normals) > 10.0**-_SAME_NORMAL).argmax(axis=1)
    leading: Floats = np.take_along_axis(normals, first[:, None], axis=1)[:, 0]
    return leading


def _smallest_rectangle(points: Floats) -> tuple[float, float]:
    """Return the edges of the smallest rectangle about points, shape (n, 2)."""
    corners = points[ConvexHull(points).vertices]
    along = np.roll(corners, -1, axis=0) - corners
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    width, length = np.ptp(corners @ along.T, axis=0), np.ptp(corners @ across.T, axis=0)
    best = int((width * length).argmin())
    return float(width[best]), float(length[best])
