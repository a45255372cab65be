"""The last gate of a structure set: the file is read back and means the same voxels.

The bytes are read by the reader that dose radiomics uses and filled by its even-odd rasterizer at
voxel centers; neither shares code with the writer. What does not come back is not sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.api import OutputInvalid
from pipelines.dicom.read import text
from pipelines.dicom.rtstruct import Roi, read_structure_set
from pipelines.dicom.rtstruct_writer import Structure
from pipelines.geometry.contours import LEVEL
from pipelines.geometry.polygons import rasterise
from pipelines.geometry.stack import StackGeometry

LEAST_DICE: Final = 0.999
OFF_PLANE: Final = 0.02
"""Largest distance of a contour point from its image, in slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """How well one structure came back."""

    name: str
    dice: float
    volume_ml: float
    """Of the voxels that the file means."""
    wrong_voxels: int


def check_structure_set(
    path: Path, structures: Sequence[Structure], headers: Sequence[Dataset], geometry: StackGeometry
) -> tuple[RoundTrip, ...]:
    """Read the structure set in `path` back and compare it with `structures`.

    Raises
    ------
    OutputInvalid
        Where a structure is missing, lies off its images, or differs: Dice below 0.999.
    """
    found = read_structure_set(path)
    slices = {text(header, "SOPInstanceUID"): k for k, header in enumerate(headers)}
    results = []
    for structure in structures:
        roi = found.named(structure.name)
        if roi is None:
            raise OutputInvalid(f"{structure.name} is not in the file that was written")
        results.append(_compare(structure, _mask(roi, slices, geometry), geometry))
    return tuple(results)


def _mask(roi: Roi, slices: Mapping[str, int], geometry: StackGeometry) -> NDArray[np.bool_]:
    """Return the voxels whose centers lie inside the contours of `roi`, by even-odd."""
    mask = np.zeros(geometry.shape, np.bool_)
    planes: dict[int, list[NDArray[np.float64]]] = {}
    for loop in roi.closed:
        k = slices.get(loop.image_uid or "", -1)
        indices = geometry.indices(loop.points)
        if k < 0 or float(np.max(np.abs(indices[:, 0] - k))) > OFF_PLANE:
            raise OutputInvalid(f"a contour of {roi.name} does not lie in the image that it names")
        planes.setdefault(k, []).append(indices[:, 1:])
    for k, loops in planes.items():
        mask[k] = rasterise(loops, (geometry.rows, geometry.columns))
    return mask


def _compare(structure: Structure, mask: NDArray[np.bool_], geometry: StackGeometry) -> RoundTrip:
    """Compare the voxels that the file means with those that were to be written."""
    wanted = np.asarray(structure.field > LEVEL)
    ends = np.add(structure.corner, wanted.shape)
    box = tuple(slice(a, int(b)) for a, b in zip(structure.corner, ends, strict=True))
    per_slice = np.count_nonzero(mask, axis=(1, 2))
    both = int(np.count_nonzero(mask[box] & wanted))
    total = int(np.sum(per_slice)) + int(np.count_nonzero(wanted))
    dice = 2.0 * both / total if total else 1.0
    wrong = total - 2 * both
    if dice < LEAST_DICE:
        raise OutputInvalid(
            f"{structure.name} read back differs from what was to be written: Dice {dice:.4f}, "
            f"limit {LEAST_DICE}"
        )
    area = geometry.pixel_spacing[0] * geometry.pixel_spacing[1]
    return RoundTrip(
        name=structure.name,
        dice=dice,
        volume_ml=float(per_slice @ geometry.slice_widths) * area / 1000.0,
        wrong_voxels=wrong,
    )
