"""Headers are read from whatever a network brings."""

import contextlib
import hashlib
import math
import zlib

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.errors import CannotUnderstand
from node.store.header import keyword_tags, parse_header, read_header
from node.store.part10 import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.store_kit import CT, ct, encode, part10

EXPLICIT = EXPLICIT_VR_LITTLE_ENDIAN


def header(ds: Dataset, *extra: str):
    return parse_header(encode(ds), EXPLICIT, extra)


def test_identity_routing_and_geometry_are_read_with_their_types():
    read = header(ct(5))

    assert read.sop_class_uid == CT
    assert read.sop_instance_uid == "1.2.3.2.5"
    assert (read.study_instance_uid, read.series_instance_uid) == ("1.2.3.1", "1.2.3.2")
    assert read.frame_of_reference_uid == "1.2.3.9"
    assert read.modality == "CT"
    assert read.keywords["ImagePositionPatient"] == [-10.0, -20.0, 15.0]
    assert read.keywords["PixelSpacing"] == [0.9, 0.8]
    assert read.keywords["Rows"] == 4
    assert read.keywords["InstanceNumber"] == 5
    assert read.keywords["SliceThickness"] == 3.0
    assert read.keywords["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert read.keywords["SeriesDescription"] == "Thorax 3.0"
    assert "StationName" not in read.keywords


def test_nothing_that_identifies_the_patient_is_in_the_header():
    text = repr(header(ct(patient="SECRET77")))

    assert not any(canary in text for canary in ("CANARY", "SECRET77", "19010203"))


@pytest.mark.parametrize(
    ("implicit", "little", "syntax"),
    [
        (True, True, IMPLICIT_VR_LITTLE_ENDIAN),
        (False, True, EXPLICIT),
        (False, False, EXPLICIT_VR_BIG_ENDIAN),
    ],
    ids=["implicit", "explicit", "big endian"],
)
def test_the_same_header_is_read_in_every_transfer_syntax(implicit, little, syntax):
    read = parse_header(encode(ct(), implicit=implicit, little=little), syntax)

    assert read.keywords == header(ct()).keywords
    assert read.patient_key == header(ct()).patient_key


def deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


def test_a_deflated_data_set_is_read():
    read = parse_header(deflate(encode(ct())), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

    assert read.keywords == header(ct()).keywords


def test_a_deflated_bomb_is_cut_at_the_cap():
    bomb = deflate(encode(ct()) + bytes(80 << 20))

    with pytest.raises(CannotUnderstand, match="grows beyond 64 MiB"):
        parse_header(bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_missing_identifying_uid_is_named(keyword, how):
    ds = ct()
    if how == "absent":
        delattr(ds, keyword)
    else:
        setattr(ds, keyword, "")

    with pytest.raises(CannotUnderstand, match=f"{keyword} is missing"):
        header(ds)


def with_sop_instance_uid(value: bytes) -> bytes:
    head = b"\x08\x00\x18\x00UI"
    return encode(ct()).replace(
        head + b"\x0a\x001.2.3.2.1\0", head + len(value).to_bytes(2, "little") + value
    )


@pytest.mark.parametrize("uid", [b"1.2 3", b"1.2\n4 ", b"1.2\\1.3", b"1" * 130, b"\xe4\xf6"])
def test_a_uid_with_white_space_or_of_absurd_length_is_refused_without_quoting_it(uid):
    data = with_sop_instance_uid(uid)

    with pytest.raises(CannotUnderstand, match=r"^SOPInstanceUID is not a UID$"):
        parse_header(data, EXPLICIT)


@pytest.mark.parametrize("uid", ["1." + "2" * 62, "1.02.003", "../../etc/passwd"])
def test_long_and_odd_uids_of_the_wild_are_taken_as_they_are(uid):
    data = with_sop_instance_uid(uid.encode() + b"\0" * (len(uid) % 2))

    assert parse_header(data, EXPLICIT).sop_instance_uid == uid


def test_one_patient_has_one_key_whatever_the_padding_and_another_issuer_is_another_patient():
    padded, issued = ct(patient="P1 "), ct()
    issued.IssuerOfPatientID = "ELSEWHERE"

    assert header(padded).patient_key == header(ct()).patient_key
    assert header(issued).patient_key != header(ct()).patient_key
    assert header(ct(patient="P2")).patient_key != header(ct()).patient_key


def test_without_patient_id_the_study_stands_in_so_that_strangers_do_not_merge():
    one, other = ct(patient=""), ct(patient="")
    other.StudyInstanceUID = "1.2.3.77"

    assert header(one).patient_key != header(other).patient_key


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "Übersicht"),
        ("ISO_IR 192", "Προβολή"),
        (["", "ISO 2022 IR 87"], "胸部"),
        ("GB18030", "胸部"),
    ],
    ids=["latin 1", "utf-8", "japanese", "chinese"],
)
def test_descriptions_are_read_in_their_character_set(charset, text):
    ds = ct()
    ds.SpecificCharacterSet = charset
    ds.SeriesDescription = text

    assert header(ds).keywords["SeriesDescription"] == text


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_an_unknown_character_set_never_stops_an_object():
    ds = ct()
    data = encode(ds).replace(b"ISO_IR 100", b"ISO_IR 999")

    assert parse_header(data, EXPLICIT).keywords["SeriesDescription"] == "Thorax 3.0"


