"""One of the three planes of a grid, turned as a reader expects it, with its letters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Plane:
    """A plane across one axis of a grid.

    Head or anterior up, patient left (or posterior, in the sagittal plane) to the right: an axis
    that runs the other way is flipped. Decubitus scans keep their axes; the letters tell.
    """

    def __init__(
        self, directions: Sequence[ArrayLike], spacing: Sequence[float], axis: int
    ) -> None:
        """Look across `axis`.

        Parameters
        ----------
        directions
            Three LPS vectors along (slice, row, column) index.
        spacing
            (slice, row, column) [mm].
        axis
            The axis that the plane is taken across.
        """
        along = [np.asarray(d, dtype=np.float64) for d in directions]
        self.axis = axis
        down, right = [i for i in range(3) if i != axis]
        self._flip_down = main_letter(along[down]) in "AHR"
        self._flip_right = main_letter(along[right]) in "RHA"
        vertical = -along[down] if self._flip_down else along[down]
        horizontal = -along[right] if self._flip_right else along[right]
        self.edges = {
            "bottom": main_letter(vertical), "top": main_letter(-vertical),
            "right": main_letter(horizontal), "left": main_letter(-horizontal),
        }  # fmt: skip
        self.aspect = spacing[down] / spacing[right]
        self.name = {"H": "axial", "F": "axial", "A": "coronal", "P": "coronal"}.get(
            main_letter(along[axis]), "sagittal"
        )

    def take(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Return the plane at `index` of `volume`, upright."""
        return self.flip(np.take(volume, index, axis=self.axis))

    def flip(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return `plane`, shape (down, right), upright."""
        plane = plane[::-1] if self._flip_down else plane
        return plane[:, ::-1] if self._flip_right else plane


def main_letter(direction: NDArray[np.float64]) -> str:
    """Return the letter of the patient axis that `direction` runs along most."""
    axis = int(np.abs(direction).argmax())
    return ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]
