"""A drawn page as pixels, for objects that are images."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray


def rgb_pixels(png: Path) -> NDArray[np.uint8]:
    """Return the picture in a PNG file, shape (rows, columns, 3), RGB; transparent is white."""
    image = np.asarray(imread(png), np.float64)  # (rows, columns, 3 or 4), 0 to 1
    color, rest = image[..., :3], image[..., 3:]
    if rest.size:
        color = color * rest + (1.0 - rest)
    return np.rint(255.0 * color).astype(np.uint8)
