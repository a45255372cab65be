"""The lattice that a region with a margin is computed on, and its covered fractions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.resample import Axes, trilinear

Floats = NDArray[np.float64]

STEPS_MM = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Steps of a lattice; the finest that needs no more than `MAX_POINTS` is taken."""
MAX_POINTS = 1_500_000
_PAD = 2
"""Points about the region, so that the outside is always seen."""
_HALF = 0.5


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


def _ramp(depth_mm: Floats, step_mm: float) -> Floats:
    """Return fractions that rise from 0 to 1 over one step about the surface."""
    return np.clip(_HALF + depth_mm / step_mm, 0.0, 1.0)
