"""Three planes through a case for its picture: CT, dose and regions sampled on square pixels.

Everything is sampled along the axes of the dose grid; the CT is interpolated at the same points,
so an image of another spacing or orientation fits without being resampled as a volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.api import InputRejected
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics.regions import Region
from pipelines.radiomics.resample import linear, trilinear
from pipelines.report.plane import Plane
from pipelines.report.wash import Outline, Slice

if TYPE_CHECKING:
    from pipelines.dicom.volume import CtVolume

Floats = NDArray[np.float64]

PIXEL_MM: Final = 1.0
AROUND_MM: Final = 12.0
"""Air around the body in the picture."""
_LETTERS: Final = ("x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A region with its looks."""

    name: str
    region: Region
    color: str
    style: str = "-"


def image_of(paths: Sequence[Path], frame_of_reference_uid: str) -> "CtVolume | None":
    """Return the CT in the frame of the dose; None where there is none to be shown."""
    if not paths:
        return None
    from pipelines.dicom.volume import read_volume  # noqa: PLC0415 - loads SimpleITK, 120 MiB

    try:
        volume = read_volume(paths, check_scale=False)
    except InputRejected:
        return None  # the picture is drawn without it; the evaluation does not need it
    return volume if volume.frame_of_reference_uid == frame_of_reference_uid else None


def slices(
    grid: DoseGrid,
    drawn: Sequence[Drawn],
    image: "CtVolume | None",
    *,
    center: Floats,
    box: tuple[Floats, Floats],
) -> list[Slice]:
    """Return the three planes through `center`, shape (3,), axes of the dose [mm].

    Parameters
    ----------
    grid : DoseGrid
    drawn : sequence of Drawn
    image : CtVolume or None
    center : ndarray, shape (3,)
        (plane, row, column) position along the axes of the dose [mm].
    box : two ndarrays, shape (3,)
        What the picture must show.
    """
    lines = [
        np.arange(float(low) - AROUND_MM, float(high) + AROUND_MM, PIXEL_MM)
        for low, high in zip(*box, strict=True)
    ]
    found = []
    for axis in _order(grid):
        at = [line.copy() for line in lines]
        at[axis] = np.array([center[axis], center[axis] + PIXEL_MM])
        found.append(_slice(grid, drawn, image, (at[0], at[1], at[2]), axis))
    return found


def _order(grid: DoseGrid) -> list[int]:
    """Return the axes of the dose in the order axial, coronal, sagittal, as far as they are."""
    return sorted(range(3), key=lambda axis: -int(np.abs(grid.axes[axis]).argmax()))


def _slice(
    grid: DoseGrid,
    drawn: Sequence[Drawn],
    image: "CtVolume | None",
    at: tuple[Floats, Floats, Floats],
    axis: int,
) -> Slice:
    volume = trilinear(grid.dose, grid.positions, at)
    outlines = [
        Outline(
            name=each.name,
            color=each.color,
            covered=np.asarray(each.region.on_voxels(at, volume).take(0, axis)),
            style=each.style,
        )
        for each in drawn
    ]
    dose = volume.take(0, axis)
    inside = [
        linear(samples, line).inside for samples, line in zip(grid.positions, at, strict=True)
    ]
    down, right = [a for a in range(3) if a != axis]
    reached = inside[down][:, None] & inside[right][None, :] & bool(inside[axis][0])
    along = int(np.abs(grid.axes[axis]).argmax())
    middle = grid.origin + grid.axes.T @ np.array([line[0] for line in at])
    return Slice(
        plane=Plane(tuple(grid.axes), (PIXEL_MM,) * 3, axis),
        step_mm=PIXEL_MM,
        dose_gy=np.where(reached, dose, np.nan),
        hu=None if image is None else _values(image, grid, at, axis),
        outlines=outlines,
        place=f"{_LETTERS[along]} {middle[along]:.1f} mm",
    )


def _values(
    image: "CtVolume", grid: DoseGrid, at: tuple[Floats, Floats, Floats], axis: int
) -> Floats:
    """Return the CT at the pixels of a plane [HU], shape (down, right); NaN beyond it."""
    lines = [line[:1] if a == axis else line for a, line in enumerate(at)]
    mesh = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    points = mesh.reshape(-1, 3) @ grid.axes + grid.origin
    index = image.geometry.indices(points).T
    # The box of slices that are needed, so that a plane of an axial stack costs one slice.
    first = np.clip(np.floor(index.min(axis=1)).astype(int), 0, None)
    last = np.clip(np.ceil(index.max(axis=1)).astype(int) + 1, 1, image.hu.shape)
    if np.any(last <= first):
        return np.full([len(line) for a, line in enumerate(lines) if a != axis], np.nan)
    part = image.hu[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    values = ndimage.map_coordinates(
        part, index - first[:, None], output=np.float64, order=1, mode="constant", cval=np.nan
    )
    shown: Floats = values.reshape([len(line) for a, line in enumerate(lines) if a != axis])
    return shown
