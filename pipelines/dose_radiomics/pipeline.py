"""RTDOSE + RTSTRUCT in, one measurement report (SR, TID 1500) and a folder of tables out."""

from typing import Final

from pipelines.api import InputRejected, Outcome, Request
from pipelines.dicom.sr_file import write_sr
from pipelines.dose_radiomics.document import report as make_report
from pipelines.dose_radiomics.evaluate import Evaluator
from pipelines.dose_radiomics.inputs import read_case
from pipelines.dose_radiomics.outputs import further
from pipelines.dose_radiomics.pages import write_pages
from pipelines.dose_radiomics.planes import image_of
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.tables import write_tables

FILE_NAME: Final = "dose-radiomics.dcm"
SERIES_NUMBER: Final = 9801


def run(request: Request) -> Outcome:
    """Evaluate every region of the structure set in the dose.

    Raises
    ------
    InputRejected
        If dose and structures cannot be evaluated together, or no region has any volume.
    OutputInvalid
        If the report that was written does not hold what was computed.
    """
    settings = request.settings
    if not isinstance(settings, DoseRadiomicsSettings):
        raise TypeError("dose_radiomics takes DoseRadiomicsSettings")
    case = read_case(request.inputs, settings)
    evaluator = Evaluator(case, settings)
    if settings.dose != "physical" and evaluator.fractions is None:
        raise InputRejected(f"{settings.dose} needs the number of fractions, and none is known")
    results = evaluator.run()
    findings = (*case.findings, *evaluator.findings)
    if not any(result.metrics for result in results):
        raise InputRejected(_nothing(len(results), [f.message for f in findings]))
    content = make_report(case, results, settings, request.provenance)
    sources = [source.dataset for source in case.dose_sources]
    sources += [case.structures.dataset, *([case.plan.dataset] if case.plan else [])]
    written = write_sr(
        request.output / FILE_NAME,
        content,
        request.provenance,
        [case.dose.dataset, *sources],
        series_number=SERIES_NUMBER,
        description="rtnode dose radiomics DRAFT",
    )
    folder = request.output / "report"
    figures = write_tables(folder, results, findings, settings)
    figures["prescription_gy"] = evaluator.prescription_gy
    figures["dose_type"] = case.dose.dose_type
    page = None
    if settings.pictures:
        image = image_of(case.image_paths, case.dose.frame_of_reference_uid)
        prescription = evaluator.prescription_gy
        page = write_pages(folder, case.dose, image, results, findings, settings, prescription).pdf
    more, told = further(request, case, evaluator, results, page)
    return Outcome(objects=(written, *more), findings=(*findings, *told), figures=figures)


def _nothing(regions: int, reasons: list[str]) -> str:
    """Return why there is no result at all."""
    told = "; ".join(dict.fromkeys(reasons)) or "no ROI matches the settings"
    return f"none of {regions} regions has a volume in the dose: {told}"
