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
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from node.domain import Header, Uid
from node.errors import CannotUnderstand
from node.store import references
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

_IDENTITY: Final = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PATIENT: Final = ("PatientID", "IssuerOfPatientID", "SpecificCharacterSet")

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
_ELEMENTS: Final = 65_536
"""Most elements above the sequences; real objects have hundreds, a run of zeros has millions."""
HEAD: Final = 64 * 1024
"""Bytes at the beginning of a large data set that are looked at first: nearly always enough."""
_UNDEFINED: Final = 0xFFFFFFFF
_LONGEST: Final = 16384
"""Bytes of the longest value that is read for routing."""
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
    for keyword in (*_IDENTITY, *_PATIENT)
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
    wanted, tags = _asked_for(tuple(extra_keywords))
    with _understanding():
        ds = _read(Encoded(transfer_syntax_uid=transfer_syntax_uid, data=dataset), tags)
        return _header(ds, transfer_syntax_uid, wanted)


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
    wanted, tags = _asked_for(tuple(extra_keywords))
    with _understanding():
        ds = _of_head(head, size, transfer_syntax_uid, tags)
        return None if ds is None else _header(ds, transfer_syntax_uid, wanted)


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
    wanted, tags = _asked_for(tuple(extra_keywords))
    with _understanding():
        ds = _streamed(stream, size, transfer_syntax_uid, tags)
        return _header(ds, transfer_syntax_uid, wanted)


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


@cache
def _asked_for(extra_keywords: tuple[str, ...]) -> tuple[dict[str, BaseTag], list[BaseTag]]:
    """Return keyword -> tag, and every tag to read; the same few questions for each object."""
    wanted = _TAGS | keyword_tags(extra_keywords)
    tags = {*wanted.values(), *_ALWAYS.values(), *references.TOP_LEVEL_TAGS}
    return {keyword: Tag(tag) for keyword, tag in wanted.items()}, sorted(map(Tag, tags))


def _header(ds: Dataset, transfer_syntax_uid: str, wanted: Mapping[str, BaseTag]) -> Header:
    encodings = _encodings(ds)
    keywords = {keyword: _value(ds, tag, encodings) for keyword, tag in wanted.items() if tag in ds}
    sop_class_uid = _uid(ds, "SOPClassUID")
    study = _uid(ds, "StudyInstanceUID")
    frame = keywords.get("FrameOfReferenceUID")
    modality = keywords.get("Modality")
    found, types = references.collect(ds, sop_class_uid)
    if types:
        keywords["ContourGeometricType"] = types
    return Header(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=_uid(ds, "SOPInstanceUID"),
        study_instance_uid=study,
        series_instance_uid=_uid(ds, "SeriesInstanceUID"),
        transfer_syntax_uid=Uid(transfer_syntax_uid),
        frame_of_reference_uid=Uid(frame) if isinstance(frame, str) and frame else None,
        modality=modality if isinstance(modality, str) else "",
        patient_key=_patient_key(ds, study, encodings),
        keywords=keywords,
        references=tuple(found),
    )


def _read(content: Encoded, tags: Sequence[int]) -> Dataset:
    """Return the raw elements of `tags`; the data set must be whole up to its last byte."""
    data = content.data
    ds = _of_head(data[:HEAD], len(data), content.transfer_syntax_uid, tags)
    if ds is None:
        return _streamed(BytesIO(data), len(data), content.transfer_syntax_uid, tags)
    return ds


def _streamed(
    stream: BinaryIO, size: int, transfer_syntax_uid: str, tags: Sequence[int]
) -> Dataset:
    """Return the raw elements of `tags` of a data set of `size` bytes, whole to its last byte."""
    if transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        ds, position, pixels = _elements(stream, transfer_syntax_uid, tags)
        _check_end(size, position, pixels)
        return ds
    plain = Inflated(stream, size)
    ds, position, pixels = _elements(plain, transfer_syntax_uid, tags)
    _check_end(plain.end(), position, pixels)
    return ds


