"""A derived CT Image series on the grid of its source: attributes of the synthetic CT and others.

Position, orientation, spacing and frame of reference are copied digit by digit from the source,
so registrations and couch shifts stay valid; only slices that were parted into thinner ones have
positions of their own. Manufacturer is this software, never the scanner:
a derived series that comes back must not look like a new scan. Every file is read back before
its record is returned. PS3.3 A.3 (CT Image IOD); reference page, section 12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DS

from pipelines.api import DerivedObject, InputRejected, OutputInvalid, Provenance
from pipelines.dicom import header
from pipelines.dicom.read import text, tolerant
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.geometry.stack import StackGeometry

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Twelve bits with an intercept of -1024: what every planning system reads."""
SERIES_NUMBER_OFFSET: Final = 9000
"""Added to the source's Series Number, so that both sort together and never collide."""
COMMENT: Final = "Synthetic CT, not for diagnosis or delineation; validate locally"
KEPT_COMMENT: Final = "CBCT with its own values, by a rule for its scanner; validate locally"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesText:
    """What people and planning systems read of the series."""

    description: str
    """SeriesDescription, at most 64 characters."""
    derivation: str
    """DerivationDescription: how the pixels came about."""
    hu_curve_source: Dataset | None
    """Header whose KVP and StationName are shown, since planning systems choose their
    calibration curve by them; None leaves both empty."""
    comment: str = COMMENT
    """ImageComments: what the series must not be used for."""
    synthetic: bool = True
    """SyntheticData: whether content was made that was not acquired."""
    number_offset: int = SERIES_NUMBER_OFFSET
    stem: str = "SCT"
    """First letters of the file names."""


