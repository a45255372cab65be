"""Texture of discretised volumes in 3D, after the IBSI reference manual (arXiv 1612.07003v11).

GLCM and GLRLM merged over the 13 directions (aggregation IAZD) or averaged (ITBB); GLSZM, GLDZM,
NGTDM and NGLDM in 3D (KOBO); distance 1, Chebyshev neighbors, alpha 0. Matrices are lists of
(level, partner, count), so cost and memory do not grow with the number of levels.

The volume is cropped, padded with zeros and laid flat: every neighbor is then a constant step in
the flat array, and what would wrap around meets a zero, which is "outside".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Features = dict[str, float]
"""IBSI code -> value; an undefined value is left out."""

DENSE = 4_000_000
"""Pairs of levels up to which co-occurrences are counted in a table."""
COARSENESS_LIMIT = 1e6
_HALF_OF_INT32 = 32_000
"""Levels whose square still fits."""

GLCM = (
    "GYBY", "60VM", "UR99", "TU9B", "TF7R", "D3YU", "NTRS", "ZGXS", "OEEB", "P6QZ", "8ZQL", "ACUI",
    "8S9J", "IB1Z", "NDRX", "WF0Z", "1QCO", "E8JP", "NI2N", "QWB0", "DG8W", "7NFM", "AE86", "R8DG",
    "JN9H",
)  # fmt: skip
GLRLM = (
    "22OV", "W4KF", "V3SW", "G3QZ", "HTZT", "GD3A", "IVPO", "3KUM", "R5YN", "OVBL", "W92Y", "IC23",
    "9ZK5", "8CE5", "SXLW", "HJ9O",
)  # fmt: skip
GLSZM = (
    "5QRC", "48P8", "XMSY", "5GN9", "5RAI", "HW1V", "YH51", "J17V", "JNSA", "Y1RO", "4JP3", "VB3A",
    "P30P", "BYLV", "3NSA", "GU8N",
)  # fmt: skip
GLDZM = (
    "0GBI", "MB4I", "S1RA", "K26C", "RUVG", "DKNJ", "A7WM", "KLTH", "VFT7", "7HP3", "V294", "IATH",
    "VIWW", "QK93", "7WT1", "GBDU",
)  # fmt: skip
NGLDM = (
    "SODN", "IMOQ", "TL9H", "OAE7", "EQ3F", "JA6D", "NBZI", "9QMG", "FP8K", "5SPA", "Z87G", "OKJI",
    "6XV8", "1PFV", "DNX2", "FCBV", "CAS9",
)  # fmt: skip
NGTDM = ("QCDE", "65HE", "NQ30", "HDEZ", "1X9X")

DIRECTIONS = tuple(
    (dz, dy, dx)
    for dz in (0, 1)
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dz, dy, dx) > (0, 0, 0)
)
"""Half of the 26 neighbors: the other half is their opposite."""


@dataclass(frozen=True)
class Counts:
    """A matrix of counts as a list of its non-zero entries."""

    level: Floats
    partner: Floats
    """Difference of two levels, run length, zone size, zone distance or dependence."""
    count: Floats


class Volume:
    """Discretised voxels, padded and flat, with what the families share.

    Parameters
    ----------
    levels : ndarray of integers, shape (slices, rows, columns)
        0 outside the region, 1..N_g inside.
    mask : ndarray of bool, same shape, optional
        Morphological mask for zone distances; the voxels with a level by default.
    """

    def __init__(self, levels: NDArray[np.integer], mask: NDArray[np.bool_] | None = None) -> None:
        box = _bounding_box(levels if mask is None else mask | (levels > 0))
        top = levels.max(initial=0)
        kind = next(k for k in (np.int8, np.int16, np.int32) if top < np.iinfo(k).max)
        padded = np.pad(levels[box].astype(kind), 1)
        self._mask = None if mask is None else np.pad(mask[box], 1)
        self.shape = padded.shape
        self.flat = padded.ravel()
        self.voxels = np.flatnonzero(self.flat)
        """Flat positions of the voxels of the region, ascending."""
        self.grey = self.flat[self.voxels]
        """Levels of the voxels in the smallest integers that hold them."""
        self.level = self.grey.astype(np.intp)
        self.top = int(self.level.max(initial=0))
        """N_g: the highest level, not the number of levels that occur."""

    @property
    def size(self) -> int:
        """Return the number of voxels."""
        return len(self.voxels)

    def step(self, direction: tuple[int, int, int]) -> int:
        """Return the distance in the flat array to the neighbor in `direction`."""
        dz, dy, dx = direction
        rows, columns = self.shape[1:]
        return int((dz * rows + dy) * columns + dx)

    @cached_property
    def zones(self) -> tuple[Ints, Ints, Ints]:
        """Return zones of one level, 26-connected: (run -> zone, run starts, zone levels).

        Runs along a row are the nodes of the graph; an edge joins runs that touch.
        """
        flat, voxels = self.flat, self.voxels
        begins = flat[voxels] != flat[voxels - 1]
        run = np.cumsum(begins, dtype=np.int32)
        run -= 1
        starts = np.flatnonzero(begins)
        of_voxel = np.zeros(len(flat), dtype=np.int32)
        of_voxel[voxels] = run
        edges = [
            self._touching(run, of_voxel, dz, dy) for dz, dy in ((0, 1), (1, -1), (1, 0), (1, 1))
        ]
        one = np.concatenate([a for a, _ in edges])
        other = np.concatenate([b for _, b in edges])
        graph = coo_array(
            (np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(starts),) * 2
        )
        count, zone = connected_components(graph, directed=False)
        level = np.zeros(count, dtype=np.intp)
        level[zone] = self.level[starts]
        return zone.astype(np.intp), starts, level

    def _touching(
        self, run: NDArray[np.int32], of_voxel: NDArray[np.int32], dz: int, dy: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return pairs of runs of one level that touch across one pair of rows, each about once."""
        beside = self.voxels + self.step((dz, dy, 0))
        same = self.flat[beside] == self.grey
        first = same.copy()  # a voxel whose left neighbor has the same pair of runs adds nothing
        pair = of_voxel[beside]
        first[1:] &= ~(same[:-1] & (run[1:] == run[:-1]) & (pair[1:] == pair[:-1]))
        found = [(run[first], pair[first])]
        others = np.flatnonzero(~same)
        beside, grey, run = beside[others], self.grey[others], run[others]
        for side in (-1, 1):
            slanted = self.flat[beside + side] == grey
            found.append((run[slanted], of_voxel[beside[slanted] + side]))
        return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])

    def border_distance(self) -> NDArray[np.integer]:
        """Return the taxicab distance of every padded voxel to the outside; 1 at the border."""
        mask = (self.flat > 0).reshape(self.shape) if self._mask is None else self._mask
        distance: NDArray[np.integer] = distance_transform_cdt(mask, metric="taxicab")
        return distance.ravel()


