"""Organs from a model pack: the image is turned to the axes of the training data, and back.

A network knows one orientation only, which its pack states: ours has slices to the head, rows to
the back, columns to the patient's left. A flipped volume is invisible to it, so the turn is made
from the DICOM axes alone and never from what the image looks like. Oblique series beyond
`MAX_TILT_DEG` are not contoured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.engine import load_members
from models.organs import LEVEL, Network, answer, without_crumbs
from models.pack import PACKS, Manifest, Output, Pack, PackRefused, load_pack
from models.window import Toward
from pipelines.api import InputRejected, ModelUnavailable
from pipelines.autocontour.names import TABLE, Organ
from pipelines.geometry.stack import Floats
from pipelines.imaging.grid import FLOOR_HU, Mask, Values

MAX_TILT_DEG: Final = 20.0
"""Between an image axis and the patient axis it stands for; training rotated by 14 degrees."""
TOWARD: Final[Mapping[Toward, tuple[float, float, float]]] = MappingProxyType(
    {
        "L": (1.0, 0.0, 0.0), "R": (-1.0, 0.0, 0.0), "P": (0.0, 1.0, 0.0),
        "A": (0.0, -1.0, 0.0), "H": (0.0, 0.0, 1.0), "F": (0.0, 0.0, -1.0),
    }
)  # fmt: skip
"""LPS direction toward each side of the patient."""
CANONICAL: Final = ("H", "P", "L")
"""Sides that the axes of our own training data grow toward."""
TOLERANCE: Final = 2.0
"""Factor by which a volume may leave the range of the training data."""
KEPT_NETWORKS: Final = 2
"""Loaded networks that a worker keeps for the next case."""


def installed(name: str) -> tuple[Pack, tuple[Network, ...]]:
    """Return an installed pack, checked, and its trained networks, loaded once a process.

    The bytes of the pack are compared with its manifest for every case (milliseconds); the network
    stays loaded as long as they are the same.

    Raises
    ------
    ModelUnavailable
        Where the pack is missing, changed, or does not run here.
    """
    try:
        pack = load_pack(PACKS / name)
        return pack, _loaded(pack.folder, pack.sha256)
    except PackRefused as error:
        raise ModelUnavailable(str(error)) from error


@lru_cache(maxsize=KEPT_NETWORKS)
def _loaded(folder: Path, sha256: str) -> tuple[Network, ...]:  # noqa: ARG001 (the hash is part of the key)
    """Return the networks of a pack; another content is another network."""
    return load_members(load_pack(folder))


def implausible(fields: dict[str, Values], voxel_ml: float, manifest: Manifest) -> tuple[str, ...]:
    """Return the organs that are missing or larger or smaller than 95 % of the training data."""
    volumes = {o.name: 0.0 for o in manifest.outputs}
    volumes |= {n: float(np.count_nonzero(f > LEVEL)) * voxel_ml for n, f in fields.items()}
    ranges = {o.name: o.volume_ml or TABLE[Organ(o.name)].volume_ml for o in manifest.outputs}
    return tuple(n for n, (low, high) in ranges.items() if not low <= volumes[n] <= high)


def tolerated(output: Output) -> tuple[float, float]:
    """Return the volumes [ml] at which an organ is still written.

    Half and twice the range of 95 % of the training data: a scan may show more of a cord than
    theirs, and a patient may be smaller; beyond it the contour is a mistake. Where a pack states no
    range, the widest that is known for the organ.
    """
    if output.volume_ml is None:
        return TABLE[Organ(output.name)].volume_ml
    low, high = output.volume_ml
    return low / TOLERANCE, TOLERANCE * high


@dataclass(frozen=True, slots=True)
class Turn:
    """A permutation and flips of the axes of an array; exact, nothing is interpolated."""

    order: tuple[int, int, int]
    """Image axis that stands for the canonical (slice, row, column)."""
    flips: tuple[bool, bool, bool]
    """Whether that canonical axis runs against the image axis."""

    def there(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a view with canonical axes."""
        turned = np.transpose(array, self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def back(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo `there`."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return np.transpose(turned, np.argsort(self.order))


def turn_of(directions: Floats, axes: tuple[Toward, Toward, Toward] = CANONICAL) -> Turn:
    """Return how an image must be turned.

    Parameters
    ----------
    directions : ndarray, shape (3, 3)
        Unit vectors, patient LPS, along the image's (slice, row, column) index.
    axes : three sides of the patient
        Toward which the slices, rows and columns of the training data grow.

    Raises
    ------
    InputRejected
        For a series that is too oblique.
    """
    cosines = np.array([TOWARD[axis] for axis in axes]) @ np.asarray(directions).T
    order = np.abs(cosines).argmax(axis=1)
    chosen = cosines[np.arange(3), order]
    if len(set(order.tolist())) < 3 or np.abs(chosen).min() < np.cos(np.radians(MAX_TILT_DEG)):  # noqa: PLR2004 (three axes)
        raise InputRejected(
            f"the series is tilted by more than {MAX_TILT_DEG:g} degrees: the model was not "
            "trained for it"
        )
    return Turn(
        order=(int(order[0]), int(order[1]), int(order[2])),
        flips=(bool(chosen[0] < 0), bool(chosen[1] < 0), bool(chosen[2] < 0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """What the networks of a pack found."""

    fields: dict[str, Values]
    """TG-263 name -> field on the image's grid; its 0.5 level is where the organ becomes likelier
    than anything else. Crumbs are removed as the pack says. Organs not found are not in it."""
    agreement: dict[str, float]
    """TG-263 name -> lowest Dice of two networks with each other, on their own voxels; empty where
    there is one."""


def find_organs(
    hu: Values,
    body: Mask,
    spacing: tuple[float, float, float],
    directions: Floats,
    networks: Sequence[Network],
    manifest: Manifest,
    values: NDArray[Any] | None = None,
) -> Organs:
    """Return a surface for each organ that the networks find together.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), float32 [HU]
    body : ndarray of bool, same shape
        Our own networks are shown everything else as air, as their training data had it.
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    directions : ndarray, shape (3, 3)
        See `turn_of`.
    networks
        One or several; their probabilities are averaged.
    values
        See `models.organs.answer`.
    """
    frame = manifest.frame
    turn = turn_of(directions, frame.axes)
    shown = np.where(body, hu, np.float32(FLOOR_HU)) if frame.scaling is None else hu
    seen = np.ascontiguousarray(turn.there(shown))
    steps = (spacing[turn.order[0]], spacing[turn.order[1]], spacing[turn.order[2]])
    fields = {o.name: np.zeros(seen.shape, np.float32) for o in manifest.outputs}
    said = answer(seen, steps, networks, manifest.frames, values)
    for part in said.slices():
        at = (part.index, part.rows, part.columns)
        ranked = np.partition(part.probabilities, -2, axis=0)
        best, second = ranked[-1], ranked[-2]
        for output in manifest.outputs:
            mine = part.probabilities[output.index]
            rival = np.where(mine >= best, second, best)
            fields[output.name][at] = 0.5 + 0.5 * (mine - rival)
    found = {}
    for output in manifest.outputs:
        field = fields.pop(output.name)
        mask = field > LEVEL
        if mask.any():
            field[mask & ~without_crumbs(mask, output.components)] = 0.0
            found[output.name] = np.ascontiguousarray(turn.back(field))
    agreement = said.agreement()
    return Organs(
        fields=found,
        agreement={
            o.name: agreement[o.index]
            for o in manifest.outputs
            if o.index in agreement and o.name in found
        },
    )
