"""Which part of the body an image shows, from its cross-sections alone.

Each slice is described by a few plain numbers (how wide the body is, how much of it is aerated
lung, how much is bone and whether it lies at the rim or the middle), each a share or in
millimeters, so that voxel size does not matter. A small decision list names the slice; a region is
in the image when enough of its length has its name. Head and neck are one region: they are scanned
together, and their border is nobody's.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.pack import Manifest
from pipelines.api import Finding, Severity
from pipelines.imaging.grid import Mask, WorkImage

Numbers = NDArray[np.float64]


class Region(StrEnum):
    """A part of the body."""

    HEAD_NECK = "head and neck"
    THORAX = "thorax"
    ABDOMEN = "abdomen"
    PELVIS = "pelvis"
    LEGS = "legs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """Cross-sections of the body, one number a slice."""

    area_cm2: Numbers
    width_mm: Numbers
    lung: Numbers
    """Share of the section that is aerated lung: large dark pieces with some tissue in them."""
    air: Numbers
    """Share of the section that is air or lung of any kind."""
    bone: Numbers
    """Share of the section above `BONE_HU`."""
    hip_cm2: Numbers
    """Largest piece of bone that lies farther than `SIDE_MM` sideways from the middle."""
    pieces: Numbers
    """Large separate pieces of the section."""


GRID_MM: Final = 4.0
"""Slices, rows and columns that are looked at lie about so far apart."""
BONE_HU: Final = 200.0
LUNG_HU: Final = (-950.0, -500.0)
LUNG_CM2: Final = 6.0
SIDE_MM: Final = 50.0
PIECE_CM2: Final = 40.0
HEADWARD: Final = np.array([0.0, 0.0, 1.0])
"""Patient LPS."""
NARROW_MM: Final = 215.0
"""A head or a neck is narrower, a trunk is not."""
BROAD_MM: Final = 350.0
"""Shoulders, or a large trunk."""
SKULL_BONE: Final = 0.08
AIRWAY_SHARE: Final = 0.003
"""Of a section through pharynx, sinuses or trachea."""
LUNG_SHARE: Final = 0.08
SHOULDER_LUNG: Final = 0.15
"""Lung apices in a section through the shoulders."""
TRACE_SHARE: Final = 0.02
HIP_CM2: Final = 3.5
"""A hip bone or a thigh bone has more, a rib less."""
MAYBE: Final = 0.2
"""Likeness of a slice that could belong to a region as well as to its neighbor."""
LEAST_LIKENESS: Final = 0.4
"""Mean likeness of a region's slices below which it is not believed to be there."""
REGION_MM: Final = 60.0
"""Least length of a region that its model needs to see."""
CERTAIN_MM: Final = 80.0
"""Length of other regions from which a missing one is believed to be missing."""
NAMES: Final[Mapping[str, Region]] = {region.value: region for region in Region}


def regions(image: WorkImage, body: Mask) -> dict[Region, float]:
    """Return how many millimeters of the body belong to each region; absent ones are left out.

    From head to feet regions follow each other and never turn back, so the best cut of the body
    into regions is found by dynamic programming over what each slice looks like. Head and feet come
    from the orientation in the DICOM headers.
    """
    strides = tuple(max(1, round(GRID_MM / step)) for step in image.spacing)
    coarse = tuple(slice(None, None, stride) for stride in strides)
    spacing = tuple(n * step for n, step in zip(strides, image.spacing, strict=True))
    body = body[coarse]
    image = dataclasses.replace(
        image, hu=image.hu[coarse], spacing=(spacing[0], spacing[1], spacing[2])
    )
    score = _likeness(sections(image, body))
    used = np.flatnonzero(body.any(axis=(1, 2)))
    score = score[used[0] : used[-1] + 1] if used.size else score[:0]
    if image.directions[0] @ HEADWARD > 0:
        score = score[::-1]
    names = _ordered(score)
    step = image.spacing[0]
    return {
        region: round(float(np.count_nonzero(names == n)) * step, 1)
        for n, region in enumerate(Region)
        if np.count_nonzero(names == n) and float(score[names == n, n].mean()) >= LEAST_LIKENESS
    }


