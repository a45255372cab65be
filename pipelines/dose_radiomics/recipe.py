"""The recipe ``dose-ibsi-v1``: from a region and a dose to DVH, metrics and features.

1. DVH from contours on fine cells, trilinear dose, 1 mGy bins.
2. Dose resampled to isotropic voxels, aligned grid centers, trilinear, not rounded.
3. Mask: covered fraction of every voxel from the contours, rounded to 5 decimals, >= 0.5.
4. Levels: fixed bin size anchored at 0 Gy, g = floor(D / w + 1e-9) + 1.
5. EQD2 or BED, if asked for: interpolate first, then convert.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics import ivh, morphology, stats, texture
from pipelines.dose_radiomics.dvh import Conversion, Dvh, dvh, linear
from pipelines.dose_radiomics.regions import CellField, Region, with_margins
from pipelines.dose_radiomics.resample import Axes, aligned, trilinear
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings

Floats = NDArray[np.float64]

RECIPE = "dose-ibsi-v1"
TIE = 1e-9
"""Keeps a dose of exactly k bins in one bin, whatever the dose grid scaling was."""
MASK_DECIMALS = 5
"""Without rounding, voxels of exactly half coverage fall to either side by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Feature values by IBSI code; what is undefined is absent."""

    values: Mapping[str, float]
    """GLCM and GLRLM merged over the directions."""
    averaged: Mapping[str, float]
    """GLCM and GLRLM averaged over the directions."""
    voxels: int
    reason: str = ""
    """Why there are no values."""


class Interpolation(Protocol):
    """A way to get values between samples."""

    def __call__(self, values: NDArray[np.floating], samples: Axes, at: Axes) -> Floats:
        """Return `values` at every point of the grid `at`."""
        ...


@dataclass(frozen=True, slots=True)
class Biological:
    """Conversion to EQD2 or BED by the linear-quadratic model."""

    kind: str
    alpha_beta_gy: float
    fractions: int

    def __call__(self, dose: Floats) -> Floats:
        """Return the biological dose of a physical total dose, same shape [Gy]."""
        per_fraction = dose / self.fractions
        if self.kind == "BED":
            return dose * (1 + per_fraction / self.alpha_beta_gy)
        return dose * (per_fraction + self.alpha_beta_gy) / (2 + self.alpha_beta_gy)


def measured(region: Region, grid: DoseGrid, convert: Conversion | None) -> Region:
    """Return a region with its margins measured, on the dose where they depend on it."""

    def dose_at(axes: Axes) -> Floats:
        dose = trilinear(grid.dose, grid.positions, axes)
        if convert is not None:
            dose = convert(dose)
        for axis, (samples, line) in enumerate(zip(grid.positions, axes, strict=True)):
            shape = [len(line) if a == axis else 1 for a in range(3)]
            inside = linear(samples, line).inside.reshape(shape)
            dose = np.where(inside, dose, np.nan)  # no dose is invented: a band is not met there
        return dose

    return with_margins(region, dose_at)


def region_dvh(region: Region, grid: DoseGrid, convert: Conversion | None) -> Dvh | None:
    """Return the DVH of a region; None where no part of it lies inside the dose grid."""
    return dvh(CellField(region), grid, region.window(), convert)


def region_features(
    region: Region,
    grid: DoseGrid,
    convert: Conversion | None,
    settings: DoseRadiomicsSettings,
    interpolate: Interpolation = trilinear,
) -> Features:
    """Return the features of a region; none, with the reason, where it is too small."""
    step = settings.resample_mm
    margin = stats.PEAK_RADIUS_MM + step
    low, high = region.box
    whole = [aligned(samples, step) for samples in grid.positions]
    at = tuple(
        line[(line > low[axis] - margin) & (line < high[axis] + margin)]
        for axis, line in enumerate(whole)
    )
    if min(len(line) for line in at) < 2:  # noqa: PLR2004 - a voxel size needs two
        return Features(values={}, averaged={}, voxels=0, reason="outside the dose grid")
    planes, rows, columns = at
    centers = (planes, rows, columns)
    dose = interpolate(grid.dose, grid.positions, centers)
    if convert is not None:
        dose = convert(dose)
    mask = np.round(region.on_voxels(centers, dose), MASK_DECIMALS) >= 0.5  # noqa: PLR2004
    voxels = int(np.count_nonzero(mask))
    if voxels < settings.min_voxels:
        reason = f"{voxels} voxels of {step:g} mm, fewer than {settings.min_voxels}"
        return Features(values={}, averaged={}, voxels=voxels, reason=reason)
    values, averaged = masked_features(dose, mask, settings)
    return Features(values=values, averaged=averaged, voxels=voxels)


def masked_features(
    dose: Floats, mask: NDArray[np.bool_], settings: DoseRadiomicsSettings
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the features of the voxels in `mask`, and those averaged over the directions.

    Parameters
    ----------
    dose : ndarray, shape (slices, rows, columns) [Gy]
        On isotropic voxels of ``settings.resample_mm``.
    mask : ndarray of bool, same shape
    """
    wanted = frozenset(settings.families)
    spacing = (settings.resample_mm,) * 3
    inside = dose[mask]
    level = np.zeros(dose.shape, dtype=np.int32)
    level[mask] = np.floor(inside / settings.bin_gy + TIE).astype(np.int32) + 1
    values: dict[str, float] = {}
    if "morphology" in wanted:
        values |= morphology.morphology(mask, dose, mask, spacing)
    if "autocorrelation" in wanted:
        values |= morphology.autocorrelation(dose, mask, spacing)
    if "statistics" in wanted:
        values |= stats.statistics(inside)
    if "histogram" in wanted:
        values |= stats.histogram(level[mask])
    if "ivh" in wanted:
        values |= ivh.ivh(inside, ivh.dose_levels(inside))
    if "local" in wanted:
        values |= stats.local_intensity(dose, mask, spacing)
    merged, averaged = _texture(level, wanted)
    return values | merged, averaged


