"""Where the patient is and where the scanner saw: body without couch, and the field of view."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Hu = NDArray[np.float32]
Vector = tuple[float, float, float]

AIR_HU, MUSCLE_HU = -1000.0, 100.0
SKIN_SHARE: Final = 0.6
"""-400 HU in a calibrated CT: half way between air and fat, and above lung."""
SKIN_LIMITS_HU: Final = (-650.0, -300.0)
OPENING_MM: Final = 5.0
"""Radius of the opening that cuts table tops and wires off the body."""
WORKING_MM: Final = 2.6
"""Pixels finer than this are thinned out for the search; only the skin is found on all."""
RIM_MM: Final = 3.0
"""The outermost millimeters of the field of view are artefact."""
LUNG_ABOVE_AIR_HU: Final = 90.0
"""A lung is denser than the air around the patient by more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Masks of one image, all of its shape."""

    body: Mask
    """Body inside the field of view, lungs and gas included."""
    fov: Mask
    """Field of view without its rim."""
    truncated_cm3: float
    """Volume of the body in a 3 mm wide strip along the field of view's edge, where it is cut."""


def find_regions(
    hu: Hu, spacing: Vector, *, padded: Mask | None = None, diameter_mm: float | None = None
) -> Regions:
    """Return body and field of view of a CBCT.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), HU
    spacing : (slice, row, column), mm
    padded : ndarray, same shape, optional
        Voxels that the scanner marked as unknown.
    diameter_mm : float, optional
        Reconstruction diameter that the header states, centered on the image.
    """
    whole = field_of_view(hu, spacing, padded=padded, diameter_mm=diameter_mm)
    fov = _shrunk(whole, spacing)
    body = body_mask(np.where(whole, hu, -1000), spacing, whole)
    strip = body & whole & ~fov
    voxel_cm3 = math.prod(spacing) / 1000
    return Regions(body=body & fov, fov=fov, truncated_cm3=float(strip.sum()) * voxel_cm3)


def body_mask(hu: Hu, spacing: Vector, fov: Mask | None = None) -> Mask:
    """Return the largest body in `hu`, holes filled slice by slice, without the couch.

    A lung that the edge of the field of view cuts open is a hole as well: its values are well
    above those of the air around the patient.
    """
    smooth = ndimage.gaussian_filter(hu, (0.5, 1.0, 1.0))
    seen = np.ones(hu.shape, dtype=np.bool_) if fov is None else fov
    skin = _skin_threshold(smooth[seen])
    step = max(1, round(WORKING_MM / min(spacing[1:])))
    if step == 1:
        return _find_body(smooth, seen, spacing, skin)
    some = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    wide = (spacing[0], step * spacing[1], step * spacing[2])
    coarse = _find_body(smooth[some], seen[some], wide, skin)
    cross = ndimage.generate_binary_structure(2, 1)[None]
    core = _enlarge(ndimage.binary_erosion(coarse, cross), step, hu.shape)
    reach = _enlarge(ndimage.binary_dilation(coarse, cross), step, hu.shape)
    return np.asarray(seen & (core | (reach & (smooth > skin))))


def _skin_threshold(values: Hu) -> float:
    """Return the value at the skin [HU]: `SKIN_SHARE` of the way from air to soft tissue.

    A CBCT may read 200 HU too low; a fixed threshold would then move the skin.
    """
    counts, edges = np.histogram(np.clip(values, AIR_HU, MUSCLE_HU), bins=96)
    centers = (edges[:-1] + edges[1:]) / 2
    mass, moment = np.cumsum(counts), np.cumsum(counts * centers)
    rest = np.maximum(mass[-1] - mass, 1)
    between = mass * rest * (moment / np.maximum(mass, 1) - (moment[-1] - moment) / rest) ** 2
    tissue = values[values > edges[1 + int(between.argmax())]]  # Otsu (1979)
    soft = float(np.median(tissue)) if tissue.size else 0.0
    return float(np.clip(AIR_HU + SKIN_SHARE * (soft - AIR_HU), *SKIN_LIMITS_HU))


