"""Where to look first: the slice of each structure on which it changes most to the next one.

A leak, a missing slice or a jump to another organ is a change between neighboring slices. So is a
real branch or the end of a lobe: the choice says where to look, not that something is wrong.
Structures with findings come first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipelines.geometry.contours import LEVEL
from pipelines.imaging.grid import Mask, Values

SHOWN: Final = 6
"""Slices on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A slice worth a look."""

    name: str
    slice: int
    """Of the work grid."""
    change: float
    """Voxels in one of two neighboring slices only, as a share of those in any of them."""


def worst_slices(surfaces: Mapping[str, Values], flagged: Collection[str]) -> list[Place]:
    """Return for each structure the slice where it changes most, the most telling first.

    Parameters
    ----------
    surfaces : mapping
        Name -> field on the work grid.
    flagged
        Names of structures with findings.
    """
    places = [
        place
        for name, surface in surfaces.items()
        if (place := _worst(name, surface >= LEVEL)) is not None
    ]
    places.sort(key=lambda p: (p.name not in flagged, -p.change, p.name))
    return places[:SHOWN]


def _worst(name: str, mask: Mask) -> Place | None:
    """Return the largest change between two slices that both hold the structure, or its middle."""
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    if not used.size:
        return None
    part = mask[used[0] : used[-1] + 1]
    apart = np.count_nonzero(part[1:] ^ part[:-1], axis=(1, 2))
    union = np.count_nonzero(part[1:] | part[:-1], axis=(1, 2))
    share = apart / np.maximum(union, 1)
    if not share.size:
        return Place(name=name, slice=int(used[0]), change=0.0)
    at = int(share.argmax())
    return Place(name=name, slice=int(used[0]) + at + 1, change=round(float(share[at]), 3))