def glcm(volume: Volume) -> tuple[Features, Features]:
    """Return the grey level co-occurrence features, merged and averaged over the directions.

    None where no two voxels are neighbors.
    """
    tables = [_cooccurrence(volume, volume.step(d)) for d in DIRECTIONS]
    each = [_glcm_features(t, volume.top) for t in tables if len(t.count)]
    return _glcm_features(_merged(tables), volume.top), _mean(each)


def glrlm(volume: Volume) -> tuple[Features, Features]:
    """Return the grey level run length features, merged and averaged over the directions."""
    tables = [_runs(volume, volume.step(d)) for d in DIRECTIONS]
    each = [_run_like(t, volume.size, GLRLM) for t in tables]
    return _run_like(_merged(tables), volume.size * len(DIRECTIONS), GLRLM), _mean(each)


def glszm(volume: Volume) -> Features:
    """Return the grey level size zone features."""
    zone, starts, level = volume.zones
    length = np.diff(starts, append=volume.size)
    size = np.bincount(zone, length).astype(np.intp)
    return _run_like(_tally(level, size), volume.size, GLSZM)


def gldzm(volume: Volume) -> Features:
    """Return the grey level distance zone features."""
    zone, starts, level = volume.zones
    to_border = volume.border_distance()[volume.voxels]
    nearest = np.full(len(level), np.iinfo(np.intp).max, dtype=np.intp)
    np.minimum.at(nearest, zone, np.minimum.reduceat(to_border, starts))
    return _run_like(_tally(level, nearest), volume.size, GLDZM)


def neighborhood(volume: Volume) -> Features:
    """Return the NGTDM and NGLDM features; both look at all 26 neighbors, so in one pass."""
    flat, voxels = volume.flat, volume.voxels
    same = np.zeros(len(flat), dtype=np.int8)
    for direction in DIRECTIONS:
        step = volume.step(direction)
        alike = (flat[step:] == flat[:-step]).view(np.int8)
        same[step:] += alike
        same[:-step] += alike
    equal = same[voxels]
    total = _block_sums(flat.astype(np.int32), volume)[voxels] - volume.level
    present = _block_sums((flat > 0).view(np.int8), volume)[voxels] - 1
    seen = present > 0
    level = volume.level[seen]
    difference = np.abs(level - total[seen] / present[seen])
    sums = _add_up(level, difference, volume.top + 1)
    numbers = np.bincount(level, minlength=volume.top + 1).astype(np.float64)
    dependence = _tally(volume.level, equal.astype(np.intp) + 1)
    return _ngtdm_features(sums, numbers) | _ngldm_features(dependence, volume.size)


