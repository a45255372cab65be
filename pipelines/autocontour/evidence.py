"""What an image says about a contour: its values inside, what it left out, where it lies.

Each measure is a number with a plain meaning; `pipelines.autocontour.limits` holds what it may be.
All of them look at the image or at the body, none at what the method that found the structure
thought.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.autocontour.morphology import bounding_box
from pipelines.autocontour.names import Organ
from pipelines.geometry.stack import Floats
from pipelines.imaging.grid import Mask, Vector, WorkImage

AIR_HU: Final = -600.0
"""Aerated lung and gas are below."""
HARD_HU: Final = 300.0
"""Cortical bone, metal and contrast are above."""
INSIDE_HU: Final[Mapping[Organ, tuple[float, float]]] = MappingProxyType(
    {
        Organ.EXTERNAL: (-1100.0, 4000.0),
        Organ.LUNG_L: (-1100.0, -300.0),
        Organ.LUNG_R: (-1100.0, -300.0),
        Organ.LUNGS: (-1100.0, -300.0),
        Organ.BONES: (100.0, 4000.0),
        Organ.SPINAL_CANAL: (-150.0, 200.0),
        Organ.AIR: (-1100.0, -300.0),
        Organ.BONE_MANDIBLE: (100.0, 4000.0),
    }
)
"""HU that most of a structure has."""


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the middle is computed once
class Scene:
    """What structures are compared with."""

    image: WorkImage
    body: Mask
    """Shape of `image`."""

    @cached_property
    def middle_mm(self) -> Floats:
        """Patient LPS position [mm] of the body's center, relative to voxel (0, 0, 0)."""
        return center_mm(self.body, self.image)

    def across_mm(self) -> Floats:
        """Return how far left of the body's center each voxel lies [mm], shape of `image`."""
        planes, rows, columns = (
            step * np.arange(size)
            for step, size in zip(self.image.left, self.body.shape, strict=True)
        )
        left: Floats = planes[:, None, None] + rows[:, None] + columns - self.middle_mm[0]
        return left


def center_mm(mask: Mask, image: WorkImage) -> Floats:
    """Return the patient LPS position [mm] of a mask's center, relative to voxel (0, 0, 0)."""
    index = np.array([np.mean(axis) for axis in np.nonzero(mask)])
    center: Floats = (index * np.array(image.spacing)) @ image.directions
    return center


def typical(organ: Organ, mask: Mask, scene: Scene) -> float:
    """Return the share of the structure with the HU that it should have."""
    low, high = INSIDE_HU[organ]
    values = scene.image.hu[mask]
    return float(np.mean((values >= low) & (values <= high)))


def outside_body(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return the share of the structure outside the body."""
    return float(np.mean(~scene.body[mask]))


def left_out(organ: Organ, mask: Mask, scene: Scene) -> float:
    """Return the share of what looks like the structure, inside the body, that is not in it."""
    alike = _alike(organ, scene)
    count = int(np.count_nonzero(alike))
    return float(np.count_nonzero(alike & ~mask)) / count if count else 0.0


def in_parts(_: Organ, mask: Mask, scene: Scene) -> float:  # noqa: ARG001 (one shape for all)
    """Return the share of the structure outside its largest connected part."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count <= 1:
        return 0.0
    sizes = np.bincount(labels.ravel())[1:]
    return 1.0 - float(sizes.max()) / float(sizes.sum())


def absent(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return the share of the body's slices in which the structure is not."""
    body, mine = (m.any(axis=(1, 2)) for m in (scene.body, mask))
    return float(np.count_nonzero(body & ~mine)) / max(int(np.count_nonzero(body)), 1)


def off_side_mm(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return how far left of the body's center the structure's center lies [mm]."""
    return float(center_mm(mask, scene.image)[0] - scene.middle_mm[0])


def behind_mm(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return how far behind the body's center the structure's center lies [mm]."""
    return float(center_mm(mask, scene.image)[1] - scene.middle_mm[1])


def lump_mm(organ: Organ, mask: Mask, scene: Scene) -> float:
    """Return the radius [mm] of the largest ball inside the structure without its HU."""
    low, high = INSIDE_HU[organ]
    hu = scene.image.hu
    strange = mask & ((hu < low) | (hu > high))
    if not strange.any():
        return 0.0
    box = bounding_box(strange, 1)
    depth = ndimage.distance_transform_edt(strange[box], sampling=scene.image.spacing)
    return float(depth.max())


def stray_mm(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return the radius [mm] of the largest ball inside the structure and outside the body."""
    stray = mask & ~scene.body
    if not stray.any():
        return 0.0
    box = bounding_box(stray, 1)
    return float(ndimage.distance_transform_edt(stray[box], sampling=scene.image.spacing).max())


def wavering_mm(_: Organ, mask: Mask, scene: Scene) -> float:
    """Return the largest change of an equivalent radius from a slice to the next [mm]."""
    return radius_step_mm(mask, scene.image.spacing)


def radius_step_mm(mask: Mask, spacing: Vector) -> float:
    """Return the largest change of the radius of a circle of equal area between two slices [mm]."""
    area = mask.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    used = np.flatnonzero(area)
    radius = np.sqrt(area[used[0] : used[-1] + 1] / np.pi)
    return float(np.abs(np.diff(radius)).max()) if len(radius) > 1 else 0.0


def _alike(organ: Organ, scene: Scene) -> Mask:
    """Return what looks like the structure in the body."""
    hu, body = scene.image.hu, scene.body
    if organ is Organ.EXTERNAL:
        return body
    if organ is Organ.BONES:
        return np.asarray(body & (hu > HARD_HU))
    dark = body & (hu < AIR_HU)
    if organ is Organ.LUNG_L:
        dark &= scene.across_mm() > 0
    if organ is Organ.LUNG_R:
        dark &= scene.across_mm() < 0
    return np.asarray(dark)
