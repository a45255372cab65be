"""DICOM files are split and written byte by byte."""

import hashlib
import struct
from io import BytesIO

import pydicom
import pytest

from node.errors import CannotUnderstand
from node.store.part10 import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Encoded,
    prefix,
    sha256_of_file,
    split,
)
from tests.store_kit import CT, ct, encode, part10


def test_our_file_meta_information_is_read_by_pydicom_with_the_right_group_length():
    ds = pydicom.dcmread(BytesIO(part10(ct())))

    assert ds.file_meta.MediaStorageSOPClassUID == CT
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert ds.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    head = prefix(
        sop_class_uid=CT,
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    assert ds.file_meta.FileMetaInformationGroupLength == len(head) - 128 - 4 - 12


def test_a_file_gives_back_the_data_set_bytes_that_went_in():
    content = split(part10(ct()))

    assert bytes(content.data) == encode(ct())
    assert content.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN


def test_identity_is_the_hash_of_transfer_syntax_and_data_set_not_of_the_file(tmp_path):
    (tmp_path / "x.dcm").write_bytes(part10(ct()))

    expected = hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ct())).hexdigest()

    assert sha256_of_file(tmp_path / "x.dcm") == expected


def test_a_wrong_group_length_does_not_move_the_data_set():
    data = bytearray(part10(ct()))
    data[140:144] = struct.pack("<L", 7)

    assert bytes(split(data).data) == encode(ct())


@pytest.mark.parametrize(
    ("implicit", "syntax"),
    [(True, IMPLICIT_VR_LITTLE_ENDIAN), (False, EXPLICIT_VR_LITTLE_ENDIAN)],
    ids=["implicit", "explicit"],
)
def test_a_bare_data_set_shows_its_transfer_syntax_itself(implicit, syntax):
    data = encode(ct(), implicit=implicit)

    assert split(data).transfer_syntax_uid == syntax
    assert bytes(split(data).data) == data


def test_meta_information_without_preamble_is_understood():
    assert bytes(split(part10(ct())[132:]).data) == encode(ct())


@pytest.mark.parametrize(
    "data",
    [b"", b"short", b"%PDF-1.7 something else entirely", bytes(128) + b"DICM", part10(ct())[:170]],
    ids=["empty", "short", "pdf", "preamble only", "cut in its meta information"],
)
def test_what_is_no_dicom_file_is_not_understood(data):
    with pytest.raises(CannotUnderstand):
        split(data)


def test_memoryview_and_bytes_have_the_same_identity():
    data = encode(ct())

    same = {
        Encoded(transfer_syntax_uid="1.2", data=kind(data)).sha256()
        for kind in (bytes, bytearray, memoryview)
    }

    assert len(same) == 1