def _of_head(
    head: Buffer, size: int, transfer_syntax_uid: str, tags: Sequence[int]
) -> Dataset | None:
    """Return the elements of a data set of which only the beginning is looked at.

    Where the pixels begin within it, the rest cannot change what was read. None where the whole
    has to be read, and judged.
    """
    if size <= len(head) or transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return None
    with suppress(Exception):  # cut off inside a value
        ds, position, pixels = _elements(BytesIO(head), transfer_syntax_uid, tags)
        if pixels is not None:
            _check_end(size, position, pixels)
            return ds
    return None


def _elements(
    stream: BinaryIO | Inflated, transfer_syntax_uid: str, tags: Sequence[int]
) -> tuple[Dataset, int, _Pixels | None]:
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
        specific_tags=list(tags),
    )
    return ds, stream.tell() - begin, stopped[-1] if stopped else None


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
    """Return the bytes of an element, empty when it is absent, too long or a sequence."""
    if tag not in ds:
        return b""
    value = ds.get_item(tag).value
    return value if isinstance(value, bytes) and len(value) <= _LONGEST else b""


def _uid(ds: Dataset, keyword: str) -> Uid:
    tag = tag_for_keyword(keyword)
    text = _raw(ds, tag or 0).strip(b"\0 ").decode("ascii", "replace")
    if not text:
        raise CannotUnderstand(f"{keyword} is missing")
    if not _UID.fullmatch(text):
        raise CannotUnderstand(f"{keyword} is not a UID")
    return Uid(text)


def _encodings(ds: Dataset) -> list[str]:
    """Return Python's names of the character sets; unknown terms are left out."""
    terms = _raw(ds, _ALWAYS["SpecificCharacterSet"]).decode("ascii", "replace").split("\\")
    names = [python_encoding[t.strip("\0 ")] for t in terms if t.strip("\0 ") in python_encoding]
    return names or [python_encoding[""]]


def _decode(raw: bytes, encodings: list[str]) -> str:
    """Return text; what the character set does not hold becomes a replacement character."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    if b"\x1b" in raw:
        try:
            return str(decode_bytes(raw, encodings, set(b"\\")))
        except (UnicodeError, LookupError):
            return raw.decode("ascii", "replace")
    return raw.decode(encodings[0], "replace")


def _value(ds: Dataset, tag: int, encodings: list[str]) -> Value:
    """Return the value of an element as JSON can hold it."""
    element = ds.get_item(tag)
    raw = _raw(ds, tag)
    if not raw:
        return None
    vr = _vr(tag)
    if vr == "AT":
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        pairs = struct.iter_unpack(f"{order}HH", raw[: len(raw) // 4 * 4])
        return _one_or_list([f"{group:04X}{number:04X}" for group, number in pairs])
    if vr in _BINARY:
        return _numbers(raw, _BINARY[vr], little=getattr(element, "is_little_endian", True))
    if vr in _LONG_TEXT_VRS:
        return _decode(raw, encodings).rstrip("\0 ")
    parts = [part.strip("\0 ") for part in _decode(raw, encodings).split("\\")]
    if vr == "IS":
        return _one_or_list([_number(part, int) for part in parts])
    if vr in _FLOAT_VRS:
        return _one_or_list([_number(part, float) for part in parts])
    return _one_or_list(parts)


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


def _patient_key(ds: Dataset, study_instance_uid: str, encodings: list[str]) -> str:
    """Return a hash of PatientID and issuer; of the study where the PatientID is empty.

    Patients without an identifier must not all become one.
    """

    def text(keyword: str) -> str:
        decoded = _decode(_raw(ds, _ALWAYS[keyword]), encodings).strip("\0 ")
        return unicodedata.normalize("NFC", decoded)

    patient = text("PatientID")
    identity = f"patient\0{patient}\0{text('IssuerOfPatientID')}"
    if not patient:
        identity = f"study\0{study_instance_uid}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
