"""CT, synthetic CT or MR + RTSTRUCT in, one measurement report (SR, TID 1500) and tables out."""

from typing import Final

from pipelines.api import InputRejected, Outcome, Request
from pipelines.dicom.sr_file import write_sr
from pipelines.image_radiomics.document import report as make_report
from pipelines.image_radiomics.evaluate import Evaluator
from pipelines.image_radiomics.inputs import read_case
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.image_radiomics.tables import write_report
from pipelines.report.objects import page_objects

FILE_NAME: Final = "image-radiomics.dcm"
SERIES_NUMBER: Final = 9802


def run(request: Request) -> Outcome:
    """Evaluate every wanted region of the structure set in the image it was drawn on.

    Raises
    ------
    InputRejected
        If images and structures cannot be evaluated together, or no region has any feature.
    OutputInvalid
        If the report that was written does not hold what was computed.
    """
    settings = request.settings
    if not isinstance(settings, ImageRadiomicsSettings):
        raise TypeError("image_radiomics takes ImageRadiomicsSettings")
    case = read_case(request.inputs)
    evaluator = Evaluator(case, settings)
    results = evaluator.run()
    findings = (*case.findings, *evaluator.findings)
    if not any(result.features.values for result in results):
        told = "; ".join(dict.fromkeys(f.message for f in findings))
        raise InputRejected(f"no ROI has features: {told or 'none matches the settings'}")
    content = make_report(case, results, settings, request.provenance)
    written = write_sr(
        request.output / FILE_NAME,
        content,
        request.provenance,
        [case.structures.dataset, *case.volume.headers],
        series_number=SERIES_NUMBER,
        description="rtnode image radiomics DRAFT",
    )
    figures = write_report(request.output / "report", case.modality, results, findings, settings)
    pages = page_objects(
        settings,
        request.output / "report" / "report.pdf",
        case.volume.headers[:1],
        request.provenance,
        request.output,
        title=f"Radiomics of the {case.modality}",
    )
    return Outcome(objects=(written, *pages), findings=findings, figures=figures)
