"""How the reports of features code things: organs, targets, units, features, response maps."""

import re
import uuid
from typing import Final

from pipelines.dicom.header import clean_text
from pipelines.dicom.rtstruct import Roi, StructureSet
from pipelines.dicom.sr import Coded, Measurement, Reference
from pipelines.radiomics.features import FEATURES

IBSI: Final = ("IBSI", "Image Biomarker Standardisation Initiative", "IBSI")
"""A coding scheme that PS3.16 does not list: designator, name, responsible organization."""
CODE_LENGTH: Final = 16
"""Most characters of a code value."""
_NAMESPACE: Final = uuid.UUID("0b6d2b0e-0c5c-5b1f-9d5e-3a1e7f5f2c44")
_UNIT_MEANING: Final = {
    "Gy": "gray", "Gy2": "square gray", "cm3": "cubic centimeter", "mm": "millimeter",
    "mm2": "square millimeter", "mm3": "cubic millimeter", "/mm": "per millimeter",
    "Gy.mm3": "gray cubic millimeter", "%": "percent", "1": "no units",
    "[hnsf'U]": "Hounsfield unit", "[hnsf'U]2": "square Hounsfield unit",
    "[hnsf'U].mm3": "Hounsfield unit cubic millimeter",
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


def feature(code: str, value: float, intensity: str) -> Measurement:
    """Return a feature by its IBSI code, where intensities have the UCUM unit `intensity`."""
    known = FEATURES[code]
    concept = Coded(code, IBSI[0], known.name)
    return Measurement(concept=concept, value=value, unit=unit(known.unit_for(intensity)))


def unit(ucum: str) -> Coded:
    """Return a unit by its UCUM code."""
    return Coded(ucum, "UCUM", _UNIT_MEANING[ucum])


def finding(roi: Roi, *, derived: bool) -> Coded:
    """Return what a region is: a target volume or an anatomical structure."""
    if derived:
        return _STRUCTURE
    return _TARGETS.get(target_kind(roi), _STRUCTURE)


def site(roi: Roi, name: str, *, derived: bool) -> Coded | None:
    """Return the organ: the code of the structure set, else by name; None where neither tells."""
    if not derived:
        for code in roi.codes:
            if code.scheme in {"SCT", "SRT", "FMA"} and 0 < len(code.value) <= CODE_LENGTH:
                return Coded(code.value, code.scheme, clean(code.meaning)[:64] or "Structure")
    words = f"{name} {roi.name}".casefold()
    return next((organ for pattern, organ in _SITES if re.search(pattern, words)), None)


def structure_reference(structures: StructureSet) -> Reference:
    """Return the structure set as the report speaks of it."""
    return Reference(
        sop_class_uid=structures.sop_class_uid,
        sop_instance_uid=structures.sop_instance_uid,
        series_instance_uid=structures.series_instance_uid,
        study_instance_uid=structures.study_instance_uid,
    )


def response_uid(tracking_uid: str, words: str) -> str:
    """Return a UID that follows one response map of one region through all reports."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{tracking_uid} {words}').int}"


def clean(text: str) -> str:
    """Return text without control characters; any script stays as it is."""
    return clean_text("ST", text)
