"""Planar contours on pixel grids: exact covered fractions and centre-in-polygon masks.

A loop is an array of shape (n, 2) in continuous index coordinates ``(row, column)``: the centre of
pixel (r, c) lies at (r, c) and the pixel reaches from -0.5 to +0.5 about it. Loops are closed by
themselves; the first vertex need not be repeated. Pure numpy, no loop over edges or pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
"""Vertices, shape (n, 2), (row, column) in index coordinates."""

SCANLINES = 4
"""Scan lines per pixel row of `coverage`; along the row the covered length is exact."""

NESTED, APART = 0.95, 0.05
"""Two loops are nested, or apart, when this part of the smaller lies inside the larger."""


def clean(loop: Points) -> Points:
    """Return `loop` without consecutive duplicates and without a repeated closing vertex.

    Parameters
    ----------
    loop : ndarray, shape (n, d), float64

    Returns
    -------
    ndarray, shape (m, d), m <= n
    """
    moved: NDArray[np.bool_] = np.any(loop != np.roll(loop, 1, axis=0), axis=1)
    return loop[moved]


def signed_area(loop: Points) -> float:
    """Return the area by the shoelace formula, in squared units of `loop`; its sign is its turn."""
    first, second = (loop - loop[0]).T
    following, ahead = np.roll(first, -1), np.roll(second, -1)
    return float(np.sum(first * ahead - following * second) / 2)


def inside(points: Points, loop: Points) -> NDArray[np.bool_]:
    """Return which of `points`, shape (k, 2), lie inside `loop`, shape (n, 2), by even-odd."""
    (y0, x0), (y1, x1) = loop.T, np.roll(loop, -1, axis=0).T
    y, x = points[:, :1], points[:, 1:]
    spans = (y0 <= y) != (y1 <= y)
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    crossed = spans & (x < x0 + (y - y0) / rise * (x1 - x0))
    odd: NDArray[np.bool_] = np.count_nonzero(crossed, axis=1) % 2 == 1
    return odd


def rasterise(loops: Sequence[Points], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixel centres lie inside, by the even-odd rule.

    Parameters
    ----------
    loops : sequence of ndarray, shape (n, 2), float64
        (row, column) in index coordinates; all loops of one plane. A loop inside another is a
        hole, one inside a hole an island. Vertices may lie outside the grid.
    shape : (rows, columns)

    Returns
    -------
    ndarray, shape (rows, columns), bool
        A centre exactly on an edge belongs to the pixel's lower and left side (half-open rule),
        so neighbouring regions never share a pixel and never leave a gap.
    """
    rows, columns = shape
    line, x, _ = _crossings(loops, rows, scanlines=1)
    start = np.clip(np.ceil(x), 0, columns).astype(np.intp)
    toggles = np.bincount(line * (columns + 1) + start, minlength=rows * (columns + 1))
    parity = np.cumsum(toggles.reshape(rows, columns + 1), axis=1, dtype=np.int32) & 1
    return parity[:, :columns].astype(bool)


