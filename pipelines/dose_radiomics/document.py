"""From results to the measurement report: codes, units, tracking, parameters."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipelines.api import Provenance
from pipelines.dicom.header import MANUFACTURER
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dicom.sr import Coded, Group, Measurement, Reference, Report
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.inputs import Case
from pipelines.dose_radiomics.metrics import Metric
from pipelines.dose_radiomics.recipe import RECIPE, parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import told
from pipelines.radiomics.coding import (
    CODE_LENGTH,
    IBSI,
    clean,
    feature,
    finding,
    response_uid,
    site,
    structure_reference,
    unit,
)
from pipelines.radiomics.region import Response

PRIVATE: Final = "99RTNODE"
SCHEMES: Final = (
    IBSI,
    (PRIVATE, "rtnode dose metrics, names after TG-263", "rtnode"),
)
DEVICE_UID: Final = "2.25.318446312402176389105462277651939450518"
"""Identifies the pipeline as the observer."""
_NAMESPACE: Final = uuid.UUID("6f1a2f7e-9f0c-5d0e-8b7a-2b1d0c7c9e11")

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


def report(
    case: Case,
    results: Sequence[Evaluated],
    settings: DoseRadiomicsSettings,
    provenance: Provenance,
) -> Report:
    """Return the measurement report of all regions that have a value."""
    structures = structure_reference(case.structures)
    doses = tuple(_dose_reference(dose) for dose in case.dose_sources)
    plan = (_plan_reference(case),) if case.plan else ()
    groups = tuple(
        group
        for result in results
        if result.metrics
        for group in _groups(result, case, settings, structures, doses[0])
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


def _groups(
    result: Evaluated,
    case: Case,
    settings: DoseRadiomicsSettings,
    structures: Reference,
    dose: Reference,
) -> tuple[Group, ...]:
    """Return the group of a region, and one for each filtered dose of it."""
    own = _group(result, case, settings, structures, dose)
    return own, *(_response(own, response) for response in result.features.responses)


def _response(own: Group, response: Response) -> Group:
    """Return the group of a response map: the region of `own`, measured on the filtered dose."""
    return replace(
        own,
        tracking_id=f"{own.tracking_id}, {response.label}",
        tracking_uid=response_uid(own.tracking_uid, response.words),
        parameters=(*own.parameters, f"Measured on a response map: {response.words}"),
        measurements=tuple(feature(code, value, "1") for code, value in response.values.items()),
    )


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
        tracking_id=clean(result.name),
        tracking_uid=tracking_uid(case.structures.sop_instance_uid, region),
        finding=finding(result.roi, derived=bool(result.expression)),
        site=site(result.roi, result.name, derived=bool(result.expression)),
        roi_number=result.roi.number,
        region=structures,
        source=dose,
        parameters=tuple(clean(line) for line in lines),
        measurements=(
            *(_metric(metric, settings) for metric in result.metrics),
            *(feature(code, value, "Gy") for code, value in result.features.values.items()),
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
        concept = Coded(metric.name[:CODE_LENGTH], PRIVATE, metric.meaning)
    return Measurement(
        concept=concept, value=metric.value, unit=unit(metric.unit), derivation=derivation
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
