"""The part that every derived object has in common: identity, equipment, time, file.

The patient and the study are those of the source: same character set, same name bytes in all
three groups. What the source holds against its value representation (36-character dates of hash
anonymizers, free text in CS) is left out rather than copied, because one bad value makes a PACS
refuse the object. Our own text is plain ASCII, which every character set can hold.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import pydicom.charset
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.api import DerivedObject, Provenance
from pipelines.dicom.charset import hold, representable
from pipelines.dicom.read import text as text_of

MANUFACTURER: Final = "rtnode"
IMPLEMENTATION_CLASS_UID: Final = "2.25.155651908446300351331346615927534854495"
"""Identifies this software as the writer of a file (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME: Final = "RTNODE"
UNKNOWN_MOMENT: Final = ("19700101", "000000")
"""Stands in where no input states any date; the time of the run would break reproducibility."""

_MAX: Final = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "ST": 1024, "LT": 10240, "PN": 64, "UI": 64}
"""Characters of one value (PS3.5 6.2); of one group for PN."""

_IDENTITY: Final = (
    ("StudyDate", "DA"),
    ("StudyTime", "TM"),
    ("AccessionNumber", "SH"),
    ("ReferringPhysicianName", "PN"),
    ("PatientName", "PN"),
    ("PatientID", "LO"),
    ("PatientBirthDate", "DA"),
    ("PatientSex", "CS"),
    ("StudyInstanceUID", "UI"),
    ("StudyID", "SH"),
)
"""Patient and General Study modules: type 1 and 2 attributes, present in every derived object."""

_IDENTITY_OPTIONAL: Final = (("IssuerOfPatientID", "LO"), ("StudyDescription", "LO"))
"""Copied where the source has a valid value."""

_MOMENTS: Final = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
    ("StructureSetDate", "StructureSetTime"),
    ("RTPlanDate", "RTPlanTime"),
)
"""Pairs that say when an object was made."""

_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?)?(\.\d{1,6})?")
_UID: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def new_file(sop_class_uid: str, sop_instance_uid: str, modality: str) -> Dataset:
    """Return a data set that holds the SOP Common module and the modality, nothing else."""
    ds = Dataset()
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = sop_instance_uid
    ds.Modality = modality
    return ds


def copy_identity(source: Dataset, target: Dataset) -> None:
    """Copy patient, study and character set of `source` into `target`, cleaned.

    Names keep their bytes: character set and all three groups (PS3.5 6.2.1) pass unchanged, unless
    another text can be read in that character set but not be written: then all of it is UTF-8.
    Type 2 attributes without a valid value become empty. Values that identify (PatientID,
    Study Instance UID) are taken as they are: a repaired one would be somebody else's.
    """
    terms = _character_set(source)
    if terms:
        target.SpecificCharacterSet = terms[0] if len(terms) == 1 else terms
    ascii_only = not terms
    for keyword, vr in _IDENTITY:
        _copy(source, target, keyword, vr, ascii_only=ascii_only)
    for keyword, vr in _IDENTITY_OPTIONAL:
        if clean_text(vr, text_of(source, keyword)):
            _copy(source, target, keyword, vr, ascii_only=ascii_only)
    texts = [str(e.value) for e in target if e.VR in {"LO", "SH"} and not str(e.value).isascii()]
    if not all(representable(text, terms) for text in texts):
        hold(target, texts)


def stamp(target: Dataset, provenance: Provenance) -> None:
    """Write equipment and provenance: who made the object, with which settings, from what.

    General Equipment (PS3.3 C.7.5.1), and one Contributing Equipment item (C.12.1) that holds
    the hashes; they fit into no other standard attribute of all the object types we write.
    """
    versions = [f"{provenance.pipeline} {provenance.version}"]
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = clean_text("LO", f"rtnode {provenance.pipeline}")
    target.SoftwareVersions = [*versions, f"settings {provenance.settings_sha256[:16]}"]

    purpose = Dataset()
    purpose.CodeValue = "109102"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    equipment = Dataset()
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = target.ManufacturerModelName
    equipment.SoftwareVersions = versions
    equipment.ContributionDescription = provenance_text(provenance)
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    target.ContributingEquipmentSequence = [equipment]


def provenance_text(provenance: Provenance) -> str:
    """Return one ASCII line with pipeline, model, settings and a hash over all inputs."""
    model = provenance.model
    if provenance.model_sha256:
        model += f" sha256 {provenance.model_sha256}"
    return clean_text(
        "ST",
        f"{provenance.pipeline} {provenance.version}; model {model}; settings sha256 "
        f"{provenance.settings_sha256}; {len(provenance.sources)} source instances; "
        f"revision {provenance.revision}; unapproved draft for research use",
    )


def content_datetime(datasets: Iterable[Dataset]) -> tuple[str, str]:
    """Return (DA, TM) of the newest moment that any of `datasets` states.

    The same inputs give the same moment; `UNKNOWN_MOMENT` where none is stated. Fractions of a
    second are dropped.
    """
    newest = ("", "")
    for ds in datasets:
        for day_keyword, time_keyword in _MOMENTS:
            day = clean_text("DA", text_of(ds, day_keyword))
            if not day:
                continue
            time = clean_text("TM", text_of(ds, time_keyword)).split(".")[0].ljust(6, "0")
            newest = max(newest, (day, time))
    return newest if newest[0] else UNKNOWN_MOMENT


