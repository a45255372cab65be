"""Contours to solids: regions, stacks and slabs, exactly as drawn.

A contour stands for a slab that reaches half-way to the neighboring planes of its stack; the
first and the last contour get a half-slice end cap (the right-prism convention of the published
DVH references). All coordinates are millimeters along the axes of the dose grid: (plane, row,
column), planes being the axis that the contours are drawn across.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtstruct import Roi
from pipelines.geometry.polygons import clean, inside, nesting, shared_fraction, signed_area

Floats = NDArray[np.float64]

SAME_PLANE_MM = 0.01
"""Contours closer than this lie on one plane: coordinates carry decimal noise."""
FLAT_MM = 0.1
"""A contour that spreads more than this across its plane is oblique to the dose grid."""
ROUNDED_MM = 1e-3
"""Vertices that agree to this are the same when whole loops are compared."""
LINK, BRIDGE = 1.5, 3.5
"""Gaps up to LINK slice spacings are neighbors, up to BRIDGE missing slices, beyond: apart."""
_TRIANGLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """A right prism over the loops of one plane and stack."""

    low: float
    high: float
    """Extent along the plane axis [mm]."""
    loops: tuple[Floats, ...]
    """Each shape (n, 2), (row, column) [mm]."""
    signs: tuple[int, ...] | None
    """None: even-odd. Else +1 for outlines and -1 for holes, whose outlines are united."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solid:
    """A region of interest as a set of slabs."""

    slabs: tuple[Slab, ...]
    prism_cc: float
    """Volume by the shoelace formula; a check on the sampled one, and the choice of cell size."""
    notes: tuple[str, ...]
    """What was repaired or left out, in plain words."""

    @property
    def box(self) -> tuple[Floats, Floats]:
        """Return the lowest and the highest corner, each shape (3,) [mm]."""
        points = [p for slab in self.slabs for p in slab.loops]
        low = np.min([p.min(axis=0) for p in points], axis=0)
        high = np.max([p.max(axis=0) for p in points], axis=0)
        bottom, top = min(s.low for s in self.slabs), max(s.high for s in self.slabs)
        return np.array([bottom, *low]), np.array([top, *high])


