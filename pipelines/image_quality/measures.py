"""What changed between two images: tissue means, edges, structures, texture.

`before` and `after` lie on one grid: the image and the one with less noise, or the straight line
between slices and the thin slices that were made. Arrays (slices, rows, columns), HU; all values
are taken in the body, in plane.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.imaging.body import Mask, Vector, eroded
from pipelines.imaging.nps import Texture, texture

Hu = NDArray[np.float32]

TISSUES: Final = {
    "lung": (-950.0, -600.0),
    "fat": (-150.0, -40.0),
    "soft tissue": (-20.0, 120.0),
}
"""By the smoothed image before [HU]. Bone is nowhere flat: edges and structures watch it."""
LEAST_TISSUE_CM3: Final = 5.0
FLAT: Final = (3, 7, 7)
"""Voxels around that must be flat, too (slices, rows, columns)."""
FLAT_NOISE: Final = 4.0
"""Change from pixel to pixel that is still flat, as a multiple of the median change."""
SKIN_PX: Final = 7
"""Side of the square that the body is eroded by."""
STRONG_HU: Final = 30.0
"""Change from pixel to pixel that is an edge."""
STRONG_NOISE: Final = 6.0
"""The same, as a multiple of the median change."""
SHADING_MM: Final = 8.0
"""What is smoother than this is shading [mm, SD]."""
FINE_PX: Final = 1.0
"""SD of the blur that keeps noise from hiding edges, pixels."""
STRUCTURE_MM: Final = 2.5
"""SD of the blur after which noise is gone from a difference image and a lesion is not [mm]."""
AROUND_MM: Final = 4.0
"""SD of the window over which the image varies [mm]."""
EXPLAINED: Final = 0.15
"""Share of the variation around that a change may have: bone and air differ by more than fat."""
PROFILE_PX: Final = 8
"""Half the length of an edge profile."""
MOST_PROFILES: Final = 4000
LEAST_PROFILES: Final = 30
STEEP: Final = 3.0
"""An edge runs along the columns when its gradient along the row is so many times the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Mean profile across edges, dark side first, HU; positions in pixels."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def widths(self) -> tuple[float, float]:
        """Return the distance from 10 % to 90 % before and after, pixels."""
        return _width(self.before), _width(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed."""

    tissues: dict[str, float]
    """Tissue -> mean change where it is flat, HU."""
    shading_p99: float
    """99th percentile of the size of the smooth change, HU."""
    edges_kept: float
    """Strength of the strong edges after over before; 1 is unchanged."""
    sharpness_taken: float
    """Share of the fine part of edges that stands in the difference image; 0 is none."""
    structure: float
    """Largest change of some millimeters that the image around does not explain, HU."""
    texture: Texture | None
    profile: Profile | None


def changes(before: Hu, after: Hu, body: Mask, spacing: Vector) -> Change:
    """Return what changed in the body; arrays of one shape, spacing (slice, row, column), mm."""
    box = _box(body)
    before, after, inner = before[box], after[box], eroded(body[box], SKIN_PX)
    difference = after - before
    soft = _blurred(before, (0.0, FINE_PX, FINE_PX))
    down, along = (np.gradient(soft, axis=a).astype(np.float32) for a in (1, 2))
    slope = np.hypot(down, along)
    usual = float(np.median(slope[inner])) if inner.any() else 0.0
    strong = inner & (slope > max(STRONG_HU, STRONG_NOISE * usual))
    flat = inner & (slope < FLAT_NOISE * usual)
    flat = ndimage.minimum_filter(flat.view(np.uint8), FLAT).view(np.bool_)
    pixel = (spacing[1], spacing[2])
    return Change(
        tissues=_tissues(before, difference, flat, spacing),
        shading_p99=_shading(difference, inner, spacing),
        edges_kept=_edges_kept(before, after, strong),
        sharpness_taken=_sharpness(soft, difference, strong),
        structure=_structure(before, difference, inner, spacing),
        texture=texture(before, after, inner, pixel),
        profile=_profile(before, after, strong, along, down),
    )


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return slice(None), slice(None), slice(None)
    slices, rows, columns = found[0]
    return slices, rows, columns


def _tissues(before: Hu, difference: Hu, flat: Mask, spacing: Vector) -> dict[str, float]:
    smooth = _blurred(before, (0.5, 2.0, 2.0))
    voxel = float(np.prod(spacing)) / 1000
    found = {}
    for name, (low, high) in TISSUES.items():
        inside = flat & (smooth > low) & (smooth < high)
        if float(inside.sum()) * voxel >= LEAST_TISSUE_CM3:
            found[name] = float(difference[inside].mean())
    return found


def _shading(difference: Hu, inner: Mask, spacing: Vector) -> float:
    if not inner.any():
        return 0.0
    sigma = tuple(SHADING_MM / s for s in spacing)
    weight = _blurred(inner.astype(np.float32), sigma)
    field = _blurred(np.where(inner, difference, 0).astype(np.float32), sigma)
    return float(np.percentile(np.abs(field[inner] / np.maximum(weight[inner], 1e-3)), 99))


def _edges_kept(before: Hu, after: Hu, strong: Mask) -> float:
    product = square = 0.0
    for axis in (1, 2):
        one, two = (np.gradient(_blurred(i, (0.0, 0.6, 0.6)), axis=axis) for i in (before, after))
        product += float((one[strong] * two[strong]).sum(dtype=np.float64))
        square += float((one[strong] ** 2).sum(dtype=np.float64))
    return product / square if square > 0 else 1.0


def _sharpness(soft: Hu, difference: Hu, strong: Mask) -> float:
    """Return how much of an edge's fine part, soft - its blur, the difference takes away."""
    near = ndimage.maximum_filter(strong.view(np.uint8), (1, 5, 5)).view(np.bool_)
    fine = (soft - _blurred(soft, (0.0, 2.0, 2.0)))[near]
    square = float((fine.astype(np.float64) ** 2).sum())
    taken = -_blurred(difference, (0.0, FINE_PX, FINE_PX))[near]
    return float((fine * taken).sum(dtype=np.float64)) / square if square > 0 else 0.0


def _structure(before: Hu, difference: Hu, inner: Mask, spacing: Vector) -> float:
    """Return the largest smooth change beyond a share of the local SD of the image before."""
    if not inner.any():
        return 0.0
    smooth = _blurred(difference, tuple(STRUCTURE_MM / s for s in spacing))
    around = tuple(AROUND_MM / s for s in spacing)
    shown = np.clip(before, -1000, 1000).astype(np.float32)
    mean = _blurred(shown, around)
    deviation = np.sqrt(np.maximum(_blurred(shown * shown, around) - mean**2, 0))
    return float((np.abs(smooth) - EXPLAINED * deviation)[inner].max())


def _profile(before: Hu, after: Hu, strong: Mask, along: Hu, down: Hu) -> Profile | None:
    """Return the mean profile along rows across the steepest of the edges that run across them."""
    steep = np.abs(along)
    top = ndimage.maximum_filter1d(steep, 7, axis=2)
    places = np.argwhere(strong & (steep >= top) & (steep > STEEP * np.abs(down)))
    inside = (places[:, 2] >= PROFILE_PX) & (places[:, 2] < before.shape[2] - PROFILE_PX)
    places = places[inside]
    if len(places) < LEAST_PROFILES:
        return None
    places = places[:: -(-len(places) // MOST_PROFILES)]
    k, i, j = places.T
    offsets = np.arange(-PROFILE_PX, PROFILE_PX + 1)
    sign = np.sign(along[k, i, j]).astype(np.int64)
    columns = j[:, None] + sign[:, None] * offsets[None]
    means = [
        image[k[:, None], i[:, None], columns].astype(np.float64).mean(axis=0)
        for image in (before, after)
    ]
    return Profile(before=means[0], after=means[1])


def _width(profile: NDArray[np.float64]) -> float:
    """Return the distance from 10 % to 90 % of the step in the middle of a profile."""
    middle = len(profile) // 2
    near = profile[middle - 4 : middle + 5]
    low, high = float(near[:3].min()), float(near[-3:].max())
    rising = np.maximum.accumulate(near)
    at = np.interp([low + 0.1 * (high - low), low + 0.9 * (high - low)], rising, np.arange(9.0))
    return float(at[1] - at[0])


def _blurred(image: Hu, sigma: tuple[float, ...]) -> Hu:
    return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=3.0), dtype=np.float32)