def _texture(
    level: NDArray[np.int32], wanted: frozenset[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the texture of discretised voxels, and GLCM and GLRLM averaged."""
    volume = texture.Volume(level)
    values: dict[str, float] = {}
    averaged: dict[str, float] = {}
    for name, family in (("glcm", texture.glcm), ("glrlm", texture.glrlm)):
        if name in wanted:
            merged, each = family(volume)
            values |= merged
            averaged |= each
    for name, single in (
        ("glszm", texture.glszm),
        ("gldzm", texture.gldzm),
        ("neighborhood", texture.neighborhood),
    ):
        if name in wanted:
            values |= single(volume)
    return values, averaged


def parameters(settings: DoseRadiomicsSettings) -> tuple[str, ...]:
    """Return every setting that can change a number, one text each, the recipe first."""
    return (
        f"{RECIPE}: isotropic {settings.resample_mm:g} mm, trilinear, fixed bin "
        f"{settings.bin_gy:g} Gy from 0 Gy, mask by covered fraction >= 0.5",
        f"Dose evaluated: {settings.dose}",
        "DVH: contours as right prisms per connected stack, half-slice end caps, cells "
        "0.1-2 mm by volume, trilinear dose, 1 mGy bins",
        f"Resampled voxel: {settings.resample_mm:g} mm, grid centers aligned, dose not rounded",
        "Morphological and intensity mask are the same; a dose-defined ROI is a new ROI",
        f"Discretisation: fixed bin size {settings.bin_gy:g} Gy, first bin starts at 0 Gy",
        "GLCM, GLRLM: 3D merged over 13 directions (IAZD), distance 1, Chebyshev",
        "GLSZM, GLDZM, NGTDM, NGLDM: 3D (KOBO), distance 1, alpha 0",
        f"IVH: levels of {ivh.DOSE_STEP_GY:g} Gy",
        f"Smallest region for features: {settings.min_voxels} voxels",
    )
