"""Organs from a model pack: the image is turned to the axes of the training data, and back.

The network knows one orientation only: slices to the head, rows to the back, columns to the
patient's left. A flipped volume is invisible to it, so the turn is made from the DICOM axes alone
and never from what the image looks like. Oblique series beyond `MAX_TILT_DEG` are not contoured.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.engine import load_network
from models.organs import LEVEL, Network, segment, without_crumbs
from models.pack import PACKS, Manifest, Output, Pack, PackRefused, load_pack
from pipelines.api import InputRejected, ModelUnavailable
from pipelines.autocontour.grid import FLOOR_HU, Mask, Values
from pipelines.geometry.stack import Floats

MAX_TILT_DEG: Final = 20.0
"""Between an image axis and the patient axis it stands for; training rotated by 14 degrees."""
CANONICAL: Final = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""LPS directions of (slice, row, column) in the training data: head, posterior, left."""
TOLERANCE: Final = 2.0
"""Factor by which a volume may leave the range of the training data."""
KEPT_NETWORKS: Final = 2
"""Loaded networks that a worker keeps for the next case."""


def installed(name: str) -> tuple[Pack, Network]:
    """Return a pack that comes with the node, checked, and its network, loaded once a process.

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
def _loaded(folder: Path, sha256: str) -> Network:  # noqa: ARG001 (the hash is part of the key)
    """Return the network of a pack; another content is another network."""
    return load_network(load_pack(folder))


def implausible(fields: dict[str, Values], voxel_ml: float, manifest: Manifest) -> tuple[str, ...]:
    """Return the organs that are missing or larger or smaller than 95 % of the training data."""
    volumes = {o.name: 0.0 for o in manifest.outputs}
    volumes |= {n: float(np.count_nonzero(f > LEVEL)) * voxel_ml for n, f in fields.items()}
    return tuple(
        o.name for o in manifest.outputs if not o.volume_ml[0] <= volumes[o.name] <= o.volume_ml[1]
    )


def tolerated(output: Output) -> tuple[float, float]:
    """Return the volumes [ml] at which an organ is still written.

    Half and twice the range of 95 % of the training data: a scan may show more of a cord than
    theirs, and a patient may be smaller; beyond it the contour is a mistake.
    """
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


def turn_of(directions: Floats) -> Turn:
    """Return how an image must be turned.

    Parameters
    ----------
    directions : ndarray, shape (3, 3)
        Unit vectors, patient LPS, along the image's (slice, row, column) index.

    Raises
    ------
    InputRejected
        For a series that is too oblique.
    """
    cosines = np.asarray(CANONICAL) @ np.asarray(directions).T
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


def find_organs(
    hu: Values,
    body: Mask,
    spacing: tuple[float, float, float],
    directions: Floats,
    network: Network,
    manifest: Manifest,
) -> dict[str, Values]:
    """Return a surface for each organ that the network finds.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), float32 [HU]
    body : ndarray of bool, same shape
        Everything else is shown to the network as air, as its training data had it.
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    directions : ndarray, shape (3, 3)
        See `turn_of`.

    Returns
    -------
    dict
        TG-263 name -> field, shape of `hu`; its 0.5 level is where the organ becomes likelier
        than anything else. Crumbs are removed as the pack says. Organs not found are not in it.
    """
    turn = turn_of(directions)
    seen = np.ascontiguousarray(turn.there(np.where(body, hu, np.float32(FLOOR_HU))))
    steps = tuple(spacing[axis] for axis in turn.order)
    fields = {o.name: np.zeros(seen.shape, np.float32) for o in manifest.outputs}
    for part in segment(seen, (steps[0], steps[1], steps[2]), network, manifest.frame):
        ranked = np.partition(part.probabilities, -2, axis=0)
        best, second = ranked[-1], ranked[-2]
        for output in manifest.outputs:
            mine = part.probabilities[output.index]
            rival = np.where(mine >= best, second, best)
            fields[output.name][part.index, part.rows, part.columns] = 0.5 + 0.5 * (mine - rival)
    found = {}
    for output in manifest.outputs:
        field = fields[output.name]
        mask = field > LEVEL
        if mask.any():
            field[mask & ~without_crumbs(mask, output.components)] = 0.0
            found[output.name] = np.ascontiguousarray(turn.back(field))
    return found
