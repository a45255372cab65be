"""What the node reads of a received data set: identity, routing and geometry keywords, references.

The data set comes from the network and may be odd, broken or hostile. So only named elements are
read (``specific_tags``: some real files hold private elements that break full iteration), pixels
never, values are converted by hand from their raw bytes (the library would warn, quoting values),
and whatever goes wrong is `CannotUnderstand`. Nothing here may identify a patient: `patient_key`
is a hash, and identifying keywords cannot be asked for.
"""

import hashlib
import math
import re
import struct
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from node.domain import Header, Reference, Uid
from node.errors import CannotUnderstand
from node.store import references
from node.store.beginning import LONGEST, read_beginning
from node.store.deflate import Inflated
from node.store.part10 import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Buffer,
    Encoded,
    split,
)

Value: TypeAlias = str | float | int | list[str] | list[float] | None
"""A keyword's value; None where the element is there and empty."""

KEYWORDS: Final = (
    "AcquisitionNumber",
    "AcquisitionType",
    "ApprovalStatus",
    "BodyPartExamined",
    "ConvolutionKernel",
    "DoseGridScaling",
    "DoseSummationType",
    "DoseType",
    "DoseUnits",
    "FrameOfReferenceUID",
    "GantryDetectorTilt",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "KVP",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PatientPosition",
    "PixelSpacing",
    "ProtocolName",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "Columns",
    "SOPClassUID",
    "ScanOptions",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StationName",
    "StructureSetLabel",
    "StudyDescription",
)
"""Always read: what the shipped rules and the completeness check look at."""

_IDENTITY: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PATIENT: Final = ("PatientID", "IssuerOfPatientID")

_FLOAT_VRS: Final = frozenset(("DS",))
_TEXT_VRS: Final = frozenset(("AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI", "UR"))
_LONG_TEXT_VRS: Final = frozenset(("LT", "ST", "UT"))
"""Text in which a backslash is no separator (PS3.5 6.2)."""
_BINARY: Final[Mapping[str, str]] = {
    "US": "H",
    "SS": "h",
    "UL": "L",
    "SL": "l",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}
_READABLE_VRS: Final = _FLOAT_VRS | _TEXT_VRS | _LONG_TEXT_VRS | {"AT", "IS"} | frozenset(_BINARY)

