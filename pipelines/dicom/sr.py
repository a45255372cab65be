"""Writer and reader of measurement reports: TID 1500 of PS3.16, one measurement group per ROI.

The content tree is encoded here (PS3.5 7.1.2, Explicit VR Little Endian) and handed to pydicom as
one raw sequence: thousands of values in a fraction of a second, where data sets take seconds.
The region of a group is an ROI of an RT Structure Set, "region in space". In the variant R2 its
number is a concept modifier; that is not literally TID 1411 (rows 12b, 12c say HAS PROPERTIES,
variant R1), but every reader at hand shows R2, while R1 is refused or silently emptied by some.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import Tag
from pydicom.uid import ComprehensiveSRStorage, EnhancedSRStorage

from pipelines.dicom.charset import hold

Variant = Literal["R2", "R1"]

_SOP_CLASS: Final = {"comprehensive": ComprehensiveSRStorage, "enhanced": EnhancedSRStorage}
_NUMBER_LENGTH: Final = 16
_LONG: Final = frozenset({"SQ", "UT"})
"""Value representations with a length of four bytes."""
_LONG_VR: Final = frozenset(vr.encode("ascii") for vr in _LONG)
_ITEM: Final = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded concept."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its meaning."""

    concept: Coded
    value: float
    unit: Coded
    derivation: Coded | None = None
    method: Coded | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An instance that the report speaks of."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The measurements of one region."""

    tracking_id: str
    tracking_uid: str
    finding: Coded
    site: Coded | None
    roi_number: int
    region: Reference
    """The RT Structure Set that holds `roi_number`."""
    source: Reference
    """The object that was measured."""
    parameters: tuple[str, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A measurement report."""

    groups: tuple[Group, ...]
    evidence: tuple[Reference, ...]
    """Every instance that the content names or that the values rest on."""
    device_uid: str
    device_name: str
    manufacturer: str
    model: str
    algorithm: str
    algorithm_version: str
    kind: Literal["comprehensive", "enhanced"] = "comprehensive"
    variant: Variant = "R2"
    private_schemes: tuple[tuple[str, str, str], ...] = field(default=())
    """(designator, name, responsible organization) of schemes that PS3.16 does not list."""


def sop_class_uid(report: Report) -> str:
    """Return the SOP class that the report is written as."""
    return str(_SOP_CLASS[report.kind])


def fill(target: Dataset, report: Report, moment: tuple[str, str]) -> None:
    """Write the document part into `target`, which has identity, equipment and UIDs already.

    Parameters
    ----------
    target
        Receives SR Document Series, SR Document General and SR Document Content.
    report
        What to write.
    moment : (DA, TM)
        Content date and time.
    """
    hold(target, _texts(report))
    target.ContentDate, target.ContentTime = moment
    target.InstanceNumber = 1
    target.CompletionFlag = "PARTIAL"
    target.CompletionFlagDescription = "Unapproved draft for research use, made by a program"
    target.VerificationFlag = "UNVERIFIED"
    target.ReferencedPerformedProcedureStepSequence = []
    target.PerformedProcedureCodeSequence = []
    target.CurrentRequestedProcedureEvidenceSequence = _evidence(report.evidence)
    target.CodingSchemeIdentificationSequence = [
        _plain(
            CodingSchemeDesignator=designator,
            CodingSchemeName=name,
            CodingSchemeResponsibleOrganization=organization,
        )
        for designator, name, organization in report.private_schemes
    ]
    target.ValueType = "CONTAINER"
    target.ContinuityOfContent = "SEPARATE"
    title = Coded("126000", "DCM", "Imaging Measurement Report")
    content = [
        _language(),
        *_observer(report),
        _coded_item(
            "HAS CONCEPT MOD",
            Coded("121058", "DCM", "Procedure reported"),
            Coded("363679005", "SCT", "Imaging procedure"),
        ),
        _container(
            Coded("126010", "DCM", "Imaging Measurements"),
            [_group(group, report) for group in report.groups],
        ),
    ]
    for keyword, items in (
        ("ConceptNameCodeSequence", [_code(title)]),
        ("ContentTemplateSequence", [_template("1500")]),
        ("ContentSequence", content),
    ):
        target[Tag(keyword)] = _raw_sequence(keyword, items)
    # Tells pydicom that the raw sequences are encoded as the file will be: written unparsed.
    terms = target.get("SpecificCharacterSet")
    target.set_original_encoding(
        is_implicit_vr=False,
        is_little_endian=True,
        character_encoding=convert_encodings(terms) if terms else default_encoding,
    )


def read_back(dataset: Dataset) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield (tracking UID, ROI number, values) of every group, for a check of what was written.

    Parameters
    ----------
    dataset
        As read from a file in Explicit VR Little Endian with lengths, none of its content touched.

    Raises
    ------
    ValueError
        If the content is not encoded so, or lacks what a report has.
    """
    try:
        yield from _groups(dataset)
    except (KeyError, struct.error, NotImplementedError, BytesLengthException) as error:
        raise ValueError("the content is no measurement report") from error


def _groups(dataset: Dataset) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield what `read_back` yields."""
    raw = dataset.get_item("ContentSequence")
    if not isinstance(raw, RawDataElement) or raw.is_implicit_VR or raw.value is None:
        raise ValueError("the content is not as it was read from a file")
    for part in _items(raw.value):
        if _concept(part) != b"126010":
            continue
        for group in _items(part[_TAG["ContentSequence"]]):
            tracking = number = ""
            values = []
            for item in _items(group[_TAG["ContentSequence"]]):
                if item[_TAG["ValueType"]] == b"NUM ":
                    (measured,) = _items(item[_TAG["MeasuredValueSequence"]])
                    values.append(struct.unpack("<d", measured[_TAG["FloatingPointValue"]])[0])
                    continue
                concept = _concept(item)
                if concept == b"112040":
                    tracking = _plain_text(item[_TAG["UID"]])
                elif concept == b"130488":
                    (below,) = _items(item[_TAG["ContentSequence"]])
                    number = _plain_text(below[_TAG["TextValue"]])
                elif concept == b"130489":
                    number = _plain_text(item[_TAG["TextValue"]])
            yield tracking, number, tuple(values)


def number_text(value: float) -> str:
    """Return `value` as a decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    for digits in range(9, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= _NUMBER_LENGTH:
            return text
    raise ValueError("the number does not fit into a decimal string")


def _texts(report: Report) -> Iterator[str]:
    """Yield every text that comes from the input, in whatever script."""
    for group in report.groups:
        yield group.tracking_id
        yield from group.parameters
        if group.site is not None:
            yield group.site.meaning


def _group(group: Group, report: Report) -> bytes:
    """Return the measurement group of one region, TID 1411."""
    number = Coded("130489", "DCM", "Referenced Region of Interest Identifier")
    relation = "HAS CONCEPT MOD" if report.variant == "R2" else "HAS PROPERTIES"
    region = _composite(
        Coded("130488", "DCM", "Region in Space"),
        group.region,
        ContentSequence=[_text(relation, number, str(group.roi_number))],
    )
    content = [
        _text("HAS OBS CONTEXT", Coded("112039", "DCM", "Tracking Identifier"), group.tracking_id),
        _uid("HAS OBS CONTEXT", Coded("112040", "DCM", "Tracking Unique Identifier"),
             group.tracking_uid),
        _coded_item("CONTAINS", Coded("121071", "DCM", "Finding"), group.finding),
    ]  # fmt: skip
    if group.site is not None:
        site = Coded("363698007", "SCT", "Finding Site")
        content.append(_coded_item("HAS CONCEPT MOD", site, group.site))
    content += [
        _text("HAS CONCEPT MOD", Coded("111001", "DCM", "Algorithm Name"), report.algorithm),
        _text("HAS CONCEPT MOD", Coded("111003", "DCM", "Algorithm Version"),
              report.algorithm_version),
        *(_text("HAS CONCEPT MOD", Coded("111002", "DCM", "Algorithm Parameters"), line)
          for line in group.parameters),
        region,
        _composite(Coded("121112", "DCM", "Source of Measurement"), group.source),
        *(_measurement(m) for m in group.measurements),
    ]  # fmt: skip
    title = Coded("125007", "DCM", "Measurement Group")
    return _container(title, content, ContentTemplateSequence=[_template("1411")])


def _measurement(measurement: Measurement) -> bytes:
    """Return one numeric item: 9 digits for people, the full double for programs."""
    modifiers = []
    if measurement.derivation is not None:
        name = Coded("121401", "DCM", "Derivation")
        modifiers.append(_coded_item("HAS CONCEPT MOD", name, measurement.derivation))
    if measurement.method is not None:
        name = Coded("370129005", "SCT", "Measurement Method")
        modifiers.append(_coded_item("HAS CONCEPT MOD", name, measurement.method))
    measured = _item(
        NumericValue=number_text(measurement.value),
        FloatingPointValue=float(measurement.value),
        MeasurementUnitsCodeSequence=[_code(measurement.unit)],
    )
    more = {"ContentSequence": modifiers} if modifiers else {}
    return _item(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=[_code(measurement.concept)],
        MeasuredValueSequence=[measured],
        **more,
    )


def _language() -> bytes:
    """Return the language of the document."""
    return _coded_item(
        "HAS CONCEPT MOD",
        Coded("121049", "DCM", "Language of Content Item and Descendants"),
        Coded("en-US", "RFC5646", "English (United States)"),
    )


def _observer(report: Report) -> list[bytes]:
    """Return the device that observed, TID 1001 and 1004."""
    relation = "HAS OBS CONTEXT"
    return [
        _coded_item(relation, Coded("121005", "DCM", "Observer Type"),
                    Coded("121007", "DCM", "Device")),
        _uid(relation, Coded("121012", "DCM", "Device Observer UID"), report.device_uid),
        _text(relation, Coded("121013", "DCM", "Device Observer Name"), report.device_name),
        _text(relation, Coded("121014", "DCM", "Device Observer Manufacturer"),
              report.manufacturer),
        _text(relation, Coded("121015", "DCM", "Device Observer Model Name"), report.model),
    ]  # fmt: skip


def _evidence(references: Sequence[Reference]) -> list[Dataset]:
    """Return the references by study and series."""
    studies: dict[str, dict[str, list[Reference]]] = {}
    for reference in dict.fromkeys(references):
        series = studies.setdefault(reference.study_instance_uid, {})
        series.setdefault(reference.series_instance_uid, []).append(reference)
    return [
        _plain(
            StudyInstanceUID=study,
            ReferencedSeriesSequence=[
                _plain(
                    SeriesInstanceUID=uid,
                    ReferencedSOPSequence=[
                        _plain(
                            ReferencedSOPClassUID=r.sop_class_uid,
                            ReferencedSOPInstanceUID=r.sop_instance_uid,
                        )
                        for r in members
                    ],
                )
                for uid, members in series.items()
            ],
        )
        for study, series in studies.items()
    ]


def _template(identifier: str) -> bytes:
    return _item(MappingResource="DCMR", TemplateIdentifier=identifier)


def _container(concept: Coded, content: Sequence[bytes], **more: list[bytes]) -> bytes:
    return _item(
        RelationshipType="CONTAINS",
        ValueType="CONTAINER",
        ContinuityOfContent="SEPARATE",
        ConceptNameCodeSequence=[_code(concept)],
        ContentSequence=list(content),
        **more,
    )


def _text(relation: str, concept: Coded, value: str) -> bytes:
    return _item(
        RelationshipType=relation,
        ValueType="TEXT",
        ConceptNameCodeSequence=[_code(concept)],
        TextValue=value,
    )


def _uid(relation: str, concept: Coded, value: str) -> bytes:
    return _item(
        RelationshipType=relation,
        ValueType="UIDREF",
        ConceptNameCodeSequence=[_code(concept)],
        UID=value,
    )


def _coded_item(relation: str, concept: Coded, value: Coded) -> bytes:
    return _item(
        RelationshipType=relation,
        ValueType="CODE",
        ConceptNameCodeSequence=[_code(concept)],
        ConceptCodeSequence=[_code(value)],
    )


def _composite(concept: Coded, reference: Reference, **more: list[bytes]) -> bytes:
    instance = _item(
        ReferencedSOPClassUID=reference.sop_class_uid,
        ReferencedSOPInstanceUID=reference.sop_instance_uid,
    )
    return _item(
        RelationshipType="CONTAINS",
        ValueType="COMPOSITE",
        ConceptNameCodeSequence=[_code(concept)],
        ReferencedSOPSequence=[instance],
        **more,
    )


@cache
def _code(coded: Coded) -> bytes:
    return _item(
        CodeValue=coded.value, CodingSchemeDesignator=coded.scheme, CodeMeaning=coded.meaning
    )


def _item(**values: str | float | list[bytes]) -> bytes:
    """Return a sequence item; a list holds the items of a sequence.

    Texts are UTF-8, which is what the data set states wherever one of them is not ASCII.
    """
    elements = sorted((_element(keyword), value) for keyword, value in values.items())
    body = b"".join(_encoded(head, vr, value) for (_, head, vr), value in elements)
    return _ITEM + struct.pack("<L", len(body)) + body


@cache
def _element(keyword: str) -> tuple[int, bytes, str]:
    """Return tag as a number for sorting, tag and VR as they are encoded, and the VR."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no DICOM keyword")
    vr = dictionary_VR(tag)
    return tag, struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii"), vr


def _encoded(head: bytes, vr: str, value: str | float | list[bytes]) -> bytes:
    """Return one data element (PS3.5 table 7.1-1 and 7.1-2)."""
    if isinstance(value, list):
        stored = b"".join(value)
    elif isinstance(value, float):
        stored = struct.pack("<d", value)
    else:
        stored = value.encode("utf-8")
        if len(stored) % 2:
            stored += b"\0" if vr == "UI" else b" "
    if vr in _LONG:
        return head + b"\0\0" + struct.pack("<L", len(stored)) + stored
    return head + struct.pack("<H", len(stored)) + stored


def _raw_sequence(keyword: str, items: Sequence[bytes]) -> RawDataElement:
    """Return a sequence that pydicom writes as it is and parses when it is asked for."""
    stored = b"".join(items)
    return RawDataElement(
        Tag(keyword), "SQ", len(stored), stored, 0, is_implicit_VR=False, is_little_endian=True
    )


def _plain(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _items(sequence: bytes) -> Iterator[dict[bytes, bytes]]:
    """Yield the items of an encoded sequence as (tag -> value), both as they are encoded."""
    at = 0
    while at < len(sequence):
        if sequence[at : at + 4] != _ITEM:
            raise ValueError("a sequence holds something that is no item")
        end = at + 8 + int.from_bytes(sequence[at + 4 : at + 8], "little")
        at += 8
        if end > len(sequence):
            raise ValueError("an item is longer than its sequence")
        found = {}
        while at < end:
            head, vr = sequence[at : at + 4], sequence[at + 4 : at + 6]
            start, width = (at + 12, 4) if vr in _LONG_VR else (at + 8, 2)
            at = start + int.from_bytes(sequence[start - width : start], "little")
            found[head] = sequence[start:at]
        if at != end:
            raise ValueError("an element is longer than its item")
        yield found


def _concept(item: dict[bytes, bytes]) -> bytes:
    """Return the code value of the concept name; all that are compared have six digits."""
    (name,) = _items(item[_TAG["ConceptNameCodeSequence"]])
    return name.get(_TAG["CodeValue"], b"")


def _plain_text(stored: bytes) -> str:
    """Return a text without its padding."""
    return stored.decode("ascii").rstrip("\0 ")


_TAG: Final = {
    keyword: _element(keyword)[1][:4]
    for keyword in (
        "ConceptNameCodeSequence", "CodeValue", "ContentSequence", "ValueType", "TextValue", "UID",
        "MeasuredValueSequence", "FloatingPointValue",
    )
}  # fmt: skip
