"""Masks as DICOM Segmentation (PS3.3 A.51), binary, one frame a slice and segment.

Written here rather than by highdicom: the same masks give the same bytes (no date of the run, no
random UID), any parallel grid will do (a dose grid has no images), and nothing heavy is loaded.
highdicom reads it back in the tests. Slices without a voxel are left out; each frame states its
own position, so uneven steps are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom.charset import hold
from pipelines.dicom.header import (
    clean_text,
    derived_object,
    new_draft,
    provenance_text,
    save,
)
from pipelines.dicom.read import read_dataset, text, tolerant
from pipelines.dicom.references import instance_item, refer
from pipelines.dicom.rtstruct_writer import ConceptCode
from pipelines.geometry.stack import StackGeometry

Mask = NDArray[np.bool_]
AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

SERIES_NUMBER: Final = 9701
"""Ours; clear of what scanners use."""
ANATOMY: Final = ConceptCode(value="123037004", scheme="SCT", meaning="Anatomical Structure")
"""Category of an organ (CID 7150)."""
ORGAN: Final = ConceptCode(value="91723000", scheme="SCT", meaning="Anatomical Structure")
"""Type of a segment whose organ has no code."""
_DECIMALS: Final = 9
"""Of positions [mm] and cosines; a decimal string has 16 characters."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """One structure."""

    number: int
    """From 1, without gaps."""
    label: str
    mask: Mask
    """Shape of the grid, or of a part of it that starts at `corner`."""
    corner: tuple[int, int, int] = (0, 0, 0)
    """Index (slice, row, column) in the grid of the first voxel of `mask`."""
    color: tuple[int, int, int] = (230, 159, 0)
    """RGB, 0 to 255."""
    code: ConceptCode | None = None
    """What it is; empty: an anatomical structure."""
    category: ConceptCode | None = None
    """What kind of thing it is; empty: anatomy."""
    description: str = ""
    algorithm: AlgorithmType = "AUTOMATIC"
    tracking_uid: str = ""
    """Follows the structure through objects; empty: made from the provenance."""


def write_segmentation(  # noqa: PLR0913 - what, where, of what, and three words
    segments: Sequence[Segment],
    geometry: StackGeometry,
    sources: Sequence[Dataset],
    provenance: Provenance,
    path: Path,
    *,
    label: str = "AUTO",
    series_description: str = "AUTO masks UNAPPROVED",
    series_number: int = SERIES_NUMBER,
    images: Sequence[Dataset] = (),
) -> DerivedObject:
    """Write `segments` and read them back.

    Parameters
    ----------
    segments
        At least one with a voxel; one without any keeps its number and gets no frame.
    geometry
        The grid of the masks, in the frame of reference of ``sources[0]``.
    sources
        Headers of the objects that the masks were made from; the first gives patient, study and
        frame of reference.
    provenance
        Gives the UIDs.
    path
        The DICOM file.
    label
        Content Label.
    series_description, series_number
        Of the new series.
    images
        Headers of the slices of `geometry`, in its order, where the grid is that of images: each
        frame then names its slice.

    Raises
    ------
    ValueError
        If numbers have gaps, a mask does not fit the grid, or nothing is to be written.
    OutputInvalid
        If the file does not give the masks back.
    """
    _check(segments, geometry, images)
    frames = [
        (segment, k)
        for segment in segments
        for k in np.flatnonzero(segment.mask.any(axis=(1, 2))).tolist()
    ]
    if not frames:
        raise ValueError("no segment has a voxel")
    pixels = np.zeros((len(frames), geometry.rows, geometry.columns), dtype=np.bool_)
    for frame, (segment, k) in zip(pixels, frames, strict=True):
        _, rows, columns = segment.mask.shape
        _, r, c = segment.corner
        frame[r : r + rows, c : c + columns] = segment.mask[k]
    with tolerant():
        ds = _header(sources, provenance, label, series_description, series_number)
        hold(ds, [part for s in segments for part in (s.label, s.description)])
        ds.SegmentSequence = [_segment(s, provenance) for s in segments]
        _grid(ds, geometry, None if images else sources[0])
        _frames(ds, frames, geometry, provenance, images)
        refer(ds, list({text(s, "SOPInstanceUID"): s for s in (*sources, *images)}.values()))
        packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        packed += b"\0" * (len(packed) % 2)
        ds.add(DataElement(Tag("PixelData"), "OB", packed))
        save(ds, path)
        if bytes(read_dataset(path).PixelData) != packed:
            raise OutputInvalid("the segmentation on disk does not hold the masks")
    return derived_object(ds, path)


def _check(segments: Sequence[Segment], geometry: StackGeometry, images: Sequence[Dataset]) -> None:
    if [s.number for s in segments] != list(range(1, len(segments) + 1)):
        raise ValueError("segments are numbered from 1 without gaps")
    if images and len(images) != geometry.shape[0]:
        raise ValueError(f"{len(images)} images do not fit {geometry.shape[0]} slices")
    for segment in segments:
        ends = np.add(segment.corner, segment.mask.shape)
        if min(segment.corner) < 0 or np.any(ends > geometry.shape):
            raise ValueError(f"the mask of segment {segment.number} does not fit the grid")


def _header(
    sources: Sequence[Dataset],
    provenance: Provenance,
    label: str,
    series_description: str,
    series_number: int,
) -> Dataset:
    """Return everything that does not depend on the masks."""
    ds = new_draft(
        SegmentationStorage,
        "SEG",
        "SEG",
        sources,
        provenance,
        series_number=series_number,
        description=series_description,
    )
    ds.DeviceSerialNumber = clean_text("LO", provenance.version)
    ds.FrameOfReferenceUID = text(sources[0], "FrameOfReferenceUID")
    ds.PositionReferenceIndicator = ""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel = clean_text("CS", label.upper()) or "AUTO"
    ds.ContentDescription = "unapproved draft for research use"
    ds.ContentCreatorName = ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    ds.LossyImageCompression = "00"
    ds.SegmentationType = "BINARY"
    return ds


def _segment(segment: Segment, provenance: Provenance) -> Dataset:
    item = Dataset()
    item.SegmentNumber = segment.number
    item.SegmentLabel = clean_text("LO", segment.label) or f"Segment {segment.number}"
    described = f"{segment.description}; {provenance_text(provenance)}".removeprefix("; ")
    item.SegmentDescription = clean_text("ST", described)
    item.SegmentAlgorithmType = segment.algorithm
    if segment.algorithm != "MANUAL":
        item.SegmentAlgorithmName = clean_text("LO", f"rtnode {provenance.pipeline}")
    item.SegmentedPropertyCategoryCodeSequence = [_code(segment.category or ANATOMY)]
    item.SegmentedPropertyTypeCodeSequence = [_code(segment.code or ORGAN)]
    item.TrackingID = item.SegmentLabel
    item.TrackingUID = segment.tracking_uid or provenance.uid("SEG tracking", segment.number)
    item.RecommendedDisplayCIELabValue = cielab(segment.color)
    return item


def _grid(ds: Dataset, geometry: StackGeometry, source: Dataset | None) -> None:
    """Write what all frames share; the `source` of all, where frames do not name their own."""
    measures = Dataset()
    measures.PixelSpacing = [_number(v) for v in geometry.pixel_spacing]
    measures.SliceThickness = _number(geometry.spacing[0])
    if geometry.uniform:
        measures.SpacingBetweenSlices = _number(geometry.spacing[0])
    orientation = Dataset()
    directions = (*geometry.row_direction.tolist(), *geometry.column_direction.tolist())
    orientation.ImageOrientationPatient = [_number(v) for v in directions]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    if source is not None:
        shared.DerivationImageSequence = [_derivation(source)]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.Rows, ds.Columns = geometry.rows, geometry.columns


def _frames(
    ds: Dataset,
    frames: Sequence[tuple[Segment, int]],
    geometry: StackGeometry,
    provenance: Provenance,
    images: Sequence[Dataset],
) -> None:
    """Write what belongs to each frame, and the dimensions: segment, then position."""
    organization = Dataset()
    organization.DimensionOrganizationUID = provenance.uid("SEG dimensions")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _dimension(organization.DimensionOrganizationUID, *place)
        for place in (
            ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment"),
            ("ImagePositionPatient", "PlanePositionSequence", "Position"),
        )
    ]
    slices = sorted({segment.corner[0] + k for segment, k in frames})
    rank = {k: n for n, k in enumerate(slices, 1)}
    groups = []
    for segment, inner in frames:
        k = segment.corner[0] + inner
        content = Dataset()
        content.DimensionIndexValues = [segment.number, rank[k]]
        position = Dataset()
        position.ImagePositionPatient = [_number(v) for v in geometry.origins[k].tolist()]
        identification = Dataset()
        identification.ReferencedSegmentNumber = segment.number
        group = Dataset()
        group.FrameContentSequence = [content]
        group.PlanePositionSequence = [position]
        group.SegmentIdentificationSequence = [identification]
        if images:
            group.DerivationImageSequence = [_derivation(images[k])]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.NumberOfFrames = len(groups)


def _dimension(organization: str, pointer: str, group: str, words: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = Tag(pointer)
    item.FunctionalGroupPointer = Tag(group)
    item.DimensionDescriptionLabel = words
    return item


def _derivation(image: Dataset) -> Dataset:
    source = instance_item(image)
    source.PurposeOfReferenceCodeSequence = [
        _code(ConceptCode(value="121322", scheme="DCM",
                          meaning="Source image for image processing operation"))
    ]  # fmt: skip
    item = Dataset()
    item.SourceImageSequence = [source]
    item.DerivationCodeSequence = [
        _code(ConceptCode(value="113076", scheme="DCM", meaning="Segmentation"))
    ]
    return item


def _code(code: ConceptCode) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def _number(value: float) -> str:
    """Return a decimal string of at most 16 characters (PS3.5 6.2)."""
    return f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def cielab(color: tuple[int, int, int]) -> list[int]:
    """Return a sRGB color (0 to 255) as PCS value: CIELab scaled to 16 bits (PS3.3 C.10.7.1.1)."""
    share = np.array(color, dtype=np.float64) / 255
    low = share <= 0.04045  # noqa: PLR2004 (IEC 61966-2-1)
    linear = np.where(low, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = _TO_XYZ_D50 @ linear / _WHITE_D50
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness = 116 * bent[1] - 16
    a, b = 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])
    scaled = np.array([lightness * 65535 / 100, (a + 128) * 257, (b + 128) * 257])
    return [int(v) for v in np.clip(np.rint(scaled), 0, 65535)]


_TO_XYZ_D50: Final = np.array(
    [[0.4360747, 0.3850649, 0.1430804],
     [0.2225045, 0.7168786, 0.0606169],
     [0.0139322, 0.0971045, 0.7141733]]
)  # fmt: skip
"""Linear sRGB to XYZ with the white of the profile connection space (Bradford)."""
_WHITE_D50: Final = np.array([0.96422, 1.0, 0.82521])
