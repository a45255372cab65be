"""Planar contours of masks and probability fields: exact, short, and holes that every reader keeps.

Marching squares at level 0.5 puts the line half way between voxel centers; through the centers,
as most open writers draw it, a structure loses half a voxel all around. Rings are then thinned
(Douglas and Peucker 1973). A level-0.5 line of a 0/1 mask stays sqrt(2)/4 = 0.354 px away from
every voxel center, so a tolerance below that can move no center to the other side: the thinned
contour means exactly the same voxels. A field is kept off its level at the voxel centers, which
gives the same guarantee with a smaller tolerance.

A ring is an array of shape (n, 2), (row, column) in index coordinates with voxel centers at the
integers; it closes by itself, its first vertex is not repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Ring = NDArray[np.float64]
Field = NDArray[np.bool_] | NDArray[np.float32]
Holes = Literal["keyhole", "nested", "xor"]

MASK_TOLERANCE_PX: Final = 0.3
"""For 0/1 masks; exact below 0.354."""
FIELD_MARGIN: Final = 0.1
"""Field values are kept this far from the level, and inside 0 to 1. So the line crosses a grid edge
at least 0.1 / 0.6 = 0.167 px, and passes at least 0.167 / sqrt(2) = 0.118 px, from every center."""
FIELD_TOLERANCE_PX: Final = 0.1
"""For probability fields; exact below 0.118, as the mask's tolerance is below 0.354."""
EXACT_LIMIT_PX: Final = 0.35
"""A ring of a mask with too many points is thinned up to here before it is split."""
MAX_POINTS: Final = 1000
"""Points of one contour that planning systems are known to take."""
LEVEL: Final = 0.5
CENTER_PX: Final = 0.02
"""A channel keeps this far from every voxel center where it can; 0.01 mm of rounding is less."""
_NEAREST_PAIRS: Final = 64
"""Vertex pairs that are tried for a channel before the nearest is taken as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygon:
    """One connected region of a slice."""

    shell: Ring
    """Counter-clockwise seen against the slice normal."""
    holes: tuple[Ring, ...]
    """Clockwise; an island inside a hole is a polygon of its own."""


def trace(
    field: Field,
    *,
    tolerance_px: float | None = None,
    holes: Holes = "keyhole",
    max_points: int = MAX_POINTS,
) -> list[list[Ring]]:
    """Return the contours of every slice.

    Parameters
    ----------
    field : ndarray, shape (slices, rows, columns), bool or float32
        A mask, or values whose 0.5 level is the surface.
    tolerance_px : float, optional
        Thinning tolerance; `MASK_TOLERANCE_PX` or `FIELD_TOLERANCE_PX` by the type of `field`.
    holes : {"keyhole", "nested", "xor"}
        Join each hole to its shell by a channel of zero width, or give it a contour of its own.
    max_points : int
        Longer contours are thinned further, then split; never cut short.

    Returns
    -------
    list of list of ndarray, shape (n, 2)
        One list a slice, shells counter-clockwise against the normal, holes clockwise.
    """
    if tolerance_px is None:
        tolerance_px = MASK_TOLERANCE_PX if field.dtype == np.bool_ else FIELD_TOLERANCE_PX
    found = [polygons(plane) for plane in field]
    thinned = iter(simplify([ring for plane in found for p in plane for ring in _rings(p)],
                            tolerance_px))  # fmt: skip
    contours: list[list[Ring]] = []
    for plane, regions in zip(field, found, strict=True):
        rings: list[Ring] = []
        for region in regions:
            shell = next(thinned)
            polygon = Polygon(shell=shell, holes=tuple(next(thinned) for _ in region.holes))
            rings += _joined(polygon, holes)
        if any(len(ring) > max_points for ring in rings):
            limit = EXACT_LIMIT_PX if field.dtype == np.bool_ else tolerance_px
            rings = _bounded(plane, max(tolerance_px, limit), holes, max_points)
        contours.append(rings)
    return contours


def polygons(plane: Field) -> list[Polygon]:
    """Return the regions of one slice above the level, unthinned.

    The plane is cropped to what is set and padded by background, so that a region at the edge of
    the image closes half a voxel outside the last voxel center.
    """
    above = plane > LEVEL if plane.dtype != np.bool_ else plane
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not rows.size:
        return []
    # One voxel more on each side: the values beside the surface place it.
    r0, c0 = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
    values = plane[r0 : int(rows[-1]) + 2, c0 : int(columns[-1]) + 2].astype(np.float64)
    if plane.dtype != np.bool_:
        high = np.clip(values, LEVEL + FIELD_MARGIN, 1.0)
        values = np.where(values > LEVEL, high, np.clip(values, 0.0, LEVEL - FIELD_MARGIN))
    generator = contour_generator(
        z=np.pad(values, 1), name="serial", fill_type=FillType.OuterOffset
    )
    points, offsets = generator.filled(LEVEL, np.inf)
    origin = np.array([r0 - 1.0, c0 - 1.0])
    found = []
    for vertices, starts in zip(points, offsets, strict=True):
        # contourpy gives (x, y) = (column, row), each ring closed by its first vertex
        rings = [_distinct(vertices[a : b - 1, ::-1] + origin) for a, b in pairwise(starts)]
        if len(rings[0]) > 2:  # noqa: PLR2004 (an area needs three)
            holes = tuple(_turned(r, -1) for r in rings[1:] if len(r) > 2)  # noqa: PLR2004
            found.append(Polygon(shell=_turned(rings[0], 1), holes=holes))
    return found


def turn(ring: Ring) -> float:
    """Return the area of `ring` [px²]; positive for counter-clockwise against the slice normal.

    In (column, row) the axes are right-handed with the normal, so this is the shoelace formula
    with the roles of the two columns of `ring` exchanged.
    """
    row, column = (ring - ring[0]).T
    return float(np.sum(column * np.roll(row, -1) - np.roll(column, -1) * row) / 2)


def simplify(rings: Sequence[Ring], tolerance_px: float) -> list[Ring]:
    """Thin closed rings by Douglas and Peucker, all of them at once.

    Every vertex that is left out lies within `tolerance_px` of the segment that replaces it. All
    rings are split level by level together, so the cost is a few array operations a level, not a
    few a vertex. A ring that would keep fewer than three vertices stays as it was.
    """
    if not rings or tolerance_px <= 0:
        return list(rings)
    opened = [_opened(ring) for ring in rings]
    points = np.concatenate(opened)
    stops = np.cumsum([len(ring) for ring in opened])
    starts = stops - [len(ring) for ring in opened]
    keep = np.zeros(len(points), np.bool_)
    first, last = starts, stops - 1
    keep[first] = keep[last] = True
    far = first + _farthest(points, first, last, chord=False)[0]
    keep[far] = True
    first, last = np.concatenate([first, far]), np.concatenate([far, last])
    while first.size:
        wide = last - first > 1
        first, last = first[wide], last[wide]
        if not first.size:
            break
        offset, distance = _farthest(points, first, last, chord=True)
        split = distance > tolerance_px * tolerance_px
        first, last, middle = first[split], last[split], (first + offset)[split]
        keep[middle] = True
        first, last = np.concatenate([first, middle]), np.concatenate([middle, last])
    thinned = []
    for ring, start, stop in zip(rings, starts, stops, strict=True):
        kept = points[start : stop - 1][keep[start : stop - 1]]
        thinned.append(kept if len(kept) > 2 else ring)  # noqa: PLR2004 (an area needs three)
    return thinned


def keyhole(polygon: Polygon) -> Ring:
    """Return one ring that runs around the shell and, through channels, around every hole.

    Each channel is walked twice, so readers that count crossings cancel it; a hole runs the other
    way round than its shell, so readers that count windings agree. The nearest hole is joined
    first and channels avoid all other edges where a free pair of vertices is near.
    """
    ring = polygon.shell
    left = list(polygon.holes)
    apart = [_closest(ring, hole)[0] for hole in left]
    while left:
        nearest = int(np.argmin(apart))
        hole = left.pop(nearest)
        del apart[nearest]
        a, k = _channel(ring, hole, left)
        ring = np.concatenate([ring[: a + 1], hole[k:], hole[: k + 1], ring[a:]])
        apart = [min(d, _closest(hole, other)[0]) for d, other in zip(apart, left, strict=True)]
    return ring


def _rings(polygon: Polygon) -> tuple[Ring, ...]:
    return (polygon.shell, *polygon.holes)


def _joined(polygon: Polygon, holes: Holes) -> list[Ring]:
    return [keyhole(polygon)] if holes == "keyhole" else list(_rings(polygon))


def _bounded(plane: Field, tolerance_px: float, holes: Holes, max_points: int) -> list[Ring]:
    """Trace one slice again in pieces until no contour has more than `max_points` points.

    The cut runs between two lines of voxel centers, so no voxel is lost or counted twice.
    """
    rings: list[Ring] = []
    for region in polygons(plane):
        thin = simplify(list(_rings(region)), tolerance_px)
        rings += _joined(Polygon(shell=thin[0], holes=tuple(thin[1:])), holes)
    if all(len(ring) <= max_points for ring in rings):
        return rings
    above = plane > LEVEL if plane.dtype != np.bool_ else plane
    spans = [np.flatnonzero(above.any(axis=1 - axis)) for axis in (0, 1)]
    axis = 0 if np.ptp(spans[0]) >= np.ptp(spans[1]) else 1
    if np.ptp(spans[axis]) < 2:  # noqa: PLR2004 (too small to split)
        return rings
    middle = int(spans[axis][0] + spans[axis][-1] + 1) // 2
    low, high = plane.copy(), plane.copy()
    np.moveaxis(low, axis, 0)[middle:] = 0
    np.moveaxis(high, axis, 0)[:middle] = 0
    return [
        ring for half in (low, high) for ring in _bounded(half, tolerance_px, holes, max_points)
    ]


def _distinct(ring: Ring) -> Ring:
    """Return `ring` without consecutive repeats."""
    return ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]


def _turned(ring: Ring, sign: int) -> Ring:
    return ring if turn(ring) * sign > 0 else ring[::-1]


def _opened(ring: Ring) -> Ring:
    """Return `ring` from its vertex farthest from the center, closed by that vertex."""
    start = int(np.argmax(np.sum((ring - ring.mean(axis=0)) ** 2, axis=1)))
    return np.concatenate([ring[start:], ring[: start + 1]])


def _farthest(
    points: Ring, first: NDArray[np.int64], last: NDArray[np.int64], *, chord: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, for each range first..last, the inner vertex farthest from its chord.

    Returns
    -------
    offset : ndarray, shape (n,), int64
        From `first`.
    distance : ndarray, shape (n,), float64
        Squared; to the segment, or to the vertex `first` where `chord` is False.
    """
    count = last - first - 1
    ends = np.cumsum(count)
    begins = ends - count
    owner = np.repeat(np.arange(len(count)), count)
    inner = np.arange(int(ends[-1])) - begins[owner] + first[owner] + 1
    arm = points[inner] - points[first][owner]
    if chord:
        along = points[last] - points[first]
        squared = np.sum(along * along, axis=1)
        squared[squared == 0] = 1.0
        share = np.clip(np.sum(arm * along[owner], axis=1) / squared[owner], 0.0, 1.0)
        arm = arm - share[:, None] * along[owner]
    distance = np.sum(arm * arm, axis=1)
    longest = np.maximum.reduceat(distance, begins)
    candidates = np.flatnonzero(distance == longest[owner])
    _, pick = np.unique(owner[candidates], return_index=True)
    return inner[candidates[pick]] - first, longest


