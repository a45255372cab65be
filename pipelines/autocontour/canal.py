"""The spinal canal: a path of soft tissue that bone surrounds, from slice to slice.

Every soft voxel is scored by how many directions meet bone nearby, how far it is from bone and how
near the middle of the body it lies. The best path through the slices is found by dynamic
programming, so one slice between two vertebral arches cannot lead it away, and the canal around
the path is filled. A path that bone hardly surrounds is no canal.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.autocontour.morphology import bounding_box, keep_large
from pipelines.imaging.grid import Mask, Values, WorkImage

SOFT_HU: Final = (-80.0, 150.0)
DIRECTIONS: Final = 12
REACH_MM: Final = (4.0, 22.0)
"""Bone counts for a direction when it is met between these distances."""
ROOM_MM: Final = 9.0
"""More distance from bone than this is not better."""
ROOM_WEIGHT: Final = 0.6
OFFSET_WEIGHT: Final = 0.5
OFFSET_MM: Final = 60.0
"""Sideways distance from the middle of the body that costs `OFFSET_WEIGHT`."""
MARROW_WEIGHT: Final = 0.6
MARROW_HU: Final = (50.0, 130.0)
"""Smoothed values between which a voxel turns from cord and fluid (0 to 40) into marrow."""
CANDIDATES: Final = 60
STEP_COST: Final = 0.02
"""Of a step of 1 mm sideways between slices, squared; as if the slices were 3 mm apart."""
RADIUS_MM: Final = 13.0
"""The canal lies within this distance of the path."""
ENCLOSED: Final = 0.45
"""Share of directions that meet bone on a good slice."""
LEAST_ENCLOSED: Final = 0.6
"""Share of good slices that makes a path a canal."""
VERTEBRA_MM: Final = 18.0
"""Least height of a vertebra with its disc."""
LEAST_LENGTH_MM: Final = 30.0
SMOOTH_MM: Final = 1.5
"""Of the surface, in plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canal:
    """A canal on the work grid, or why there is none."""

    mask: Mask | None
    enclosed: float
    """Mean share of directions in which bone surrounds the path."""
    reason: str = ""


def canal_surface(image: WorkImage, mask: Mask) -> Values:
    """Return values whose 0.5 level is the smoothed surface of the canal `mask`."""
    sigma = [0.0, *(SMOOTH_MM / step for step in image.spacing[1:])]
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    smooth[smooth < 0.05] = 0.0  # noqa: PLR2004 (far below the surface)
    return np.asarray(smooth, dtype=np.float32)


def find_canal(image: WorkImage, body: Mask, hard: Mask) -> Canal:
    """Return the spinal canal between the bones `hard`; no mask where the path is not certain."""
    soft = (image.hu > SOFT_HU[0]) & (image.hu < SOFT_HU[1]) & body & ~hard
    if not hard.any():
        return Canal(mask=None, enclosed=0.0, reason="there is no bone in the image")
    box = bounding_box(hard, 1)
    share = _enclosed(hard[box], image)
    score = _score(image, body, hard, share, box)
    score[~soft[box]] = -np.inf
    path, first = _path(score, image)
    if path is None:
        return Canal(mask=None, enclosed=0.0, reason="no soft tissue lies between bones")
    along = share[np.arange(first, first + len(path)), path[:, 0], path[:, 1]]
    keep, reason = _certain(along, image.spacing[0])
    if keep is None:
        return Canal(mask=None, enclosed=float(along.mean()), reason=reason)
    mask = np.zeros(image.hu.shape, np.bool_)
    mask[box] = _fill(soft[box], path[keep], first + keep.start, image)
    return Canal(mask=mask, enclosed=float(along[keep].mean()))


def _certain(along: Values, step_mm: float) -> tuple[slice | None, str]:
    """Return the part of the path that bone surrounds, or why there is none.

    Between two arches a slice may be open; what counts is the majority over one vertebra.
    """
    good = along >= ENCLOSED
    nearby = ndimage.uniform_filter1d(good.astype(np.float32), max(1, round(VERTEBRA_MM / step_mm)))
    inside = np.flatnonzero(nearby >= 0.5)  # noqa: PLR2004 (half of them)
    if not inside.size or np.ptp(inside) * step_mm < LEAST_LENGTH_MM:
        return None, "bone surrounds no path for long enough"
    keep = slice(int(inside[0]), int(inside[-1]) + 1)
    certain = float(np.mean(good[keep]))
    if certain < LEAST_ENCLOSED:
        return None, f"bone surrounds the path on only {100 * certain:.0f} % of the slices"
    return keep, ""


