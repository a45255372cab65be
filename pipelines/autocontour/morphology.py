"""Set operations in millimeters on masks of the work grid, (slice, row, column).

Distances are Euclidean in the spacing of the grid, so voxels of 1 x 1 x 5 mm give round shapes
too. Operations on components cost one labelling, whatever their number.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.imaging.grid import Mask, Values, Vector

IN_PLANE: Final = np.zeros((3, 3, 3), np.bool_)
"""Neighbors of one slice that share an edge."""
IN_PLANE[1, 1, :] = IN_PLANE[1, :, 1] = True


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, slice, slice]:
    """Return the slices that enclose `mask` plus `margin` voxels, clipped to the grid."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(mask.any(axis=others))
        low, high = (int(at[0]), int(at[-1]) + 1) if at.size else (0, 0)
        box.append(slice(max(0, low - margin), min(mask.shape[axis], high + margin)))
    return box[0], box[1], box[2]


def fill_slices(mask: Mask, spacing: Vector, largest_cm2: float = np.inf) -> Mask:
    """Return `mask` with the holes of each slice filled, up to `largest_cm2` each.

    What touches the edge of the image is no hole.
    """
    labels, count = ndimage.label(~mask, IN_PLANE)
    area = np.bincount(labels.ravel(), minlength=count + 1) * spacing[1] * spacing[2]
    hole = area <= largest_cm2 * 100.0
    hole[labels[:, [0, -1], :]] = hole[labels[:, :, [0, -1]]] = False
    hole[0] = True  # the mask itself
    return np.asarray(hole[labels])


def components(mask: Mask, least_voxels: float) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return labels and sizes of the components of at least `least_voxels`, largest first.

    Labels run from 1 in the order of the sizes; smaller components are 0.
    """
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(1.0, least_voxels)]
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[order] = np.arange(1, len(order) + 1)
    return renumbered[labels], sizes[order]


def keep_large(mask: Mask, least_voxels: float) -> Mask:
    """Return the components of at least `least_voxels`, or the largest where none is."""
    labels, sizes = components(mask, 1)
    if not sizes.size:
        return mask
    kept = max(1, int(np.count_nonzero(sizes >= least_voxels)))
    return np.asarray((labels > 0) & (labels <= kept))


def depth_in_slice(mask: Mask, spacing: Vector) -> NDArray[np.float32]:
    """Return for each voxel of `mask` the in-plane distance [mm] to the outside, else 0."""
    depth = np.zeros(mask.shape, np.float32)
    box = bounding_box(mask, 1)
    for k in range(box[0].start, box[0].stop):
        if mask[k].any():
            depth[k, box[1], box[2]] = ndimage.distance_transform_edt(
                mask[k, box[1], box[2]], sampling=spacing[1:]
            )
    return depth


def dilate(mask: Mask, radius_mm: float, spacing: Vector) -> Mask:
    """Return `mask` grown by a ball of `radius_mm`."""
    if not mask.any():
        return mask
    margin = int(np.ceil(radius_mm / min(spacing))) + 1
    box = bounding_box(mask, margin)
    grown = np.zeros(mask.shape, np.bool_)
    grown[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing) <= radius_mm
    return grown


def erode(mask: Mask, radius_mm: float, spacing: Vector) -> Mask:
    """Return `mask` shrunk by a ball of `radius_mm`; the end of the grid is no surface."""
    box = bounding_box(mask, 1)
    shrunk = np.zeros(mask.shape, np.bool_)
    shrunk[box] = ndimage.distance_transform_edt(mask[box], sampling=spacing) > radius_mm
    return shrunk


def close(mask: Mask, radius_mm: float, spacing: Vector) -> Mask:
    """Return `mask` closed by a ball of `radius_mm`; gaps toward the grid's end stay open."""
    if not mask.any():
        return mask
    box = bounding_box(mask, int(np.ceil(radius_mm / min(spacing))) + 2)
    grown = ndimage.distance_transform_edt(~mask[box], sampling=spacing) <= radius_mm
    closed = np.zeros(mask.shape, np.bool_)
    closed[box] = ndimage.distance_transform_edt(grown, sampling=spacing) > radius_mm
    return np.asarray(closed | mask)


def soft_surface(mask: Mask, edge: Values, allowed: Mask | None = None) -> Values:
    """Return values whose 0.5 level is the surface of `mask`, placed between voxels by `edge`.

    Parameters
    ----------
    mask : ndarray, bool
        Stays above 0.5 everywhere.
    edge : ndarray, float32, same shape
        The image around the surface, scaled to 0 outside and 1 inside.
    allowed : ndarray, bool, optional
        Voxels that the interpolation may lean on; the others are 0.
    """
    band = ndimage.binary_dilation(mask) & ~mask
    if allowed is not None:
        band &= allowed
    field = np.where(mask, np.clip(edge, 0.52, 1.0), np.where(band, np.clip(edge, 0.0, 0.48), 0.0))
    field[ndimage.binary_erosion(mask, border_value=1)] = 1.0
    return np.asarray(field, dtype=np.float32)
