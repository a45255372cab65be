"""How a CT enters the contouring network: intensity windows and the fixed field of view.

The network saw squares of `FIELD_PX` pixels of `PIXEL_MM`; instance normalization ties its weights
to that size (measured by others: 128 instead of 80 pixels cost 0.15 Dice on the brainstem). Both
training and inference therefore go through this module.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FIELD_PX: Final = 80
"""Rows and columns of the network's input."""
PIXEL_MM: Final = 3.9
"""Pixel size of the network's input: 312 mm field of view."""
SOFT_HU: Final = (-160.0, 240.0)
"""Soft-tissue window of the neighbouring slices."""
WIDE_HU: Final = (-1000.0, 1500.0)
"""Wide window of the centre slice: air and bone."""
BODY_HU: Final = -300.0
"""Above it counts as body when the field is centred."""


def windowed(hu: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    """Return HU mapped linearly to [-1, 1] over `window`, clipped; any shape."""
    low, high = window
    scaled: NDArray[np.float32] = np.clip((hu - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)
    return scaled.astype(np.float32)


def slice_stack(count: int, centre: int, slices: int) -> NDArray[np.int64]:
    """Return the indices of `slices` neighbours of `centre`; edge slices are repeated."""
    reach = slices // 2
    return np.clip(np.arange(centre - reach, centre + reach + 1), 0, count - 1)


def body_centre(hu: NDArray[Any]) -> tuple[float, float]:
    """Return the (row, column) of the middle of the body's box, in pixels.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
        CT with everything outside the body at air.
    """
    body = hu > BODY_HU
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    if rows.size == 0:
        return (hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
