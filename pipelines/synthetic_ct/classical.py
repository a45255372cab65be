"""Methods that need no model: tissue look-up, histogram match, low-frequency correction.

Pure arrays, shape (slices, rows, columns), HU. Values and limits: reference page, section 3.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

FAT_HU, MUSCLE_HU = -100.0, 45.0
"""What fat and muscle read in a calibrated CT at 120 kV."""
AIR_HU: Final = -1000.0
LUNG_HU: Final = -600.0
"""Below, a one-anchor map changes nothing: lung and gas."""
SOFT_MEDIAN_HU: Final = 15.0
"""Median of all soft tissue in a usual body."""
SOFT_CORE_HU: Final = (-450.0, 200.0)
"""What may be soft tissue in a CBCT."""
SEPARATION_HU: Final = (40.0, 170.0)
"""Modes closer are one, not two; modes further apart are not fat and muscle (145 HU in a CT)."""
LUNG_QUANTILES: Final = tuple(range(50, 100, 2))
"""Percent."""
BIN_HU: Final = 4.0
DEEPEST_VALLEY: Final = 0.9
"""A valley that is higher than this share of the lower peak is noise."""
LEAST_PEAK: Final = 0.2
"""A mode is at least this high, of the highest."""
HIGHEST_LUNG_HU: Final = -250.0
"""A threshold above does not part lung from soft tissue."""
LEAST_LUNG_SHARE: Final = 0.03
LEAST_MASS: Final = 1e-9
QUANTILES: Final = 300
QUANTILE_ENDS: Final = (0.2, 99.8)
"""Percent; beyond, the tails are noise."""
SHADING_SIGMA_MM: Final = (40.0, 40.0, 40.0)
"""Shading is smoother than this (slice, row, column)."""
FINE_SHADING_SIGMA_MM: Final = (12.0, 16.0, 16.0)
"""The same against a planning CT that was deformed onto the CBCT: finer, since edges agree."""
TAPER_MM: Final = 3.0
"""The correction fades out over about this distance from the body: air stays air."""
SHADING_LIMITS_HU: Final = (400.0, 250.0, 150.0)
"""Larger differences are anatomy, not shading; narrowed from pass to pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueMap:
    """A piecewise-linear map from the CBCT's values to HU."""

    knots: Curve
    fat: float
    """Median of fat in the CBCT; NaN with one anchor."""
    muscle: float
    """Median of muscle, or of all soft tissue with one anchor."""
    bimodal: bool
    """Whether fat and muscle are two modes with a valley between."""

    def apply(self, hu: Hu) -> Hu:
        """Return `hu` through the map; beyond the last knot with slope 1."""
        return _interpolate(hu, self.knots)


def tissue_map(cbct: Hu, body: Mask, *, anchors: int = 2) -> TissueMap:
    """Return the look-up table of a CBCT: air, fat and muscle to their HU.

    Where fat and muscle are not two modes, the median of all soft tissue moves to that of a usual
    body; air and lung stay. A guess that the caller must flag. With one
    anchor asked for, the modes are not looked for.
    """
    smooth = ndimage.gaussian_filter(cbct, (0, 1, 1))
    core = smooth[body & (smooth > SOFT_CORE_HU[0]) & (smooth < SOFT_CORE_HU[1])]
    if core.size == 0:
        knots = (np.array([AIR_HU, 0.0]), np.array([AIR_HU, 0.0]))
        return TissueMap(knots=knots, fat=float("nan"), muscle=float("nan"), bimodal=False)
    peaks = _two_peaks(core) if anchors > 1 else None
    if peaks is not None:
        fat, muscle = peaks
        knots = (np.array([AIR_HU, fat, muscle]), np.array([AIR_HU, FAT_HU, MUSCLE_HU]))
        return TissueMap(knots=knots, fat=fat, muscle=muscle, bimodal=True)
    middle = float(np.median(core))
    knots = (np.array([AIR_HU, LUNG_HU, middle]), np.array([AIR_HU, LUNG_HU, SOFT_MEDIAN_HU]))
    return TissueMap(knots=knots, fat=float("nan"), muscle=middle, bimodal=False)