def coverage(
    loops: Sequence[Points],
    shape: tuple[int, int],
    *,
    scanlines: int = SCANLINES,
    signs: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return the fraction of every pixel that the loops cover.

    Parameters
    ----------
    loops : sequence of ndarray, shape (n, 2), float64
        (row, column) in index coordinates; all loops of one plane.
    shape : (rows, columns)
    scanlines : int
        Scan lines per pixel row; along the row the covered length is exact.
    signs : sequence of {+1, -1}, optional
        None: even-odd over all loops. Else one sign a loop, +1 for an outline or island and -1
        for a hole (see `nesting`): a place is inside where the signs of the loops about it add up
        to more than zero, so outlines that overlap in part are united.

    Returns
    -------
    ndarray, shape (rows, columns), float64 in [0, 1]
    """
    rows, columns = shape
    line, x, owner = _crossings(loops, rows, scanlines)
    if signs is None:
        order = np.lexsort((x, line))
        line, x = line[order], x[order]
        step = np.where(np.arange(len(x)) & 1, -1.0, 1.0)  # the count per scan line is even
    else:
        line, x, step = _united(line, x, owner, np.asarray(signs, dtype=np.int64))
    along = np.clip(x + 0.5, 0.0, columns)
    cell = np.floor(along).astype(np.intp)
    part = along - cell
    flat = line // scanlines * (columns + 2) + cell
    size = rows * (columns + 2)
    steps = np.bincount(flat, step * (1 - part), size + 1) + np.bincount(
        flat + 1, step * part, size + 1
    )
    covered = np.cumsum(steps[:size].reshape(rows, columns + 2), axis=1)[:, :columns]
    return np.clip(covered / scanlines, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Nesting:
    """How the loops of one plane lie in each other."""

    inside: NDArray[np.bool_]
    """Shape (loops, loops): [i, j] is True where loop i lies inside loop j."""
    overlap: NDArray[np.bool_]
    """Shape (loops, loops), symmetric: the two share more than 5 % of the smaller, under 95 %."""

    @property
    def depth(self) -> NDArray[np.int64]:
        """Return 0 for an outline, 1 for a hole, 2 for an island in a hole, and so on."""
        deep: NDArray[np.int64] = np.sum(self.inside, axis=1, dtype=np.int64)
        return deep


def nesting(loops: Sequence[Points]) -> Nesting:
    """Return how `loops`, distinct loops of one plane in any unit, lie in each other.

    The smaller of two loops is inside the larger when at least 95 % of its area is: contours
    that touch within decimal noise still count as nested or as apart.
    """
    count = len(loops)
    found = Nesting(np.zeros((count, count), dtype=bool), np.zeros((count, count), dtype=bool))
    if count == 0:
        return found
    low = np.array([loop.min(axis=0) for loop in loops])
    high = np.array([loop.max(axis=0) for loop in loops])
    size = np.array([abs(signed_area(loop)) for loop in loops])
    meet = np.all((low[:, None] < high[None]) & (low[None] < high[:, None]), axis=2)
    for first, second in np.argwhere(np.triu(meet, 1)):
        inner, outer = (first, second) if size[first] <= size[second] else (second, first)
        part = shared_fraction(loops[inner], loops[outer])
        if part >= NESTED:
            found.inside[inner, outer] = True
        elif part > APART:
            found.overlap[inner, outer] = found.overlap[outer, inner] = True
    return found


def shared_fraction(inner: Points, outer: Points, scanlines: int = 64) -> float:
    """Return the part of the area of `inner` that lies inside `outer`, each by even-odd.

    Both shape (n, 2) in the same unit; measured along `scanlines` lines through `inner`.
    """
    low, high = inner[:, 0].min(), inner[:, 0].max()
    if high <= low:
        return 0.0
    to_lines = np.array([(scanlines - 1e-6) / (high - low), 1.0])
    shifted = [(loop - [low, 0.0]) * to_lines - [0.5, 0.0] for loop in (inner, outer)]
    line, x, owner = _crossings(shifted, scanlines, scanlines=1)
    order = np.lexsort((x, line, owner))
    line, x, owner = line[order], x[order], owner[order]
    step = np.where(np.arange(len(x)) & 1, -1, 1)
    order = np.lexsort((x, line))
    line, x, owner, step = line[order], x[order], owner[order], step[order]
    in_inner = np.cumsum(np.where(owner == 0, step, 0))
    in_outer = np.cumsum(np.where(owner == 1, step, 0))
    length = np.diff(x, append=x[-1:]) * (np.diff(line, append=-1) == 0)
    own = float(np.sum(length * (in_inner > 0)))
    return float(np.sum(length * ((in_inner > 0) & (in_outer > 0)))) / own if own > 0 else 0.0


def _crossings(
    loops: Sequence[Points], rows: int, scanlines: int
) -> tuple[NDArray[np.intp], Points, NDArray[np.intp]]:
    """Return (scan line, column, loop) of every crossing of an edge with a scan line.

    Edges are half-open, lo <= y < hi, so every loop crosses every scan line an even number of
    times. Each edge is expanded to the scan lines that it meets by `repeat`.
    """
    if not loops:
        nothing = np.zeros(0, dtype=np.intp)
        return nothing, np.zeros(0), nothing
    start = np.concatenate(loops)
    end = np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    owner = np.repeat(np.arange(len(loops)), [len(loop) for loop in loops])
    y0 = (start[:, 0] + 0.5) * scanlines - 0.5
    y1 = (end[:, 0] + 0.5) * scanlines - 0.5
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows * scanlines).astype(np.intp)
    stop = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows * scanlines).astype(np.intp)
    count = stop - first
    edge = np.repeat(np.arange(len(start)), count)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = np.divide(end[:, 1] - start[:, 1], y1 - y0, out=np.zeros(len(start)), where=y1 != y0)
    return line, start[edge, 1] + (line - y0[edge]) * slope[edge], owner[edge]


def _united(
    line: NDArray[np.intp], x: Points, owner: NDArray[np.intp], signs: NDArray[np.int64]
) -> tuple[NDArray[np.intp], Points, Points]:
    """Return the crossings where the sum of the signs of the loops about a place passes zero.

    Every loop for itself is even-odd, whatever way it turns and wherever it crosses itself.
    """
    order = np.lexsort((x, line, owner))
    line, x, owner = line[order], x[order], owner[order]
    step = np.where(np.arange(len(x)) & 1, -1, 1) * signs[owner]
    order = np.lexsort((x, line))
    line, x, step = line[order], x[order], step[order]
    level = np.cumsum(step)  # back at zero at the end of every scan line
    change = (level > 0).astype(np.float64) - (level - step > 0)
    keep = change != 0
    return line[keep], x[keep], change[keep]
