"""The patient's outline without couch and immobilization.

A couch touches the patient, so thresholds and components alone keep it. But its shell is thin:
what lies deeper than 7 mm inside the filled outline of a slice is patient, or a slab too small to
be one. From these cores the outline grows back to the skin; shells and pads are left behind.
"""

from typing import Final

from scipy import ndimage

from pipelines.autocontour.morphology import (
    close,
    depth_in_slice,
    dilate,
    fill_slices,
    keep_large,
    soft_surface,
)
from pipelines.imaging.grid import Mask, Values, WorkImage

SKIN_HU: Final = -300.0
"""Between air and fat, toward fat: foam pads stay below."""
CORE_DEPTH_MM: Final = 7.0
"""Deeper than half of every couch shell."""
CORE_ML: Final = 150.0
"""Arms are larger, couch fittings smaller."""
REGROW_MM: Final = 8.0
"""From the cores back to the skin: the core depth and a voxel's half diagonal."""
CLOSE_MM: Final = 3.0
EDGE_HU: Final = 900.0
"""HU between air and skin over which the surface is interpolated."""


def body_surface(image: WorkImage, body: Mask) -> Values:
    """Return values whose 0.5 level is the skin of `body`."""
    return soft_surface(body, 0.5 + (image.hu - SKIN_HU) / EDGE_HU)


def find_body(image: WorkImage) -> Mask:
    """Return the body on the work grid, all cavities filled; empty where there is none."""
    smooth = ndimage.gaussian_filter(image.hu, (0.0, 0.5, 0.5))
    filled = fill_slices(smooth > SKIN_HU, image.spacing)
    cores = depth_in_slice(filled, image.spacing) > CORE_DEPTH_MM
    if not cores.any():
        return cores
    least = CORE_ML / image.voxel_ml
    cores = keep_large(cores, least)
    body = keep_large(dilate(cores, REGROW_MM, image.spacing) & filled, least)
    return fill_slices(close(body, CLOSE_MM, image.spacing), image.spacing)
