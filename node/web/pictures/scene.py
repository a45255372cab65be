"""Everything of one job or series that can be seen together, on the grid of its first image.

Images on another grid, and the dose, are sampled at the places of the pixels that are shown:
by the common frame of reference, or by a registration object that the job had. Runs in the child
process only.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.web.pictures.grid import PLANES, Upright, cut, even, pixels, sides, trilinear
from node.web.pictures.outlines import Outline
from pipelines.api import InputRejected, Json
from pipelines.dicom.read import read_header, text
from pipelines.dicom.registration import rigid_between
from pipelines.dicom.rtdose import DoseGrid, read_dose
from pipelines.dicom.rtstruct import Roi, StructureSet, read_structure_set
from pipelines.dicom.volume import AIR_HU, read_volume
from pipelines.geometry.stack import Floats, StackGeometry

COLORS: Final = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167),
    (0, 114, 178), (192, 192, 192),
)  # fmt: skip
"""Okabe and Ito (2008), for structures without a color of their own."""
_LOWEST, _HIGHEST = -32768, 32767
_DOSE_STEPS: Final = 65535
_DOSE_PIXEL_MM: Final = 1.5
"""Dose is sampled about this densely: it varies slowly and the browser interpolates."""
_BIN_HU: Final = 20
_HISTOGRAM: Final = (-1000, 2000)
"""Range of the histogram [HU]; air around the patient is left out."""
_IDENTITY: Final = (
    ("PatientName", "name"),
    ("PatientID", "id"),
    ("PatientBirthDate", "born"),
    ("PatientSex", "sex"),
    ("StudyDate", "study_date"),
    ("StudyDescription", "study"),
    ("SeriesDescription", "series"),
    ("Manufacturer", "manufacturer"),
    ("ManufacturerModelName", "model"),
    ("PatientPosition", "position"),
)
"""What a person needs to know whose image this is; shown behind the login, stored nowhere."""

Answer = tuple[dict[str, Json], bytes]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """An image that can be shown."""

    label: str
    derived: bool
    array: NDArray[Any]
    """As acquired, (slice, row, column) [HU]."""
    geometry: StackGeometry
    frame: str
    from_base: Floats | None
    """Matrix (4, 4) from the frame of the first image, LPS mm; None: the same frame."""
    aligned: bool
    """Whether it has the voxels of the first image."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """A structure of a set that can be shown."""

    set_number: int
    roi: Roi
    outline: Outline
    color: str


class Scene:
    """Images, structures and doses on the grid of the first image."""

    def __init__(
        self,
        *,
        grid: Upright,
        images: Sequence[Image],
        structures: Sequence[Structure],
        doses: Sequence[DoseGrid],
        header: Dataset,
        sets: Sequence[Json],
        notes: Sequence[Json],
    ) -> None:
        self._grid = grid
        self._images = images
        self._structures = structures
        self._doses = doses
        self._header = header
        self._sets = sets
        self._notes = notes
        self._upright: NDArray[Any] = grid.turn(images[0].array)

    @classmethod
    def read(cls, tree: Mapping[str, Json]) -> "Scene":
        """Read everything that `node.web.pictures.subject.Subject.tree` names.

        Raises
        ------
        InputRejected
            The first image is no volume. What else cannot be shown is left out with a note.
        """
        notes: list[Json] = []
        stacks = cast("list[dict[str, Any]]", tree["stacks"])
        base = read_volume([Path(p) for p in stacks[0]["paths"]], check_scale=False)
        array, geometry, repaired = even(base.hu, base.geometry)
        if repaired:
            notes.append("slices are unevenly spaced: the nearest one is shown")
        grid = Upright.of(geometry)
        images = [
            Image(label=stacks[0]["label"], derived=stacks[0]["derived"], array=array,
                  geometry=geometry, frame=base.frame_of_reference_uid, from_base=None,
                  aligned=True)
        ]  # fmt: skip
        registrations = [
            read_header(Path(str(p))) for p in cast("list[str]", tree["registrations"])
        ]
        for stack in stacks[1:]:
            try:
                images.append(_further(stack, images[0], registrations))
            except InputRejected as error:
                notes.append(f"{stack['label']}: {error}")
        structures, sets = _structures(
            cast("list[dict[str, Any]]", tree["structures"]), grid, images[0].frame, notes
        )
        doses = _doses(cast("list[dict[str, Any]]", tree["doses"]), images[0].frame, notes)
        return cls(
            grid=grid,
            images=images,
            structures=structures,
            doses=doses,
            header=base.headers[0],
            sets=sets,
            notes=notes,
        )

    def plane(self, *, volume: int, axis: int, index: int) -> Answer:
        """Return one plane of an image as int16 HU, row by row."""
        self._check(axis, index)
        image = _one(self._images, volume)
        if volume == 0:
            values = cut(self._upright, axis, index)
        elif image.aligned:
            values = cut(self._grid.turn(image.array), axis, index)
        else:
            points = pixels(self._grid, axis, index)
            if image.from_base is not None:
                points = points @ image.from_base[:3, :3].T + image.from_base[:3, 3]
            values = trilinear(image.array, image.geometry.indices(points), float(AIR_HU))
        clipped = np.clip(np.rint(values), _LOWEST, _HIGHEST).astype("<i2")
        return {}, np.ascontiguousarray(clipped).tobytes()

    def dose_plane(self, *, dose: int, axis: int, index: int) -> Answer:
        """Return one plane of a dose as uint16 parts of its maximum, sampled every few pixels."""
        self._check(axis, index)
        grid = _one(self._doses, dose)
        stride = self._stride(axis)
        points = pixels(self._grid, axis, index, stride)
        along = grid.to_axes(points)
        indices = np.column_stack([_fractional(along[:, a], grid.positions[a]) for a in range(3)])
        values = trilinear(grid.dose, indices, 0.0)
        highest = float(grid.dose.max()) or 1.0
        parts = np.clip(np.rint(values / highest * _DOSE_STEPS), 0, _DOSE_STEPS).astype("<u2")
        plane = PLANES[axis]
        return {
            "width": math.ceil(self._grid.shape[plane.u] / stride),
            "height": math.ceil(self._grid.shape[plane.v] / stride),
            "stride": stride,
        }, parts.tobytes()

    def lines(self, *, axis: int, index: int) -> Answer:
        """Return the contours of all structures in a plane: number of the structure -> lines."""
        self._check(axis, index)
        found: dict[str, Json] = {}
        for number, structure in enumerate(self._structures):
            lines = structure.outline.lines(axis, index)
            if lines:
                found[str(number)] = [[round(float(v), 2) for v in line.ravel()] for line in lines]
        return {"lines": found}, b""

    def histograms(self) -> Answer:
        """Return the share of voxels [%] in each bin of HU, for each image."""
        edges = np.arange(_HISTOGRAM[0], _HISTOGRAM[1] + _BIN_HU, _BIN_HU)
        curves: list[Json] = []
        for image in self._images:
            voxels = image.array[:, ::2, ::2]
            counts, _ = np.histogram(voxels[voxels > _HISTOGRAM[0]], bins=edges)
            total = max(1, int(counts.sum()))
            curves.append(
                {
                    "name": image.label,
                    "x": [float(edge) + _BIN_HU / 2 for edge in edges[:-1]],
                    "y": [round(100.0 * float(count) / total, 5) for count in counts],
                }
            )
        return {"curves": curves, "unit": "HU"}, b""

    def _check(self, axis: int, index: int) -> None:
        if axis not in range(3) or not 0 <= index < self._grid.shape[PLANES[axis].w]:
            raise InputRejected("there is no such plane")

    def _stride(self, axis: int) -> int:
        finest = min(self._grid.spacing[a] for a in (PLANES[axis].u, PLANES[axis].v))
        return max(1, round(_DOSE_PIXEL_MM / finest))

    def facts(self) -> Answer:
        """Return what there is to see."""
        start = self._start()
        return {
            "patient": {
                key: value
                for keyword, key in _IDENTITY
                if (value := text(self._header, keyword).replace("^", " ").strip())
            },
            "images": [{"label": image.label, "derived": image.derived} for image in self._images],
            "planes": [
                {
                    "width": self._grid.shape[plane.u],
                    "height": self._grid.shape[plane.v],
                    "count": self._grid.shape[plane.w],
                    "spacing": [self._grid.spacing[plane.u], self._grid.spacing[plane.v]],
                    "step": self._grid.spacing[plane.w],
                    "start": start[plane.w],
                    "up": plane.up,
                    **sides(self._grid, axis),
                }
                for axis, plane in enumerate(PLANES)
            ],
            "affine": [[float(v) for v in row] for row in np.column_stack(_affine(self._grid))],
            "sets": list(self._sets),
            "structures": [
                {
                    "set": s.set_number,
                    "name": s.roi.name,
                    "type": s.roi.interpreted_type,
                    "color": s.color,
                }
                for s in self._structures
            ],
            "doses": [
                {
                    "label": d.summation_type or d.dose_type,
                    "maximum_gy": float(d.dose.max()),
                }
                for d in self._doses
            ],
            "notes": list(self._notes),
        }, b""

    def _start(self) -> tuple[int, int, int]:
        """Return the voxel that is shown first: the highest dose, else the middle."""
        middle = tuple(n // 2 for n in self._grid.shape)
        if self._doses:
            grid = self._doses[0]
            k, i, j = np.unravel_index(int(grid.dose.argmax()), grid.dose.shape)
            along = np.array([grid.positions[0][k], grid.positions[1][i], grid.positions[2][j]])
            found = self._grid.indices((grid.origin + along @ grid.axes)[None])[0]
            inside = [round(float(v)) for v in found]
            if all(0 <= v < n for v, n in zip(inside, self._grid.shape, strict=True)):
                middle = tuple(inside)
        a, b, c = middle
        return a, b, c


def _further(stack: Mapping[str, Any], base: Image, registrations: Sequence[Dataset]) -> Image:
    """Return another image of the job, with how its frame lies to that of the first."""
    volume = read_volume([Path(p) for p in stack["paths"]], check_scale=False)
    frame = volume.frame_of_reference_uid
    matrix = None
    if frame != base.frame:
        matrix = rigid_between(registrations, base.frame, frame)
        if matrix is None:
            raise InputRejected("no registration joins it with the first image")
    return Image(
        label=stack["label"],
        derived=stack["derived"],
        array=volume.hu,
        geometry=volume.geometry,
        frame=frame,
        from_base=matrix,
        aligned=matrix is None and volume.geometry.same_grid(base.geometry),
    )


def _structures(
    listed: Sequence[Mapping[str, Any]], grid: Upright, frame: str, notes: list[Json]
) -> tuple[list[Structure], list[Json]]:
    structures: list[Structure] = []
    sets: list[Json] = []
    for one in listed:
        try:
            found = read_structure_set(Path(one["path"]))
        except InputRejected as error:
            notes.append(f"{one['label']}: {error}")
            continue
        if found.frame_of_reference_uid not in {None, frame}:
            notes.append(f"{one['label']} {found.label}: drawn in another frame of reference")
            continue
        colors = _colors(found)
        for roi in found.rois:
            outline = Outline.of(roi, grid)
            if not outline.loops:
                continue
            structures.append(
                Structure(
                    set_number=len(sets),
                    roi=roi,
                    outline=outline,
                    color=colors.get(roi.number) or _hex(COLORS[len(structures) % len(COLORS)]),
                )
            )
            if outline.skipped:
                notes.append(f"{roi.name}: {outline.skipped} contours across the body's axis")
        sets.append({"label": found.label or one["label"], "derived": one["derived"]})
    return structures, sets


def _colors(found: StructureSet) -> dict[int, str]:
    """Return the ROI Display Color (3006,002A) by ROI number, where it tells structures apart.

    Some systems write one color for all; those are left to the palette.
    """
    colors: dict[int, str] = {}
    for item in found.dataset.get("ROIContourSequence") or []:
        try:
            red, green, blue = (int(v) for v in item.ROIDisplayColor)
            number = int(item.ReferencedROINumber)
        except (AttributeError, TypeError, ValueError):
            continue
        if all(0 <= v <= 255 for v in (red, green, blue)):  # noqa: PLR2004 - eight bits
            colors[number] = _hex((red, green, blue))
    many = Counter(colors.values())
    return {number: color for number, color in colors.items() if many[color] == 1}


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _doses(listed: Sequence[Mapping[str, Any]], frame: str, notes: list[Json]) -> list[DoseGrid]:
    doses = []
    for one in listed:
        try:
            dose = read_dose(Path(one["path"]))
        except InputRejected as error:
            notes.append(f"{one['label']}: {error}")
            continue
        if dose.frame_of_reference_uid != frame.upper():
            notes.append(f"{one['label']}: in another frame of reference than the image")
            continue
        doses.append(dose)
    return doses


def _fractional(along: Floats, positions: Floats) -> Floats:
    """Return fractional indices of positions; -1 beyond the first and last sample."""
    found = np.interp(along, positions, np.arange(len(positions), dtype=np.float64))
    outside = (along < positions[0]) | (along > positions[-1])
    return np.where(outside, -1.0, found)


def _affine(grid: Upright) -> list[Floats]:
    """Return the columns of the matrix from upright indices (z, y, x, 1) to LPS [mm]."""
    origin = grid.points(np.zeros((1, 3)))[0]
    steps = grid.directions * np.asarray(grid.spacing)[:, None]
    return [*steps, origin]


def _one(things: Sequence[Any], number: int) -> Any:  # noqa: ANN401 - an image or a dose
    if not 0 <= number < len(things):
        raise InputRejected("there is no such image")
    return things[number]
