"""What may go out beside the SR: DVHs as RT Dose, masks, the page as PDF or image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, Finding, InputRejected, Request, Severity
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dicom.rtdose_dvh import write_dvh
from pipelines.dicom.seg import write_segmentation
from pipelines.dose_radiomics.curves import histograms
from pipelines.dose_radiomics.evaluate import Evaluated, Evaluator
from pipelines.dose_radiomics.inputs import Case
from pipelines.dose_radiomics.masks import masks
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.report.objects import page_objects


def further(
    request: Request,
    case: Case,
    evaluator: Evaluator,
    results: Sequence[Evaluated],
    page: Path | None,
) -> tuple[list[DerivedObject], list[Finding]]:
    """Write the objects that the settings ask for, and return them with what could not be said.

    Parameters
    ----------
    request, case, evaluator, results
        The run.
    page
        The report as PDF; None where none was drawn.
    """
    settings = DoseRadiomicsSettings.model_validate(request.settings.model_dump())
    objects: list[DerivedObject] = []
    findings: list[Finding] = []
    if settings.dvh_object:
        _dvh(request, case, results, settings, objects, findings)
    if settings.segmentation:
        _segmentation(request, case, evaluator, results, settings, objects)
    pages = page_objects(
        settings, page, _sources(case), request.provenance, request.output, title="Dose radiomics"
    )
    return [*objects, *pages], findings


def _dvh(
    request: Request,
    case: Case,
    results: Sequence[Evaluated],
    settings: DoseRadiomicsSettings,
    objects: list[DerivedObject],
    findings: list[Finding],
) -> None:
    curves, others = histograms(results)
    for name in others:
        message = "its DVH is in the SR's tables only: DICOM has no words for the expression"
        findings.append(
            Finding(code="dvh-not-written", severity=Severity.INFO, message=message, roi=name)
        )
    if not curves:
        return
    biological = settings.dose != "physical"
    try:
        written = write_dvh(
            curves,
            _as_read(case),
            case.structures.dataset,
            request.provenance,
            request.output / "dose-dvh.dcm",
            dose_type="EFFECTIVE" if biological else case.dose.dose_type,
        )
    except InputRejected as refusal:
        findings.append(
            Finding(code="dvh-not-written", severity=Severity.WARN, message=str(refusal))
        )
        return
    objects.append(written)


def _as_read(case: Case) -> DoseGrid:
    """Return the dose with the axes of its object: one dose, or the sum of all beams."""
    first, *others = case.dose_sources
    if not others:
        return first
    return replace(first, dose=np.sum([source.dose for source in case.dose_sources], axis=0))


def _segmentation(
    request: Request,
    case: Case,
    evaluator: Evaluator,
    results: Sequence[Evaluated],
    settings: DoseRadiomicsSettings,
    objects: list[DerivedObject],
) -> None:
    found = masks(
        case.dose,
        results,
        [evaluator.conversion(result.roi)[0] for result in results],
        case.structures.sop_instance_uid,
        settings.resample_mm,
    )
    if found.segments:
        objects.append(
            write_segmentation(
                found.segments,
                found.geometry,
                _sources(case),
                request.provenance,
                request.output / "masks.dcm",
                label="DOSE_ROIS",
                series_description="rtnode dose radiomics masks DRAFT",
            )
        )


def _sources(case: Case) -> list[Dataset]:
    """Return the headers of dose, structures and plan, the dose first."""
    plan = [case.plan.dataset] if case.plan else []
    return [*(dose.dataset for dose in case.dose_sources), case.structures.dataset, *plan]