def _block_sums(flat: NDArray[np.integer], volume: Volume) -> NDArray[np.integer]:
    """Return the sum over the 27 voxels about every voxel of a padded, flat array."""
    for step in (1, volume.step((0, 1, 0)), volume.step((1, 0, 0))):
        sums = flat.copy()
        sums[step:] += flat[:-step]
        sums[:-step] += flat[step:]
        flat = sums
    return flat


def _cooccurrence(volume: Volume, step: int) -> Counts:
    """Return how often two levels meet at `step`, either first: (lower level, difference)."""
    own, other = volume.grey, volume.flat[volume.voxels + step]
    lower = np.minimum(own, other)
    pair = np.abs(own - other).astype(np.int32 if volume.top < _HALF_OF_INT32 else np.int64)
    pair *= volume.top + 1
    pair += lower
    return _pairs(pair[lower > 0], volume.top + 1)


def _pairs(key: NDArray[np.integer], width: int) -> Counts:
    """Return how often each key occurs, taken apart as (key % width, key // width)."""
    if int(key.max(initial=0)) <= DENSE:
        table = np.bincount(key)
        found = np.flatnonzero(table)
        count = table[found]
    else:
        found, count = np.unique(key, return_counts=True)
    level, partner = (found % width).astype(np.float64), (found // width).astype(np.float64)
    return Counts(level, partner, count.astype(np.float64))


def _runs(volume: Volume, step: int) -> Counts:
    """Return the runs along lines of `step`: all lines end to end, apart by zeros."""
    flat = volume.flat
    lines = np.pad(flat, (0, -len(flat) % step)).reshape(-1, step).T.ravel()
    starts = np.flatnonzero(lines[1:] != lines[:-1]) + 1  # the first run is padding
    level = lines[starts]
    inside = np.flatnonzero(level)
    length = np.diff(starts, append=len(lines))
    return _tally(level[inside].astype(np.intp), length[inside])


def _tally(level: Ints, partner: Ints) -> Counts:
    """Return how often each pair occurs."""
    return _weighed(level, partner, None)


def _merged(tables: list[Counts]) -> Counts:
    """Return the sum of matrices."""
    level = np.concatenate([t.level for t in tables]).astype(np.intp)
    partner = np.concatenate([t.partner for t in tables]).astype(np.intp)
    weight = np.concatenate([t.count for t in tables])
    return _weighed(level, partner, weight)


def _weighed(level: Ints, partner: Ints, weight: Floats | None) -> Counts:
    """Return the distinct pairs with their weights added up; weight 1 if not given.

    By a table where that is small, else by sorting: cost does not depend on the levels then.
    """
    width = int(partner.max(initial=0)) + 1
    pair = level * width + partner
    if (int(level.max(initial=0)) + 1) * width <= DENSE:
        table = np.bincount(pair, weight)
        key = np.flatnonzero(table)
        count = table[key].astype(np.float64)
    else:
        key, where = np.unique(pair, return_inverse=True)
        count = np.bincount(where, weight, len(key)).astype(np.float64)
    return Counts((key // width).astype(np.float64), (key % width).astype(np.float64), count)


def _glcm_features(table: Counts, top: int) -> Features:
    """Return the 25 features of one co-occurrence matrix; none where it is empty.

    The matrix is symmetric: a pair of two levels stands for two entries of half its weight p.
    """
    if not len(table.count):
        return {}
    i, gap, p = table.level, table.partner, table.count / table.count.sum()
    j = i + gap
    entry = np.where(gap > 0, p / 2, p)
    size = int(j.max()) + 1
    marginal = (_add_up(i, p, size) + _add_up(j, p, size)) / 2
    levels = np.arange(len(marginal))
    mu = float(levels @ marginal)
    var = float((levels - mu) ** 2 @ marginal)
    p_diff = _add_up(gap, p)
    p_sum = _add_up(i + j, p)
    d, s = np.arange(len(p_diff)), np.arange(len(p_sum))
    mean_d, mean_s = float(d @ p_diff), float(s @ p_sum)
    h, h_one = float(-(p @ np.log2(entry))), _entropy(marginal)
    around = i + j - 2 * mu
    square = around * around
    values = (
        entry.max(), mu, var, h,
        mean_d, (d - mean_d) ** 2 @ p_diff, _entropy(p_diff),
        mean_s, (s - mean_s) ** 2 @ p_sum, _entropy(p_sum),
        p @ entry, d**2 @ p_diff, mean_d,
        p_diff @ (1 / (1 + d)), p_diff @ (1 / (1 + d / top)),
        p_diff @ (1 / (1 + d**2)), p_diff @ (1 / (1 + d**2 / top**2)),
        p_diff[1:] @ (1 / d[1:] ** 2),
        ((i - mu) * (j - mu)) @ p / var if var > 0 else 1.0,
        (i * j) @ p, square @ p, (square * around) @ p, (square * square) @ p,
        (h - 2 * h_one) / h_one if h_one > 0 else 1.0,
        np.sqrt(max(0.0, 1 - np.exp(-2 * (2 * h_one - h)))),
    )  # fmt: skip
    return {code: float(value) for code, value in zip(GLCM, values, strict=True)}


def _run_like(table: Counts, voxels: int, codes: tuple[str, ...]) -> Features:
    """Return the 16 features that runs, zones, distances and dependences share."""
    i, j, c = table.level, table.partner, table.count
    total = float(c.sum())
    p = c / total
    by_level, by_partner = _add_up(i, c), _add_up(j, c)
    mu_i, mu_j = float(i @ p), float(j @ p)
    values = np.array((
        p @ (1 / j**2), p @ j**2, p @ (1 / i**2), p @ i**2,
        p @ (1 / (i * j) ** 2), p @ (i / j) ** 2, p @ (j / i) ** 2, p @ (i * j) ** 2,
        by_level @ by_level / total, by_level @ by_level / total**2,
        by_partner @ by_partner / total, by_partner @ by_partner / total**2,
        total / voxels, (i - mu_i) ** 2 @ p, (j - mu_j) ** 2 @ p, _entropy(p),
    ))  # fmt: skip
    return dict(zip(codes, values.tolist(), strict=True))


def _ngldm_features(table: Counts, voxels: int) -> Features:
    """Return the 17 features of the dependence matrix."""
    p = table.count / table.count.sum()
    return _run_like(table, voxels, NGLDM[:16]) | {NGLDM[16]: float(p @ p)}


def _ngtdm_features(sums: Floats, numbers: Floats) -> Features:
    """Return the 5 features of the neighborhood differences; none where nothing has neighbors.

    Parameters
    ----------
    sums, numbers : ndarray, shape (N_g + 1,)
        Per level: sum of absolute differences to the neighbors' mean, and voxels with neighbors.
    """
    i = np.flatnonzero(numbers).astype(np.float64)
    if not len(i):
        return {}
    present = i.astype(np.intp)
    s, n = sums[present], float(numbers.sum())
    p = numbers[present] / n
    groups = len(i)
    weighted = float(p @ s)
    gap = np.abs(i[:, None] - i[None])
    square = gap**2
    busy = float(np.abs((i * p)[:, None] - (i * p)[None]).sum())
    ps = p * s
    spread = float(p @ (square @ p)) / (groups * (groups - 1)) if groups > 1 else 0.0
    all_sums = float(s.sum())
    values: tuple[float, ...] = (
        min(1 / weighted, COARSENESS_LIMIT) if weighted > 0 else COARSENESS_LIMIT,
        spread * all_sums / n,
        weighted / busy if busy > 0 else 0.0,
        float((gap * (ps[:, None] + ps[None]) / (p[:, None] + p[None])).sum()) / n,
        float(((p[:, None] + p[None]) * square).sum()) / all_sums if all_sums > 0 else 0.0,
    )
    return dict(zip(NGTDM, values, strict=True))


def _mean(rows: Sequence[Features]) -> Features:
    """Return the mean of every feature over the directions that have it."""
    return {code: float(np.mean([row[code] for row in rows])) for code in (rows[0] if rows else ())}


def _add_up(where: NDArray[np.generic], weight: Floats, size: int = 0) -> Floats:
    """Return the sum of `weight` for every integer in `where`."""
    return np.bincount(where.astype(np.intp), weight, size).astype(np.float64)


def _entropy(p: Floats) -> float:
    """Return the entropy in bits."""
    filled = p[p > 0]
    return float(-(filled @ np.log2(filled)))


def _bounding_box(inside: NDArray[np.generic]) -> tuple[slice, slice, slice]:
    """Return the slices that hold all non-zero voxels."""
    found = []
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        found.append(slice(used[0], used[-1] + 1) if len(used) else slice(0, 0))
    return found[0], found[1], found[2]
