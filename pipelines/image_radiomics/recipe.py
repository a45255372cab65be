"""The recipe ``image-ibsi-v1``: from a region and an image to features.

1. Image resampled to isotropic voxels, aligned grid centers, linear or cubic; HU rounded.
2. Mask: covered fraction of every voxel from the contours, or from the voxels of the image whose
   center they hold, rounded to 5 decimals, >= 0.5.
3. Re-segmentation by range, then by outliers: the intensity mask; the shape keeps the whole mask.
4. Levels: fixed bin size from the lower end of the range, or fixed bin number.
"""

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.image_radiomics.settings import ImageRadiomicsSettings, Processing
from pipelines.radiomics import region as engine
from pipelines.radiomics.engine import BinNumber, BinSize, Discretisation, Method
from pipelines.radiomics.region import Interpolation, Recipe
from pipelines.radiomics.resample import Axes, spline, trilinear

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RECIPE: Final = "image-ibsi-v1"
UNITS: Final = {"CT": "[hnsf'U]", "MR": "1"}
"""UCUM units of intensities."""
_SHOWN: Final = {"CT": "HU", "MR": ""}
_MASKS: Final = {
    "contours": "mask by covered fraction >= 0.5",
    "voxels": "mask of image voxels with center inside, interpolated linearly, >= 0.5",
}
_INTERPOLATION: Final[dict[str, Interpolation]] = {"linear": trilinear, "cubic": spline}
_NEIGHBORS: Final = 16
"""Samples about a region that its spline rests on; beyond, they count for less than 1e-8."""


def processing(settings: ImageRadiomicsSettings, modality: str) -> Processing:
    """Return how images of a modality are processed."""
    return {"CT": settings.ct, "MR": settings.mr}[modality]


def recipe(settings: ImageRadiomicsSettings, modality: str) -> Recipe:
    """Return what the engine needs to know."""
    chosen = processing(settings, modality)
    return Recipe(
        step_mm=chosen.resample_mm,
        min_voxels=settings.min_voxels,
        method=Method(
            families=settings.families,
            levels=_levels(chosen, modality),
            volume_histogram=_volume_histogram(chosen, modality),
        ),
        filters=settings.filters,
        filter_method=engine.filter_method(settings),
        kept=partial(resegmented, chosen=chosen),
    )


def image_on(values: NDArray[np.generic], samples: Axes, at: Axes, chosen: Processing) -> Floats:
    """Return an image on the grid `at`, which lies within its samples or half a voxel beyond."""
    cut, near = [], []
    for line, wanted in zip(samples, at, strict=True):
        first = max(int(np.searchsorted(line, wanted[0])) - _NEIGHBORS, 0)
        last = int(np.searchsorted(line, wanted[-1])) + _NEIGHBORS
        cut.append(slice(first, last))
        near.append(line[first:last])
    part = values[tuple(cut)].astype(np.float64)
    if chosen.resample_mm is None:
        found = trilinear(part, (near[0], near[1], near[2]), at)  # the very samples
    else:
        interpolate = _INTERPOLATION[chosen.interpolation]
        found = interpolate(part, (near[0], near[1], near[2]), at)
    return np.rint(found) if chosen.rounded else found


def resegmented(image: Floats, mask: Mask, chosen: Processing) -> Mask:
    """Return the intensity mask: within the range, then within the standard deviations of it."""
    kept = mask
    if chosen.range is not None:
        low, high = chosen.range
        kept = kept & (image >= low) & (image <= high)
    if chosen.outlier_sigma is not None and kept.any():
        inside = image[kept]
        kept = kept & (np.abs(image - inside.mean()) <= chosen.outlier_sigma * inside.std())
    return kept


def parameters(settings: ImageRadiomicsSettings, modality: str) -> tuple[str, ...]:
    """Return every setting that can change a number, one text each, the recipe first."""
    chosen = processing(settings, modality)
    levels, ivh = _levels(chosen, modality), _volume_histogram(chosen, modality)
    size = "voxels of the image"
    if chosen.resample_mm is not None:
        size = f"isotropic {chosen.resample_mm:g} mm, {chosen.interpolation} interpolation"
    kept = [f"{low:g} to {high:g}" for low, high in ([chosen.range] if chosen.range else [])]
    kept += [f"mean +- {chosen.outlier_sigma:g} SD"] if chosen.outlier_sigma else []
    return (
        f"{RECIPE}: {modality}, {size}, {levels.words}, {_MASKS[chosen.mask]}",
        f"Intensities {'' if chosen.rounded else 'not '}rounded after interpolation; "
        "grid centers aligned",
        f"Re-segmentation of the intensity mask: {', then '.join(kept) or 'none'}",
        f"Discretisation: {levels.words}",
        "Contours as right prisms per connected stack, half-slice end caps",
        "GLCM, GLRLM: 3D merged over 13 directions (IAZD), distance 1, Chebyshev",
        "GLSZM, GLDZM, NGTDM, NGLDM: 3D (KOBO), distance 1, alpha 0",
        f"IVH: {ivh.words}",
        f"Smallest region for features: {settings.min_voxels} voxels",
        *engine.parameters(settings),
    )


def _levels(chosen: Processing, modality: str) -> Discretisation:
    if chosen.bin_number is not None:
        return BinNumber(count=chosen.bin_number)
    assert chosen.bin_size is not None  # noqa: S101 - the settings have one of them
    anchor = chosen.range[0] if chosen.range else None
    return BinSize(width=chosen.bin_size, anchor=anchor, unit=_SHOWN[modality])


def _volume_histogram(chosen: Processing, modality: str) -> Discretisation:
    if chosen.ivh_step is None:
        return BinNumber(count=engine.RESPONSE_LEVELS)
    return BinSize(width=chosen.ivh_step, anchor=None, unit=_SHOWN[modality], span=chosen.range)
