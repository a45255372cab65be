"""Left and right lung without trachea, main bronchi and bowel gas.

Air inside the body is split by what it is: the airway is followed from the trachea downward under
a rising threshold until it would leak into the lung; bowel gas is emptier than lung; what remains
in large pieces is lung. Sides come from patient coordinates, never from the array.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.autocontour.morphology import (
    bounding_box,
    close,
    components,
    dilate,
    erode,
    fill_slices,
    soft_surface,
)
from pipelines.imaging.grid import Mask, Values, WorkImage

LUNG_HU: Final = -300.0
"""Half way between lung and chest wall, where clinicians draw the pleura."""
GAS_HU: Final = -890.0
"""Nine tenths of the inside of a gas bubble are below (stomach -920), of a lung not (-770)."""
PIECE_ML: Final = 20.0
"""Smaller pieces of air in the body are no lung lobe."""
LUNG_ML: Final = 300.0
"""Each lung must have as much to be told from the other."""
CLOSE_MM: Final = 5.0
"""Vessels up to twice this belong to the lung."""
VESSEL_CM2: Final = 3.0
"""Larger holes of a slice are no vessels: the dome of the liver, a tumor."""
EDGE_HU: Final = 600.0
"""HU between lung and tissue over which the surface is interpolated."""
TRACHEA_MM2: Final = (60.0, 800.0)
"""Cross-section of an adult's or a child's trachea."""
TRACHEA_HU: Final = -600.0
TRACHEA_OFF_MM: Final = 45.0
"""Largest distance of the trachea from the middle of the body, sideways."""
TRACHEA_LENGTH_MM: Final = 24.0
"""Shorter tracks are something else."""
AIRWAY_HU: Final = tuple(range(-980, -780, 20))
"""Thresholds under which the airway is followed."""
AIRWAY_STEP_ML: Final = 15.0
"""A growth of more between two thresholds is a leak into the lung."""
AIRWAY_ML: Final = 120.0
WALL_MM: Final = 3.0
"""Thickness of the airway's wall that goes with it."""
SPLIT_MM: Final = (0.0, 2.5, 4.0, 6.0, 8.0)
"""Erosions that are tried to part two lungs that touch in front of the heart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lungs:
    """Lungs on the work grid; values whose 0.5 level is the surface."""

    both: Values
    left: Values | None
    """None where left and right could not be told apart."""
    right: Values | None
    reason: str = ""
    """Why there is no side, in a sentence."""


def find_lungs(image: WorkImage, body: Mask) -> Lungs | None:
    """Return the lungs inside `body`; None where no piece of air is one."""
    air = (image.hu < LUNG_HU) & body
    airway = find_airway(image, air, body)
    air &= ~dilate(airway, WALL_MM, image.spacing)
    pieces = _lung_pieces(image, air)
    if pieces is None:
        return None
    sides, reason = _sides(image, body, pieces)
    if sides is None:
        return Lungs(both=_surface(image, pieces, airway), left=None, right=None, reason=reason)
    left, right = sides
    left_closed, right_closed = _closed(image, left, airway), _closed(image, right, airway)
    right_closed &= ~left_closed | right
    left_closed &= ~right_closed
    left_field = _soften(image, left_closed, ~right_closed & ~airway)
    right_field = _soften(image, right_closed, ~left_closed & ~airway)
    return Lungs(both=np.maximum(left_field, right_field), left=left_field, right=right_field)


def find_airway(image: WorkImage, air: Mask, body: Mask) -> Mask:
    """Return trachea and main bronchi; empty where no trachea is found."""
    track = _trachea(image, air, body)
    if not track.any():
        return track
    airway = track
    for threshold in AIRWAY_HU:
        labels, _ = ndimage.label((image.hu < threshold) & air | track)
        seeds = np.unique(labels[track])
        grown = np.isin(labels, seeds[seeds > 0])
        growth = (np.count_nonzero(grown) - np.count_nonzero(airway)) * image.voxel_ml
        if growth > AIRWAY_STEP_ML or np.count_nonzero(grown) * image.voxel_ml > AIRWAY_ML:
            break
        airway = grown | airway
    return airway


def _trachea(image: WorkImage, air: Mask, body: Mask) -> Mask:
    """Return the longest track of round blobs of air near the middle, over neighboring slices."""
    area_mm2 = image.spacing[1] * image.spacing[2]
    middle = _middle_columns(image, body)
    best = np.zeros(air.shape, np.bool_)
    length = 0
    tracks: list[tuple[Mask, int, int]] = []  # (last blob, first slice, slices)
    blobs: list[list[Mask]] = []
    history: dict[int, list[Mask]] = {}
    for k in range(air.shape[0]):
        found = _blobs(image, air[k] & (image.hu[k] < TRACHEA_HU), middle[k], area_mm2)
        blobs.append(found)
        following: list[tuple[Mask, int, int]] = []
        chains: dict[int, list[Mask]] = {}
        for blob in found:
            before = [i for i, (last, _, _) in enumerate(tracks) if np.any(last & blob)]
            source = max(before, key=lambda i: tracks[i][2], default=-1)
            chain = [*history.get(source, []), blob]
            chains[len(following)] = chain
            following.append((blob, k - len(chain) + 1, len(chain)))
            if len(chain) > length:
                length = len(chain)
                best[:] = False
                best[k - len(chain) + 1 : k + 1] = np.stack(chain)
        tracks, history = following, chains
    if length * image.spacing[0] < TRACHEA_LENGTH_MM:
        best[:] = False
    return best


def _middle_columns(image: WorkImage, body: Mask) -> list[tuple[float, float]]:
    """Return for each slice the in-plane center (row, column) of the body."""
    centers = []
    for plane in body:
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        if rows.size:
            centers.append(((rows[0] + rows[-1]) / 2.0, (columns[0] + columns[-1]) / 2.0))
        else:
            centers.append((image.hu.shape[1] / 2.0, image.hu.shape[2] / 2.0))
    return centers


def _blobs(
    image: WorkImage, plane: Mask, middle: tuple[float, float], area_mm2: float
) -> list[Mask]:
    """Return the blobs of one slice that may be trachea: size, roundness, place."""
    labels, _ = ndimage.label(plane)
    found = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        blob = labels[box] == index
        area = np.count_nonzero(blob) * area_mm2
        if not TRACHEA_MM2[0] <= area <= TRACHEA_MM2[1]:
            continue
        height, width = blob.shape[0] * image.spacing[1], blob.shape[1] * image.spacing[2]
        if max(height, width) > 3.0 * min(height, width) or area < 0.45 * height * width:
            continue
        center = (box[0].start + box[0].stop - 1) / 2.0, (box[1].start + box[1].stop - 1) / 2.0
        off = np.array([0.0, center[0] - middle[0], center[1] - middle[1]])
        if abs(float(off @ image.left)) <= TRACHEA_OFF_MM:
            whole = np.zeros(plane.shape, np.bool_)
            whole[box] = blob
            found.append(whole)
    return found


def _lung_pieces(image: WorkImage, air: Mask) -> Mask | None:
    """Return the pieces of air that are lung: large, not empty; None where they are too small."""
    labels, sizes = components(air, PIECE_ML / image.voxel_ml)
    if not sizes.size:
        return None
    inner = np.where(ndimage.binary_erosion(labels > 0), labels, 0)  # without the blurred rim
    lung = [i for i in range(1, len(sizes) + 1) if _has_vessels(image.hu[inner == i])]
    pieces = np.isin(labels, lung)
    return pieces if np.count_nonzero(pieces) * image.voxel_ml >= LUNG_ML else None


def _has_vessels(hu: Values) -> bool:
    """Return whether a piece of air is lung: gas is equally empty everywhere."""
    return hu.size > 0 and float(np.percentile(hu, 90)) > GAS_HU


def _sides(image: WorkImage, body: Mask, pieces: Mask) -> tuple[tuple[Mask, Mask] | None, str]:
    """Return (left, right), each voxel with its nearest core, or the reason why not."""
    for radius in SPLIT_MM:
        eroded = erode(pieces, radius, image.spacing) if radius else pieces
        labels, sizes = components(eroded, LUNG_ML / 2 / image.voxel_ml)
        if len(sizes) >= 2:  # noqa: PLR2004 (left and right)
            break
    else:
        return None, "left and right lung hang together and could not be parted"
    middle = float(np.mean(np.argwhere(body) @ image.left))
    offsets = [
        float(np.mean(np.argwhere(labels == i) @ image.left)) - middle
        for i in range(1, len(sizes) + 1)
    ]
    if offsets[0] * offsets[1] >= 0:
        return None, "the two largest pieces of lung lie on the same side of the body"
    side = np.zeros(len(sizes) + 1, np.int8)
    side[1:] = np.sign(offsets)
    cores = side[labels]
    box = bounding_box(pieces)
    nearest = ndimage.distance_transform_edt(
        cores[box] == 0, sampling=image.spacing, return_distances=False, return_indices=True
    )
    owner = np.zeros(cores.shape, np.int8)
    owner[box] = cores[box][tuple(nearest)]
    return (pieces & (owner > 0), pieces & (owner < 0)), ""


def _closed(image: WorkImage, lung: Mask, airway: Mask) -> Mask:
    """Return `lung` with its vessels: closed, holes filled slice by slice."""
    closed = close(lung, CLOSE_MM, image.spacing) & ~dilate(airway, WALL_MM, image.spacing) | lung
    return fill_slices(closed, image.spacing, VESSEL_CM2)


def _soften(image: WorkImage, lung: Mask, allowed: Mask) -> Values:
    """Return values whose 0.5 level runs where the CT passes `LUNG_HU` beside `lung`."""
    return soft_surface(lung, 0.5 + (LUNG_HU - image.hu) / EDGE_HU, allowed)


def _surface(image: WorkImage, pieces: Mask, airway: Mask) -> Values:
    return _soften(image, _closed(image, pieces, airway), ~airway)
