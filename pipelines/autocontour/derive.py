"""Derived structures on the work grid: unions, crops, rings and margins of what was found.

Every region is a field of depths below its surface [mm], so union is the larger depth, intersection
the smaller, and a margin a shift of the depth; surfaces lie between the voxels, where the 0.5 level
of the found structure lies. The end of the grid is no surface: `External - 3mm` keeps its full
length in a scan that cuts the body.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.autocontour.morphology import bounding_box
from pipelines.geometry.contours import LEVEL
from pipelines.geometry.expressions import Both, Either, Margin, Name, Node, Not, names, reach_mm
from pipelines.geometry.margins import Floats, surface_depth
from pipelines.imaging.grid import Values, WorkImage

RAMP_STEPS: Final = 2.0
"""Depth, in steps of the work grid, at which the field of a derived structure reaches 0 or 1."""


def derive(node: Node, found: Callable[[str], Values], image: WorkImage) -> Values:
    """Return the field of a derived structure, on the work grid; its 0.5 level is the surface.

    Parameters
    ----------
    node : Node
        Names and margins without dose bands.
    found : callable
        Name -> field whose 0.5 level is the surface.
    image : WorkImage
    """
    fields = {name: found(name.text) for name in dict.fromkeys(names(node))}
    together = np.zeros(image.hu.shape, np.bool_)
    for field in fields.values():
        together |= field > 0
    steps = int(np.ceil(reach_mm(node) / min(image.spacing))) + 2
    box = bounding_box(together, steps)
    depth = _depth(node, {n: f[box].astype(np.float64) - LEVEL for n, f in fields.items()}, image)
    result = np.zeros(image.hu.shape, np.float32)
    result[box] = np.clip(LEVEL + depth / (2 * ramp_mm(image)), 0.0, 1.0)
    return result


def ramp_mm(image: WorkImage) -> float:
    """Return the depth [mm] at which a derived field is 1."""
    return RAMP_STEPS * max(image.spacing)


def sharpened(values: Values, image: WorkImage, pixel_mm: float) -> Values:
    """Return a derived field on the CT's grid with a rise of one pixel about the same surface.

    The writer keeps fields off their level at voxel centers; on a slope as flat as that of the
    work grid this would move the surface.
    """
    gain = 2 * ramp_mm(image) / pixel_mm
    return np.asarray(np.clip(LEVEL + (values - LEVEL) * gain, 0.0, 1.0), dtype=np.float32)


def largest(field: Values) -> Values:
    """Return `field` with its largest connected part alone."""
    labels, count = ndimage.label(field >= LEVEL)
    if count <= 1:
        return field
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    others = (labels > 0) & (labels != int(sizes.argmax()))
    kept: Values = np.where(ndimage.binary_dilation(others) & (labels != int(sizes.argmax())),
                            np.float32(0), field)  # fmt: skip
    return kept


def _depth(node: Node, levels: dict[Name, Floats], image: WorkImage) -> Floats:
    """Return depths below the surface of `node` [mm]; exact near the surface only."""
    match node:
        case Name():
            return surface_depth(levels[node], image.spacing)
        case Margin(Name() as inner, mm):
            return surface_depth(levels[inner], image.spacing, mm)
        case Margin(inner, mm):
            return surface_depth(_depth(inner, levels, image), image.spacing, mm)
        case Either(left, right):
            return np.maximum(_depth(left, levels, image), _depth(right, levels, image))
        case Both(left, right):
            return np.minimum(_depth(left, levels, image), _depth(right, levels, image))
        case Not(inner):
            return -_depth(inner, levels, image)
        case _:
            raise ValueError("there is no dose here, so no dose band")
