"""Names in any script, rightly and wrongly declared, through to RTSTRUCT, synthetic CT and SR.

A15: the patient's name leaves the node with the characters that it came with, in all its groups,
whatever character set they were written in; what we add in another script moves the object to
UTF-8. DCMTK reads the names independently; dciodvfy finds nothing wrong.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pipelines.api import Provenance
from pipelines.dicom import sr
from pipelines.dicom.ct_series import SeriesText, write_ct_series
from pipelines.dicom.header import copy_identity, new_file, save, stamp
from pipelines.dicom.read import tolerant
from pipelines.dicom.rtstruct_writer import Structure, write_structure_set
from pipelines.dicom.volume import CtVolume, read_volume
from tests import factories
from tests.conftest import program
from tests.faults.test_charsets import DECLARED, MISDECLARED

PROVENANCE = Provenance(
    pipeline="autocontour", version="0.1.0", settings_sha256="cd" * 32, sources=(("1.2.3", "x"),)
)
LABEL = "脊柱管"
"""What we write besides: in Japanese, which half of the character sets cannot hold."""
KINDS = ("rtstruct", "rtstruct with a label", "sct", "sr", "sr with a label")
OLDER_THAN_THE_STANDARD = "(0x0008,0x001c)"
"""Synthetic Data came into the standard after the installed dicom3tools."""


@dataclass(frozen=True)
class Sent:
    """What a scanner sent."""

    name: str
    charset: object
    raw: bytes | None = None
    """Bytes of the name, where they are of another character set than they say."""


def images(folder: Path, sent: Sent) -> list[Path]:
    """Write three slices with the patient's name as it was sent."""
    series = factories.ct_series()[:3]
    for ds in series:
        ds.PatientName = "PLACE^HOLDER"
        if sent.charset is None:
            del ds.SpecificCharacterSet
        else:
            ds.SpecificCharacterSet = sent.charset
        if sent.raw is None:
            ds.PatientName = sent.name
            ds.StudyDescription = described(sent.name)
    paths = factories.save(series, folder)
    if sent.raw is not None:
        for path in paths:
            path.write_bytes(with_name(path.read_bytes(), sent.raw))
    return paths


def described(name: str) -> str:
    """Return a Study Description in the script of a name."""
    return name.rsplit("=", maxsplit=1)[-1].replace("^", "")


def with_name(data: bytes, raw: bytes) -> bytes:
    """Return a file with other bytes as its Patient's Name."""
    raw += b" " * (len(raw) % 2)
    at = data.index(b"\x10\x00\x10\x00PN")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    element = b"\x10\x00\x10\x00PN" + len(raw).to_bytes(2, "little") + raw
    return data[:at] + element + data[at + 8 + length :]


def structures(source: CtVolume, path: Path, label: str = "") -> Path:
    body = Structure(
        number=1, name="External", field=source.hu > -300, interpreted_type="EXTERNAL",
        color=(0, 255, 0), label=label,
    )  # fmt: skip
    return write_structure_set(
        [body], source.headers, source.geometry, PROVENANCE, path
    ).object.path


def synthetic(source: CtVolume, folder: Path) -> Path:
    folder.mkdir()
    words = SeriesText(description="sCT", derivation="none", hu_curve_source=None)
    hu = source.hu.astype(np.float32)
    return write_ct_series(hu, source, words, PROVENANCE, folder)[0].path


def report(source: CtVolume, path: Path, label: str = "GTV") -> Path:
    header = source.headers[0]
    place = sr.Reference(
        sop_class_uid=str(header.SOPClassUID), sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
    )  # fmt: skip
    mean, gray = sr.Coded("373098007", "SCT", "Mean"), sr.Coded("Gy", "UCUM", "Gy")
    group = sr.Group(
        tracking_id=label, tracking_uid="1.2.6", finding=sr.Coded("113132", "DCM", "Single Roi"),
        site=None, roi_number=1, region=place, source=place, parameters=(),
        measurements=(sr.Measurement(concept=mean, value=1.5, unit=gray),),
    )  # fmt: skip
    content = sr.Report(
        groups=(group,), evidence=(place,), device_uid="1.2.7", device_name="node",
        manufacturer="rtnode", model="rtnode", algorithm="x", algorithm_version="1",
        private_schemes=(("99X", "test", "test"),),
    )  # fmt: skip
    ds = new_file(sr.sop_class_uid(content), "1.2.8", "SR")
    copy_identity(header, ds)
    ds.SeriesInstanceUID, ds.SeriesNumber = "1.2.9", 1
    stamp(ds, PROVENANCE)
    sr.fill(ds, content, ("20261121", "010000"))
    save(ds, path)
    return path


