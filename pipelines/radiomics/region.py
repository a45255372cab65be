"""Features of one region of an image on a grid: resample, mask, re-segment, filter, compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics import stats
from pipelines.radiomics.engine import BinNumber, Method, Values, features
from pipelines.radiomics.filter_settings import FilterSettings, ImageFilter
from pipelines.radiomics.filters import filtered, reach_voxels
from pipelines.radiomics.resample import Axes, aligned

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MASK_DECIMALS = 5
"""Without rounding, voxels of exactly half coverage fall to either side by chance."""
RESPONSE_LEVELS = 1000
"""Levels of the intensity-volume histogram of a response map (IBSI 3.5: arbitrary units)."""


class Interpolation(Protocol):
    """A way to get values between samples."""

    def __call__(self, values: NDArray[np.floating], samples: Axes, at: Axes) -> Floats:
        """Return `values` at every point of the grid `at`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Features of a filtered image."""

    label: str
    """Names the filter, unique among those of a region."""
    words: str
    """The filter with all of its parameters."""
    values: Mapping[str, float]
    averaged: Mapping[str, float]


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
    responses: tuple[Response, ...] = ()


def everything(image: Floats, mask: Mask) -> Mask:  # noqa: ARG001 - the shape of a re-segmentation
    """Return the intensity mask without any re-segmentation: the mask itself."""
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a region becomes features."""

    step_mm: float | None
    """Isotropic voxel [mm]; None: the voxels of the image."""
    min_voxels: int
    method: Method
    filters: tuple[ImageFilter, ...] = ()
    filter_method: Method | None = None
    kept: Callable[[Floats, Mask], Mask] = field(default=everything)
    """From image and mask to the intensity mask."""


def filter_method(settings: FilterSettings) -> Method:
    """Return what is computed of response maps, which have no unit."""
    return Method(
        families=settings.filter_families,
        levels=BinNumber(count=settings.filter_bins),
        volume_histogram=BinNumber(count=RESPONSE_LEVELS),
    )


def region_features(
    image_at: Callable[[Axes], Floats],
    samples: Axes,
    box: tuple[Floats, Floats],
    covered: Callable[[Axes, Floats], Floats],
    recipe: Recipe,
) -> Features:
    """Return the features of a region; none, with the reason, where it is too small.

    Parameters
    ----------
    image_at : callable
        Image at every point of a grid.
    samples : three ndarrays
        Positions of the voxels of the image along (slice, row, column) [mm], ascending.
    box : two ndarrays, shape (3,)
        Corners that enclose the region [mm].
    covered : callable
        Covered fraction of the voxels of a grid, given the image on it.
    recipe : Recipe
    """
    step = recipe.step_mm
    whole = [line if step is None else aligned(line, step) for line in samples]
    at = around(whole, box, [stats.PEAK_RADIUS_MM] * 3)
    if min(len(line) for line in at) < 2:  # noqa: PLR2004 - a voxel size needs two
        return Features(values={}, averaged={}, voxels=0, reason="outside the image grid")
    image = image_at(at)
    mask = np.round(covered(at, image), MASK_DECIMALS) >= 0.5  # noqa: PLR2004
    kept = recipe.kept(image, mask)
    voxels = int(np.count_nonzero(kept))
    if voxels < recipe.min_voxels:
        size = f"of {step:g} mm" if step else "of the image"
        reason = f"{voxels} voxels {size}, fewer than {recipe.min_voxels}"
        return Features(values={}, averaged={}, voxels=voxels, reason=reason)
    z, y, x = (float(line[1] - line[0]) for line in at)
    found = features(image, mask, kept, (z, y, x), recipe.method)
    return Features(
        values=found.merged,
        averaged=found.averaged,
        voxels=voxels,
        responses=_responses(image_at, whole, at, (mask, kept), recipe),
    )


def around(whole: list[Floats], box: tuple[Floats, Floats], margin_mm: list[float]) -> Axes:
    """Return the part of a grid that holds a box with a margin and one voxel more."""
    parts = []
    for line, low, high, margin in zip(whole, *box, margin_mm, strict=True):
        beyond = margin + (line[1] - line[0] if len(line) > 1 else 0.0)
        parts.append(line[(line > low - beyond) & (line < high + beyond)])
    return parts[0], parts[1], parts[2]


def _responses(
    image_at: Callable[[Axes], Floats],
    whole: list[Floats],
    at: Axes,
    masks: tuple[Mask, Mask],
    recipe: Recipe,
) -> tuple[Response, ...]:
    """Return the features of the response maps, each filtered with the image about the region."""
    step, method = recipe.step_mm, recipe.filter_method
    if not recipe.filters or step is None or method is None:
        return ()
    reach = [step * reach_voxels(chosen, step) for chosen in recipe.filters]
    edges = np.array([line[0] for line in at]), np.array([line[-1] for line in at])
    wide = around(whole, edges, [max(reach)] * 3)
    image = image_at(wide)
    found = []
    for chosen, margin in zip(recipe.filters, reach, strict=True):
        near = around(list(wide), edges, [margin] * 3)
        response = filtered(image[_within(wide, near)], chosen, step)
        values = _of_response(response[_within(near, at)], masks, step, method)
        found.append(
            Response(
                label=chosen.label,
                words=chosen.words,
                values=values.merged,
                averaged=values.averaged,
            )
        )
    return tuple(found)


def _of_response(response: Floats, masks: tuple[Mask, Mask], step: float, method: Method) -> Values:
    mask, kept = masks
    return features(np.ascontiguousarray(response), mask, kept, (step,) * 3, method)


def _within(outer: Axes, inner: Axes) -> tuple[slice, slice, slice]:
    """Return where the grid `inner` lies in `outer`, of which it is a part."""
    starts = [int(np.searchsorted(a, b[0])) for a, b in zip(outer, inner, strict=True)]
    z, y, x = (slice(s, s + len(line)) for s, line in zip(starts, inner, strict=True))
    return z, y, x


def parameters(filters: FilterSettings) -> tuple[str, ...]:
    """Return the settings of response maps in words; nothing without filters."""
    if not filters.filters:
        return ()
    return (
        "Response maps: filtered after resampling with the image about the region, not rounded; "
        f"texture by {filter_method(filters).levels.words}, "
        f"IVH by {filter_method(filters).volume_histogram.words}",
    )
