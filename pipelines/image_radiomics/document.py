"""From results to the measurement report: one group for a region, one for each response map."""

import uuid
from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset

from pipelines.api import Provenance
from pipelines.dicom.header import MANUFACTURER
from pipelines.dicom.sr import Coded, Group, Measurement, Reference, Report
from pipelines.image_radiomics.evaluate import Evaluated
from pipelines.image_radiomics.inputs import Case
from pipelines.image_radiomics.recipe import RECIPE, UNITS, parameters
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.radiomics.coding import (
    IBSI,
    clean,
    feature,
    finding,
    response_uid,
    site,
    structure_reference,
    unit,
)

DEVICE_UID: Final = "2.25.104410325218498427151205384046379842321"
"""Identifies the pipeline as the observer."""
_NAMESPACE: Final = uuid.UUID("d2a5a3cb-52f0-5c1c-9c2e-8f6c1d1f7b60")
_VOLUME: Final = Coded("118565006", "SCT", "Volume")


def report(
    case: Case,
    results: Sequence[Evaluated],
    settings: ImageRadiomicsSettings,
    provenance: Provenance,
) -> Report:
    """Return the measurement report of all regions."""
    structures = structure_reference(case.structures)
    images = [_image_reference(header) for header in case.volume.headers]
    return Report(
        groups=tuple(
            group for result in results for group in _groups(result, case, settings, images)
        ),
        evidence=(structures, *images),
        device_uid=DEVICE_UID,
        device_name="rtnode image radiomics",
        manufacturer=MANUFACTURER,
        model=f"rtnode {provenance.pipeline}",
        algorithm="rtnode image_radiomics",
        algorithm_version=provenance.version,
        kind=settings.sr,
        variant=settings.sr_variant,
        private_schemes=(IBSI,),
    )


def _groups(
    result: Evaluated,
    case: Case,
    settings: ImageRadiomicsSettings,
    images: Sequence[Reference],
) -> list[Group]:
    """Return the groups of a region: the image itself, then each response map."""
    intensity = UNITS[case.modality]
    tracking = _tracking_uid(case.structures.sop_instance_uid, result.roi.number)
    lines = tuple(clean(t) for t in (*parameters(settings, case.modality), *result.parameters))
    volume = Measurement(concept=_VOLUME, value=result.volume_cc, unit=unit("cm3"))
    own = [feature(code, value, intensity) for code, value in result.features.values.items()]
    parts = [("", tracking, lines, [volume, *own])]
    for response in result.features.responses:
        words = f"Measured on a response map: {response.words}"
        values = [feature(code, value, "1") for code, value in response.values.items()]
        uid = response_uid(tracking, response.words)
        parts.append((f", {response.label}", uid, (*lines, words), values))
    return [
        Group(
            tracking_id=clean(result.name + suffix),
            tracking_uid=uid,
            finding=finding(result.roi, derived=False),
            site=site(result.roi, result.name, derived=False),
            roi_number=result.roi.number,
            region=structure_reference(case.structures),
            source=_source(result, images),
            parameters=told,
            measurements=tuple(values),
        )
        for suffix, uid, told, values in parts
    ]


def _source(result: Evaluated, images: Sequence[Reference]) -> Reference:
    """Return the image that stands for the series: the middle one of those that were drawn on."""
    drawn = {loop.image_uid for loop in result.roi.closed}
    fitting = [image for image in images if image.sop_instance_uid in drawn] or list(images)
    return fitting[len(fitting) // 2]


def _tracking_uid(structure_set_uid: str, number: int) -> str:
    """Return a UID that follows one region of one structure set through all its reports."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{structure_set_uid} {number} {RECIPE}').int}"


def _image_reference(header: Dataset) -> Reference:
    return Reference(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
    )
