"""Bone by threshold, with its marrow; also what the spinal canal is found between."""

from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.autocontour.morphology import close, components, fill_slices, soft_surface
from pipelines.imaging.grid import Mask, Values, WorkImage

HARD_HU: Final = 180.0
"""Above muscle and most contrast-filled veins: what surrounds the spinal canal."""
BONE_HU: Final = 150.0
"""Down to porous cancellous bone."""
MARROW_HU: Final = 60.0
"""What the closing may add: marrow and partial volume, not muscle."""
PIECE_ML: Final = 1.5
"""Smaller pieces are calcifications and clips."""
FRAGMENT_ML: Final = 0.3
"""Smaller pieces of the result are noise."""
SMOOTH_VOXELS: Final = 0.55
CLOSE_MM: Final = 5.0
EDGE_HU: Final = 500.0
"""HU between soft tissue and cortical bone over which the surface is interpolated."""
NEARBY_MM: Final = 4.0
"""Where the density of a bone is looked for, from its surface."""
SOFT_HU: Final = 50.0
DENSE_HU: Final = 350.0
"""Highest surface value: teeth and metal are no measure for the bone beside them."""
HOLE_CM2: Final = 25.0
"""Larger holes of a slice are cavities (skull, thorax), not marrow."""


def find_hard(image: WorkImage, body: Mask, threshold_hu: float = HARD_HU) -> Mask:
    """Return everything above `threshold_hu` in `body` that is large enough to be a bone."""
    labels, _ = components((image.hu > threshold_hu) & body, PIECE_ML / image.voxel_ml)
    return np.asarray(labels > 0)


def find_bones(image: WorkImage, body: Mask, canal: Mask | None) -> Values:
    """Return the bones with their marrow, without the spinal canal; the surface is at 0.5."""
    hard = find_hard(image, body, BONE_HU)
    solid = fill_slices(close(hard, CLOSE_MM, image.spacing), image.spacing, HOLE_CM2) & body
    bones = hard | (solid & (image.hu > MARROW_HU))
    bones = fill_slices(bones, image.spacing, HOLE_CM2) & body
    free = body if canal is None else body & ~canal
    limit = _surface_hu(image)
    shell = bones & ~ndimage.binary_erosion(solid, border_value=1)
    bones &= ~(shell & (image.hu < limit)) & free
    bones = ndimage.gaussian_filter(bones.astype(np.float32), SMOOTH_VOXELS) > 0.5  # noqa: PLR2004 (majority)
    labels, _ = components(bones & free, FRAGMENT_ML / image.voxel_ml)
    bones = fill_slices(labels > 0, image.spacing, HOLE_CM2) & free
    return soft_surface(bones, 0.5 + (image.hu - limit) / EDGE_HU, free)


def _surface_hu(image: WorkImage) -> Values:
    """Return where the surface of a bone lies: half way between its density and soft tissue.

    One threshold for all makes thick, dense bones too large and loses thin, porous ones.
    """
    size = [max(1, 2 * round(NEARBY_MM / step) + 1) for step in image.spacing]
    densest = ndimage.maximum_filter(image.hu, size=size)
    return np.asarray(np.clip((densest + SOFT_HU) / 2, BONE_HU, DENSE_HU), dtype=np.float32)
