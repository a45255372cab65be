"""The methods without weights, and what every thin slice obeys whoever made it.

Noise: curvature anisotropic diffusion (Whitaker and Xue 2001; ITK), which smooths along edges and
not across them. Slices: a cubic spline through the slice centers, corrected so that the thin
slices average to the thick one. Interpolation and correction are linear in the image, so they
are one matrix M with A M = 1, where A averages. Arrays (slices, rows, columns), HU.
"""

from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from pipelines.dicom.ct_series import HIGHEST_HU, LOWEST_HU
from pipelines.dicom.volume import from_sitk, to_sitk
from pipelines.geometry.stack import StackGeometry

Hu = NDArray[np.float32]

ITERATIONS: Final = 3
CONDUCTANCE: Final = 1.0
"""Edges above this multiple of the mean gradient stay; chosen on the training patients."""
TIME_STEP: Final = 0.0625
"""For voxels of side 1; the largest stable one in three dimensions (ITK Software Guide)."""
SHOWN_HU: Final = (-1024.0, 1500.0)
"""Metal would dominate the mean gradient, and every other edge would be smoothed."""


def diffused(hu: Hu, geometry: StackGeometry) -> Hu:
    """Return `hu` after anisotropic diffusion; lengths are pixels, as the grain of noise is."""
    slice_mm, row_mm, column_mm = geometry.spacing
    spacing = (slice_mm / column_mm, row_mm / column_mm, 1.0)
    pixels = StackGeometry.regular(shape=geometry.shape, spacing=spacing)
    shown = to_sitk(np.clip(hu, *SHOWN_HU), pixels)
    step = TIME_STEP * min(spacing)
    image = sitk.CurvatureAnisotropicDiffusion(
        shown, timeStep=step, conductanceParameter=CONDUCTANCE, numberOfIterations=ITERATIONS
    )
    smooth, _ = from_sitk(image)
    return np.where((hu > SHOWN_HU[0]) & (hu < SHOWN_HU[1]), smooth, hu).astype(np.float32)


def bounded_change(hu: Hu, made: Hu, *, most_hu: float, strength: float) -> Hu:
    """Return `hu` plus `strength` of what `made` changes, nowhere more than `most_hu`."""
    change = np.clip(strength * (made - hu), -most_hu, most_hu)
    return np.asarray(hu + change, dtype=np.float32)


def parted(hu: Hu, factor: int, *, cubic: bool = True) -> Hu:
    """Return `factor` thin slices of each thick one, which average to it exactly.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
        At least two slices.
    factor : int
    cubic : bool
        A cubic spline, else straight lines.
    """
    matrix = _parting(len(hu), factor, cubic=cubic).astype(np.float32)
    thin = np.empty((len(hu) * factor, *hu.shape[1:]), dtype=np.float32)
    for row in range(hu.shape[1]):
        thin[:, row] = matrix @ hu[:, row]
    return thin


def consistent(thin: Hu, hu: Hu, factor: int, *, most_hu: float) -> Hu:
    """Return `thin` so that it averages to `hu`, stays near straight lines and within 12 bits.

    Deviations of a group of thin slices from the straight line sum to zero; they are made smaller
    together, so that both bounds hold and the average stays.
    """
    line = parted(hu, factor, cubic=False)
    off = _grouped(thin - line, factor)
    off = off - off.mean(axis=1, keepdims=True)
    largest = np.abs(off).max(axis=1, keepdims=True)
    off *= np.minimum(1.0, most_hu / np.maximum(largest, 1e-6))
    thick = np.clip(hu, LOWEST_HU, HIGHEST_HU)[:, None]
    spread = _grouped(line, factor) + off - hu[:, None]
    room = np.where(spread > 0, HIGHEST_HU - thick, thick - LOWEST_HU)
    share = np.min(room / np.maximum(np.abs(spread), 1e-6), axis=1, keepdims=True)
    spread *= np.minimum(1.0, share)
    return np.asarray((thick + spread).reshape(line.shape), dtype=np.float32)


def averages(thin: Hu, factor: int) -> Hu:
    """Return the average of each `factor` thin slices."""
    return np.asarray(_grouped(thin, factor).mean(axis=1), dtype=np.float32)


def _grouped(thin: Hu, factor: int) -> Hu:
    return thin.reshape(-1, factor, *thin.shape[1:])


def _parting(count: int, factor: int, *, cubic: bool) -> NDArray[np.float64]:
    """Return M (count x factor, count): interpolation, corrected to average to the thick slices."""
    known = np.arange(count, dtype=np.float64)
    offsets = (np.arange(factor) - (factor - 1) / 2) / factor
    wanted = np.clip((known[:, None] + offsets).ravel(), 0, count - 1)
    if cubic and count > 3:  # noqa: PLR2004 (points of a cubic)
        weights = CubicSpline(known, np.eye(count), bc_type="natural")(wanted)
    else:
        weights = np.stack([np.interp(wanted, known, row) for row in np.eye(count)], axis=1)
    missing = np.eye(count) - weights.reshape(count, factor, count).mean(axis=1)
    return np.asarray(weights + np.repeat(missing, factor, axis=0), dtype=np.float64)