def results(folder: Path, sent: Sent) -> dict[str, Path]:
    """Return kind -> file of what is made from images of this sender."""
    with tolerant():
        source = read_volume(images(folder / "in", sent), check_scale=False)
        return {
            "rtstruct": structures(source, folder / "rs.dcm"),
            "rtstruct with a label": structures(source, folder / "rs-label.dcm", LABEL),
            "sct": synthetic(source, folder / "sct"),
            "sr": report(source, folder / "sr.dcm"),
            "sr with a label": report(source, folder / "sr-label.dcm", LABEL),
        }


def read_by_dcmtk(path: Path, tag: str) -> list[str]:
    """Return the values of an element, decoded by DCMTK where its iconv knows the character set."""
    command = [program("dcmdump"), "-q", "+P", tag]
    done = subprocess.run([*command, "+U8", path], capture_output=True, check=False, timeout=60)
    decode = by_hand
    if done.returncode == 0:
        decode = bytes.decode
    else:
        assert b"Cannot open character encoding" in done.stderr
        done = subprocess.run([*command, path], capture_output=True, check=True, timeout=60)
    return [decode(value) for value in re.findall(rb"\[(.*)\] ", done.stdout)]


def by_hand(value: bytes) -> str:
    """Decode ISO 2022 IR 13, 87 and 159 by Python's own codecs, group by group."""
    groups = value.split(b"=")
    return "=".join(g.decode("iso2022_jp_2" if b"\x1b" in g else "shift_jis") for g in groups)


def errors(path: Path) -> list[str]:
    """Return what the validator finds, without what only a newer edition knows."""
    done = subprocess.run(
        [program("dciodvfy"), path], capture_output=True, text=True, errors="replace", check=False,
        timeout=60,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    return [line for line in lines if OLDER_THAN_THE_STANDARD not in line]


def new_errors(path: Path, sent: Path) -> list[str]:
    """Return the errors of a result that the validator does not find in the sender's image too.

    It knows neither GBK nor the 8-bit half of ISO_IR 13, and bytes that were sent under a wrong
    declaration pass unchanged in the patient's name.
    """
    known = {line.split("<")[0] for line in errors(sent)}
    return [line for line in errors(path) if line.split("<")[0] not in known]


@pytest.mark.dcmtk
@pytest.mark.dciodvfy
@pytest.mark.parametrize("name", DECLARED)
def test_a_name_leaves_in_every_result_with_the_characters_it_came_with(tmp_path, name):
    charset, text = DECLARED[name]
    made = results(tmp_path, Sent(name=text, charset=charset))
    image = next((tmp_path / "in").iterdir())

    for kind, path in made.items():
        assert read_by_dcmtk(path, "PatientName") == [text], kind
        assert read_by_dcmtk(path, "StudyDescription") == [described(text)], kind
        assert new_errors(path, image) == [], kind
        with tolerant():
            assert str(dcmread(path).PatientName) == text, kind
    assert LABEL in read_by_dcmtk(made["rtstruct with a label"], "ROIObservationLabel")
    assert LABEL in read_by_dcmtk(made["sr with a label"], "TextValue")


@pytest.mark.dciodvfy
@pytest.mark.parametrize("name", MISDECLARED)
def test_a_wrong_declaration_still_gives_sound_results(tmp_path, name):
    charset, raw = MISDECLARED[name]
    split = charset if charset is None else charset.split("\\")
    made = results(tmp_path, Sent(name="", charset=split, raw=raw))
    image = next((tmp_path / "in").iterdir())

    for kind, path in made.items():
        assert new_errors(path, image) == [], kind
        with tolerant():
            ds = dcmread(path)
            assert ds.PatientID == factories.ct_series()[0].PatientID
            assert len(str(ds.PatientName)) <= 3 * 64
    labeled = dcmread(made["rtstruct with a label"])
    assert labeled.RTROIObservationsSequence[0].ROIObservationLabel == LABEL
