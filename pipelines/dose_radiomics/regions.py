"""Regions of interest as fields of covered fractions, on fine cells and on voxels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipelines.dose_radiomics.margins import Grown, lattice
from pipelines.dose_radiomics.rois import fractions, possible
from pipelines.geometry.expressions import (
    Band,
    Both,
    Either,
    Leaf,
    Margin,
    Name,
    Node,
    Not,
    leaves,
    reach_mm,
    uses_dose,
)
from pipelines.geometry.margins import depth
from pipelines.geometry.polygons import coverage
from pipelines.radiomics.cells import Window, indices, on_voxels
from pipelines.radiomics.contours import Slab, Solid
from pipelines.radiomics.resample import Axes

Floats = NDArray[np.float64]
Box = tuple[Floats, Floats]

CELLS = ((1.0, 0.1), (20.0, 0.25), (500.0, 0.5), (10_000.0, 1.0), (np.inf, 2.0))
"""(up to cc, in-plane cell size [mm]) for the DVH."""
_EDGE_MM = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """An expression together with the solids of its names."""

    node: Node
    solids: Mapping[Name, tuple[Solid, ...]]
    """Several ROIs behind one name are united."""
    prescription: float | None = None
    """[Gy], for dose bands in percent."""
    grown: Mapping[Margin, Grown] = field(default_factory=dict)
    """The margins of the expression, see `with_margins`; a margin inside another is not named."""
    cell: float | None = None
    """In-plane cell size for the DVH [mm]; by volume if not given."""

    @property
    def cell_mm(self) -> float:
        """Return the in-plane cell size for the DVH, by the volume of the region."""
        if self.cell is not None:
            return self.cell
        volume = self._prism_cc(self.node)
        return next(size for limit, size in CELLS if volume < limit)

    @property
    def box(self) -> Box:
        """Return two corners, each shape (3,) [mm], that enclose the region."""
        found = self._box(self.node)
        if found is None:
            raise ValueError("the region has no bounds")
        return found

    def window(self, margin_mm: float = 0.0) -> Window:
        """Return the cells that enclose the region, on multiples of their size."""
        size = self.cell_mm
        low, high = self.box
        first = np.floor((low[1:] - margin_mm) / size)
        last = np.maximum(np.ceil((high[1:] + margin_mm) / size), first + 1)
        rows, columns = (last - first).astype(int)
        start = first * size
        return Window(
            size_mm=size,
            low=(float(start[0]), float(start[1])),
            shape=(int(rows), int(columns)),
        )

    def on_voxels(self, centers: Axes, dose: Floats) -> Floats:
        """Return the covered fraction of voxels.

        Parameters
        ----------
        centers : three ndarrays
            Evenly spaced voxel centers along (plane, row, column) [mm]; square in the plane.
        dose : ndarray, shape (planes, rows, columns) [Gy]

        Returns
        -------
        ndarray, shape (planes, rows, columns), float64 in [0, 1]
        """
        fields = {
            leaf: self._slab_voxels(leaf, centers)
            if isinstance(leaf, Name)
            else self.grown[leaf].at(centers)
            for leaf in leaves(self.node)
        }
        return fractions(self.node, fields.__getitem__, dose, self.prescription)

    def slabs(self, name: Name) -> list[Slab]:
        """Return the slabs of all ROIs behind a name."""
        return [slab for solid in self.solids[name] for slab in solid.slabs]

    def _slab_voxels(self, name: Name, centers: Axes) -> Floats:
        return on_voxels(self.slabs(name), centers)

    def grow(self, margin: Margin, dose_at: Callable[[Axes], Floats]) -> Grown:
        """Return a margin of this region on a lattice of its own."""
        inner = self._box(margin.inner)
        if inner is None:
            raise ValueError("a margin needs a region with bounds")
        beyond = reach_mm(margin)
        points = lattice(inner[0] - beyond, inner[1] + beyond)
        dose = dose_at(points.axes) if uses_dose(margin) else np.zeros(0)

        def covered(leaf: Leaf) -> Floats:
            if isinstance(leaf, Name):
                return self._slab_voxels(leaf, points.axes)
            return grown(leaf).fractions

        def grown(margin: Margin) -> Grown:
            field = fractions(margin.inner, covered, dose, self.prescription)
            below = depth(field, (points.step_mm,) * 3, margin.mm)
            return Grown(lattice=points, depth_mm=below)

        return grown(margin)

    def _prism_cc(self, node: Node) -> float:
        match node:
            case Name():
                return sum(solid.prism_cc for solid in self.solids[node])
            case Either(left, right):
                return self._prism_cc(left) + self._prism_cc(right)
            case Margin(inner, mm):
                return _ball_cc(self._prism_cc(inner), mm)
            case Both(left, right):
                return min(self._prism_cc(left), self._prism_cc(right))
            case Band() | Not():
                return float("inf")

    def _box(self, node: Node) -> Box | None:
        match node:
            case Name():
                boxes = [solid.box for solid in self.solids[node]]
                return _hull(boxes)
            case Either(left, right):
                parts = [self._box(left), self._box(right)]
                known = [box for box in parts if box is not None]
                return _hull(known) if len(known) == len(parts) else None
            case Both(left, right):
                one, other = self._box(left), self._box(right)
                if one is None or other is None:
                    return one or other
                low = np.maximum(one[0], other[0])
                return low, np.maximum(np.minimum(one[1], other[1]), low)
            case Margin(inner, mm):
                box = self._box(inner)
                return None if box is None else (box[0] - mm, np.maximum(box[1] + mm, box[0] - mm))
            case Band() | Not():
                return None


def with_margins(region: Region, dose_at: Callable[[Axes], Floats]) -> Region:
    """Return `region` with its margins measured.

    Parameters
    ----------
    region : Region
    dose_at : callable
        Dose [Gy] on a grid of positions, NaN outside the dose grid; asked where a region inside
        a margin depends on the dose.
    """
    margins = [leaf for leaf in leaves(region.node) if isinstance(leaf, Margin)]
    return replace(region, grown={margin: region.grow(margin, dose_at) for margin in margins})


class CellField:
    """A region as the DVH asks for it: interval by interval, on fine cells."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._dose_matters = uses_dose(region.node)
        found = leaves(region.node)
        self._slabs = {name: region.slabs(name) for name in found if isinstance(name, Name)}
        self._leaves: dict[Leaf, Floats] = {}

    def intervals(self) -> Iterator[tuple[float, float]]:
        """Yield the stretches of the plane axis in which no operand changes, ascending [mm]."""
        low, high = self._region.box
        drawn = [e for slabs in self._slabs.values() for s in slabs for e in (s.low, s.high)]
        edges = np.unique(np.concatenate([drawn, *(g.edges for g in self._region.grown.values())]))
        for start, stop in pairwise(edges):
            middle = (start + stop) / 2
            if stop - start > _EDGE_MM and low[0] < middle < high[0]:
                yield float(start), float(stop)

    def fractions(self, height: float, window: Window) -> Floats:
        """Return the largest covered fraction that any dose could leave, shape `window.shape`."""
        self._leaves = {
            name: _slice(slabs, height, window).ravel() for name, slabs in self._slabs.items()
        }
        rows, columns = window.centers
        place = (np.array([height]), rows, columns)
        self._leaves |= {m: grown.at(place).ravel() for m, grown in self._region.grown.items()}
        most = possible(self._region.node, self._leaves.__getitem__)[1]
        return np.broadcast_to(most, window.shape[0] * window.shape[1]).reshape(window.shape)

    def selects(self, dose: Floats, cells: NDArray[np.intp]) -> Floats | None:
        """Return the covered fractions of flat `cells` where dose bands are part of the region."""
        if not self._dose_matters:
            return None
        leaves = {name: covered[cells] for name, covered in self._leaves.items()}
        region = self._region
        return fractions(region.node, leaves.__getitem__, dose, region.prescription)


def _slice(slabs: Sequence[Slab], height: float, window: Window) -> Floats:
    """Return the covered fraction of the cells of `window` by the slabs at `height`."""
    parts = [
        coverage(indices(slab, window), window.shape, signs=slab.signs)
        for slab in slabs
        if slab.low <= height < slab.high
    ]
    if len(parts) == 1:
        return parts[0]
    return np.minimum(sum(parts, np.zeros(window.shape)), 1.0)


def _ball_cc(volume_cc: float, mm: float) -> float:
    """Return the volume of a ball of `volume_cc` with a margin: the order of any region's."""
    if not np.isfinite(volume_cc):
        return volume_cc
    unit = 4 * np.pi / 3000  # cc of a ball with a radius of 1 mm
    radius = max(float(np.cbrt(volume_cc / unit)) + mm, 0.0)
    return radius**3 * unit


def _hull(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    return np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
