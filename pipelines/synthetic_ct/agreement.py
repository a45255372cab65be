"""Does the synthetic CT show what the CBCT shows? Local correlation, shading, bone mass.

All on voxels of about `WORKING_MM` in plane, averaged in the body: noise falls, the time too.
Definitions: reference page, section 9. Arrays (slices, rows, columns), HU.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]

WORKING_MM: Final = 3.4
"""In-plane voxel on which the limits were set."""
LOCAL_SIGMA: Final = (1.0, 3.0, 3.0)
"""Of the window of the local correlation, working voxels."""
LEAST_LOCAL_SD_HU: Final = 30.0
"""Flatter windows hold nothing to correlate."""
CLIP_HU: Final = (-1000.0, 600.0)
LOW_SIGMA_MM: Final = (5.0, 14.0, 14.0)
"""Shading is smoother than this (slice, row, column)."""
BONE_HU: Final = 150.0
SOFT_HU: Final = 45.0
"""What bone stands out from."""
LEAST_BONE_CM3: Final = 5.0
"""With less bone their ratio says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coarse:
    """Two images and the body on the working grid."""

    sct: Hu
    cbct: Hu
    body: Mask
    spacing: Vector

    @property
    def core(self) -> Mask:
        """Return the body without its skin."""
        return np.asarray(ndimage.binary_erosion(self.body, np.ones((1, 3, 3), dtype=np.bool_)))


def coarse(sct: Hu, cbct: Hu, body: Mask, spacing: Vector) -> Coarse:
    """Return both images averaged over the body in blocks of about `WORKING_MM`."""
    steps = tuple(max(1, round(WORKING_MM / s)) for s in spacing[1:])
    share = _blocks(body.astype(np.float32), steps)
    small = [
        _blocks(np.where(body, image, 0).astype(np.float32), steps) / np.maximum(share, 1e-3)
        for image in (sct, cbct)
    ]
    inside = share > 0.5  # noqa: PLR2004 (half)
    return Coarse(
        sct=np.where(inside, small[0], -1000).astype(np.float32),
        cbct=np.where(inside, small[1], -1000).astype(np.float32),
        body=inside,
        spacing=(spacing[0], spacing[1] * steps[0], spacing[2] * steps[1]),
    )


def local_correlation(pair: Coarse) -> float:
    """Return the 2nd percentile of the local correlation where the CBCT has structure."""
    a, b = (np.clip(i, *CLIP_HU).astype(np.float32) for i in (pair.sct, pair.cbct))
    mean_a, mean_b = _window(a), _window(b)
    var_a = _window(a * a) - mean_a**2
    var_b = _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    structure = pair.core & (var_b > LEAST_LOCAL_SD_HU**2)
    if not structure.any():
        return 1.0
    norm = np.sqrt(np.maximum(var_a, 1.0) * np.maximum(var_b, 1.0))
    return float(np.percentile((covariance / norm)[structure], 2))


def low_frequency(pair: Coarse) -> Hu:
    """Return sCT - CBCT in the body, blurred: how shading differs; 0 outside the body."""
    sigma = [mm / s for mm, s in zip(LOW_SIGMA_MM, pair.spacing, strict=True)]
    weight = ndimage.gaussian_filter(pair.body.astype(np.float32), sigma)
    difference = np.where(pair.body, pair.sct - pair.cbct, 0).astype(np.float32)
    field = ndimage.gaussian_filter(difference, sigma) / np.maximum(weight, 1e-3)
    return np.asarray(np.where(pair.body, field, 0), dtype=np.float32)


def low_frequency_p99(pair: Coarse) -> float:
    """Return the 99th percentile of the size of `low_frequency`, HU."""
    return float(np.percentile(np.abs(low_frequency(pair))[pair.body], 99))


def bone_ratio(pair: Coarse) -> float | None:
    """Return the bone mass of the sCT over that of the CBCT; None where there is hardly any.

    Bone mass: what stands out above soft tissue where the CBCT is above 150 HU. The CBCT is first
    brought to the sCT's soft-tissue level, smoothly, so that shading is not taken for bone.
    """
    soft = pair.body & (np.abs(pair.sct) < BONE_HU) & (np.abs(pair.cbct) < 2 * BONE_HU)
    sigma = [2 * mm / s for mm, s in zip(LOW_SIGMA_MM, pair.spacing, strict=True)]
    weight = ndimage.gaussian_filter(soft.astype(np.float32), sigma)
    difference = np.where(soft, pair.sct - pair.cbct, 0).astype(np.float32)
    level = pair.cbct + ndimage.gaussian_filter(difference, sigma) / np.maximum(weight, 1e-3)
    bone = pair.core & (level > BONE_HU)
    if float(bone.sum()) * float(np.prod(pair.spacing)) < 1000 * LEAST_BONE_CM3:
        return None
    return float((pair.sct[bone] - SOFT_HU).mean() / (level[bone] - SOFT_HU).mean())


def _window(image: Hu) -> Hu:
    return np.asarray(ndimage.gaussian_filter(image, LOCAL_SIGMA), dtype=np.float32)


def _blocks(image: Hu, steps: tuple[int, ...]) -> Hu:
    """Return the mean of blocks of (rows, columns); what does not fill a block is left out."""
    rows, columns = (n // s for n, s in zip(image.shape[1:], steps, strict=True))
    cut = image[:, : rows * steps[0], : columns * steps[1]]
    parts = cut.reshape(len(image), rows, steps[0], columns, steps[1])
    return np.asarray(parts.mean(axis=(2, 4)), dtype=np.float32)
