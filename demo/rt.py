"""Structure set, plan and dose from arrays, as a treatment planning system writes them.

Module tables of PS3.3 A.18, A.19 and A.20; the references run RTDOSE → RTPLAN → RTSTRUCT → CT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import contourpy
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import RTDoseStorage, RTPlanStorage, RTStructureSetStorage

from demo.elements import Case, Device, common, decimal, decimals, item, reference, set_plane
from demo.grid import Grid

TPS: Final = Device(
    manufacturer="rtnode phantom", model="Generated TPS", description="Generated plan data"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """A structure to be written: closed planar rings in patient space."""

    name: str
    rings: tuple[NDArray[np.float64], ...]
    """Each of shape (n, 3), patient LPS [mm], first point not repeated."""
    interpreted_type: str = "ORGAN"
    """RT ROI Interpreted Type: EXTERNAL, ORGAN, GTV, CTV, PTV (PS3.3 C.8.8.8)."""
    color: tuple[int, int, int] = (255, 128, 0)


def rtstruct(
    case: Case, ct: Sequence[Dataset], rois: Sequence[Roi], *, series: str = "rtstruct"
) -> Dataset:
    """Return a structure set drawn on `ct`; each ring references the slice it lies on."""
    ds = common(case, RTStructureSetStorage, "RTSTRUCT", TPS, series)
    frame = ct[0].FrameOfReferenceUID
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = frame, ""
    ds.InstanceNumber = 1
    ds.StructureSetLabel = "PHANTOM TRUTH"
    ds.StructureSetDate, ds.StructureSetTime = case.date, case.time
    ds.ReferencedFrameOfReferenceSequence = Items([_referenced_frame(frame, ct)])
    ds.StructureSetROISequence = Items()
    ds.ROIContourSequence = Items()
    ds.RTROIObservationsSequence = Items()
    for number, roi in enumerate(rois, start=1):
        ds.StructureSetROISequence.append(
            item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=frame,
                ROIName=roi.name,
                ROIGenerationAlgorithm="MANUAL",
            )
        )
        ds.ROIContourSequence.append(
            item(
                ROIDisplayColor=list(roi.color),
                ReferencedROINumber=number,
                ContourSequence=Items(_contour(ring, ct) for ring in roi.rings),
            )
        )
        ds.RTROIObservationsSequence.append(
            item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType=roi.interpreted_type,
                ROIInterpreter="",
            )
        )
    ds.ApprovalStatus = "UNAPPROVED"
    return ds


def rtplan(
    case: Case,
    structures: Dataset,
    *,
    prescription_gy: float = 60.0,
    fractions: int = 30,
    series: str = "rtplan",
) -> Dataset:
    """Return a one-beam plan that references `structures`."""
    ds = common(case, RTPlanStorage, "RTPLAN", TPS, series)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = structures.FrameOfReferenceUID, ""
    ds.InstanceNumber = 1
    ds.RTPlanLabel = "PHANTOM"
    ds.RTPlanDate, ds.RTPlanTime = case.date, case.time
    ds.RTPlanGeometry = "PATIENT"
    ds.ReferencedStructureSetSequence = Items([reference(structures)])
    ds.DoseReferenceSequence = Items(
        [
            item(
                DoseReferenceNumber=1,
                DoseReferenceStructureType="VOLUME",
                DoseReferenceDescription="PTV",
                DoseReferenceType="TARGET",
                ReferencedROINumber=1,
                TargetPrescriptionDose=decimal(prescription_gy),
            )
        ]
    )
    beam = item(
        BeamDose=decimal(prescription_gy / fractions),
        BeamMeterset=decimal(100),
        ReferencedBeamNumber=1,
    )
    ds.FractionGroupSequence = Items(
        [
            item(
                FractionGroupNumber=1,
                NumberOfFractionsPlanned=fractions,
                NumberOfBeams=1,
                NumberOfBrachyApplicationSetups=0,
                ReferencedBeamSequence=Items([beam]),
            )
        ]
    )
    jaws = [("ASYMX", [-50.0, 50.0]), ("ASYMY", [-50.0, 50.0])]
    first = item(
        ControlPointIndex=0,
        NominalBeamEnergy=decimal(6),
        GantryAngle=0,
        GantryRotationDirection="NONE",
        BeamLimitingDeviceAngle=0,
        BeamLimitingDeviceRotationDirection="NONE",
        PatientSupportAngle=0,
        PatientSupportRotationDirection="NONE",
        TableTopEccentricAngle=0,
        TableTopEccentricRotationDirection="NONE",
        TableTopVerticalPosition=None,
        TableTopLongitudinalPosition=None,
        TableTopLateralPosition=None,
        IsocenterPosition=[0, 0, 0],
        CumulativeMetersetWeight=0,
        BeamLimitingDevicePositionSequence=Items(
            item(RTBeamLimitingDeviceType=kind, LeafJawPositions=edges) for kind, edges in jaws
        ),
    )
    ds.BeamSequence = Items(
        [
            item(
                TreatmentMachineName="PHANTOM",
                PrimaryDosimeterUnit="MU",
                SourceAxisDistance=1000,
                BeamLimitingDeviceSequence=Items(
                    item(RTBeamLimitingDeviceType=kind, NumberOfLeafJawPairs=1) for kind, _ in jaws
                ),
                BeamNumber=1,
                BeamName="AP",
                BeamType="STATIC",
                RadiationType="PHOTON",
                TreatmentDeliveryType="TREATMENT",
                NumberOfWedges=0,
                NumberOfCompensators=0,
                NumberOfBoli=0,
                NumberOfBlocks=0,
                FinalCumulativeMetersetWeight=1,
                NumberOfControlPoints=2,
                ControlPointSequence=Items(
                    [first, item(ControlPointIndex=1, CumulativeMetersetWeight=1)]
                ),
            )
        ]
    )
    ds.ApprovalStatus = "UNAPPROVED"
    return ds


def rtdose(
    case: Case,
    dose_gy: NDArray[np.generic],
    grid: Grid,
    plan: Dataset,
    *,
    bits: int = 32,
    series: str = "rtdose",
) -> Dataset:
    """Return the physical dose of a whole plan.

    Parameters
    ----------
    dose_gy : ndarray, shape `grid.shape`
        Dose [Gy], at least 0.
    plan
        The RTPLAN that it belongs to.
    bits
        Bits Allocated, 16 or 32; Dose Grid Scaling [Gy per stored unit] uses nearly all of them.
    """
    largest = 2**bits - 1
    step = float(decimal(max(float(dose_gy.max()), 1e-3) / (largest - 1)))
    ds = common(case, RTDoseStorage, "RTDOSE", TPS, series)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = plan.FrameOfReferenceUID, ""
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = case.date, case.time
    ds.SliceThickness = None
    ds.ImagePositionPatient = decimals(grid.slice_origin(0))
    set_plane(ds, grid)
    ds.NumberOfFrames, ds.Rows, ds.Columns = grid.shape
    ds.FrameIncrementPointer = 0x3004000C
    ds.GridFrameOffsetVector = decimals(np.arange(grid.shape[0]) * grid.spacing[0])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    ds.DoseGridScaling = decimal(step)
    ds.ReferencedRTPlanSequence = Items([reference(plan)])
    stored = np.clip(np.rint(dose_gy.astype(np.float64) / step), 0, largest)
    ds.add_new("PixelData", "OW", stored.astype(f"<u{bits // 8}").tobytes())
    return ds


def rings_from_mask(mask: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.float64], ...]:
    """Return the outlines of `mask`, one ring a closed boundary, in patient LPS [mm].

    Marching squares at one half; a hole is a ring of its own inside its shell (exclusive or).
    """
    rings = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        padded = np.pad(mask[k].astype(float), 1)
        for line in contourpy.contour_generator(z=padded).lines(0.5):
            points = np.asarray(line, float)[:-1] - 1  # (column, row), last repeats the first
            index = np.column_stack([np.full(len(points), float(k)), points[:, 1], points[:, 0]])
            if len(points) >= 3:
                rings.append(grid.to_patient(index))
    return tuple(rings)


def _referenced_frame(frame: str, ct: Sequence[Dataset]) -> Dataset:
    images = Items(map(reference, ct))
    series = item(SeriesInstanceUID=ct[0].SeriesInstanceUID, ContourImageSequence=images)
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # Detached Study Management, as TPS write
        ReferencedSOPInstanceUID=ct[0].StudyInstanceUID,
        RTReferencedSeriesSequence=Items([series]),
    )
    return item(FrameOfReferenceUID=frame, RTReferencedStudySequence=Items([study]))


def _contour(ring: NDArray[np.float64], ct: Sequence[Dataset]) -> Dataset:
    return item(
        ContourImageSequence=Items([reference(_slice_of(ring, ct))]),
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(ring),
        ContourData=[f"{c:.3f}" for c in np.asarray(ring).ravel()],
    )


def _slice_of(ring: NDArray[np.float64], ct: Sequence[Dataset]) -> Dataset:
    """Return the slice whose plane is nearest to the first point of `ring`."""
    iop = np.asarray(ct[0].ImageOrientationPatient, float)
    normal = np.cross(iop[:3], iop[3:])
    planes = np.array([np.dot(np.asarray(s.ImagePositionPatient, float), normal) for s in ct])
    return ct[int(np.abs(planes - np.dot(ring[0], normal)).argmin())]
