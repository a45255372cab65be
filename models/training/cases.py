"""Patients to learn contouring from, wherever they came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

ELONGATED: Final = frozenset({"SpinalCord", "SpinalCanal", "Esophagus", "Trachea", "Bones"})
"""Organs that may be found in several parts; `models.organs.without_crumbs` keeps the large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One patient on an LPS grid."""

    name: str
    hu: NDArray[np.int16]
    """Shape (slice, row, column); slice to the head, row to posterior, column to the left."""
    labels: NDArray[np.uint8]
    """Same shape; 0 background, from 1 on the organs of the training, in their order."""
    drawn: tuple[int, ...]
    """Labels that were contoured; the others may be in the image all the same."""
    spacing: tuple[float, float, float]
    """Millimeters between (slices, rows, columns)."""


def components_of(organ: str) -> Literal["largest", "tenth"]:
    """Return which connected parts of an organ are kept (`models.organs.without_crumbs`)."""
    return "tenth" if organ in ELONGATED else "largest"


def folds(cases: Sequence[Case], count: int) -> list[list[Case]]:
    """Split patients into `count` parts of like size, the same ones in every run.

    All images of a patient fall into one part. The order is that of the hash of their names, so
    it follows nothing that means anything.
    """
    names = sorted({c.name for c in cases}, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    part = {name: place % count for place, name in enumerate(names)}
    return [[c for c in cases if part[c.name] == n] for n in range(count)]
