"""From results to the measurement report: codes, units, tracking, parameters."""

import re
import uuid
from collections.abc import Sequence
from typing import Final

from pipelines.api import Provenance
from pipelines.dicom.header import MANUFACTURER, clean_text
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dicom.rtstruct import Roi, StructureSet
from pipelines.dicom.sr import Coded, Group, Measurement, Reference, Report
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.features import FEATURES
from pipelines.dose_radiomics.inputs import Case
from pipelines.dose_radiomics.metrics import Metric
from pipelines.dose_radiomics.recipe import RECIPE, parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import told

PRIVATE: Final = "99RTNODE"
SCHEMES: Final = (
    ("IBSI", "Image Biomarker Standardisation Initiative", "IBSI"),
    (PRIVATE, "rtnode dose metrics, names after TG-263", "rtnode"),
)
DEVICE_UID: Final = "2.25.318446312402176389105462277651939450518"
"""Identifies the pipeline as the observer."""
_NAMESPACE: Final = uuid.UUID("6f1a2f7e-9f0c-5d0e-8b7a-2b1d0c7c9e11")
_CODE_LENGTH: Final = 16

_DOSE: Final = {
    "physical": Coded("128513", "DCM", "Absorbed Dose"),
    "biological": Coded("128512", "DCM", "Equivalent Dose"),
}
_DERIVED: Final = {
    "Mean[Gy]": Coded("373098007", "SCT", "Mean"),
    "Min[Gy]": Coded("255605001", "SCT", "Minimum"),
    "Max[Gy]": Coded("56851009", "SCT", "Maximum"),
    "SD[Gy]": Coded("386136009", "SCT", "Standard Deviation"),
    "D50%[Gy]": Coded("373099004", "SCT", "Median"),
}
"""Metrics that the standard can say: a dose and how it was derived."""
_VOLUME: Final = Coded("118565006", "SCT", "Volume")
_UNIT_MEANING: Final = {
    "Gy": "gray", "Gy2": "square gray", "cm3": "cubic centimeter", "mm": "millimeter",
    "mm2": "square millimeter", "mm3": "cubic millimeter", "/mm": "per millimeter",
    "Gy.mm3": "gray cubic millimeter", "%": "percent", "1": "no units",
}  # fmt: skip

_TARGETS: Final = {
    "GTV": Coded("228791009", "SCT", "Gross tumor volume"),
    "CTV": Coded("228792002", "SCT", "Clinical target volume"),
    "PTV": Coded("228793007", "SCT", "Planning target volume"),
}
_STRUCTURE: Final = Coded("91723000", "SCT", "Anatomical Structure")
_SITES: Final = (
    (r"lung", Coded("39607008", "SCT", "Lung")),
    (r"heart", Coded("80891009", "SCT", "Heart")),
    (r"spinal|cord", Coded("2748008", "SCT", "Spinal cord")),
    (r"o?esophag", Coded("32849002", "SCT", "Esophagus")),
    (r"parotid", Coded("45289007", "SCT", "Parotid gland")),
    (r"mandib", Coded("91609006", "SCT", "Mandible")),
    (r"brain.?stem", Coded("15926001", "SCT", "Brainstem")),
    (r"liver", Coded("10200004", "SCT", "Liver")),
    (r"kidney", Coded("64033007", "SCT", "Kidney")),
    (r"bladder", Coded("89837001", "SCT", "Urinary bladder")),
    (r"rectum", Coded("34402009", "SCT", "Rectum")),
    (r"prostate", Coded("41216001", "SCT", "Prostate")),
    (r"breast", Coded("76752008", "SCT", "Breast")),
)
"""What an ROI name tells of the organ; the first hit counts."""


def target_kind(roi: Roi) -> str:
    """Return GTV, CTV or PTV by the name or the type of a target; empty for anything else."""
    named = re.match(r"i?(gtv|ctv|ptv)", roi.name, re.IGNORECASE)
    if named:
        return named[1].upper()
    return roi.interpreted_type if roi.interpreted_type in _TARGETS else ""


def report(
    case: Case,
    results: Sequence[Evaluated],
    settings: DoseRadiomicsSettings,
    provenance: Provenance,
) -> Report:
    """Return the measurement report of all regions that have a value."""
    structures = _structure_reference(case.structures)
    doses = tuple(_dose_reference(dose) for dose in case.dose_sources)
    plan = (_plan_reference(case),) if case.plan else ()
    groups = tuple(
        _group(result, case, settings, structures, doses[0]) for result in results if result.metrics
    )
    return Report(
        groups=groups,
        evidence=(structures, *doses, *plan),
        device_uid=DEVICE_UID,
        device_name="rtnode dose radiomics",
        manufacturer=MANUFACTURER,
        model=f"rtnode {provenance.pipeline}",
        algorithm="rtnode dose_radiomics",
        algorithm_version=provenance.version,
        kind=settings.sr,
        variant=settings.sr_variant,
        private_schemes=SCHEMES,
    )


