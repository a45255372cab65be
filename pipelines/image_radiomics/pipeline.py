"""CT, synthetic CT or MR + RTSTRUCT in, one measurement report (SR, TID 1500) and tables out."""

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
from pipelines.image_radiomics.document import report as make_report
from pipelines.image_radiomics.evaluate import Evaluator
from pipelines.image_radiomics.inputs import Case, read_case
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.image_radiomics.tables import write_report

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
    written = _write(content, case, request)
    figures = write_report(request.output / "report", case.modality, results, findings, settings)
    return Outcome(objects=(written,), findings=findings, figures=figures)


def _write(content: Report, case: Case, request: Request) -> DerivedObject:
    """Write the report, read it back, and return its record."""
    provenance = request.provenance
    target = new_file(sop_class_uid(content), provenance.uid("SR"), "SR")
    copy_identity(case.structures.dataset, target)
    target.SeriesInstanceUID = provenance.uid("SR series")
    target.SeriesNumber = SERIES_NUMBER
    target.SeriesDescription = "rtnode image radiomics DRAFT"
    stamp(target, provenance)
    moment = content_datetime([case.structures.dataset, *case.volume.headers])
    target.SeriesDate, target.SeriesTime = moment
    target.InstanceCreationDate, target.InstanceCreationTime = moment
    fill(target, content, moment)
    path = request.output / FILE_NAME
    save(target, path)
    wanted = [
        (g.tracking_uid, str(g.roi_number), tuple(m.value for m in g.measurements))
        for g in content.groups
    ]
    if list(read_back(dcmread(path))) != wanted:
        raise OutputInvalid("the SR on disk does not hold the values that were computed")
    return derived_object(target, path)
