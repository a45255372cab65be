"""Margins: every place within a Euclidean distance of a region, or deeper in it than that.

The surface lies between the points of a grid: where exactly, the values of the points on its sides
tell. Distances are Euclidean ones to those places on the surface, so a margin is right to some
hundredths of a step, whatever the step is along each axis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt, minimum_filter1d
from scipy.spatial import KDTree

Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

_HALF = 0.5
_DECIMALS = 5
"""Sums of slabs leave 1e-16 beside 0 and 1: a point that is covered so is not."""
_EXACT_STEPS = 2
"""Steps about the new surface within which distances are exact; fractions look half a step far."""
_CANDIDATES = 4
"""Discs whose distances are compared for a point."""
_HALVINGS = 20
"""A plane is right to a millionth of a step."""
_NOWHERE_MM = 1e6
"""Distance to a region that covers nothing: farther than any, and still a number."""


def depth(covered: Floats, spacing_mm: Spacing, mm: float) -> Floats:
    """Return the depth of every point below the surface of a region with a margin.

    Parameters
    ----------
    covered : ndarray, shape (planes, rows, columns), in [0, 1]
        Covered fraction of every point; none at the border of the array.
    spacing_mm : (plane, row, column)
    mm : float
        Margin, outwards if positive, inwards if negative [mm].

    Returns
    -------
    ndarray, same shape
        [mm], positive inside; exact within two steps of the new surface, right to about a step
        beyond.
    """
    covered = np.round(covered, _DECIMALS)
    facets = _facets(covered, spacing_mm)
    if not len(facets.places):
        return np.full(covered.shape, -_NOWHERE_MM)
    touched, half = covered > 0, min(spacing_mm) / 2
    inside = covered >= _HALF
    result = np.where(
        inside,
        mm - half + distance_transform_edt(inside, sampling=spacing_mm),
        mm + half - distance_transform_edt(~touched, sampling=spacing_mm),
    )
    near = np.abs(result) <= _EXACT_STEPS * max(spacing_mm)
    distance = facets.distance(np.argwhere(near) * np.array(spacing_mm))
    result[near] = mm + np.where(inside[near], distance, -distance)
    return result


@dataclass(frozen=True, slots=True)
class _Facets:
    """A surface as discs, one for each point that is covered in part."""

    places: Floats
    """Shape (n, 3) [mm]: centers."""
    normals: Floats
    """Shape (n, 3): unit vectors outwards; zero where the surface has no direction."""
    radius: float
    """[mm]."""

    def distance(self, points: Floats) -> Floats:
        """Return the distance of points, shape (k, 3) [mm], to the nearest disc."""
        number = min(_CANDIDATES, len(self.places))
        nearest = KDTree(self.places).query(points, k=number)[1].reshape(len(points), number)
        best = np.full(len(points), np.inf)
        for chosen in nearest.T:
            away = points - self.places[chosen]
            height = np.einsum("ij,ij->i", away, self.normals[chosen])
            aside = np.sqrt(np.maximum(np.einsum("ij,ij->i", away, away) - height**2, 0.0))
            flat = self.normals[chosen].any(axis=1)
            beyond = np.where(flat, np.maximum(aside - self.radius, 0.0), aside)
            best = np.minimum(best, np.hypot(height, beyond))
        return best


def _facets(covered: Floats, spacing_mm: Spacing) -> _Facets:
    """Return the surface between what is covered and what is not.

    A point that is covered in part holds a plane that leaves that part on its inner side, square
    to the gradient of the fractions (piecewise linear interface calculation of volume-of-fluid
    methods); one that is covered wholly beside one that is not at all has its own border.
    """
    border = covered.copy()
    for axis in range(3):
        np.minimum(border, minimum_filter1d(covered, 3, axis=axis), out=border)
    cells = np.argwhere((covered > 0) & ((covered < 1) | (border == 0)))
    at = tuple(cells.T)
    steps = np.array(spacing_mm)
    slopes = [_slope(covered, axis)[at] for axis in range(3)]
    per_cell = -np.stack(slopes, axis=1)  # outwards, in cells
    total = np.abs(per_cell).sum(axis=1)
    plane = np.divide(
        per_cell, total[:, None], out=np.zeros_like(per_cell), where=total[:, None] > 0
    )
    offset = _plane_offset(np.abs(plane), covered[at]) - _HALF
    square = np.einsum("ij,ij->i", plane, plane)
    foot = plane * np.divide(offset, square, out=np.zeros(len(cells)), where=square > 0)[:, None]
    normals = plane / steps
    length = np.linalg.norm(normals, axis=1)
    np.divide(normals, length[:, None], out=normals, where=length[:, None] > 0)
    places = (cells + np.clip(foot, -_HALF, _HALF)) * steps
    return _Facets(places, normals, float(min(steps)) / 2)


def _slope(covered: Floats, axis: int) -> Floats:
    """Return the slope along an axis, smoothed across it."""
    found = correlate1d(covered, [-0.5, 0.0, 0.5], axis=axis)
    for other in range(3):
        if other != axis:
            found = correlate1d(found, [0.25, 0.5, 0.25], axis=other)
    return found


def _plane_offset(plane: Floats, fraction: Floats) -> Floats:
    """Return a for which plane . x < a holds in the given fraction of a unit cube, by bisection.

    Parameters
    ----------
    plane : ndarray, shape (n, 3)
        Not negative, summing to 1 (or 0).
    fraction : ndarray, shape (n,)

    Notes
    -----
    The volume below is (a^3 - sum max(a - m_i, 0)^3 + sum max(a - m_i - m_j, 0)^3) / (6 m1 m2 m3)
    (Scardovelli and Zaleski 2000); components are kept from zero, which moves a by 1e-4 at most.
    """
    m = np.maximum(plane, 1e-4)
    m /= m.sum(axis=1, keepdims=True)
    product = 6 * m.prod(axis=1)
    low, high = np.zeros(len(m)), np.ones(len(m))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        cubes = middle**3
        cubes -= (np.maximum(middle[:, None] - m, 0) ** 3).sum(axis=1)
        cubes += (np.maximum(middle[:, None] - (1 - m), 0) ** 3).sum(axis=1)
        below = cubes / product < fraction
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def surface_depth(level: Floats, spacing_mm: Spacing, mm: float = 0.0) -> Floats:
    """Return the depth of every point below the zero surface of a field, moved by a margin.

    Parameters
    ----------
    level : ndarray, shape (planes, rows, columns)
        Positive inside; the surface is where its linear interpolation is zero. The end of the
        array is no surface.
    spacing_mm : (plane, row, column)
    mm : float
        Margin, outwards if positive, inwards if negative [mm].

    Returns
    -------
    ndarray, same shape
        [mm], positive inside; exact within two steps of the new surface, right to about a step
        beyond.
    """
    inside = level > 0
    facets = _crossings(level, inside, spacing_mm)
    if not len(facets.places):
        return np.full(level.shape, _NOWHERE_MM if inside.all() else -_NOWHERE_MM)
    half = min(spacing_mm) / 2
    result = np.where(
        inside,
        mm - half + distance_transform_edt(inside, sampling=spacing_mm),
        mm + half - distance_transform_edt(~inside, sampling=spacing_mm),
    )
    near = np.abs(result) <= (_EXACT_STEPS + 1) * max(spacing_mm)  # the estimate is a step off
    distance = facets.distance(np.argwhere(near) * np.array(spacing_mm))
    result[near] = mm + np.where(inside[near], distance, -distance)
    return result


def _crossings(level: Floats, inside: NDArray[np.bool_], spacing_mm: Spacing) -> _Facets:
    """Return the zero surface as discs, one wherever it crosses an edge between two points."""
    steps = np.array(spacing_mm)
    slopes = [_slope(level, axis) / steps[axis] for axis in range(3)]
    places, normals = [], []
    for axis in range(3):
        first = np.argwhere(np.diff(inside, axis=axis))
        second = first.copy()
        second[:, axis] += 1
        one, other = level[tuple(first.T)], level[tuple(second.T)]
        share = one / (one - other)
        places.append((first + share[:, None] * (second - first)) * steps)
        normals.append(
            -np.stack(
                [(1 - share) * s[tuple(first.T)] + share * s[tuple(second.T)] for s in slopes],
                axis=1,
            )
        )
    outwards = np.concatenate(normals)
    length = np.linalg.norm(outwards, axis=1)
    np.divide(outwards, length[:, None], out=outwards, where=length[:, None] > 0)
    return _Facets(np.concatenate(places), outwards, float(max(steps)) / 2)
