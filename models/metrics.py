"""Agreement of two masks: Dice, 95 % surface distance, surface Dice; one definition each.

Published metric code differs by up to half (PMC9679364), so the definitions stand here: surface
elements are the faces between a voxel inside and one outside; each counts with its area;
distances run from face centre to the nearest face centre of the other mask; both directions are
pooled. Two empty masks, or one, give None: listed by the caller, never scored 0 or 1.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

_IN_PLANE: Final = ndimage.generate_binary_structure(2, 1)[None]
"""The four neighbours within a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well two masks agree."""

    dice: float
    """2 |A & B| / (|A| + |B|)."""
    hd95_mm: float
    """Area-weighted 95th percentile of the surface distances of both directions."""
    surface_dice: float
    """Share of both surfaces within the tolerance (Nikolov et al. 2021)."""


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    """Return 2 |A & B| / (|A| + |B|) of two masks of one shape; None if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else None


def agreement(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    tolerance_mm: float = 3.0,
) -> Agreement | None:
    """Return all measures of two masks (slice, row, column), or None if one of them is empty.

    Parameters
    ----------
    a, b : ndarray of bool, shape (slices, rows, columns)
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    tolerance_mm : float
        Of the surface Dice.
    """
    if not a.any() or not b.any():
        return None
    points_a, areas_a = _faces(a, spacing)
    points_b, areas_b = _faces(b, spacing)
    distances = np.concatenate(
        [cKDTree(points_b).query(points_a)[0], cKDTree(points_a).query(points_b)[0]]
    )
    areas = np.concatenate([areas_a, areas_b])
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    overlap = dice(a, b)
    return Agreement(
        dice=0.0 if overlap is None else overlap,
        hd95_mm=float(distances[order][np.searchsorted(share, 0.95)]),
        surface_dice=float(areas[distances <= tolerance_mm].sum() / areas.sum()),
    )


def added_path_mm(
    mine: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> float:
    """Return the length of contour that a person would have to draw anew.

    Contour pixels of `truth` (those of its mask with a neighbour of the same slice outside) that
    are no contour pixels of `mine`, times the pixel (Vaassen et al. 2020,
    doi 10.1016/j.phro.2019.12.001, equation 1; tolerance 0).
    """
    edges = [mask & ~ndimage.binary_erosion(mask, _IN_PLANE) for mask in (mine, truth)]
    return float((edges[1] & ~edges[0]).sum()) * float(np.sqrt(spacing[1] * spacing[2]))


def _faces(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return face centres (n, 3) in mm and face areas (n,) in mm2."""
    padded = np.pad(mask, 1)
    step = np.asarray(spacing, float)
    centres, areas = [], []
    for axis in range(3):
        where = np.argwhere(np.diff(padded.astype(np.int8), axis=axis) != 0).astype(float)
        where[:, axis] += 0.5
        centres.append(where * step)
        areas.append(np.full(len(where), step.prod() / step[axis]))
    return np.concatenate(centres), np.concatenate(areas)