def clean_text(vr: str, text: str) -> str:
    """Return `text` if `vr` allows it, else what is left of it, else an empty text.

    Dates, times, codes, numbers and UIDs are all or nothing; so are SH values, because a cut
    accession number is another accession number. LO, ST and LT lose control characters,
    backslashes (LO) and what is too long.
    """
    text = text.strip(" \0") if vr != "PN" else text.rstrip(" \0")
    check = {"DA": _valid_date, "TM": _valid_time, "CS": _valid_code, "UI": _valid_uid,
             "DS": _valid_decimal, "IS": _valid_integer, "PN": _valid_name}.get(vr)  # fmt: skip
    if check is not None:
        return text if check(text) else ""
    limit = _MAX.get(vr, 0)
    if vr == "SH":
        ok = len(text) <= limit and "\\" not in text and not _CONTROL.search(text)
        return text if ok else ""
    if vr == "LO":
        text = text.replace("\\", "/")
    return _CONTROL.sub(" ", text)[: limit or None].strip()


def save(ds: Dataset, path: Path, *, implicit: bool = False) -> None:
    """Write `ds` as a DICOM file (PS3.10), Explicit VR Little Endian unless `implicit`.

    The same data set gives the same bytes: fixed file meta, defined lengths, zero preamble.
    """
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    ds.preamble = b"\0" * 128
    ds.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=True)


def new_draft(
    sop_class_uid: str,
    label: str,
    modality: str,
    sources: Sequence[Dataset],
    provenance: Provenance,
    *,
    series_number: int,
    description: str,
) -> Dataset:
    """Return an object in a series of its own: identity, equipment, series and moment, no content.

    Parameters
    ----------
    label
        What tells its UIDs apart: ``provenance.uid(label)``, and the same with ``" series"``.
    sources
        What it is made from; patient and study are those of the first, the moment is the newest
        of all.
    """
    ds = new_file(sop_class_uid, provenance.uid(label), modality)
    copy_identity(sources[0], ds)
    stamp(ds, provenance)
    ds.SeriesInstanceUID = provenance.uid(f"{label} series")
    ds.SeriesNumber = series_number
    ds.SeriesDescription = clean_text("LO", description)
    ds.InstanceNumber = 1
    moment = content_datetime(sources)
    ds.SeriesDate, ds.SeriesTime = moment
    ds.ContentDate, ds.ContentTime = moment
    ds.InstanceCreationDate, ds.InstanceCreationTime = moment
    return ds


def derived_object(ds: Dataset, path: Path) -> DerivedObject:
    """Return the record of the object `ds` that was written to `path`."""
    return DerivedObject(
        path=path,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        modality=str(ds.Modality),
    )


def _character_set(source: Dataset) -> list[str]:
    """Return the defined terms of the source's character set that are known; empty for ASCII."""
    element = source.get("SpecificCharacterSet")
    values = [element] if isinstance(element, str) else list(element or [])
    terms = [str(value).strip() for value in values]
    if any(term not in pydicom.charset.python_encoding for term in terms):
        return []  # nobody can say what the bytes mean: ASCII is what remains
    return terms if any(terms) else []


def _copy(source: Dataset, target: Dataset, keyword: str, vr: str, *, ascii_only: bool) -> None:
    """Copy one attribute; an invalid or missing value becomes empty."""
    tag = Tag(keyword)
    text = text_of(source, keyword)
    if keyword not in {"PatientID", "StudyInstanceUID"}:
        text = clean_text(vr, text)
        if keyword == "PatientSex" and text not in {"M", "F", "O"}:
            text = ""
    if ascii_only:
        text = text.encode("ascii", "replace").decode("ascii")
    elif vr == "PN" and text:
        # The PersonName object carries the bytes it was read from; a new one would re-encode.
        target.add(DataElement(tag, "PN", source[tag].value, already_converted=True))
        return
    target.add(DataElement(tag, vr, text))


def _valid_date(text: str) -> bool:
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return False
    return len(text) == 8 and text.isascii() and text.isdigit()  # noqa: PLR2004 (YYYYMMDD)


def _valid_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def _valid_code(text: str) -> bool:
    return re.fullmatch(r"[A-Z0-9 _]{1,16}", text) is not None


def _valid_uid(text: str) -> bool:
    return len(text) <= _MAX["UI"] and _UID.fullmatch(text) is not None


def _valid_decimal(text: str) -> bool:
    pattern = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
    return len(text) <= 16 and re.fullmatch(pattern, text) is not None  # noqa: PLR2004 (PS3.5 6.2)


def _valid_integer(text: str) -> bool:
    return len(text) <= 12 and re.fullmatch(r"[+-]?\d+", text) is not None  # noqa: PLR2004 (PS3.5 6.2)


def _valid_name(text: str) -> bool:
    groups = text.split("=")
    return (
        len(groups) <= 3  # noqa: PLR2004 (alphabetic, ideographic, phonetic)
        and all(len(group) <= _MAX["PN"] for group in groups)
        and "\\" not in text
        and not _CONTROL.search(text)
    )
