"""Structure sets and doses with closed-form truths, as files, for the dose radiomics tests."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset

from pipelines.api import InputFile, Inputs, Provenance, Request, Role, settings_sha256
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings

FRAME = "2.25.1001"
STUDY = "2.25.1002"

Loop = tuple[str, np.ndarray]
"""(geometric type, points (n, 3) LPS [mm])."""


def item(**values: object) -> Dataset:
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def common(sop_class: str, modality: str, key: str) -> Dataset:
    """Return identity and UIDs; UIDs depend on `key` alone."""
    out = item(
        SOPClassUID=sop_class, SOPInstanceUID=uid.generate_uid(entropy_srcs=[key, modality]),
        SeriesInstanceUID=uid.generate_uid(entropy_srcs=[key, modality, "series"]),
        StudyInstanceUID=STUDY, FrameOfReferenceUID=FRAME, Modality=modality, StudyID="1",
        PatientName="Dose^Phantom", PatientID="DOSE-1", PatientBirthDate="19600101",
        PatientSex="O", StudyDate="20260101", StudyTime="120000", AccessionNumber="",
        ReferringPhysicianName="", Manufacturer="test", SeriesNumber=1, InstanceNumber=1,
    )  # fmt: skip
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return out


def structure_set(rois: Sequence[tuple[str, str, Sequence[Loop]]], *, key: str = "case") -> Dataset:
    """Return a structure set of (name, interpreted type, loops), numbered from 1."""
    out = common(uid.RTStructureSetStorage, "RTSTRUCT", key)
    out.StructureSetLabel = "TEST"
    out.StructureSetDate, out.StructureSetTime = "20260102", "130000"
    out.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=FRAME)]
    out.StructureSetROISequence = [
        item(ROINumber=n, ReferencedFrameOfReferenceUID=FRAME, ROIName=name,
             ROIGenerationAlgorithm="MANUAL")
        for n, (name, _, _) in enumerate(rois, 1)
    ]  # fmt: skip
    out.ROIContourSequence = [
        item(
            ReferencedROINumber=n,
            ContourSequence=[
                item(ContourGeometricType=kind, NumberOfContourPoints=len(points),
                     ContourData=[f"{v:.4f}" for v in points.ravel()])
                for kind, points in loops
            ],
        )
        for n, (_, _, loops) in enumerate(rois, 1)
    ]  # fmt: skip
    out.RTROIObservationsSequence = [
        item(ObservationNumber=n, ReferencedROINumber=n, RTROIInterpretedType=kind,
             ROIInterpreter="")
        for n, (_, kind, _) in enumerate(rois, 1)
    ]  # fmt: skip
    return out


def dose(
    gray_at: Callable[[np.ndarray], np.ndarray],
    *,
    shape: tuple[int, int, int] = (21, 31, 41),
    step: tuple[float, float, float] = (2.0, 2.0, 2.0),
    first: tuple[float, float, float] = (-40.0, -30.0, -20.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    bits: int = 32,
    key: str = "case",
    order: Sequence[int] | None = None,
    absolute: bool = False,
    scaling: float = 1e-6,
    offsets: Sequence[float] | None = None,
) -> Dataset:
    """Return `gray_at(points)`, points (..., 3) LPS [mm], on a grid; `first` is (x, y, z)."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    along = np.array(offsets) if offsets is not None else step[0] * np.arange(shape[0])
    k, j, i = np.meshgrid(
        along, step[1] * np.arange(shape[1]), step[2] * np.arange(shape[2]), indexing="ij"
    )
    points = np.array(first) + k[..., None] * normal + j[..., None] * column + i[..., None] * row
    stored = np.rint(gray_at(points) / scaling)
    if order is not None:
        stored, along = stored[list(order)], along[list(order)]
        base = np.array(first) + along[0] * normal
        along = along - along[0]
    else:
        base = np.array(first)
    if absolute:
        along = base[2] + along * normal[2]
    out = common(uid.RTDoseStorage, "RTDOSE", key)
    out.ContentDate, out.ContentTime = "20260103", "140000"
    out.DoseUnits, out.DoseType, out.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    out.PhotometricInterpretation, out.SamplesPerPixel = "MONOCHROME2", 1
    out.NumberOfFrames, out.Rows, out.Columns = shape
    out.BitsAllocated = out.BitsStored = bits
    out.HighBit, out.PixelRepresentation = bits - 1, 0
    out.PixelSpacing = [step[1], step[2]]
    out.ImageOrientationPatient = list(orientation)
    out.ImagePositionPatient = [f"{v:.4f}" for v in base]
    out.GridFrameOffsetVector = [f"{v:.4f}" for v in along]
    out.DoseGridScaling = f"{scaling:.9e}"
    out.FrameIncrementPointer = 0x3004000C
    out.add_new("PixelData", "OW", stored.astype(f"<u{bits // 8}").tobytes())
    return out


