"""What a foreign model says of itself, in our words, before its weights are opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.foreign.monai_networks import SegResNetShape, UNetShape
from models.foreign.nnunet_networks import NnUNetShape
from models.window import Frame, Toward

MAX_JSON_BYTES: Final = 20_000_000
"""Plans hold fingerprints of a data set, not the data."""
TOWARD: Final[Mapping[str, Toward]] = {
    "R": "R", "L": "L", "A": "A", "P": "P", "S": "H", "H": "H", "I": "F", "F": "F",
}  # fmt: skip
"""Letters of NIfTI and DICOM -> ours; S and H are the head, I and F the feet."""


class ForeignRefused(Exception):
    """A foreign model cannot be imported; the message says why and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A foreign model without its weights."""

    kind: str
    """Which tool wrote it."""
    name: str
    shape: NnUNetShape | UNetShape | SegResNetShape
    frame: Frame
    checkpoints: tuple[Path, ...]
    """One or several trainings of the same network."""
    labels: Mapping[int, str]
    """Class of the network -> what its makers call it, without the background."""
    licence: str = ""
    intended_use: str = ""
    origin: Mapping[str, object]
    """For the manifest: what was imported."""


def toward(letters: str) -> tuple[Toward, Toward, Toward]:
    """Return three letters such as ``RAS`` in our alphabet.

    Raises
    ------
    ForeignRefused
        Where they do not name three different axes of the patient.
    """
    found = [TOWARD.get(letter) for letter in letters.upper()]
    axes = {frozenset("RL"), frozenset("AP"), frozenset("HF")}
    a, b, c = (*found, None, None, None)[:3]
    if len(found) == 3 and a and b and c:  # noqa: PLR2004 (three axes)
        named = {axis for axis in axes for letter in (a, b, c) if letter in axis}
        if named == axes:
            return a, b, c
    raise ForeignRefused(
        f"orientation '{letters}': three letters say toward which side of the patient columns, "
        "rows and slices grow, such as RAS or LPS"
    )