def _enclosed(hard: Mask, image: WorkImage) -> Values:
    """Return for each voxel the share of in-plane directions that meet bone within reach."""
    _, rows, columns = hard.shape
    share = np.zeros(hard.shape, np.float32)
    step = min(image.spacing[1:])
    for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
        met = np.zeros(hard.shape, np.bool_)
        offsets = {
            (
                round(r * np.sin(angle) / image.spacing[1]),
                round(r * np.cos(angle) / image.spacing[2]),
            )
            for r in np.arange(REACH_MM[0], REACH_MM[1] + step / 2, step)
        }
        for dr, dc in offsets:
            target = np.s_[:, max(0, -dr) : rows - max(0, dr), max(0, -dc) : columns - max(0, dc)]
            source = np.s_[:, max(0, dr) : rows + min(0, dr), max(0, dc) : columns + min(0, dc)]
            met[target] |= hard[source]
        share += met
    return share / np.float32(DIRECTIONS)


def _score(
    image: WorkImage, body: Mask, hard: Mask, share: Values, box: tuple[slice, slice, slice]
) -> Values:
    """Return how much each voxel of `box` looks like the middle of the canal."""
    score = share.copy()
    for k in range(score.shape[0]):
        away = ndimage.distance_transform_edt(~hard[box][k], sampling=image.spacing[1:])
        score[k] += ROOM_WEIGHT * np.minimum(away, ROOM_MM) / ROOM_MM
    grid = np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij", sparse=True)
    sideways = sum(g * step for g, step in zip(grid, image.left, strict=True))
    middle = _middle(image, body)[box[0]]
    score -= OFFSET_WEIGHT * ((sideways - middle[:, None, None]) / OFFSET_MM) ** 2
    around = ndimage.gaussian_filter(image.hu[box], [2.0 / step for step in image.spacing])
    low, high = MARROW_HU
    score -= MARROW_WEIGHT * np.clip((around - low) / (high - low), 0.0, 1.0)
    return score


def _middle(image: WorkImage, body: Mask) -> NDArray[np.float64]:
    """Return for each slice the middle of the body, sideways [mm], smoothed along the slices."""
    middle = np.full(body.shape[0], np.nan)
    for k, plane in enumerate(body):
        at = np.argwhere(plane)
        if len(at):
            sideways = at @ image.left[1:] + k * image.left[0]
            middle[k] = (sideways.min() + sideways.max()) / 2
    known = np.flatnonzero(np.isfinite(middle))
    middle = np.interp(np.arange(len(middle)), known, middle[known])
    return np.asarray(ndimage.median_filter(middle, max(1, round(45 / image.spacing[0]))))


def _path(score: Values, image: WorkImage) -> tuple[NDArray[np.intp] | None, int]:
    """Return (row, column) of the best path and its first slice, by dynamic programming."""
    usable = np.flatnonzero(np.isfinite(score).any(axis=(1, 2)))
    if not usable.size:
        return None, 0
    first, last = int(usable[0]), int(usable[-1])
    size = np.array(image.spacing[1:])
    cost = STEP_COST * (3.0 / image.spacing[0]) ** 2
    nodes: list[NDArray[np.intp]] = []
    back: list[NDArray[np.intp]] = []
    total = np.zeros(0)
    for k in range(first, last + 1):
        flat = score[k].ravel()
        few = min(CANDIDATES, int(np.isfinite(flat).sum()))
        if few == 0:  # a slice without soft tissue: the path stays where it is
            nodes.append(nodes[-1])
            back.append(np.arange(len(total)))
            continue
        best = np.sort(np.argpartition(-flat, few - 1)[:few])
        here = np.column_stack(np.unravel_index(best, score[k].shape))
        if nodes:
            apart = np.sum(((here[:, None] - nodes[-1][None]) * size) ** 2, axis=2)
            gain = total[None] - cost * apart
            back.append(np.argmax(gain, axis=1))
            total = flat[best] + np.max(gain, axis=1)
        else:
            back.append(np.zeros(few, np.intp))
            total = flat[best].astype(np.float64)
        nodes.append(here)
    at = int(np.argmax(total))
    path = []
    for here, before in zip(reversed(nodes), reversed(back), strict=True):
        path.append(here[at])
        at = int(before[at])
    return np.array(path[::-1]), first


def _fill(soft: Mask, path: NDArray[np.intp], first: int, image: WorkImage) -> Mask:
    """Return the soft tissue around the path that hangs together with it, slice by slice."""
    mask = np.zeros(soft.shape, np.bool_)
    rows, columns = np.ogrid[: soft.shape[1], : soft.shape[2]]
    for k, (row, column) in enumerate(path, start=first):
        away = np.hypot((rows - row) * image.spacing[1], (columns - column) * image.spacing[2])
        near = ndimage.binary_opening(soft[k] & (away <= RADIUS_MM))
        labels, _ = ndimage.label(near)
        label = labels[row, column]
        mask[k] = labels == label if label else away <= RADIUS_MM / 2
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), (1.0, 0.0, 0.0))
    return keep_large((smooth > 0.5) & _span(mask), 1)  # noqa: PLR2004 (majority of neighbors)


def _span(mask: Mask) -> Mask:
    """Return all voxels of the slices between the first and the last of `mask`."""
    at = np.flatnonzero(mask.any(axis=(1, 2)))
    span = np.zeros(mask.shape, np.bool_)
    span[at[0] : at[-1] + 1] = True
    return span