_PIXEL_GROUP: Final = 0x7FE00008
"""Float Pixel Data, the first of the pixel elements; reading stops here."""
_Pixels: TypeAlias = tuple[str | None, int]
"""VR (None where it is implicit) and length of the first pixel element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elements:
    """What was read of a data set."""

    values: Mapping[int, bytes]
    """Tag -> raw value; empty where it is too long, or a sequence."""
    little: bool
    """Byte order of the values."""
    references: tuple[Reference, ...]
    contour_types: Sequence[str]


_ELEMENTS: Final = 65_536
"""Most elements above the sequences; real objects have hundreds, a run of zeros has millions."""
HEAD: Final = 64 * 1024
"""Bytes at the beginning of a large data set that are looked at first: nearly always enough."""
_UNDEFINED: Final = 0xFFFFFFFF
_UID: Final = re.compile(r"[!-\[\]-~]{1,128}")
"""What we take for a UID: longer and odd ones exist, white space and backslash end it."""
_IDENTIFYING: Final = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "AccessionNumber",
        "AdmissionID",
        "IssuerOfPatientID",
        "MilitaryRank",
        "OtherPatientIDs",
        "PatientAddress",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientComments",
        "PatientID",
        "PatientInsurancePlanCodeSequence",
        "PatientTelephoneNumbers",
        "RegionOfResidence",
    )
)


def keyword_tags(keywords: Collection[str]) -> dict[str, int]:
    """Return the tags of `keywords`.

    Raises
    ------
    ValueError
        A keyword is not in the dictionary, cannot be matched against, or identifies a person.
    """
    tags: dict[str, int] = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is not a DICOM keyword")
        if tag in _IDENTIFYING or dictionary_VR(tag) == "PN":
            raise ValueError(f"{keyword} identifies a person and is never kept")
        if dictionary_VR(tag).split(" or ")[0] not in _READABLE_VRS:
            raise ValueError(f"{keyword} is no text or number")
        tags[keyword] = tag
    return tags


_TAGS: Final = keyword_tags(KEYWORDS)
_ALWAYS: Final = {
    keyword: tag
    for keyword in (*_IDENTITY, *_PATIENT, "SpecificCharacterSet")
    if (tag := tag_for_keyword(keyword)) is not None
}


def parse_header(
    dataset: Buffer, transfer_syntax_uid: str, extra_keywords: Collection[str] = ()
) -> Header:
    """Read the header of a data set.

    Parameters
    ----------
    dataset : bytes-like
        The data set without preamble and meta information, in its transfer syntax.
    extra_keywords : collection of str
        Keywords that the configuration matches against.

    Raises
    ------
    CannotUnderstand
        It is no data set, ends early, or lacks an identifying UID.
    ValueError
        See `keyword_tags`.
    """
    question = _asked_for(tuple(extra_keywords))
    with _understanding():
        read = _read(Encoded(transfer_syntax_uid=transfer_syntax_uid, data=dataset), question)
        return _header(read, transfer_syntax_uid, question)


def parse_head(
    head: Buffer, size: int, transfer_syntax_uid: str, extra_keywords: Collection[str] = ()
) -> Header | None:
    """Read the header of a data set of `size` bytes from its beginning, `HEAD` bytes of it.

    Nearly always that is enough; None where the whole has to be read.

    Raises
    ------
    CannotUnderstand, ValueError
        As `parse_header`.
    """
    if size <= len(head):
        return parse_header(head, transfer_syntax_uid, extra_keywords)
    question = _asked_for(tuple(extra_keywords))
    with _understanding():
        read = _of_head(head, size, transfer_syntax_uid, question)
        return None if read is None else _header(read, transfer_syntax_uid, question)


def parse_stream(
    stream: BinaryIO, size: int, transfer_syntax_uid: str, extra_keywords: Collection[str] = ()
) -> Header:
    """Read the header of a data set of `size` bytes that begins where `stream` stands.

    As `parse_header`, for what is not held in memory.

    Raises
    ------
    CannotUnderstand, ValueError
        As `parse_header`.
    """
    question = _asked_for(tuple(extra_keywords))
    with _understanding():
        read = _streamed(stream, size, transfer_syntax_uid, question)
        return _header(read, transfer_syntax_uid, question)


def read_header(path: Path, extra_keywords: Collection[str] = ()) -> Header:
    """Read the header of a DICOM file, with or without preamble.

    Raises
    ------
    CannotUnderstand
        As `parse_header`.
    OSError
        The file cannot be read.
    """
    content = split(path.read_bytes())
    return parse_header(content.data, content.transfer_syntax_uid, extra_keywords)


@contextmanager
def _understanding() -> Iterator[None]:
    """Turn whatever goes wrong with hostile bytes into the one error that callers know."""
    try:
        yield
    except CannotUnderstand:
        raise
    except (Exception, RecursionError) as error:
        raise CannotUnderstand(f"the data set cannot be parsed ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is read of a data set."""

    keywords: tuple[tuple[str, int], ...]
    """With their tags."""
    tags: frozenset[int]
    """Of the keywords and of what identifies, without what refers."""
    all_tags: tuple[BaseTag, ...]
    """With what refers, as the library wants them."""


@cache
def _asked_for(extra_keywords: tuple[str, ...]) -> _Question:
    """Return the question of a configuration: the same few for each object."""
    wanted = _TAGS | keyword_tags(extra_keywords)
    tags = frozenset((*wanted.values(), *_ALWAYS.values()))
    return _Question(
        keywords=tuple(wanted.items()),
        tags=tags,
        all_tags=tuple(map(Tag, tags | references.TOP_LEVEL_TAGS)),
    )


def _header(read: _Elements, transfer_syntax_uid: str, question: _Question) -> Header:
    values, encodings = read.values, _encodings(read)
    keywords = {
        keyword: _value(values[tag], tag, encodings, read.little)
        for keyword, tag in question.keywords
        if tag in values
    }
    study = _uid(read, "StudyInstanceUID")
    frame = keywords.get("FrameOfReferenceUID")
    modality = keywords.get("Modality")
    if read.contour_types:
        keywords["ContourGeometricType"] = list(read.contour_types)
    return Header(
        sop_class_uid=_uid(read, "SOPClassUID"),
        sop_instance_uid=_uid(read, "SOPInstanceUID"),
        study_instance_uid=study,
        series_instance_uid=_uid(read, "SeriesInstanceUID"),
        transfer_syntax_uid=Uid(transfer_syntax_uid),
        frame_of_reference_uid=Uid(frame) if isinstance(frame, str) and frame else None,
        modality=modality if isinstance(modality, str) else "",
        patient_key=_patient_key(
            *(values.get(_ALWAYS[keyword], b"") for keyword in _PATIENT), study, encodings
        ),
        keywords=keywords,
        references=read.references,
    )


