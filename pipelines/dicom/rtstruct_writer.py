"""RT Structure Sets (PS3.3 A.19) from masks and fields on the grid of a CT series.

Each contour point is made from the position and orientation of its own slice, so uneven steps,
oblique and flipped series and every patient position are exact. Values fit their VR (DS of at
most 16 bytes, two decimals), contours have at least three distinct points, holes are keyholes by
default, and the object refers to every image of the series. Nothing is ever approved here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage

from pipelines.api import DerivedObject, InputRejected, Provenance
from pipelines.dicom.charset import hold
from pipelines.dicom.header import (
    clean_text,
    content_datetime,
    copy_identity,
    derived_object,
    new_file,
    provenance_text,
    save,
    stamp,
)
from pipelines.dicom.read import text
from pipelines.geometry.contours import MAX_POINTS, Field, Holes, trace
from pipelines.geometry.stack import StackGeometry

STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, what RTReferencedStudySequence names a study by (retired)."""
EXPLICIT_LIMIT: Final = 65534
"""Bytes that a DS value may have in Explicit VR: its length has 16 bits and is even."""
SERIES_NUMBER: Final = 9001
"""Ours; clear of what scanners use."""
CLOSED: Final = "CLOSED_PLANAR"
XOR: Final = "CLOSEDPLANAR_XOR"
"""All contours of a plane together enclose what an odd number of them encloses (PS3.3 C.8.8.6.3).
Every contour of the plane must say so."""
_CONTOUR_DATA: Final = Tag("ContourData")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptCode:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """One region of interest to be written."""

    number: int
    name: str
    """At most 16 characters, TG-263 where it has a name."""
    field: Field
    """A mask, or values whose 0.5 level is the surface; (slice, row, column) of the grid."""
    interpreted_type: str
    """RT ROI Interpreted Type (PS3.3 C.8.8.8.1)."""
    color: tuple[int, int, int]
    corner: tuple[int, int, int] = (0, 0, 0)
    """Index in the grid of the first voxel of `field`, which may be cropped; 0 around it."""
    code: ConceptCode | None = None
    description: str = ""
    """How it was made; ROI Description."""
    remark: str = ""
    """Verdict of the checks; ROI Observation Description."""
    label: str = ""
    """Name for display in any script, at most 16 characters; ROI Observation Label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterProfile:
    """What a destination wants of the file."""

    holes: Holes = "keyhole"
    max_points: int = MAX_POINTS
    label: str = "AUTO"
    series_description: str = "AUTO UNAPPROVED"
    description: str = "unapproved draft for research use"
    """Structure Set Description."""
    algorithm_family: ConceptCode = field(
        default_factory=lambda: ConceptCode(
            value="123104", scheme="DCM", meaning="Morphological Operations"
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of each structure."""

    object: DerivedObject
    contours: dict[str, int]
    """ROI name -> contours written."""
    points: int
    dropped: dict[str, int]
    """ROI name -> rings left out because nothing of them remained at 0.01 mm."""
    empty: tuple[str, ...]
    """Names without any contour; they are not in the file."""


def write_structure_set(
    structures: Sequence[Structure],
    headers: Sequence[Dataset],
    geometry: StackGeometry,
    provenance: Provenance,
    path: Path,
    profile: WriterProfile | None = None,
) -> Written:
    """Write `structures` as one RT Structure Set.

    Parameters
    ----------
    structures : sequence of Structure
        Fields inside `geometry.shape`; order, numbers and colors are kept.
    headers : sequence of Dataset
        The images of the series without pixels, in slice order.
    geometry : StackGeometry
        Of the same images.
    provenance : Provenance
        Gives the UIDs and is written into the object.
    path : Path
        The file to be made.
    profile : WriterProfile, optional

    Raises
    ------
    InputRejected
        Where the series has no frame of reference.
    ValueError
        Where names collide, are too long, or a field does not fit the grid.
    """
    profile = profile or WriterProfile()
    _check(structures, headers, geometry)
    frame = text(headers[0], "FrameOfReferenceUID")
    if not frame:
        raise InputRejected("the series has no Frame of Reference UID; contours need one")
    ds = _header(headers, frame, provenance, profile)
    hold(ds, [structure.label for structure in structures])
    references = [_image(h) for h in headers]
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    empty: list[str] = []
    points = longest = 0
    regions: list[Dataset] = []
    outlines: list[Dataset] = []
    observations: list[Dataset] = []
    for structure in structures:
        loops, lost = _loops(structure, geometry, profile)
        if lost:
            dropped[structure.name] = lost
        if not loops:
            empty.append(structure.name)
            continue
        items = []
        on_plane = Counter(k for k, _ in loops)
        for k, loop in loops:
            value = decimal_strings(loop)
            longest = max(longest, len(value))
            kind = XOR if profile.holes == "xor" and on_plane[k] > 1 else CLOSED
            items.append(_contour(references[k], value, len(loop), kind))
        counts[structure.name] = len(items)
        points += sum(len(loop) for _, loop in loops)
        regions.append(_region(structure, frame, provenance, profile))
        outlines.append(_outline(structure, items))
        observations.append(_observation(structure, len(observations) + 1))
    ds.StructureSetROISequence = regions
    ds.ROIContourSequence = outlines
    ds.RTROIObservationsSequence = observations
    save(ds, path, implicit=longest > EXPLICIT_LIMIT)
    return Written(object=derived_object(ds, path), contours=counts, points=points,
                   dropped=dropped, empty=tuple(empty))  # fmt: skip


