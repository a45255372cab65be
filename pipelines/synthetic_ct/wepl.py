"""Water-equivalent path length: what dose would see of a difference between two images.

Rays from the middle of the body outwards in every slice; the sum of the relative stopping power
along each, in mm (reference page, section 11). The action level of others is 3 mm (PMC5875558).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]

RAYS: Final = 24
STEP_MM: Final = 2.0
STOPPING: Final = ((-1000.0, 0.0), (0.0, 1.0), (1000.0, 1.55), (3000.0, 2.5))
"""HU -> relative stopping power, linear between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathDifference:
    """How path lengths through two images differ."""

    p95_mm: float
    worst_mm: float
    """The largest, with its sign: first image minus second."""
    worst_slice: int
    worst_angle_deg: float
    """0 along the columns (to the patient's left, head first supine), 90 along the rows."""


def path_lengths(hu: Hu, body: Mask, spacing: Vector) -> NDArray[np.float64]:
    """Return the path lengths from the body's middle outwards, shape (slices, rays), mm.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
    body : ndarray of bool, same shape
        What lies outside counts as nothing.
    spacing : (slice, row, column), mm
    """
    x, y = zip(*STOPPING, strict=True)
    power = np.where(body, np.interp(hu, x, y), 0.0).astype(np.float32)
    seen = body.any(axis=0)
    if not seen.any():
        return np.zeros((len(hu), RAYS))
    row, column = ndimage.center_of_mass(seen)
    corners = [(n - 1) * s for n, s in zip(hu.shape[1:], spacing[1:], strict=True)]
    distance = np.arange(0.5, math.hypot(*corners) / STEP_MM) * STEP_MM
    angles = 2 * np.pi * np.arange(RAYS) / RAYS
    rows = row + np.sin(angles)[:, None] * distance / spacing[1]
    columns = column + np.cos(angles)[:, None] * distance / spacing[2]
    lengths = [
        ndimage.map_coordinates(plane, (rows, columns), order=1, mode="constant").sum(axis=1)
        for plane in power
    ]
    return np.asarray(lengths, dtype=np.float64) * STEP_MM


def path_difference(first: Hu, second: Hu, body: Mask, spacing: Vector) -> PathDifference:
    """Return how the path lengths of `first` differ from those of `second`."""
    difference = path_lengths(first, body, spacing) - path_lengths(second, body, spacing)
    worst = np.unravel_index(int(np.abs(difference).argmax()), difference.shape)
    return PathDifference(
        p95_mm=float(np.percentile(np.abs(difference), 95)),
        worst_mm=float(difference[worst]),
        worst_slice=int(worst[0]),
        worst_angle_deg=float(worst[1] * 360 / RAYS),
    )
