"""Names in any script, rightly and wrongly declared: from C-STORE to the derived object (A15)."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, prefix
from pipelines.dicom.header import copy_identity, new_file
from pipelines.dicom.read import read_dataset, tolerant
from tests.store_kit import CT, ct, encode, source, store

DECLARED = {
    "latin 1": ("ISO_IR 100", "Müller^Jörg"),
    "utf-8": ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "gb18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "gbk": ("GBK", "Wang^XiaoDong=王^小东"),
    "katakana (13)": ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "kanji (87)": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "katakana and kanji (13, 87)": (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "supplementary kanji (87, 159)": (
        ["", "ISO 2022 IR 87", "ISO 2022 IR 159"], "Yamada^Tarou=丂山^太郎",
    ),
    "korean (149)": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
}  # fmt: skip
"""Character set -> a name that it holds (PS3.5 annexes H to K)."""

MISDECLARED = {
    "utf-8 as ascii": (None, "山田^太郎".encode()),
    "utf-8 as latin 1": ("ISO_IR 100", "Müller^Jörg".encode()),
    "latin 1 as utf-8": ("ISO_IR 192", "Müller^Jörg".encode("latin-1")),
    "shift jis as kanji": ("\\ISO 2022 IR 87", "山田^太郎".encode("shift_jis")),
    "an escape that ends nowhere": ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3"),
    "an unknown set": ("ISO_IR 999", b"M\xfcller^J\xf6rg"),
}
"""What some systems send: the bytes are of another character set than they say."""


def received(folder: Path, ds: Dataset, raw: bytes | None = None) -> Path:
    """Send the object through the intake; return the file as a pipeline gets it."""
    data = encode(ds)
    if raw is not None:
        raw += b" " * (len(raw) % 2)
        element = b"\x10\x00\x10\x00PN" + len(raw).to_bytes(2, "little") + raw
        at = data.index(b"\x10\x00\x10\x00PN")
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        data = data[:at] + element + data[at + 8 + length :]
    with store(folder / "data") as opened:
        opened.intake.accept(
            data,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=CT,
            sop_instance_uid=str(ds.SOPInstanceUID),
            source=source(),
        )
        assert opened.ledger.verify() == []
        (instance,) = opened.ledger.instances(str(ds.SeriesInstanceUID))
        assert instance.path.read_bytes().endswith(data)
        return instance.path


def derived(path: Path, folder: Path) -> Path:
    """Return a derived object of the same patient."""
    ds = new_file("1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT")
    copy_identity(read_dataset(path), ds)
    out = folder / "derived.dcm"
    ds.SeriesInstanceUID = "1.2.3.5"
    with tolerant():
        ds.save_as(out, implicit_vr=False, little_endian=True)
    return out


@pytest.mark.parametrize("name", DECLARED)
def test_a_name_reaches_the_derived_object_in_all_its_groups(tmp_path, name):
    charset, text = DECLARED[name]
    ds = ct()
    ds.SpecificCharacterSet, ds.PatientName = charset, text

    result = dcmread(derived(received(tmp_path, ds), tmp_path), force=True)

    assert result.SpecificCharacterSet == charset
    assert str(result.PatientName) == text


@pytest.mark.filterwarnings("ignore")  # pydicom's remarks about the wrong declaration
@pytest.mark.parametrize("name", MISDECLARED)
def test_a_wrong_declaration_stops_nothing_and_the_patient_id_stays(tmp_path, name):
    charset, raw = MISDECLARED[name]
    ds = ct()
    if charset is None:
        del ds.SpecificCharacterSet
    else:
        ds.SpecificCharacterSet = charset.split("\\")

    path = received(tmp_path, ds, raw)
    result = dcmread(derived(path, tmp_path), force=True)

    assert result.PatientID == "P1"
    assert result.StudyInstanceUID == ds.StudyInstanceUID
    assert len(str(result.PatientName)) <= 64 * 3


@pytest.mark.parametrize("keyword", ["PatientID", "StudyDescription", "AccessionNumber"])
def test_a_text_that_the_library_can_read_but_not_write_moves_the_object_to_utf_8(
    tmp_path, keyword
):
    """Letters beside katakana under ISO_IR 13: pydicom 3.0.2 writes question marks."""
    ds = ct()
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"
    setattr(ds, keyword, "REPLACE-ME-12")
    data = encode(ds).replace(b"REPLACE-ME-12", "ID-7 ﾔﾏﾀﾞﾀﾛ".encode("shift_jis").ljust(13))
    path = tmp_path / "image.dcm"
    path.write_bytes(prefix(sop_class_uid=CT, sop_instance_uid=str(ds.SOPInstanceUID),
                            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN) + data)  # fmt: skip

    result = dcmread(derived(path, tmp_path), force=True)

    assert result[keyword].value == "ID-7 ﾔﾏﾀﾞﾀﾛ"
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert str(result.PatientName) == "ﾔﾏﾀﾞ^ﾀﾛｳ"
