"""Shape and spatial autocorrelation (IBSI reference manual, 3.1)."""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from pipelines.radiomics.mesh import surface

Floats = NDArray[np.float64]
Features = dict[str, float]
Spacing = tuple[float, float, float]

MORPHOLOGY = (
    "RNU0", "YEKZ", "C0JK", "2PR5", "SKGS", "BQWJ", "KRCK", "QCFX", "25C7", "KLMA", "L0JK", "TDIC",
    "P9VJ", "7J51", "Q3CK", "N17B", "PBX1", "R59B", "6BDE", "RDD2", "R3ER", "7T7F", "99N0",
)  # fmt: skip
AUTOCORRELATION = ("N365", "NPT7")
_LEGENDRE_TERMS = 21


def morphology(
    mask: NDArray[np.bool_], values: Floats, intensity: NDArray[np.bool_], spacing_mm: Spacing
) -> Features:
    """Return the shape features; those that need more than one voxel are left out for one.

    Parameters
    ----------
    mask : ndarray of bool, shape (slices, rows, columns)
        Morphological mask.
    values : ndarray, same shape
        Image.
    intensity : ndarray of bool, same shape
        Intensity mask; differs from `mask` after a re-segmentation only.
    spacing_mm : (slice, row, column)
    """
    mesh = surface(mask, spacing_mm)
    v, a = mesh.volume_mm3, mesh.area_mm2
    q = 36 * np.pi * v**2
    number, center, covariance = _moments(mask, spacing_mm)
    dose = values[intensity]
    hull = ConvexHull(mesh.vertices)
    box = np.ptp(mesh.vertices, axis=0)
    found: Features = {
        "RNU0": v,
        "YEKZ": number * float(np.prod(spacing_mm)),
        "C0JK": a,
        "2PR5": a / v,
        "SKGS": v / (np.sqrt(np.pi) * a**1.5),
        "BQWJ": q / a**3,
        "KRCK": a / q ** (1 / 3),
        "QCFX": q ** (1 / 3) / a,
        "25C7": (a**3 / q) ** (1 / 3) - 1,
        "L0JK": float(pdist(mesh.vertices[hull.vertices]).max()),
        "PBX1": v / float(np.prod(box)),
        "R59B": a / (2 * float(box[0] * box[1] + box[1] * box[2] + box[0] * box[2])),
        "R3ER": v / float(hull.volume),
        "7T7F": a / float(hull.area),
        "99N0": v * float(dose.mean()),
    }
    if dose.sum() != 0:
        weighted = _center(np.where(intensity, values, 0.0), spacing_mm)
        found["KLMA"] = float(np.linalg.norm(center - weighted))
    if number > 1:
        found |= _axes(covariance, v, a)
    return {code: float(found[code]) for code in MORPHOLOGY if code in found}


def autocorrelation(values: Floats, intensity: NDArray[np.bool_], spacing_mm: Spacing) -> Features:
    """Return Moran's I and Geary's C over all pairs of voxels, weights 1 / distance, by FFT.

    With m the mask, y the centered values inside it and W* the convolution with the weights:
    I = N/S0 Σ y (W*y) / Σ y², C = (N-1)/(2 S0) [2 Σ y² (W*m) - 2 Σ y (W*y)] / Σ y², S0 = Σ m (W*m).
    Exact, in O(N log N). Nothing where all values are equal.
    """
    used = np.argwhere(intensity)
    box = tuple(slice(a, b + 1) for a, b in zip(used.min(axis=0), used.max(axis=0), strict=True))
    inside = intensity[box]
    number = len(used)
    centered = np.where(inside, values[box], 0.0)
    centered[inside] -= centered[inside].mean()
    power = float(np.sum(centered**2))
    if number < 2 or power <= 0:  # noqa: PLR2004 - pairs
        return {}
    size = [next_fast_len(2 * n - 1, real=True) for n in inside.shape]
    lags = [
        np.minimum(np.arange(n), n - np.arange(n)) * s
        for n, s in zip(size, spacing_mm, strict=True)
    ]
    z, y, x = np.ix_(*lags)
    squared = z**2 + y**2 + x**2
    squared[0, 0, 0] = np.inf  # a voxel is no pair with itself
    kernel = rfftn(1 / np.sqrt(squared))

    def weighed(field: Floats) -> Floats:
        whole: Floats = irfftn(rfftn(field, size) * kernel, size)
        return whole[tuple(slice(0, n) for n in field.shape)]

    by_mask = weighed(inside.astype(np.float64))
    total = float(by_mask[inside].sum())
    cross = float(np.sum(centered * weighed(centered)))
    moran = number / total * cross / power
    square = float(np.sum(centered**2 * by_mask))
    geary = (number - 1) / (2 * total) * (2 * square - 2 * cross) / power
    return dict(zip(AUTOCORRELATION, (moran, geary), strict=True))