def _closest(ring: Ring, hole: Ring) -> tuple[float, NDArray[np.int64]]:
    """Return the least squared distance of two rings' vertices and their pairs, nearest first."""
    apart = np.sum((ring[:, None] - hole[None]) ** 2, axis=2).ravel()
    few = min(_NEAREST_PAIRS, apart.size)
    pairs = np.argpartition(apart, few - 1)[:few]
    pairs = pairs[np.lexsort((pairs, apart[pairs]))]
    return float(apart[pairs[0]]), pairs.astype(np.int64)


def _channel(ring: Ring, hole: Ring, others: Sequence[Ring]) -> tuple[int, int]:
    """Return the vertices of `ring` and `hole` to join: the nearest pair with a free way.

    Free is a way that crosses no edge and meets no voxel center: a center that lies exactly on
    the channel belongs to nothing, and each reader decides about it in its own way.
    """
    pairs = _closest(ring, hole)[1]
    starts = np.concatenate([ring, hole, *others])
    stops = np.concatenate([np.roll(r, -1, axis=0) for r in (ring, hole, *others)])
    for pair in pairs:
        a, k = divmod(int(pair), len(hole))
        if not (_meets_center(ring[a], hole[k]) or _crosses(ring[a], hole[k], starts, stops)):
            return a, k
    a, k = divmod(int(pairs[0]), len(hole))
    return a, k


def _meets_center(p: Ring, q: Ring) -> bool:
    """Return whether the segment p-q passes a voxel center closer than `CENTER_PX`."""
    way = q - p
    length = float(np.hypot(way[0], way[1]))
    share = np.linspace(0.0, 1.0, 2 + int(4 * length))
    centers = np.rint(p + share[:, None] * way) - p
    along = np.clip(centers @ way / max(length * length, 1e-12), 0.0, 1.0)
    apart = np.hypot(*(centers - along[:, None] * way).T)
    return bool(np.any(apart < CENTER_PX))


def _crosses(p: Ring, q: Ring, starts: Ring, stops: Ring) -> bool:
    """Return whether the segment p-q properly crosses any of the segments starts-stops."""

    def side(a: Ring, b: Ring, c: Ring) -> NDArray[np.float64]:
        ab, ac = b - a, c - a
        return np.asarray(ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0])

    apart = side(p, q, starts) * side(p, q, stops) < 0
    return bool(np.any(apart & (side(starts, stops, p) * side(starts, stops, q) < 0)))
