"""The recipe ``dose-ibsi-v1``: from a region and a dose to DVH, metrics and features.

1. DVH from contours on fine cells, trilinear dose, 1 mGy bins.
2. Dose resampled to isotropic voxels, aligned grid centers, trilinear, not rounded.
3. Mask: covered fraction of every voxel from the contours, rounded to 5 decimals, >= 0.5.
4. Levels: fixed bin size anchored at 0 Gy, g = floor(D / w + 1e-9) + 1.
5. EQD2 or BED, if asked for: interpolate first, then convert.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics.dvh import Conversion, Dvh, dvh
from pipelines.dose_radiomics.regions import CellField, Region, with_margins
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.radiomics import region as engine
from pipelines.radiomics.engine import BinSize, Method
from pipelines.radiomics.region import Features, Interpolation, Recipe
from pipelines.radiomics.resample import Axes, linear, trilinear

Floats = NDArray[np.float64]

RECIPE = "dose-ibsi-v1"
IVH_STEP_GY = 0.01
"""Levels of dose in the intensity-volume histogram: our choice, there is no reference."""


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

    def dose_at(axes: Axes) -> Floats:
        dose = interpolate(grid.dose, grid.positions, axes)
        return dose if convert is None else convert(dose)

    return engine.region_features(
        dose_at, grid.positions, region.box, region.on_voxels, _recipe(settings)
    )


def _recipe(settings: DoseRadiomicsSettings) -> Recipe:
    """Return what the engine needs to know."""
    return Recipe(
        step_mm=settings.resample_mm,
        min_voxels=settings.min_voxels,
        method=method(settings),
        filters=settings.filters,
        filter_method=engine.filter_method(settings),
    )


def method(settings: DoseRadiomicsSettings) -> Method:
    """Return what is computed, on levels anchored at 0 Gy."""
    return Method(
        families=settings.families,
        levels=BinSize(width=settings.bin_gy, unit="Gy"),
        volume_histogram=BinSize(width=IVH_STEP_GY, unit="Gy"),
    )


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
        f"IVH: levels of {IVH_STEP_GY:g} Gy",
        f"Smallest region for features: {settings.min_voxels} voxels",
        *engine.parameters(settings),
    )