def _center(weight: NDArray[np.generic], spacing_mm: Spacing) -> Floats:
    """Return the center of mass of `weight`, shape (slices, rows, columns) [mm]."""
    first, second = weight.sum(axis=2), weight.sum(axis=0)
    lines = (first.sum(axis=1), first.sum(axis=0), second.sum(axis=0))
    total = float(lines[0].sum())
    centers = [
        step * float(np.arange(len(line)) @ line) / total
        for line, step in zip(lines, spacing_mm, strict=True)
    ]
    return np.array(centers)


def _moments(mask: NDArray[np.bool_], spacing_mm: Spacing) -> tuple[int, Floats, Floats]:
    """Return number, center [mm] and covariance [mm²] of the voxels of `mask`, over N - 1.

    From the numbers of voxels behind each pair of indices, so nothing is listed voxel by voxel.
    """
    ones = mask.view(np.uint8)
    pairs = {
        (0, 1): ones.sum(axis=2, dtype=np.int32),
        (0, 2): ones.sum(axis=1, dtype=np.int32),
        (1, 2): ones.sum(axis=0, dtype=np.int32),
    }
    lines = (pairs[0, 1].sum(axis=1), pairs[0, 1].sum(axis=0), pairs[0, 2].sum(axis=0))
    number = int(lines[0].sum())
    places = [np.arange(len(line)) * step for line, step in zip(lines, spacing_mm, strict=True)]
    center = np.array([at @ line / number for at, line in zip(places, lines, strict=True)])
    off = [at - middle for at, middle in zip(places, center, strict=True)]
    covariance = np.diag([at**2 @ line for at, line in zip(off, lines, strict=True)])
    for (first, second), behind in pairs.items():
        shared = float(off[first] @ behind @ off[second])
        covariance[first, second] = covariance[second, first] = shared
    return number, center, covariance / max(number - 1, 1)


def _axes(covariance: Floats, volume: float, area: float) -> Features:
    """Return what the principal axes give, as those of an ellipsoid."""
    least, minor, major = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    found: Features = {
        "TDIC": 4 * float(np.sqrt(major)),
        "P9VJ": 4 * float(np.sqrt(minor)),
        "7J51": 4 * float(np.sqrt(least)),
        "Q3CK": float(np.sqrt(minor / major)),
        "N17B": float(np.sqrt(least / major)),
    }
    if least > 0:
        a, b, c = (2 * float(np.sqrt(value)) for value in (major, minor, least))
        found["6BDE"] = volume / (4 / 3 * np.pi * a * b * c)
        found["RDD2"] = area / ellipsoid_area(a, b, c)
    return found


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """Return the area of an ellipsoid with semi-axes a >= b >= c by the series of the manual.

    4 π a b Σ Q_v / (1 - 4 v²) with Q_v = (α β)^v P_v((α² + β²) / 2 α β), α² = 1 - b²/a²,
    β² = 1 - c²/a²; by the recurrence of the Legendre polynomials, which needs no division by α β.
    It is exact for a sphere; for axes 3 : 2 : 1 the manual's choice of α and β gives 8 % more
    than the true area. The consensus values rest on it, so it stays.
    """
    alpha, beta = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    half, product = (alpha + beta) / 2, alpha * beta
    before, now, total = 0.0, 1.0, 0.0
    for v in range(_LEGENDRE_TERMS):
        total += now / (1 - 4 * v**2)
        before, now = now, ((2 * v + 1) * half * now - v * product * before) / (v + 1)
    return 4 * float(np.pi) * a * b * total