def tracking_uid(structure_set_uid: str, region: str) -> str:
    """Return a UID that follows one region of one structure set through all its reports."""
    name = f"{structure_set_uid}\0{region}\0{RECIPE}"
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def _group(
    result: Evaluated,
    case: Case,
    settings: DoseRadiomicsSettings,
    structures: Reference,
    dose: Reference,
) -> Group:
    region = result.expression or str(result.roi.number)
    lines = [*parameters(settings), *result.parameters]
    if result.features.values:
        lines += told(settings)
    lines.append(f"Dose type {case.dose.dose_type}, summation {case.dose.summation_type or '-'}")
    return Group(
        tracking_id=_ascii(result.name),
        tracking_uid=tracking_uid(case.structures.sop_instance_uid, region),
        finding=_finding(result),
        site=_site(result),
        roi_number=result.roi.number,
        region=structures,
        source=dose,
        parameters=tuple(_ascii(line) for line in lines),
        measurements=(
            *(_metric(metric, settings) for metric in result.metrics),
            *(_feature(code, value) for code, value in result.features.values.items()),
        ),
    )


def _metric(metric: Metric, settings: DoseRadiomicsSettings) -> Measurement:
    """Return a metric by standard codes where there are any, else by a private one."""
    derivation = _DERIVED.get(metric.name)
    if derivation is not None:
        concept = _DOSE["physical" if settings.dose == "physical" else "biological"]
    elif metric.name == "Volume[cc]":
        concept = _VOLUME
    else:
        concept = Coded(metric.name[:_CODE_LENGTH], PRIVATE, metric.meaning)
    return Measurement(
        concept=concept, value=metric.value, unit=_unit(metric.unit), derivation=derivation
    )


def _feature(code: str, value: float) -> Measurement:
    """Return a feature by its IBSI code."""
    feature = FEATURES[code]
    concept = Coded(code, "IBSI", feature.name)
    return Measurement(concept=concept, value=value, unit=_unit(feature.unit))


def _unit(ucum: str) -> Coded:
    return Coded(ucum, "UCUM", _UNIT_MEANING[ucum])


def _finding(result: Evaluated) -> Coded:
    """Return what the region is: a target volume or an anatomical structure."""
    if result.expression:
        return _STRUCTURE
    return _TARGETS.get(target_kind(result.roi), _STRUCTURE)


def _site(result: Evaluated) -> Coded | None:
    """Return the organ: the code of the structure set, else by name; None where neither tells."""
    if not result.expression:
        for code in result.roi.codes:
            if code.scheme in {"SCT", "SRT", "FMA"} and 0 < len(code.value) <= _CODE_LENGTH:
                return Coded(code.value, code.scheme, _ascii(code.meaning)[:64] or "Structure")
    name = f"{result.name} {result.roi.name}".casefold()
    return next((site for pattern, site in _SITES if re.search(pattern, name)), None)


def _structure_reference(structures: StructureSet) -> Reference:
    return Reference(
        sop_class_uid=structures.sop_class_uid,
        sop_instance_uid=structures.sop_instance_uid,
        series_instance_uid=structures.series_instance_uid,
        study_instance_uid=structures.study_instance_uid,
    )


def _dose_reference(dose: DoseGrid) -> Reference:
    return Reference(
        sop_class_uid=str(dose.dataset.SOPClassUID),
        sop_instance_uid=dose.sop_instance_uid,
        series_instance_uid=dose.series_instance_uid,
        study_instance_uid=str(dose.dataset.StudyInstanceUID),
    )


def _plan_reference(case: Case) -> Reference:
    assert case.plan is not None  # noqa: S101 - the caller asks only where there is a plan
    return Reference(
        sop_class_uid=case.plan.sop_class_uid,
        sop_instance_uid=case.plan.sop_instance_uid,
        series_instance_uid=str(case.plan.dataset.SeriesInstanceUID),
        study_instance_uid=str(case.plan.dataset.StudyInstanceUID),
    )


def _ascii(text: str) -> str:
    """Return text that every character set holds; what it cannot hold becomes a question mark."""
    return clean_text("ST", text).encode("ascii", "replace").decode("ascii")