@pytest.mark.parametrize("text", [b"abc ", b"NaN ", b"inf ", b"1e999 "])
def test_a_number_that_is_none_is_empty_and_stops_nothing(text):
    data = encode(ct())
    spot = data.index(b"\x18\x00\x50\x00DS")
    rest = data[spot + 8 + int.from_bytes(data[spot + 6 : spot + 8], "little") :]
    data = data[: spot + 6] + len(text).to_bytes(2, "little") + text + rest

    assert parse_header(data, EXPLICIT).keywords["SliceThickness"] is None


def test_every_number_is_finite_because_json_knows_no_other():
    values = header(ct()).keywords.values()

    assert all(math.isfinite(v) for v in values if isinstance(v, float))


@pytest.mark.parametrize("cut", [1, 31, 32, 33])
def test_a_data_set_that_ends_early_is_refused(cut):
    with pytest.raises(CannotUnderstand):
        parse_header(encode(ct())[:-cut], EXPLICIT)


def test_pixel_data_that_claims_more_than_there_is_is_refused():
    """B8: stock pydicom accepts it silently."""
    data = encode(ct())
    spot = data.index(b"\xe0\x7f\x10\x00OW")
    lying = data[: spot + 8] + b"\xf0\xff\xff\xff" + data[spot + 12 :]

    with pytest.raises(CannotUnderstand, match="ends 4294967248 bytes early"):
        parse_header(lying, EXPLICIT)


def test_deeply_nested_sequences_are_refused_and_not_a_crash():
    """B8: 5,000 nested sequences are a RecursionError in pydicom."""
    opened = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data = encode(ct())
    spot = data.index(b"\x10\x00\x10\x00PN")

    with pytest.raises(CannotUnderstand, match="RecursionError"):
        parse_header(data[:spot] + opened * 5000 + data[spot:], EXPLICIT)


def test_a_private_element_that_breaks_iteration_is_never_touched():
    """Trap 1: (01F1,1026) holds text where the dictionary says FD."""
    data = encode(ct())
    spot = data.index(b"\x10\x00\x10\x00PN")
    private = b"\xf1\x01\x10\x00LO\x08\x00ELSCINT1" + b"\xf1\x01\x26\x10FD\x04\x000.9 "
    data = data[:spot] + private + data[spot:]

    assert parse_header(data, EXPLICIT).modality == "CT"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_raise_only_the_mapped_error(seed):
    data = bytearray(encode(ct()))
    digest = hashlib.sha256(bytes([seed])).digest()
    for place, value in zip(digest[::2], digest[1::2], strict=True):
        data[place * 3 % len(data)] = value

    with contextlib.suppress(CannotUnderstand):
        parse_header(bytes(data), EXPLICIT)


def test_asked_for_keywords_are_read_too():
    ds = ct()
    ds.ConvolutionKernel = ["Br40", "3"]
    ds.PatientSex = "O"

    assert header(ds, "PatientSex").keywords["PatientSex"] == "O"
    assert header(ds).keywords["ConvolutionKernel"] == ["Br40", "3"]


@pytest.mark.parametrize(
    ("keyword", "why"),
    [
        ("PatientName", "identifies"),
        ("PatientID", "identifies"),
        ("OperatorsName", "identifies"),
        ("NoSuchThing", "not a DICOM keyword"),
        ("PixelData", "no text or number"),
        ("ROIContourSequence", "no text or number"),
    ],
)
def test_keywords_that_cannot_or_must_not_be_read_are_refused(keyword, why):
    with pytest.raises(ValueError, match=why):
        keyword_tags([keyword])


def test_a_file_is_read_from_disk(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(part10(ct(3)))

    assert read_header(path) == header(ct(3))


def test_sequences_of_undefined_length_around_the_header_are_walked_over():
    ds = ct()
    item = Dataset()
    item.CodeValue = "x"
    ds.ProcedureCodeSequence = Sequence([item])
    ds["ProcedureCodeSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True

    assert header(ds).keywords == header(ct()).keywords