def write_ct_series(
    hu: NDArray[np.float32],
    source: CtVolume,
    words: SeriesText,
    provenance: Provenance,
    folder: Path,
    *,
    parts: int = 1,
) -> tuple[DerivedObject, ...]:
    """Write `hu` as a CT series on the grid of `source` and read it back.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), HU
        Rounded and clipped to [-1024, 3071].
    source : CtVolume
        Gives grid, patient, study, and the instances that the new ones are derived from.
    words : SeriesText
    provenance : Provenance
        Gives the UIDs: the same inputs and settings give the same bytes.
    folder : Path
        Existing; receives ``SCT_0001.dcm`` and so on, in slice order.
    parts : int
        `hu` holds so many thin slices of each slice of the source (`StackGeometry.parted`).

    Raises
    ------
    InputRejected
        If the source has no frame of reference or no even grid.
    OutputInvalid
        If what was written does not read back equal.
    """
    grid = source.geometry if parts == 1 else source.geometry.parted(parts)
    if hu.shape != grid.shape or not np.isfinite(hu).all():
        raise OutputInvalid(f"the image {hu.shape} is not a finite image on the source's grid")
    if not source.frame_of_reference_uid:
        raise InputRejected("the source series states no frame of reference")
    if not source.geometry.uniform:
        raise InputRejected("the slices are unevenly spaced; no planning system would take them")
    stored = np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU).astype(np.int32) - LOWEST_HU
    with tolerant():
        moment = header.content_datetime(source.headers)
        written = []
        for k, values in enumerate(stored):
            ds = _slice(values.astype(np.uint16), source.headers[k // parts], words, provenance, k)
            if parts > 1:
                _place_part(ds, grid, k)
            ds.SeriesDate, ds.SeriesTime = moment
            ds.ContentDate, ds.ContentTime = moment
            ds.InstanceCreationDate, ds.InstanceCreationTime = moment
            path = folder / f"{words.stem}_{k + 1:04d}.dcm"
            header.save(ds, path)
            written.append(header.derived_object(ds, path))
    _check(written, stored + LOWEST_HU, grid, source.frame_of_reference_uid)
    return tuple(written)


def _slice(
    stored: NDArray[np.uint16], origin: Dataset, words: SeriesText, provenance: Provenance, k: int
) -> Dataset:
    ds = header.new_file(CT_IMAGE_STORAGE, provenance.uid("instance", k), "CT")
    header.copy_identity(origin, ds)
    header.stamp(ds, provenance)
    _describe(ds, origin, words, provenance, k)
    _place(ds, origin)
    _reference(ds, origin)
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(LOWEST_HU), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.PixelData = stored.astype("<u2").tobytes()
    return ds


def _describe(
    ds: Dataset, origin: Dataset, words: SeriesText, provenance: Provenance, k: int
) -> None:
    """Write General Series, General Image and CT Image: what it is and that it is synthetic."""
    ds.SeriesInstanceUID = provenance.uid("series")
    ds.SeriesDescription = header.clean_text("LO", words.description)
    number = header.clean_text("IS", text(origin, "SeriesNumber")) or "0"
    ds.SeriesNumber = str(words.number_offset + int(number) % 1000)
    ds.InstanceNumber = str(k + 1)
    ds.AcquisitionNumber = None
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.SyntheticData = "YES" if words.synthetic else "NO"
    ds.DerivationDescription = header.clean_text("ST", words.derivation)
    ds.ImageComments = words.comment
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "01" if text(origin, "LossyImageCompression") == "01" else "00"
    for keyword, vr in (("AcquisitionDate", "DA"), ("AcquisitionTime", "TM")):
        if value := header.clean_text(vr, text(origin, keyword)):
            setattr(ds, keyword, value)
    body_part = header.clean_text("CS", text(origin, "BodyPartExamined"))
    side = text(origin, "Laterality")
    if body_part:
        ds.BodyPartExamined = body_part
    if side in {"L", "R"} or not body_part or "Laterality" in origin:  # type 2C: may be empty
        ds.Laterality = side if side in {"L", "R"} else ""
    curve = words.hu_curve_source
    ds.KVP = (header.clean_text("DS", text(curve, "KVP")) if curve else "") or None
    if curve and (station := header.clean_text("SH", text(curve, "StationName"))):
        ds.StationName = station.encode("ascii", "replace").decode("ascii")


def _place(ds: Dataset, origin: Dataset) -> None:
    """Copy the grid as it is written in the source."""
    ds.FrameOfReferenceUID = str(origin.FrameOfReferenceUID)
    ds.PositionReferenceIndicator = ""
    ds.PatientPosition = header.clean_text("CS", text(origin, "PatientPosition")) or ""
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        ds[keyword] = origin[keyword]
    thickness = header.clean_text("DS", text(origin, "SliceThickness"))
    ds.SliceThickness = thickness or None
    if diameter := header.clean_text("DS", text(origin, "ReconstructionDiameter")):
        ds.ReconstructionDiameter = diameter


def _place_part(ds: Dataset, grid: StackGeometry, k: int) -> None:
    """Write the position of a thin slice, and its thickness."""
    ds.ImagePositionPatient = [DS(float(v), auto_format=True) for v in grid.origins[k]]
    ds.SliceThickness = DS(grid.spacing[0], auto_format=True)


def _reference(ds: Dataset, origin: Dataset) -> None:
    """Name the source slice (General Image, PS3.3 C.7.6.1; Common Instance Reference, C.12.2)."""
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    image = _instance(origin)
    image.PurposeOfReferenceCodeSequence = [purpose]
    ds.SourceImageSequence = [image]
    series = Dataset()
    series.SeriesInstanceUID = text(origin, "SeriesInstanceUID")
    series.ReferencedInstanceSequence = [_instance(origin)]
    ds.ReferencedSeriesSequence = [series]


def _instance(origin: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = str(origin.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(origin.SOPInstanceUID)
    return item


def _check(
    written: Sequence[DerivedObject], expected: NDArray[np.int32], grid: StackGeometry, frame: str
) -> None:
    """Read all files back; raise unless voxels and grid are those that were meant."""
    again = read_volume([o.path for o in written], check_scale=False)
    if not np.array_equal(again.hu, expected):
        raise OutputInvalid("the written series reads back with other values")
    if not again.geometry.same_grid(grid, tolerance_mm=1e-6):
        raise OutputInvalid("the written series reads back on another grid")
    if again.frame_of_reference_uid != frame:
        raise OutputInvalid("the written series reads back in another frame of reference")