def decimal_strings(points: NDArray[np.float64]) -> str:
    r"""Return ContourData of `points` [mm], shape (n, 3): two decimals, joined by ``\``.

    0.01 mm is a tenth of what a linac can do; the longest value, -99999.99, has 9 of the 16
    bytes that DS allows. Negative zero is written as zero.
    """
    values = (np.round(points, 2) + 0.0).ravel()
    if not np.all(np.abs(values) < 1e5):  # noqa: PLR2004 (100 m)
        raise ValueError("a contour point lies outside every scanner")
    return "\\".join(["%.2f"] * len(values)) % tuple(values.tolist())


def _check(
    structures: Sequence[Structure], headers: Sequence[Dataset], geometry: StackGeometry
) -> None:
    if len(headers) != geometry.shape[0]:
        raise ValueError(f"{len(headers)} images do not fit {geometry.shape[0]} slices")
    folded = [s.name.casefold() for s in structures]
    if len(set(folded)) < len(folded) or len({s.number for s in structures}) < len(folded):
        raise ValueError("two structures have the same name or number")
    for structure in structures:
        if not 0 < len(structure.name) <= 16 or not structure.name.isascii():  # noqa: PLR2004 (TG-263)
            raise ValueError(f"the name {structure.name!r} has not 1 to 16 ASCII characters")
        ends = np.add(structure.corner, structure.field.shape)
        if min(structure.corner) < 0 or np.any(ends > geometry.shape):
            raise ValueError(f"the field of {structure.name} does not fit the grid")


def _header(
    headers: Sequence[Dataset], frame: str, provenance: Provenance, profile: WriterProfile
) -> Dataset:
    """Return everything but the structures."""
    first = headers[0]
    ds = new_file(RTStructureSetStorage, provenance.uid("RTSTRUCT"), "RTSTRUCT")
    copy_identity(first, ds)
    stamp(ds, provenance)
    day, time = content_datetime(headers)
    ds.SeriesInstanceUID = provenance.uid("RTSTRUCT series")
    ds.SeriesNumber = SERIES_NUMBER
    ds.SeriesDate, ds.SeriesTime = day, time
    ds.SeriesDescription = clean_text("LO", profile.series_description)
    ds.OperatorsName = ""
    ds.InstanceNumber = 1
    ds.FrameOfReferenceUID = frame
    ds.PositionReferenceIndicator = clean_text("LO", text(first, "PositionReferenceIndicator"))
    ds.StructureSetLabel = clean_text("SH", profile.label) or "AUTO"
    ds.StructureSetDescription = clean_text("ST", profile.description)
    ds.StructureSetDate, ds.StructureSetTime = day, time
    ds.ApprovalStatus = "UNAPPROVED"

    series = Dataset()
    series.SeriesInstanceUID = text(first, "SeriesInstanceUID")
    series.ContourImageSequence = [_image(h) for h in headers]
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = text(first, "StudyInstanceUID")
    study.RTReferencedSeriesSequence = [series]
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    reference.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [reference]
    return ds


def _image(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = text(header, "SOPClassUID")
    item.ReferencedSOPInstanceUID = text(header, "SOPInstanceUID")
    return item


def _loops(
    structure: Structure, geometry: StackGeometry, profile: WriterProfile
) -> tuple[list[tuple[int, NDArray[np.float64]]], int]:
    """Return (slice, points in LPS mm, shape (n, 3)) of every contour, and how many vanished."""
    loops = []
    lost = 0
    corner = np.array(structure.corner, dtype=np.float64)
    planes = trace(structure.field, holes=profile.holes, max_points=profile.max_points)
    for k, rings in enumerate(planes, start=structure.corner[0]):
        for ring in rings:
            indices = np.column_stack([np.full(len(ring), float(k)), ring + corner[1:]])
            points = np.round(geometry.points(indices), 2)
            points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
            if len(np.unique(points, axis=0)) < 3:  # noqa: PLR2004 (an area needs three)
                lost += 1
                continue
            loops.append((k, points))
    return loops, lost


def _contour(image: Dataset, value: str, count: int, kind: str) -> Dataset:
    item = Dataset()
    item.ContourImageSequence = Items([image])
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = count
    # As one finished text: a list of decimal objects would cost seconds (see module docstring).
    item.add(DataElement(_CONTOUR_DATA, "DS", value, already_converted=True))
    return item


def _region(
    structure: Structure, frame: str, provenance: Provenance, profile: WriterProfile
) -> Dataset:
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [_code(profile.algorithm_family)]
    algorithm.AlgorithmName = clean_text("LO", f"rtnode {provenance.pipeline} {provenance.model}")
    algorithm.AlgorithmVersion = clean_text("LO", provenance.version)
    algorithm.AlgorithmSource = "rtnode"
    item = Dataset()
    item.ROINumber = structure.number
    item.ReferencedFrameOfReferenceUID = frame
    item.ROIName = structure.name
    item.ROIDescription = clean_text(
        "ST", f"{structure.description}; {provenance_text(provenance)}".removeprefix("; ")
    )
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return item


def _outline(structure: Structure, contours: list[Dataset]) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(structure.color)
    item.ReferencedROINumber = structure.number
    item.ContourSequence = contours
    return item


def _observation(structure: Structure, number: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = structure.number
    if structure.label:
        item.ROIObservationLabel = clean_text("SH", structure.label)
    if structure.remark:
        item.ROIObservationDescription = clean_text("ST", structure.remark)
    if structure.code is not None:
        item.RTROIIdentificationCodeSequence = [_code(structure.code)]
    item.RTROIInterpretedType = structure.interpreted_type
    item.ROIInterpreter = ""
    return item


def _code(code: ConceptCode) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item
