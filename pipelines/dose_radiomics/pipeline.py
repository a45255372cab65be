"""RTDOSE + RTSTRUCT in, one measurement report (SR, TID 1500) and a folder of tables out."""

from pathlib import Path
from typing import Final

from pydicom import dcmread

from pipelines.api import DerivedObject, InputRejected, Outcome, OutputInvalid, Request
from pipelines.dicom.header import (
    content_datetime,
    copy_identity,
    derived_object,
    new_file,
    save,
    stamp,
)
from pipelines.dicom.sr import Report, fill, read_back, sop_class_uid
from pipelines.dose_radiomics.document import report as make_report
from pipelines.dose_radiomics.evaluate import Evaluator
from pipelines.dose_radiomics.inputs import Case, read_case
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
    written = _write(content, case, request)
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


def _write(content: Report, case: Case, request: Request) -> DerivedObject:
    """Write the report, read it back, and return its record."""
    provenance = request.provenance
    target = new_file(sop_class_uid(content), provenance.uid("SR"), "SR")
    copy_identity(case.dose.dataset, target)
    target.SeriesInstanceUID = provenance.uid("SR series")
    target.SeriesNumber = SERIES_NUMBER
    target.SeriesDescription = "rtnode dose radiomics DRAFT"
    stamp(target, provenance)
    sources = [source.dataset for source in case.dose_sources]
    sources += [case.structures.dataset, *([case.plan.dataset] if case.plan else [])]
    moment = content_datetime(sources)
    target.SeriesDate, target.SeriesTime = moment
    target.InstanceCreationDate, target.InstanceCreationTime = moment
    fill(target, content, moment)
    path = request.output / FILE_NAME
    save(target, path)
    _verify(path, content)
    return derived_object(target, path)


def _verify(path: Path, content: Report) -> None:
    """Compare the file with what was to be written, value by value."""
    found = list(read_back(dcmread(path)))
    wanted = [
        (g.tracking_uid, str(g.roi_number), tuple(m.value for m in g.measurements))
        for g in content.groups
    ]
    if found != wanted:
        raise OutputInvalid("the SR on disk does not hold the values that were computed")


def _nothing(regions: int, reasons: list[str]) -> str:
    """Return why there is no result at all."""
    told = "; ".join(dict.fromkeys(reasons)) or "no ROI matches the settings"
    return f"none of {regions} regions has a volume in the dose: {told}"