def check_region(manifest: Manifest, seen: Mapping[Region, float]) -> Finding | None:
    """Return what speaks against a model of one region on an image of others.

    Parameters
    ----------
    manifest
        Of the model; one for any region is never wrong.
    seen
        Region -> millimeters of it in the image.

    Returns
    -------
    Finding or None
        BLOCK where the image shows other regions for certain, WARN where it shows none for certain.
    """
    wanted = NAMES.get(manifest.body_region)
    if wanted is None or seen.get(wanted, 0.0) >= REGION_MM:
        return None
    told = ", ".join(f"{region.value} {mm:.0f} mm" for region, mm in seen.items()) or "nothing sure"
    certain = sum(mm for region, mm in seen.items() if region is not wanted) >= CERTAIN_MM
    return Finding(
        code="wrong-body-region",
        severity=Severity.BLOCK if certain else Severity.WARN,
        message=f"{manifest.id} is for {wanted.value}, of which the image shows "
        f"{seen.get(wanted, 0.0):.0f} mm (seen: {told})",
        value=seen.get(wanted, 0.0),
        unit="mm",
        limit=REGION_MM,
    )


def _likeness(s: Sections) -> Numbers:
    """Return how much each slice looks like each region, -1 to 1; shape (slices, regions)."""
    narrow = (s.width_mm < NARROW_MM) & (s.pieces <= 1)
    broad = s.width_mm >= BROAD_MM
    skull = s.bone >= SKULL_BONE
    airy, lungs, no_lung = s.air >= AIRWAY_SHARE, s.lung >= LUNG_SHARE, s.lung < TRACE_SHARE
    trunk = ~narrow & (s.lung < LUNG_SHARE)
    hips = s.hip_cm2 >= HIP_CM2
    likeness = {
        Region.HEAD_NECK: (narrow & (airy | skull), broad & (s.lung < SHOULDER_LUNG)),
        Region.THORAX: (lungs & ~narrow, (broad & trunk) | ((s.lung >= TRACE_SHARE) & ~narrow)),
        Region.ABDOMEN: (trunk & ~hips, trunk),
        Region.PELVIS: (trunk & hips & no_lung, trunk & no_lung),
        Region.LEGS: (
            (no_lung & ~airy & ((s.pieces > 1) | (narrow & ~skull))),
            no_lung & ~airy & ~broad,
        ),
    }
    rows = [np.where(sure, 1.0, np.where(maybe, MAYBE, -1.0)) for sure, maybe in likeness.values()]
    return np.stack(rows, axis=1)


def _ordered(score: Numbers) -> NDArray[np.intp]:
    """Return the region of each slice, head first, that never turns back and scores highest."""
    count, kinds = score.shape
    total = np.zeros(kinds)
    back = np.zeros((count, kinds), np.intp)
    for k in range(count):
        before = [int(np.argmax(total[: n + 1])) for n in range(kinds)]
        back[k] = before
        total = total[before] + score[k]
    names = np.zeros(count, np.intp)
    at = int(np.argmax(total)) if count else 0
    for k in reversed(range(count)):
        names[k] = at
        at = int(back[k, at])
    return names


def sections(image: WorkImage, body: Mask) -> Sections:
    """Return the numbers of every slice; 0 where there is no body."""
    rows = [_section(image, body, k) for k in range(len(body))]
    area, width, lung, air, bone, hip, pieces = np.array(rows, np.float64).reshape(-1, 7).T
    return Sections(
        area_cm2=area, width_mm=width, lung=lung, air=air, bone=bone, hip_cm2=hip, pieces=pieces
    )


def _section(image: WorkImage, body: Mask, k: int) -> tuple[float, ...]:
    plane = body[k]
    count = int(np.count_nonzero(plane))
    if not count:
        return (0.0,) * 7
    hu, step = image.hu[k], image.spacing[1:]
    cm2 = step[0] * step[1] / 100.0
    sideways = np.add.outer(
        image.left[1] * np.arange(plane.shape[0]), image.left[2] * np.arange(plane.shape[1])
    )
    across = sideways[plane]
    middle = (across.min() + across.max()) / 2
    air = plane & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1])
    labels, found = ndimage.label(air)
    sizes = np.bincount(labels.ravel(), minlength=found + 1)[1:] * cm2
    hard = plane & (hu > BONE_HU)
    bone = int(np.count_nonzero(hard))
    parts, separate = ndimage.label(plane)
    large = np.bincount(parts.ravel(), minlength=separate + 1)[1:] * cm2 >= PIECE_CM2
    return (
        count * cm2,
        float(across.max() - across.min()),
        float(sizes[sizes >= LUNG_CM2].sum()) / (count * cm2),
        float(np.mean(hu[plane] < LUNG_HU[1])),
        bone / count,
        _largest(hard & (np.abs(sideways - middle) > SIDE_MM)) * cm2,
        float(np.count_nonzero(large)),
    )


def _largest(plane: Mask) -> int:
    """Return the size of the largest connected piece, in pixels."""
    labels, _ = ndimage.label(plane, np.ones((3, 3)))
    return int(np.bincount(labels.ravel())[1:].max(initial=0))