def match_planning_ct(cbct: Hu, body: Mask, prior: Hu, prior_body: Mask, spacing: Vector) -> Hu:
    """Return `cbct` in the HU of the planning CT: histogram, shading, histogram again.

    The first match brings the values close enough for anatomy and shading to be told apart; the
    second repairs what the correction did to lung and bone. Mean of six simulated thorax cases of
    other days: raw 134 HU, one match 71, this 64; the planning CT itself 73.
    """
    matched = match_histogram(cbct, body, prior[prior_body])
    flat = correct_shading(matched, prior, body, spacing)
    return match_histogram(flat, body, prior[prior_body])


def match_histogram(cbct: Hu, mask: Mask, reference: NDArray[np.float32]) -> Hu:
    """Return `cbct` with the histogram that `reference` has.

    Two classes, each quantile by quantile: soft tissue with bone, and lung from its median up.
    Below that a line leads to air: how much gas there is differs from day to day and must not
    bend the curve.

    Parameters
    ----------
    cbct : ndarray, HU
    mask : ndarray, same shape
        The body inside the field of view.
    reference : ndarray, shape (n,), HU
        Values of the planning CT in the same region of the patient.
    """
    levels = np.linspace(*QUANTILE_ENDS, QUANTILES)
    source, target = (_Classes.of(values, levels) for values in (cbct[mask], reference))
    both = source.lung.size and target.lung.size
    lungs = (source.lung, target.lung) if both else (np.zeros(0), np.zeros(0))
    knots_x = np.maximum.accumulate(np.concatenate([[AIR_HU], lungs[0], source.soft]))
    knots_y = np.maximum.accumulate(np.concatenate([[AIR_HU], lungs[1], target.soft]))
    keep = np.concatenate([[True], np.diff(knots_x) > 0])
    return _interpolate(cbct, (knots_x[keep], knots_y[keep]))


def correct_shading(
    cbct: Hu, prior: Hu, body: Mask, spacing: Vector, sigma_mm: Vector = SHADING_SIGMA_MM
) -> Hu:
    """Return `cbct` with the low frequencies of `prior`: cupping and shading go, edges stay.

    Parameters
    ----------
    cbct, prior : ndarray, HU
        On one grid; the prior is the planning CT in place.
    body : ndarray, same shape
    spacing : (slice, row, column), mm
    sigma_mm : (slice, row, column)
        What is smoother counts as shading.
    """
    step = tuple(max(1, round(6.0 / s)) for s in spacing)
    coarse = tuple(s * n for s, n in zip(spacing, step, strict=True))
    sigma = [mm / s for mm, s in zip(sigma_mm, coarse, strict=True)]
    image, goal = (_shrink(a, step, body) for a in (cbct, prior))
    inside = body[:: step[0], :: step[1], :: step[2]]
    field = np.zeros_like(image)
    for number, limit in enumerate(SHADING_LIMITS_HU):
        now = image + field
        difference = goal - now
        soft = inside & (np.abs(goal) < 300) & (now > -500)  # noqa: PLR2004 (soft tissue)
        if not soft.any():
            break
        middle = float(np.median(difference[soft])) if number == 0 else 0.0
        weight = ndimage.gaussian_filter(difference, (0, 1, 1)) - middle
        weight = (soft & (np.abs(weight) < limit)).astype(np.float32)
        total = ndimage.gaussian_filter(weight, sigma, mode="nearest") + 1e-3
        field += ndimage.gaussian_filter(difference * weight, sigma, mode="nearest") / total
    near = ndimage.gaussian_filter(body.astype(np.float32), [TAPER_MM / s for s in spacing])
    density = np.clip(1 + cbct / 1000, 0, 1)  # shading scales with what attenuates: air has none
    return np.asarray(cbct + _grow(field, step, cbct.shape) * np.minimum(2 * near, 1) * density)