def _read(content: Encoded, question: _Question) -> _Elements:
    """Return the elements in question; the data set must be whole up to its last byte."""
    data, syntax = content.data, content.transfer_syntax_uid
    read = _of_head(data[:HEAD], len(data), syntax, question)
    return _streamed(BytesIO(data), len(data), syntax, question) if read is None else read


def _streamed(
    stream: BinaryIO, size: int, transfer_syntax_uid: str, question: _Question
) -> _Elements:
    """Return the elements of a data set of `size` bytes, whole to its last byte."""
    if transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        read, position, pixels = _elements(stream, transfer_syntax_uid, question)
        _check_end(size, position, pixels)
        return read
    plain = Inflated(stream, size)
    read, position, pixels = _elements(plain, transfer_syntax_uid, question)
    _check_end(plain.end(), position, pixels)
    return read


def _of_head(
    head: Buffer, size: int, transfer_syntax_uid: str, question: _Question
) -> _Elements | None:
    """Return the elements of a data set of which only the beginning is looked at.

    Where the pixels begin within it, the rest cannot change what was read. None where the whole
    has to be read, and judged.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return None
    if (found := _plain(head, transfer_syntax_uid, question)) is not None:
        read, position, pixels = found
        _check_end(size, position, pixels)
        return read
    if size <= len(head):
        return None
    with suppress(Exception):  # cut off inside a value
        read, position, pixels_or_none = _elements(BytesIO(head), transfer_syntax_uid, question)
        if pixels_or_none is not None:
            _check_end(size, position, pixels_or_none)
            return read
    return None


def _plain(
    head: Buffer, transfer_syntax_uid: str, question: _Question
) -> tuple[_Elements, int, _Pixels] | None:
    """Return the elements of a simple image and what begins behind them; None of anything else."""
    if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
        return None
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    found = read_beginning(head, implicit=implicit, wanted=question.tags, most=_ELEMENTS)
    if found is None:
        return None
    read = _Elements(values=found.values, little=True, references=(), contour_types=())
    if _text(read, "SOPClassUID") in references.PATHS:
        return None  # its references are in sequences
    return read, found.position, found.pixels


def _elements(
    stream: BinaryIO | Inflated, transfer_syntax_uid: str, question: _Question
) -> tuple[_Elements, int, _Pixels | None]:
    """Return the elements before the pixels, how far they reach, and what begins there."""
    begin = stream.tell()
    stopped: list[_Pixels] = []
    left = iter(range(_ELEMENTS))

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag < _PIXEL_GROUP:
            if next(left, None) is None:
                raise CannotUnderstand(f"the data set has more than {_ELEMENTS} elements")
            return False
        stopped.append((vr, length))
        return True

    ds = read_dataset(
        stream,
        is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        is_little_endian=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN,
        stop_when=at_pixels,
        specific_tags=list(question.all_tags),
    )
    position = stream.tell() - begin
    values = {tag: _raw(ds, tag) for tag in question.tags if tag in ds}
    little = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    bare = _Elements(values=values, little=little, references=(), contour_types=())
    found, types = references.collect(ds, _text(bare, "SOPClassUID"))
    read = replace(bare, references=tuple(found), contour_types=types)
    return read, position, stopped[-1] if stopped else None


def _check_end(size: int, position: int, pixels: _Pixels | None) -> None:
    """Refuse a data set whose elements claim more bytes than there are.

    A cut exactly between two elements cannot be seen here; over the network none can happen.
    """
    claimed = position
    if pixels is not None:
        vr, length = pixels
        head = 8 if vr is None else 12
        claimed = position + head + (0 if length == _UNDEFINED else length)
    if claimed > size:
        raise CannotUnderstand(f"the data set ends {claimed - size} bytes early")


def _raw(ds: Dataset, tag: int) -> bytes:
    """Return the bytes of an element, empty when it is too long or a sequence."""
    value = ds.get_item(tag).value
    return value if isinstance(value, bytes) and len(value) <= LONGEST else b""


def _text(read: _Elements, keyword: str) -> str:
    """Return the text of a UID, empty when there is none."""
    raw = read.values.get(_ALWAYS[keyword], b"")
    return raw.strip(b"\0 ").decode("ascii", "replace")


def _uid(read: _Elements, keyword: str) -> Uid:
    text = _text(read, keyword)
    if not text:
        raise CannotUnderstand(f"{keyword} is missing")
    if not _UID.fullmatch(text):
        raise CannotUnderstand(f"{keyword} is not a UID")
    return Uid(text)


def _encodings(read: _Elements) -> tuple[str, ...]:
    """Return Python's names of the character sets; unknown terms are left out."""
    raw = read.values.get(_ALWAYS["SpecificCharacterSet"], b"")
    terms = [term.strip("\0 ") for term in raw.decode("ascii", "replace").split("\\")]
    known = tuple(python_encoding[term] for term in terms if term in python_encoding)
    return known or (python_encoding[""],)


