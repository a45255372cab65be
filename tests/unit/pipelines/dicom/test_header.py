"""Identity, equipment, time and file of derived objects."""

import hashlib

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from pipelines.api import Provenance
from pipelines.dicom.header import (
    UNKNOWN_MOMENT,
    clean_text,
    content_datetime,
    copy_identity,
    new_file,
    save,
    stamp,
)
from tests import factories

PROVENANCE = Provenance(
    pipeline="autocontour", version="0.1.0", settings_sha256="ab" * 32, sources=(("1.2.3", "x"),)
)
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
"""PS3.5 H.3.1, example 1."""


def read_back(ds, path):
    save(ds, path)
    return pydicom.dcmread(path)


def japanese(path):
    """Return a source whose name is the standard's example in three groups, as read from a file."""
    ds = factories.ct_series()[0]
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "NAME^PLACEHOLDER"
    ds.save_as(path, enforce_file_format=True)
    raw = path.read_bytes().replace(
        b"\x10\x00\x10\x00PN\x10\x00NAME^PLACEHOLDER",
        b"\x10\x00\x10\x00PN" + (len(JAPANESE) + 1).to_bytes(2, "little") + JAPANESE + b" ",
    )
    path.write_bytes(raw)
    return pydicom.dcmread(path)


def test_a_japanese_name_keeps_its_bytes_in_all_three_groups(tmp_path):
    source = japanese(tmp_path / "source.dcm")
    target = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")

    copy_identity(source, target)
    result = read_back(target, tmp_path / "target.dcm")

    assert result.get_item("PatientName").value.rstrip(b" ") == JAPANESE
    assert list(result.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]
    assert str(result.PatientName).split("=")[1] == "山田^太郎"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Müller^Jörg=王^小東"),
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 126", "Διονυσιος"),
    ],
    ids=["utf-8", "latin", "greek"],
)
def test_other_character_sets_are_carried_over(charset, name, tmp_path):
    source = factories.ct_series()[0]
    source.SpecificCharacterSet, source.PatientName = charset, name
    target = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")

    copy_identity(source, target)
    result = read_back(target, tmp_path / "a.dcm")

    assert str(result.PatientName) == name
    assert result.SpecificCharacterSet == charset


def test_values_of_hash_anonymizers_are_left_empty_and_never_refused(tmp_path):
    """Trap 2: 36 characters in StudyDate, PatientBirthDate and PatientSex."""
    junk = "0f8fad5b-d9cb-469f-a165-70867728950e"
    source = Dataset()
    for tag, vr in (("StudyDate", "DA"), ("PatientBirthDate", "DA"), ("PatientSex", "CS"),
                    ("StudyTime", "TM"), ("AccessionNumber", "SH"), ("StudyID", "SH")):  # fmt: skip
        source.add(pydicom.DataElement(pydicom.tag.Tag(tag), vr, junk, already_converted=True))
    source.PatientID, source.StudyInstanceUID = "P1", "1.2.3"
    target = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")

    copy_identity(source, target)
    result = read_back(target, tmp_path / "a.dcm")

    for keyword in ("StudyDate", "PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber"):
        assert result[keyword].value in ("", None)
    assert (result.PatientID, result.StudyInstanceUID) == ("P1", "1.2.3")


def test_a_name_in_an_unknown_character_set_becomes_ascii(tmp_path):
    source = factories.ct_series()[0]
    source.PatientName = "Müller"
    source.SpecificCharacterSet = "KLINGON"
    target = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")

    copy_identity(source, target)

    assert "SpecificCharacterSet" not in target
    assert str(target.PatientName) == "M?ller"


@pytest.mark.parametrize(
    ("vr", "text", "cleaned"),
    [
        ("DA", "20260229", ""), ("DA", "20260228", "20260228"), ("DA", "2026.02.28", ""),
        ("TM", "235960.5", "235960.5"), ("TM", "2560", ""), ("CS", "M ", "M"), ("CS", "male", ""),
        ("SH", "A" * 17, ""), ("SH", "A\\B", ""), ("LO", "a\\b\nc" + "x" * 80, "a/b c" + "x" * 59),
        ("UI", "1.2.03", ""), ("UI", "1.2.840", "1.2.840"), ("DS", "1" * 17, ""),
        ("DS", "-1.5e-3", "-1.5e-3"), ("IS", "12.0", ""), ("PN", "A^B=C=D=E", ""),
    ],
)  # fmt: skip
def test_text_is_cleaned_by_its_value_representation(vr, text, cleaned):
    assert clean_text(vr, text) == cleaned


def test_the_moment_of_a_result_is_the_newest_that_its_inputs_state():
    old, new = Dataset(), Dataset()
    old.StudyDate, old.StudyTime = "20260101", "235959"
    new.ContentDate, new.ContentTime = "20260102", "0830"

    assert content_datetime([old, new]) == ("20260102", "083000")
    assert content_datetime([Dataset()]) == UNKNOWN_MOMENT


def test_the_same_object_gives_the_same_bytes_and_says_who_wrote_it(tmp_path):
    hashes = []
    for name in ("a.dcm", "b.dcm"):
        ds = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")
        copy_identity(factories.ct_series()[0], ds)
        stamp(ds, PROVENANCE)
        save(ds, tmp_path / name)
        hashes.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    result = pydicom.dcmread(tmp_path / "a.dcm")

    assert hashes[0] == hashes[1]
    assert result.Manufacturer == "rtnode"
    assert list(result.SoftwareVersions) == ["autocontour 0.1.0", "settings abababababababab"]
    assert "ab" * 32 in result.ContributingEquipmentSequence[0].ContributionDescription


def test_implicit_vr_is_written_when_asked_for(tmp_path):
    ds = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")

    save(ds, tmp_path / "a.dcm", implicit=True)

    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