def _find_body(smooth: Hu, seen: Mask, spacing: Vector, skin: float) -> Mask:
    tissue = (smooth > skin) & seen
    ball = _disc(OPENING_MM, spacing)
    tissue = np.stack([ndimage.binary_opening(plane, ball) for plane in tissue])
    tissue = _largest(tissue)
    around = seen & ~tissue
    air = float(np.percentile(smooth[around], 1)) if around.any() else -1000.0
    planes = zip(tissue, smooth, seen, strict=True)
    return _largest(np.stack([_fill(plane, values, disc, air) for plane, values, disc in planes]))


def _enlarge(mask: Mask, step: int, shape: tuple[int, ...]) -> Mask:
    """Return `mask`, sampled in the middle of blocks of `step` pixels, on all pixels."""
    rows, columns = (
        np.minimum(np.arange(n) // step, m - 1)
        for n, m in zip(shape[1:], mask.shape[1:], strict=True)
    )
    return np.asarray(mask[:, rows[:, None], columns[None, :]])


def _fill(tissue: Mask, hu: Hu, fov: Mask, air_hu: float) -> Mask:
    """Return `tissue` of one slice with its holes, open ones included."""
    filled = ndimage.binary_fill_holes(tissue)
    labels, count = ndimage.label(fov & ~filled)
    numbers = np.arange(1, count + 1)
    medians = np.atleast_1d(ndimage.median(hu, labels, numbers)) if count else np.zeros(0)
    open_lungs = numbers[medians > air_hu + LUNG_ABOVE_AIR_HU]
    return np.asarray(filled | np.isin(labels, open_lungs))


def field_of_view(
    hu: Hu, spacing: Vector, *, padded: Mask | None = None, diameter_mm: float | None = None
) -> Mask:
    """Return which voxels the scanner reconstructed, same shape as `hu`.

    Outside is what is marked as padding, what lies beyond the stated diameter, and the corners
    where every slice holds one and the same value.
    """
    seen = np.ones(hu.shape, dtype=np.bool_) if padded is None else ~padded
    if diameter_mm is not None:
        seen &= _circle(hu.shape, spacing, diameter_mm / 2)
    fill = hu[0, 0, 0]
    corners = hu[:, (0, 0, -1, -1), (0, -1, 0, -1)]
    if np.all(corners == fill):
        varied = (hu != fill).any(axis=0)
        disc = _disc(4 * max(spacing[1:]), spacing)
        reached = ndimage.binary_fill_holes(
            ndimage.binary_closing(np.pad(varied, 8), disc)[8:-8, 8:-8]
        )
        if reached.any():
            seen &= reached
    return seen


def _circle(shape: tuple[int, ...], spacing: Vector, radius_mm: float) -> Mask:
    y = (np.arange(shape[1]) - (shape[1] - 1) / 2)[:, None] * spacing[1]
    x = (np.arange(shape[2]) - (shape[2] - 1) / 2)[None, :] * spacing[2]
    return np.broadcast_to(y**2 + x**2 <= radius_mm**2, shape)


def _disc(radius_mm: float, spacing: Vector) -> Mask:
    rows, columns = (max(1, round(radius_mm / s)) for s in spacing[1:])
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    return np.asarray((y / rows) ** 2 + (x / columns) ** 2 <= 1)


def _shrunk(fov: Mask, spacing: Vector) -> Mask:
    """Return `fov` without its rim; it is nearly always the same in every slice."""
    if (fov == fov[0]).all():
        return np.broadcast_to(_shrink(fov[0], RIM_MM, spacing), fov.shape)
    return np.stack([_shrink(plane, RIM_MM, spacing) for plane in fov])


def eroded(mask: Mask, side: int) -> Mask:
    """Return `mask` (slice, row, column) eroded in plane by squares of `side` pixels.

    As ``scipy.ndimage.binary_erosion`` with such a square, in a tenth of the time.
    """
    result = mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8)
    for axis in (1, 2):
        result = ndimage.minimum_filter1d(result, side, axis, mode="constant", cval=0)
    return result.view(np.bool_)


def _shrink(plane: Mask, by_mm: float, spacing: Vector) -> Mask:
    """Erode; what lies beyond the image counts as seen, so full images keep their edge."""
    if plane.all():
        return plane
    return np.asarray(ndimage.binary_erosion(plane, _disc(by_mm, spacing), border_value=1))


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())
