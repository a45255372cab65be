"""What a scanner did to a CBCT, measured in the image alone: grain, shading, levels, sharpness.

No truth is needed; every trait is one a physicist can look up in the image. `sct_fit` turns them
into settings of the simulator.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.sct_ood import features

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]

CORE_MM: Final = 8.0
"""Depth below the skin where grain and levels are measured."""
AROUND_MM: Final = 15.0
"""Distance from the body where air is air."""
SOFT_HU: Final = 250.0
"""From the median: soft tissue."""
SHADING_MM: Final = 20.0
"""SD of the blur that leaves shading."""
ROBUST_SD: Final = 1.4826
"""SD of a normal variable over its median absolute value."""
LEAST_HU: Final = 0.5
"""Of a noise before its logarithm."""

UNITS: Final = {
    "noise_log": "log HU",
    "grain_log": "log ratio",
    "between_slices_log": "log ratio",
    "cupping_hu": "HU",
    "shading_hu": "HU",
    "air_hu": "HU",
    "low_hu": "HU",
    "middle_hu": "HU",
    "high_hu": "HU",
    "skin_mm": "mm",
    "area_log": "log cm2",
}
"""Every trait, with its unit.

noise: in-plane noise of soft tissue. grain: noise between pixels two apart over that between
neighbours; 0 for white noise, larger for a noise power that falls with frequency.
between_slices: noise of the difference of two slices over the noise in plane: small where slices
are blurred together. cupping: middle minus rim. shading: SD of the low frequencies. air: around the
body. low, middle, high: 10, 50 and 90 % of smoothed soft tissue: fat to muscle. skin: width of the
edge at the skin. area: the body's cross-section, which noise and scatter depend on.
"""


def traits(cbct: Hu, body: Mask, fov: Mask, spacing: Vector) -> dict[str, float]:
    """Return the traits of a CBCT, named as in `UNITS`.

    Parameters
    ----------
    cbct : ndarray, shape (slices, rows, columns), HU
        At least two slices.
    body, fov : ndarray of bool, same shape
        Body inside the field of view, and the field of view.
    spacing : (slice, row, column), mm

    Raises
    ------
    ValueError
        If no soft tissue lies deep enough below the skin.
    """
    core = _eroded(body, CORE_MM, spacing)
    smooth = ndimage.gaussian_filter(cbct, (0, 1.5, 1.5)).astype(np.float32)
    if not core.any():
        raise ValueError("no tissue below the skin")
    soft = core & (np.abs(smooth - np.median(smooth[core])) < SOFT_HU)
    noise = _noise(cbct, soft, 1)
    known = features(cbct, body, spacing)
    low, middle, high = np.percentile(smooth[soft], (10, 50, 90))
    pair = soft[1:] & soft[:-1]
    between = ROBUST_SD * float(np.median(np.abs(np.diff(cbct, axis=0))[pair])) / np.sqrt(2)
    around = fov & ~_grown(body, AROUND_MM, spacing)
    air = float(np.median(cbct[around])) if around.any() else -1000.0
    found = {
        "noise_log": np.log(noise),
        "grain_log": np.log(_noise(cbct, soft, 2) / noise),
        "between_slices_log": np.log(max(between, LEAST_HU) / noise),
        "cupping_hu": known["cupping_hu"],
        "shading_hu": _shading(cbct, soft, spacing),
        "air_hu": air,
        "low_hu": low,
        "middle_hu": middle,
        "high_hu": high,
        "skin_mm": _skin_width(cbct, body & fov, spacing, middle - air),
        "area_log": known["area_median_log_cm2"],
    }
    return {name: float(found[name]) for name in UNITS}


def _noise(cbct: Hu, soft: Mask, lag: int) -> float:
    """Return the noise from second differences over `lag` pixels, along rows and columns, HU."""
    values = []
    for axis in (1, 2):
        image, inside = np.moveaxis(cbct, axis, 2), np.moveaxis(soft, axis, 2)
        ends = inside[..., 2 * lag :] & inside[..., : -2 * lag]
        second = image[..., 2 * lag :] - 2 * image[..., lag:-lag] + image[..., : -2 * lag]
        values.append(np.abs(second[ends]))
    both = np.concatenate(values)
    return max(LEAST_HU, ROBUST_SD * float(np.median(both)) / np.sqrt(6)) if both.size else LEAST_HU


def _shading(cbct: Hu, soft: Mask, spacing: Vector) -> float:
    """Return the SD of the soft tissue's low frequencies, HU."""
    sigma = (0.0, SHADING_MM / spacing[1], SHADING_MM / spacing[2])
    weight = ndimage.gaussian_filter(soft.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(np.where(soft, cbct, 0).astype(np.float32), sigma)
    return float((mean / np.maximum(weight, 1e-3))[soft].std())


def _skin_width(cbct: Hu, body: Mask, spacing: Vector, step_hu: float) -> float:
    """Return the height of the step at the skin over its slope, mm."""
    rim = body & ~_eroded(body, max(spacing[1:]), spacing)
    slopes = [np.asarray(np.gradient(cbct, spacing[axis], axis=axis))[rim] for axis in (1, 2)]
    steep = np.hypot(*slopes)
    return step_hu / max(float(np.percentile(steep, 75)), 1.0) if steep.size else 0.0


def _eroded(mask: Mask, by_mm: float, spacing: Vector) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(mask, _flat(spacing)) > by_mm)


def _grown(mask: Mask, by_mm: float, spacing: Vector) -> Mask:
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask, _flat(spacing)) <= by_mm)


def _flat(spacing: Vector) -> Vector:
    """Return a spacing that makes distances count in plane only."""
    return 1e6, spacing[1], spacing[2]