@dataclass(frozen=True, slots=True)
class _Region:
    """An outline with its holes on one plane."""

    plane: float
    loops: tuple[Floats, ...]
    depth: tuple[int, ...]
    united: bool
    """The outlines among the loops overlap in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """What is known of slice spacing beside the contours."""

    image_mm: float | None
    """Slice spacing of the planning image."""
    dose_mm: float
    """Frame spacing of the dose: the last resort for a one-slice ROI."""


def solid(roi: Roi, loops: Sequence[Floats], spacing: Spacing) -> Solid:
    """Return `roi` as slabs.

    Parameters
    ----------
    roi : Roi
    loops : sequence of ndarray, shape (n, 3)
        The closed loops of `roi`, in the same order, along the dose axes [mm].
    spacing : Spacing

    Returns
    -------
    Solid
        Without slabs where no loop encloses an area; the notes tell why.
    """
    notes = list(roi.notes)
    flat, xor = [], False
    for loop, points in zip(roi.closed, loops, strict=True):
        if np.ptp(points[:, 0]) > FLAT_MM:
            notes.append("a contour oblique to the dose grid was left out")
            continue
        trimmed = clean(points)
        if len(trimmed) >= _TRIANGLE and abs(signed_area(trimmed[:, 1:])) > 0:
            flat.append(trimmed)
            xor |= loop.geometric_type == "CLOSEDPLANAR_XOR"
    planes = _planes(flat)
    unique = [(z, _without_duplicates(group, notes)) for z, group in planes]
    regions = [r for z, group in unique for r in _regions(z, group, xor=xor)]
    if any(r.united for r in regions):
        notes.append("contours that overlap in part were united")
    slabs = _slabs(regions, spacing, roi.slab_thickness_mm, notes)
    volume = sum((s.high - s.low) * _area(s) for s in slabs) / 1000
    return Solid(slabs=slabs, prism_cc=volume, notes=tuple(dict.fromkeys(notes)))


def box_solid(low: Floats, high: Floats) -> Solid:
    """Return the box between two corners, each shape (3,) [mm], as one slab."""
    (z0, y0, x0), (z1, y1, x1) = low, high
    loop = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
    slab = Slab(low=float(z0), high=float(z1), loops=(loop,), signs=None)
    volume = float(np.prod(high - low)) / 1000
    return Solid(slabs=(slab,), prism_cc=volume, notes=())


def _planes(loops: Sequence[Floats]) -> list[tuple[float, list[Floats]]]:
    """Return (position, loops of shape (n, 2)) of every plane, ascending."""
    if not loops:
        return []
    height = np.array([loop[:, 0].mean() for loop in loops])
    order = np.argsort(height, kind="stable")
    breaks = np.flatnonzero(np.diff(height[order]) > SAME_PLANE_MM) + 1
    planes = []
    for group in np.split(order, breaks):
        members = [loops[i][:, 1:] for i in map(int, group)]
        planes.append((float(height[group].mean()), members))
    return planes


def _without_duplicates(loops: Sequence[Floats], notes: list[str]) -> list[Floats]:
    """Return the loops of one plane, each once: even-odd would cancel a repeated one."""
    seen: dict[bytes, Floats] = {}
    for loop in loops:
        rounded = np.rint(loop / ROUNDED_MM).astype(np.int64)
        key = rounded[np.lexsort(rounded.T)].tobytes()
        if key in seen:
            notes.append("a repeated contour was counted once")
        seen.setdefault(key, loop)
    return list(seen.values())


def _regions(plane: float, loops: Sequence[Floats], *, xor: bool) -> list[_Region]:
    """Return the regions of one plane; loops of the XOR type make one region by even-odd."""
    if xor:
        return [_Region(plane, tuple(loops), (0,) * len(loops), united=False)]
    if len(loops) == 1:  # most planes
        return [_Region(plane, tuple(loops), (0,), united=False)]
    nested = nesting(loops)
    depth = nested.depth
    outlines = np.flatnonzero(depth % 2 == 0)
    label = np.arange(len(loops))
    for first in outlines:
        for second in outlines[nested.overlap[first, outlines]]:
            label[label == label[second]] = label[first]
    regions = []
    for name in np.unique(label[outlines]):
        own = [i for i in outlines if label[i] == name]
        holes = [
            i
            for i in np.flatnonzero(depth % 2 == 1)
            if any(nested.inside[i, j] and depth[j] == depth[i] - 1 for j in own)
        ]
        members = [*own, *holes]
        regions.append(
            _Region(
                plane,
                tuple(loops[int(i)] for i in members),
                tuple(int(depth[int(i)]) for i in members),
                united=len(own) > 1,
            )
        )
    return regions


def _slabs(
    regions: Sequence[_Region], spacing: Spacing, slab_mm: float | None, notes: list[str]
) -> tuple[Slab, ...]:
    """Return the slabs of every connected stack of regions.

    Slabs are built per stack: two structures contoured on different plane sets would lose half
    of their volume if the planes of one were taken as the neighbors of the other.
    """
    links = _links(regions)
    gaps = [regions[b].plane - regions[a].plane for a, b in links]
    nominal = spacing.image_mm or (float(np.median(gaps)) if gaps else None)
    label = np.arange(len(regions))
    for (a, b), gap in zip(links, gaps, strict=True):
        if nominal is None or gap > BRIDGE * nominal:
            continue
        if gap > LINK * nominal:
            notes.append("missing slices were bridged")
        label[label == label[b]] = label[a]
    slabs: list[Slab] = []
    for name in np.unique(label):
        stack = [regions[int(i)] for i in np.flatnonzero(label == name)]
        planes = np.unique([r.plane for r in stack])
        if len(planes) == 1:
            thickness = nominal or slab_mm or spacing.dose_mm
            if not nominal and not slab_mm:
                notes.append("one slice only: its thickness is the frame spacing of the dose")
            edges = np.array([planes[0] - thickness / 2, planes[0] + thickness / 2])
        else:
            middle = (planes[1:] + planes[:-1]) / 2
            first, last = planes[0] - middle[0], planes[-1] - middle[-1]
            edges = np.concatenate([[planes[0] + first], middle, [planes[-1] + last]])
        for i, plane in enumerate(planes):
            here = [r for r in stack if r.plane == plane]
            slabs.append(_slab(float(edges[i]), float(edges[i + 1]), here))
    return tuple(sorted(slabs, key=lambda s: (s.low, s.high)))


def _slab(low: float, high: float, regions: Sequence[_Region]) -> Slab:
    """Return the slab over the regions of one plane and stack."""
    loops = tuple(loop for r in regions for loop in r.loops)
    signs = tuple(-1 if d % 2 else 1 for r in regions for d in r.depth)
    united = any(r.united for r in regions)
    return Slab(low=low, high=high, loops=loops, signs=signs if united else None)


def _links(regions: Sequence[_Region]) -> list[tuple[int, int]]:
    """Return pairs of regions that continue each other.

    Every region is linked to those that it overlaps on the next higher plane that holds any.
    """
    if not regions:
        return []
    outline = [r.loops[0] if len(r.loops) == 1 else np.concatenate(r.loops) for r in regions]
    low = np.array([loop.min(axis=0) for loop in outline])
    high = np.array([loop.max(axis=0) for loop in outline])
    plane = np.array([r.plane for r in regions])
    links: list[tuple[int, int]] = []
    for a in range(len(regions)):
        meets = np.all((low < high[a]) & (high > low[a]), axis=1) & (plane > plane[a])
        found: float | None = None
        for b in np.flatnonzero(meets):  # regions come in order of their planes
            if found is not None and plane[b] > found:
                break
            if _overlap(regions[a], regions[int(b)]):
                links.append((a, int(b)))
                found = float(plane[b])
    return links


def _overlap(first: _Region, second: _Region) -> bool:
    """Return whether any outline of one region overlaps any outline of the other."""
    for one in first.loops:
        for other in second.loops:
            small, large = sorted((one, other), key=lambda loop: float(np.ptp(loop[:, 0])))
            some = small[:: max(1, len(small) // 8)]  # a vertex inside settles most cases
            if inside(some, large).any() or shared_fraction(small, large, scanlines=16) > 0:
                return True
    return False


def _area(slab: Slab) -> float:
    """Return the area of a slab [mm²] from outlines minus holes."""
    areas: list[float] = [abs(signed_area(loop)) for loop in slab.loops]
    if len(areas) == 1:
        return areas[0]
    if slab.signs is not None:
        signs = slab.signs
    else:
        signs = tuple(-1 if d % 2 else 1 for d in nesting(slab.loops).depth)
    return max(sum(a * s for a, s in zip(areas, signs, strict=True)), 0.0)
