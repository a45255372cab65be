"""Margins: every place within a Euclidean distance of a region, or deeper in it than that.

Distances are exact between the points of a lattice. The surface lies between two points, so the
covered fraction of the nearest point that the region touches shifts it by the part of a step that
is covered: a margin is right to a fraction of a step, whatever the step is along each axis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pipelines.dose_radiomics.resample import Axes, trilinear

Floats = NDArray[np.float64]

STEPS_MM = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Steps of a lattice; the finest that needs no more than `MAX_POINTS` is taken."""
MAX_POINTS = 1_500_000
_PAD = 2
"""Points about the region, so that the outside is always seen."""
_HALF = 0.5
_DECIMALS = 5
"""Sums of slabs leave 1e-16 beside 0 and 1: a point that is covered so is not."""
_NOWHERE_MM = 1e6
"""Distance to a region that covers nothing: farther than any, and still a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Evenly spaced points about a region."""

    step_mm: float
    axes: Axes
    """Positions along (plane, row, column) [mm], ascending, `step_mm` apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A region with its margin, as depth below its new surface."""

    lattice: Lattice
    depth_mm: Floats
    """Shape of the lattice: positive inside [mm], exact near the surface only."""

    @property
    def edges(self) -> Floats:
        """Return where the slabs of the lattice end along the plane axis, ascending [mm]."""
        planes, half = self.lattice.axes[0], self.lattice.step_mm / 2
        return np.append(planes - half, planes[-1] + half)

    @property
    def fractions(self) -> Floats:
        """Return the covered fraction of every point of the lattice."""
        return _ramp(self.depth_mm, self.lattice.step_mm)

    def at(self, axes: Axes) -> Floats:
        """Return the covered fraction at every point of the grid `axes` [mm]."""
        return _ramp(trilinear(self.depth_mm, self.lattice.axes, axes), self.lattice.step_mm)


def lattice(low: Floats, high: Floats) -> Lattice:
    """Return the lattice for a box between two corners, each shape (3,) [mm]."""
    size = high - low
    fitting = (s for s in STEPS_MM if np.prod(size / s + 2 * _PAD + 2) <= MAX_POINTS)
    step = next(fitting, STEPS_MM[-1])
    first = np.floor(low / step).astype(int) - _PAD
    count = np.ceil(high / step).astype(int) + _PAD + 1 - first
    planes, rows, columns = (step * (a + np.arange(n)) for a, n in zip(first, count, strict=True))
    return Lattice(step_mm=step, axes=(planes, rows, columns))


def depth(covered: Floats, spacing_mm: tuple[float, float, float], mm: float) -> Floats:
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
        [mm], positive inside; points far inside a grown or far outside a shrunk region all have
        the depth of the surface that they are seen from, which has the right sign.
    """
    covered = np.round(covered, _DECIMALS)
    if mm > 0:
        return mm - _distance(covered, spacing_mm)
    return _distance(1.0 - covered, spacing_mm) + mm


def _distance(covered: Floats, spacing_mm: tuple[float, float, float]) -> Floats:
    """Return the distance of every point to the surface of what is covered, negative inside.

    To the nearest point q that is covered at all, and to the nearest that is covered by half:
    |p - q| less (f_q - 1/2) steps, a step being the distance over the number of indices on the
    way; the smaller of the two. Where points are covered, the part of a step that is left.
    """
    result: Floats = (_HALF - covered) * min(spacing_mm)
    outside = covered == 0
    result[outside] = _NOWHERE_MM
    for seeds in (~outside, covered >= _HALF):
        if seeds.any():
            result[outside] = np.minimum(
                result[outside], _to_nearest(covered, seeds, outside, spacing_mm)
            )
    return result


def _to_nearest(
    covered: Floats,
    seeds: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> Floats:
    """Return the distance of the points `wanted` to the surface at the nearest of `seeds`."""
    length, nearest = distance_transform_edt(~seeds, sampling=spacing_mm, return_indices=True)
    seen = tuple(line[wanted] for line in nearest)
    squares = np.zeros(len(seen[0]))
    for here, there in zip(np.nonzero(wanted), seen, strict=True):
        squares += (here - there) ** 2.0
    distance: Floats = length[wanted] * (1 - (covered[seen] - _HALF) / np.sqrt(squares))
    return distance


def _ramp(depth_mm: Floats, step_mm: float) -> Floats:
    """Return fractions that rise from 0 to 1 over one step about the surface."""
    return np.clip(_HALF + depth_mm / step_mm, 0.0, 1.0)