def plan(
    structures: Dataset,
    *,
    prescription: float = 20.0,
    roi: int = 1,
    fractions: int = 10,
    beams: Sequence[int] = (1,),
    key: str = "case",
) -> Dataset:
    """Return the parts of an RT Plan that the pipeline reads."""
    out = common(uid.RTPlanStorage, "RTPLAN", key)
    out.ReferencedStructureSetSequence = [
        item(ReferencedSOPClassUID=structures.SOPClassUID,
             ReferencedSOPInstanceUID=structures.SOPInstanceUID)
    ]  # fmt: skip
    out.DoseReferenceSequence = [
        item(DoseReferenceNumber=1, DoseReferenceStructureType="VOLUME",
             DoseReferenceType="TARGET", ReferencedROINumber=roi,
             TargetPrescriptionDose=prescription)
    ]  # fmt: skip
    out.FractionGroupSequence = [
        item(FractionGroupNumber=1, NumberOfFractionsPlanned=fractions,
             ReferencedBeamSequence=[item(ReferencedBeamNumber=n) for n in beams])
    ]  # fmt: skip
    return out


def names_plan(rd: Dataset, rp: Dataset, beam: int | None = None) -> Dataset:
    """Let the dose name its plan, and its beam."""
    named = item(ReferencedSOPClassUID=rp.SOPClassUID, ReferencedSOPInstanceUID=rp.SOPInstanceUID)
    if beam is not None:
        named.ReferencedFractionGroupSequence = [
            item(ReferencedFractionGroupNumber=1,
                 ReferencedBeamSequence=[item(ReferencedBeamNumber=beam)])
        ]  # fmt: skip
    rd.ReferencedRTPlanSequence = [named]
    return rd


def save(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def circle(radius: float, x: float, y: float, z: float, count: int = 360) -> np.ndarray:
    """Return a polygon of the area of a circle, shape (count, 3)."""
    angle = 2 * np.pi * np.arange(count) / count
    r = radius * np.sqrt(2 * np.pi / count / np.sin(2 * np.pi / count))
    return np.c_[x + r * np.cos(angle), y + r * np.sin(angle), np.full(count, z)]


def square(low: float, high: float, z: float) -> np.ndarray:
    return np.array([[low, low, z], [high, low, z], [high, high, z], [low, high, z]], float)


def cylinder(radius: float, heights: Sequence[float], x: float = 0, y: float = 0) -> list[Loop]:
    return [("CLOSED_PLANAR", circle(radius, x, y, z)) for z in heights]


def linear_z(points: np.ndarray) -> np.ndarray:
    """Return 25 Gy at z = 0, rising 1 Gy/mm."""
    return 25 + points[..., 2]


def request(
    folder: Path, files: Sequence[tuple[Role, Path]], settings: DoseRadiomicsSettings | None = None
) -> Request:
    """Return a request with an empty output folder."""
    settings = settings or DoseRadiomicsSettings()
    inputs = tuple(
        InputFile(
            role=role,
            path=path,
            sop_instance_uid=str(dcmread(path, stop_before_pixels=True).SOPInstanceUID),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for role, path in files
    )
    output = folder / "out"
    output.mkdir()
    return Request(
        inputs=Inputs(files=inputs),
        settings=settings,
        provenance=Provenance(
            pipeline="dose_radiomics",
            version="0.1.0",
            settings_sha256=settings_sha256(settings),
            sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in inputs)),
        ),
        output=output,
    )