def _interpolate(hu: Hu, knots: Curve) -> Hu:
    """Return `hu` through monotone knots; air stays air below, a constant offset above."""
    x, y = knots
    result = np.interp(hu, x, y)
    result = np.where(hu > x[-1], hu + (y[-1] - x[-1]), result)
    return np.asarray(np.where(hu < x[0], hu + (y[0] - x[0]), result), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Classes:
    """Values of a body: lung and gas below, soft tissue and bone above."""

    lung: NDArray[np.float64]
    """Quantiles from the median up; empty where there is hardly any lung."""
    soft: NDArray[np.float64]
    """Quantiles."""

    @classmethod
    def of(cls, values: NDArray[np.float32], levels: NDArray[np.float64]) -> "_Classes":
        limit = _otsu(values)
        low, high = values[values < limit], values[values >= limit]
        apart = limit < HIGHEST_LUNG_HU and low.size > LEAST_LUNG_SHARE * values.size
        if not apart:
            soft = values[values >= SOFT_CORE_HU[0]] if high.size else values
            return cls(lung=np.zeros(0), soft=np.percentile(soft, levels).astype(np.float64))
        return cls(
            lung=np.percentile(low, LUNG_QUANTILES).astype(np.float64),
            soft=np.percentile(high, levels).astype(np.float64),
        )


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold that parts `values` into two classes (Otsu 1979)."""
    counts, edges = np.histogram(np.clip(values, AIR_HU, SOFT_CORE_HU[1]), bins=128)
    share = counts / max(counts.sum(), 1)
    centers = (edges[:-1] + edges[1:]) / 2
    mass, moment = np.cumsum(share), np.cumsum(share * centers)
    between = (moment[-1] * mass - moment) ** 2 / np.maximum(mass * (1 - mass), LEAST_MASS)
    return float(edges[1 + int(between.argmax())])


def _two_peaks(core: Hu) -> tuple[float, float] | None:
    """Return the modes of fat and muscle, or None where there is only one.

    The two highest maxima of the histogram that are far enough apart and have a valley between.
    """
    edges = np.arange(*SOFT_CORE_HU, BIN_HU)
    counts = np.histogram(core, edges)[0].astype(np.float64)
    smooth = np.asarray(ndimage.gaussian_filter1d(counts, 2.0), dtype=np.float64)
    centers = (edges[:-1] + edges[1:]) / 2
    inner = smooth[1:-1]
    maxima = 1 + np.flatnonzero((inner > smooth[:-2]) & (inner >= smooth[2:]))
    ranked = sorted(maxima, key=lambda i: -smooth[i])
    if not ranked:
        return None
    first = int(ranked[0])
    for second in (int(i) for i in ranked[1:]):
        low, high = min(first, second), max(first, second)
        deep = smooth[low : high + 1].min() < DEEPEST_VALLEY * smooth[second]
        tall = smooth[second] > LEAST_PEAK * smooth[first]
        apart = SEPARATION_HU[0] <= centers[high] - centers[low] <= SEPARATION_HU[1]
        if tall and deep and apart:
            return float(centers[low]), float(centers[high])
    return None


def _shrink(image: Hu, step: tuple[int, ...], body: Mask) -> Hu:
    """Average over blocks of the body; the block's first corner keeps its index."""
    inside = ndimage.uniform_filter(body.astype(np.float32), step)
    mean = ndimage.uniform_filter(np.where(body, image, 0).astype(np.float32), step)
    small = (slice(None, None, step[0]), slice(None, None, step[1]), slice(None, None, step[2]))
    return np.asarray(mean[small] / np.maximum(inside[small], 1e-3), dtype=np.float32)


def _grow(field: Hu, step: tuple[int, ...], shape: tuple[int, ...]) -> Hu:
    """Return a coarse field on the full grid, trilinear."""
    at = [np.arange(n) / s for n, s in zip(shape, step, strict=True)]
    result = field
    for axis, positions in enumerate(at):
        low = np.minimum(positions.astype(int), result.shape[axis] - 1)
        high = np.minimum(low + 1, result.shape[axis] - 1)
        share = (positions - low).astype(np.float32)
        share = share.reshape([-1 if i == axis else 1 for i in range(3)])
        result = (1 - share) * result.take(low, axis) + share * result.take(high, axis)
    return np.asarray(result, dtype=np.float32)
