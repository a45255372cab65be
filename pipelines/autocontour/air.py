"""Air in the body beside the lungs: airway, pharynx, sinuses, gas in stomach and bowel."""

from typing import Final

import numpy as np

from pipelines.autocontour.morphology import components, dilate, soft_surface
from pipelines.geometry.contours import LEVEL
from pipelines.imaging.grid import Mask, Values, WorkImage

AIR_HU: Final = -400.0
"""Half way between air and the soft tissue around it, toward air."""
EDGE_HU: Final = 800.0
"""HU over which the surface is interpolated."""
LEAST_ML: Final = 0.5
"""Smaller bubbles are left out."""
RIM_MM: Final = 4.0
"""About the lungs: voxels that are partly lung are no cavity."""


def find_air(image: WorkImage, body: Mask, lungs: Values | None) -> Values | None:
    """Return values whose 0.5 level is the wall of the cavities; None where there is none.

    Parameters
    ----------
    image : WorkImage
    body : ndarray, bool, shape of `image`
        With all cavities filled.
    lungs : ndarray, float32, same shape, optional
        Both lungs; None where none was found.
    """
    air = body & (image.hu < AIR_HU)
    if lungs is not None:
        air &= ~dilate(lungs >= LEVEL, RIM_MM, image.spacing)
    labels, _ = components(air, LEAST_ML / image.voxel_ml)
    cavities = np.asarray(labels > 0)
    if not cavities.any():
        return None
    return soft_surface(cavities, 0.5 + (AIR_HU - image.hu) / EDGE_HU, body)
