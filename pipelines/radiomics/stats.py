"""First-order features: statistics, histogram and local intensity (IBSI reference manual, 3.2-3.5).

Moments are those of the population (divided by N), kurtosis is in excess of the normal one, and
percentiles are interpolated linearly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = dict[str, float]

STATISTICS = (
    "Q4LE", "ECT3", "KE2A", "IPH6", "Y12H", "1GSF", "QG58", "8DWT", "84IY", "SALO", "2OJQ", "4FUA",
    "1128", "N72L", "7TET", "9S40", "N8CA", "5ZWQ",
)  # fmt: skip
HISTOGRAM = (
    "X6K6", "CH89", "88K1", "C3I7", "WIFQ", "1PR8", "GPMT", "OZ0C", "3NCY", "WR0O", "5Z3W", "D2ZX",
    "WRZB", "4RNL", "CWYJ", "SLWD", "AMMC", "TLU2", "BJ5W", "12CE", "8E6O", "VQB3", "RHQZ",
)  # fmt: skip
LOCAL = ("VJGA", "0F91")
PEAK_RADIUS_MM = 6.204
"""Radius of a sphere of 1 cm³, to the digits that the IBSI manual takes."""


def statistics(values: Floats) -> Features:
    """Return the 18 statistics of the values of a region, shape (n,), n > 0."""
    ordered = np.sort(values)
    energy = float(ordered @ ordered)
    shared = _moments_and_ranks(ordered)
    return dict(
        zip(STATISTICS, (*shared, energy, float(np.sqrt(energy / len(values)))), strict=True)
    )


def histogram(levels: NDArray[np.integer]) -> Features:
    """Return the 23 features of discretised values, shape (n,), n > 0, levels from 1."""
    counts = np.bincount(levels)[1:].astype(np.float64)
    grey = np.arange(1, len(counts) + 1, dtype=np.float64)
    ordered = np.repeat(grey, counts.astype(np.intp))
    shared = _moments_and_ranks(ordered)
    p = counts[counts > 0] / counts.sum()
    most = grey[counts == counts.max()]
    mode = most[np.argmin(np.abs(most - shared[0]))]
    slope = np.gradient(counts) if len(counts) > 1 else np.zeros(1)
    steepest, deepest = int(np.argmax(slope)), int(np.argmin(slope))
    own = (
        mode, -(p @ np.log2(p)), p @ p,
        slope[steepest], grey[steepest], slope[deepest], grey[deepest],
    )  # fmt: skip
    return dict(zip(HISTOGRAM, (*shared, *map(float, own)), strict=True))


def local_intensity(
    image: Floats, mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Features:
    """Return the local and the global intensity peak.

    Parameters
    ----------
    image : ndarray, shape (slices, rows, columns)
        All of it counts, also outside the region: its margin about the mask must be
        `PEAK_RADIUS_MM` wherever the whole image goes on.
    mask : ndarray of bool, same shape
    spacing_mm : (slice, row, column)
    """
    within = image[mask]
    tops = mask & (image == within.max())
    at_top = float(_sphere_means(image, tops, spacing_mm).max())
    # A mean above this one needs a voxel above it in its sphere: look near such voxels only.
    near = _around(image >= at_top, [int(PEAK_RADIUS_MM / s) for s in spacing_mm])
    candidates = np.zeros(mask.shape, dtype=bool)
    candidates[near] = mask[near]
    highest = max(float(_sphere_means(image, candidates, spacing_mm).max()), at_top)
    return dict(zip(LOCAL, (at_top, highest), strict=True))


def _around(marked: NDArray[np.bool_], reach: Sequence[int]) -> tuple[slice, slice, slice]:
    """Return the box around all marked voxels, wider by `reach` and cut at the image."""
    found = []
    for axis in range(3):
        used = np.flatnonzero(marked.any(axis=tuple(a for a in range(3) if a != axis)))
        found.append(slice(max(int(used[0]) - reach[axis], 0), int(used[-1]) + reach[axis] + 1))
    return found[0], found[1], found[2]


def _sphere_means(
    image: Floats, centers: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Floats:
    """Return the mean of the voxels of `image` in the sphere about every voxel of `centers`."""
    reach = [int(PEAK_RADIUS_MM / s) for s in spacing_mm]
    box = _around(centers, reach)
    image, centers = image[box], centers[box]
    pad = [(n + 1, n + 1) for n in reach]
    inner = np.flatnonzero(np.pad(centers, pad))
    sums = _sphere_sums(np.pad(image, pad), inner, spacing_mm)
    core = centers[tuple(slice(n, -n or None) for n in reach)]
    if np.count_nonzero(core) == len(inner):  # no sphere reaches over the edge of the image
        block = np.ones([2 * n + 3 for n in reach])
        return sums / np.rint(_sphere_sums(block, np.array([block.size // 2]), spacing_mm))
    return sums / np.rint(_sphere_sums(np.pad(np.ones(image.shape), pad), inner, spacing_mm))


def _sphere_sums(
    image: Floats, centers: NDArray[np.intp], spacing_mm: tuple[float, float, float]
) -> Floats:
    """Return the sum of `image` over the sphere about each of its flat positions `centers`.

    A sphere is a stack of runs along the rows; sums of all runs of one length come from one
    cumulative sum. Spheres must not reach over the edge.
    """
    _, rows, columns = image.shape
    along = np.cumsum(image, axis=2).ravel()
    runs: dict[int, Floats] = {}
    sums = np.zeros(len(centers))
    reach = [int(PEAK_RADIUS_MM / s) for s in spacing_mm]
    for dz in range(-reach[0], reach[0] + 1):
        for dy in range(-reach[1], reach[1] + 1):
            rest = PEAK_RADIUS_MM**2 - (dz * spacing_mm[0]) ** 2 - (dy * spacing_mm[1]) ** 2
            if rest < 0:
                continue
            half = int(np.sqrt(rest) / spacing_mm[2])
            if half not in runs:
                runs[half] = np.zeros(len(along))
                runs[half][half + 1 : len(along) - half] = (
                    along[2 * half + 1 :] - along[: len(along) - 2 * half - 1]
                )
            sums += runs[half].take(centers + (dz * rows + dy) * columns)
    return sums


def _moments_and_ranks(ordered: Floats) -> tuple[float, ...]:
    """Return the 16 values that statistics and histogram share, from ascending values."""
    n = len(ordered)
    mean = float(ordered.mean())
    off = ordered - mean
    square = off * off
    var = float(square.mean())
    if ordered[0] == ordered[-1]:
        var = skew = kurt = 0.0
    else:
        skew = float((square * off).mean()) / var**1.5
        kurt = float((square * square).mean()) / var**2 - 3
    p10, p25, median, p75, p90 = (_percentile(ordered, q) for q in (10, 25, 50, 75, 90))
    first = int(np.searchsorted(ordered, p10, "left"))
    last = int(np.searchsorted(ordered, p90, "right"))
    middle = ordered[first:last]
    robust = float(np.abs(middle - middle.mean()).mean())
    return (
        mean, var, skew, kurt, median, float(ordered[0]), p10, p90, float(ordered[-1]), p75 - p25,
        float(ordered[n - 1] - ordered[0]), float(np.abs(off).mean()), robust,
        float(np.abs(ordered - median).mean()),
        float(np.sqrt(var) / mean) if var > 0 and mean else 0.0,
        (p75 - p25) / (p75 + p25) if p75 + p25 else 0.0,
    )  # fmt: skip


def _percentile(ordered: Floats, percent: float) -> float:
    """Return a percentile of ascending values, interpolated linearly."""
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))
