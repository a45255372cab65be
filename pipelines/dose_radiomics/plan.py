"""What the plan says of prescription, fractions and beams."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import RTIonPlanStorage, RTPlanStorage

from pipelines.api import InputRejected
from pipelines.dicom.read import read_header, text, tolerant


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One RT Plan."""

    sop_class_uid: str
    sop_instance_uid: str
    structure_set_uid: str
    """SOP Instance UID of the structure set it was made on; empty where it does not say."""
    prescription_gy: float | None
    """The highest target prescription."""
    prescription_by_roi: Mapping[int, float]
    """ROI number -> prescription [Gy], where the plan names the ROI."""
    fractions: int | None
    beams: tuple[int, ...]
    """Beam numbers of all fraction groups."""
    dataset: Dataset = field(repr=False, compare=False)


def read_plan(path: Path) -> Plan:
    """Read an RT Plan or RT Ion Plan.

    Raises
    ------
    InputRejected
        If the file is neither.
    """
    dataset = read_header(path)
    if dataset.SOPClassUID not in {RTPlanStorage, RTIonPlanStorage}:
        raise InputRejected(f"an RT Plan was expected, not {dataset.SOPClassUID}")
    with tolerant():
        by_roi, overall = _prescriptions(dataset)
        groups = list(dataset.get("FractionGroupSequence") or [])
        planned = [_number(group, "NumberOfFractionsPlanned") for group in groups]
        structure_sets = list(dataset.get("ReferencedStructureSetSequence") or [])
        return Plan(
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            structure_set_uid=text(structure_sets[0], "ReferencedSOPInstanceUID")
            if structure_sets
            else "",
            prescription_gy=overall,
            prescription_by_roi=by_roi,
            fractions=int(planned[0]) if len(planned) == 1 and planned[0] else None,
            beams=tuple(
                int(number)
                for group in groups
                for beam in group.get("ReferencedBeamSequence") or []
                if (number := _number(beam, "ReferencedBeamNumber")) is not None
            ),
            dataset=dataset,
        )


def _prescriptions(dataset: Dataset) -> tuple[dict[int, float], float | None]:
    """Return the prescriptions by ROI number, and the highest of all targets [Gy]."""
    by_roi: dict[int, float] = {}
    every: list[float] = []
    for reference in dataset.get("DoseReferenceSequence") or []:
        dose = _number(reference, "TargetPrescriptionDose")
        if text(reference, "DoseReferenceType").strip() != "TARGET" or not dose or dose <= 0:
            continue
        every.append(dose)
        if (roi := _number(reference, "ReferencedROINumber")) is not None:
            by_roi[int(roi)] = max(dose, by_roi.get(int(roi), 0.0))
    return by_roi, max(every, default=None)


def _number(item: Dataset, keyword: str) -> float | None:
    """Return a value as number; None where it is missing or no number."""
    try:
        return float(text(item, keyword))
    except ValueError:
        return None
