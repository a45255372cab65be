"""How far an image is from the truth: MAE, ME, PSNR, SSIM inside a body mask.

Written from the formulas of the SynthRAD challenges (arXiv 2403.08447; reference page, section
2), not from their code. Outside the mask both images count as -1024 HU.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

LOWEST_HU, HIGHEST_HU = -1024.0, 3000.0
RANGE_HU: Final = HIGHEST_HU - LOWEST_HU
WINDOW: Final = 7
"""Side of the box over which SSIM takes its moments, voxels."""
SOFT_HU: Final = (-20.0, 100.0)
BONE_HU: Final = 250.0
AIR_HU: Final = -300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Errors of a prediction against the truth, HU where not said otherwise."""

    mae: float
    me: float
    p95: float
    """95th percentile of the absolute error."""
    psnr_db: float
    soft_mae: float
    """Where the truth is soft tissue; NaN where there is none. The same holds for the others."""
    bone_mae: float
    air_mae: float
    """Lung and gas inside the body."""


def errors(prediction: Hu, truth: Hu, mask: Mask) -> Errors:
    """Return the errors of `prediction` in `mask`; all arrays have one shape.

    Raises
    ------
    ValueError
        If the mask is empty or the shapes differ.
    """
    if prediction.shape != truth.shape or truth.shape != mask.shape or not mask.any():
        raise ValueError("prediction, truth and a mask that is not empty must have one shape")
    p = prediction[mask].astype(np.float64)
    g = truth[mask].astype(np.float64)
    difference = p - g
    absolute = np.abs(difference)
    clipped = np.clip(p, LOWEST_HU, HIGHEST_HU) - np.clip(g, LOWEST_HU, HIGHEST_HU)
    square = float(np.mean(clipped**2))

    def mean_in(region: Mask) -> float:
        return float(absolute[region].mean()) if region.any() else float("nan")

    return Errors(
        mae=float(absolute.mean()),
        me=float(difference.mean()),
        p95=float(np.percentile(absolute, 95)),
        psnr_db=float(10 * np.log10(RANGE_HU**2 / square)) if square > 0 else float("inf"),
        soft_mae=mean_in((g > SOFT_HU[0]) & (g < SOFT_HU[1])),
        bone_mae=mean_in(g > BONE_HU),
        air_mae=mean_in(g < AIR_HU),
    )


def ssim(prediction: Hu, truth: Hu, mask: Mask) -> float:
    """Return the 3D structural similarity (Wang et al. 2004), averaged over `mask`.

    Box window of 7 voxels, sample moments; every axis must have at least 7 voxels.
    """
    p, g = (
        np.where(mask, np.clip(a, LOWEST_HU, HIGHEST_HU), LOWEST_HU).astype(np.float64) - LOWEST_HU
        for a in (prediction, truth)
    )
    sample = WINDOW**3 / (WINDOW**3 - 1)
    mean_p, mean_g = ndimage.uniform_filter(p, WINDOW), ndimage.uniform_filter(g, WINDOW)
    var_p = sample * (ndimage.uniform_filter(p * p, WINDOW) - mean_p**2)
    var_g = sample * (ndimage.uniform_filter(g * g, WINDOW) - mean_g**2)
    cov = sample * (ndimage.uniform_filter(p * g, WINDOW) - mean_p * mean_g)
    c1, c2 = (0.01 * RANGE_HU) ** 2, (0.03 * RANGE_HU) ** 2
    similarity = (2 * mean_p * mean_g + c1) * (2 * cov + c2)
    similarity /= (mean_p**2 + mean_g**2 + c1) * (var_p + var_g + c2)
    edge = slice(WINDOW // 2, -(WINDOW // 2))
    inner = (edge, edge, edge)
    return float(similarity[inner][mask[inner]].mean())
