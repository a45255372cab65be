"""Reader of RT Structure Sets: tolerant of what real exports contain, exact about coordinates.

Coordinates stay as written: patient LPS in mm (PS3.3 C.8.8.6). Nothing is repaired here; what had
to be left out is told in the notes of the ROI, so that a report can repeat it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from pipelines.api import InputRejected
from pipelines.dicom.read import read_dataset, refusing_damage, tolerant

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
"""Geometric types that enclose an area (PS3.3 C.8.8.6.1)."""

_CONTOUR_DATA = 0x30060050


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept: (value, scheme designator, meaning)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One contour as exported."""

    points: NDArray[np.float64]
    """Shape (n, 3), float64, patient LPS [mm] (PS3.3 C.8.8.6, Contour Data)."""
    geometric_type: str
    """CLOSED_PLANAR, CLOSEDPLANAR_XOR, OPEN_PLANAR, OPEN_NONPLANAR or POINT."""
    image_uid: str | None = None
    """SOP Instance UID of the image that it was drawn on, where the contour names exactly one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """One region of interest."""

    number: int
    name: str
    interpreted_type: str
    """RT ROI Interpreted Type, upper case, empty where the object does not say."""
    codes: tuple[Code, ...]
    """RT ROI Identification Code Sequence."""
    loops: tuple[Loop, ...]
    slab_thickness_mm: float | None = None
    """Contour Slab Thickness (3006,0044) where every contour states the same one."""
    notes: tuple[str, ...] = ()
    """What of this ROI could not be read, in plain words."""

    @property
    def closed(self) -> tuple[Loop, ...]:
        """Return the loops that enclose an area."""
        return tuple(loop for loop in self.loops if loop.geometric_type in CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSet:
    """One RT Structure Set, whole."""

    rois: tuple[Roi, ...]
    """In the order of the Structure Set ROI Sequence; ROIs without contours are among them."""
    frame_of_reference_uid: str | None
    """From the Referenced Frame of Reference item, the top level or the ROIs, in this order."""
    referenced_image_uids: tuple[str, ...]
    """SOP Instance UIDs of all images that the object or one of its contours names, in order."""
    referenced_series_uids: tuple[str, ...]
    label: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    dataset: Dataset = field(repr=False, compare=False)
    """The object itself, for its patient, study and dates."""

    def named(self, name: str) -> Roi | None:
        """Return the first ROI called `name`, whatever its case; None if there is none."""
        wanted = name.strip().casefold()
        return next((roi for roi in self.rois if roi.name.strip().casefold() == wanted), None)


def read_structure_set(path: Path) -> StructureSet:
    """Read an RT Structure Set.

    Parameters
    ----------
    path : Path
        A DICOM file in any transfer syntax that pydicom reads.

    Raises
    ------
    InputRejected
        If the file is no DICOM file or no RT Structure Set, or names no ROI at all.
    """
    with tolerant(), refusing_damage():
        return _structure_set(read_dataset(path))


def _structure_set(dataset: Dataset) -> StructureSet:
    """Return the structure set in a data set."""
    if dataset.get("SOPClassUID") != RTStructureSetStorage:
        raise InputRejected(f"an RT Structure Set was expected, not {dataset.get('SOPClassUID')}")
    contours = _by_number(dataset, "ROIContourSequence", "ReferencedROINumber")
    observations = _by_number(dataset, "RTROIObservationsSequence", "ReferencedROINumber")
    rois = tuple(
        _roi(number, item, contours.get(number), observations.get(number))
        for number, item in _by_number(dataset, "StructureSetROISequence", "ROINumber").items()
    )
    if not rois:
        raise InputRejected("the structure set holds no ROI")
    images = _referenced(dataset, "ContourImageSequence", "ReferencedSOPInstanceUID")
    drawn_on = [loop.image_uid for roi in rois for loop in roi.loops if loop.image_uid]
    return StructureSet(
        rois=rois,
        frame_of_reference_uid=_frame_of_reference(dataset),
        referenced_image_uids=tuple(dict.fromkeys(images + drawn_on)),
        referenced_series_uids=tuple(dict.fromkeys(_referenced(dataset, "", "SeriesInstanceUID"))),
        label=str(dataset.get("StructureSetLabel") or ""),
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        series_instance_uid=str(dataset.get("SeriesInstanceUID") or ""),
        study_instance_uid=str(dataset.get("StudyInstanceUID") or ""),
        dataset=dataset,
    )


def _roi(number: int, item: Dataset, contour: Dataset | None, observation: Dataset | None) -> Roi:
    """Return one ROI from its three places in the object."""
    loops: list[Loop] = []
    unreadable = 0
    slabs: set[float | None] = set()
    for entry in _items(contour, "ContourSequence"):
        points = _points(entry)
        if points is None:
            unreadable += 1
            continue
        kind = str(entry.get("ContourGeometricType") or "").strip().upper()
        kind = kind or ("POINT" if len(points) == 1 else "CLOSED_PLANAR")
        loops.append(Loop(points=points, geometric_type=kind, image_uid=_image(entry)))
        slabs.add(_number(entry, "ContourSlabThickness"))
    notes = [f"{unreadable} contours without readable coordinates"] if unreadable else []
    slab = slabs.pop() if len(slabs) == 1 else None
    return Roi(
        number=number,
        name=str(item.get("ROIName") or "").strip() or f"ROI {number}",
        interpreted_type=_text(observation, "RTROIInterpretedType").upper(),
        codes=tuple(_code(code) for code in _items(observation, "RTROIIdentificationCodeSequence")),
        loops=tuple(loops),
        slab_thickness_mm=slab if slab and slab > 0 else None,
        notes=tuple(notes),
    )


def _points(entry: Dataset) -> NDArray[np.float64] | None:
    """Return the coordinates of one contour, shape (n, 3) [mm]; None where they make no sense.

    Read from the stored bytes: building 100 000 decimal string objects would take seconds.
    """
    if _CONTOUR_DATA not in entry:
        return None
    raw = entry.get_item(_CONTOUR_DATA)
    stored = getattr(raw, "value", None)
    try:
        if isinstance(stored, bytes):
            values = np.array(stored.strip(b" \0").split(b"\\"), dtype=np.float64)
        else:
            values = np.array(stored, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    if values.size == 0 or values.size % 3 or not np.isfinite(values).all():
        return None
    return values.reshape(-1, 3)


def _image(entry: Dataset) -> str | None:
    """Return the UID of the one image that a contour names."""
    images = _items(entry, "ContourImageSequence")
    return (_text(images[0], "ReferencedSOPInstanceUID") or None) if len(images) == 1 else None


def _frame_of_reference(dataset: Dataset) -> str | None:
    """Return the frame of reference of the object, wherever it is written."""
    places = (
        *_items(dataset, "ReferencedFrameOfReferenceSequence"),
        dataset,
    )
    for place in places:
        if found := _text(place, "FrameOfReferenceUID"):
            return found
    for item in _items(dataset, "StructureSetROISequence"):
        if found := _text(item, "ReferencedFrameOfReferenceUID"):
            return found
    return None


def _referenced(dataset: Dataset, sequence: str, keyword: str) -> list[str]:
    """Return `keyword` of all referenced series, or of the items of `sequence` in each of them."""
    found: list[str] = []
    for frame in _items(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in _items(frame, "RTReferencedStudySequence"):
            for series in _items(study, "RTReferencedSeriesSequence"):
                places = _items(series, sequence) if sequence else [series]
                found.extend(_text(place, keyword) for place in places)
    return [uid for uid in found if uid]


def _by_number(dataset: Dataset, sequence: str, keyword: str) -> dict[int, Dataset]:
    """Return the items of `sequence` by ROI number; the first of a repeated number counts."""
    found: dict[int, Dataset] = {}
    for item in _items(dataset, sequence):
        number = _number(item, keyword)
        if number is not None:
            found.setdefault(int(number), item)
    return found


def _items(place: Dataset | None, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is missing or empty."""
    return list(place.get(keyword) or []) if place is not None else []


def _text(place: Dataset | None, keyword: str) -> str:
    """Return a value as text without padding; empty where it is missing."""
    return str(place.get(keyword) or "").strip() if place is not None else ""


def _number(place: Dataset, keyword: str) -> float | None:
    """Return a value as number; None where it is missing or no number."""
    try:
        return float(place.get(keyword))
    except (TypeError, ValueError):
        return None


def _code(item: Dataset) -> Code:
    """Return one coded concept."""
    return Code(
        value=_text(item, "CodeValue"),
        scheme=_text(item, "CodingSchemeDesignator"),
        meaning=_text(item, "CodeMeaning"),
    )