def _decode(raw: bytes, encodings: tuple[str, ...]) -> str:
    """Return text; what the character set does not hold becomes a replacement character."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    if b"\x1b" in raw:
        try:
            return str(decode_bytes(raw, list(encodings), set(b"\\")))
        except (UnicodeError, LookupError):
            return raw.decode("ascii", "replace")
    return raw.decode(encodings[0], "replace")


def _value(raw: bytes, tag: int, encodings: tuple[str, ...], little: bool) -> Value:  # noqa: FBT001 - for each value
    """Return the value of an element as JSON can hold it.

    From one slice to the next nearly all of them are the same: what is short is remembered.
    """
    convert = _converted_before if len(raw) <= _REMEMBERED else _converted
    return convert(raw, tag, encodings, little)


def _converted(raw: bytes, tag: int, encodings: tuple[str, ...], little: bool) -> Value:  # noqa: FBT001 - as above
    if not raw:
        return None
    vr = _vr(tag)
    if vr == "AT":
        pairs = struct.iter_unpack(f"{'<' if little else '>'}HH", raw[: len(raw) // 4 * 4])
        return _one_or_list([f"{group:04X}{number:04X}" for group, number in pairs])
    if vr in _BINARY:
        return _numbers(raw, _BINARY[vr], little=little)
    if vr in _LONG_TEXT_VRS:
        return _decode(raw, encodings).rstrip("\0 ")
    parts = [part.strip("\0 ") for part in _decode(raw, encodings).split("\\")]
    if vr == "IS":
        return _one_or_list([_number(part, int) for part in parts])
    if vr in _FLOAT_VRS:
        return _one_or_list([_number(part, float) for part in parts])
    return _one_or_list(parts)


_REMEMBERED: Final = 256
"""Bytes of the longest value that is remembered; its memory has a bound: 512 of them."""
_converted_before: Final = lru_cache(maxsize=512)(_converted)


@cache
def _vr(tag: int) -> str:
    return str(dictionary_VR(tag)).split(" or ")[0]


def _numbers(raw: bytes, code: str, *, little: bool) -> Value:
    count = len(raw) // struct.calcsize(f"<{code}")
    values = struct.unpack_from(f"{'<' if little else '>'}{count}{code}", raw)
    return _one_or_list(list(values))


def _number(text: str, kind: Callable[[str], Any]) -> Any:  # noqa: ANN401 - int or float
    """Return a finite number; None for anything else: odd text must not stop an ingest."""
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _one_or_list(values: list[Any]) -> Value:
    """Return a single value bare, several as a list, and None where one is no value."""
    if any(value is None for value in values):
        return None
    if len(values) == 1:
        single: Value = values[0]
        return single
    return values


@lru_cache(maxsize=64)
def _patient_key(
    patient_id: bytes, issuer: bytes, study_instance_uid: str, encodings: tuple[str, ...]
) -> str:
    """Return a hash of PatientID and issuer; of the study where the PatientID is empty.

    Patients without an identifier must not all become one.
    """
    patient, by = (
        unicodedata.normalize("NFC", _decode(raw, encodings).strip("\0 "))
        for raw in (patient_id, issuer)
    )
    identity = f"patient\0{patient}\0{by}" if patient else f"study\0{study_instance_uid}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
