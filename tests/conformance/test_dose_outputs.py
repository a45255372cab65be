"""What goes out beside the SR, judged by others: validators, readers and an archive."""

import subprocess
import time
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from demo.archive import OrthancArchive
from demo.push import Peer, push
from pipelines.api import Role
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from tests.conftest import program
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    names_plan,
    plan,
    request,
    save,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)
NAMES = ["PTV 照射野", "左肺", "右肺"]
"""Structures as a Japanese planning system may name them."""
KINDS = {"SR": 0, "RTDOSE": 1, "SEG": 2, "DOC": 3, "OT": 4}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return all objects of one small case, whose patient's name is in ISO 2022 IR 87."""
    folder = tmp_path_factory.mktemp("outputs")
    shapes = [
        (NAMES[0], "PTV", cylinder(10, HEIGHTS)),
        (NAMES[1], "ORGAN", cylinder(6, HEIGHTS, x=-20)),
        (NAMES[2], "ORGAN", cylinder(6, HEIGHTS, x=20)),
    ]
    rs = structure_set(shapes)
    rs.SpecificCharacterSet = "ISO_IR 192"
    rp = plan(rs)
    rd = names_plan(dose(linear_z, bits=16, scaling=1e-3), rp)
    rd.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    rd.PatientName = "Yamada^Tarou=山田^太郎"
    rd.StudyID, rp.StudyID = "1", "1"
    files = [
        (Role.RTDOSE, save(rd, folder / "rd.dcm")),
        (Role.RTSTRUCT, save(rs, folder / "rs.dcm")),
        (Role.RTPLAN, save(rp, folder / "rp.dcm")),
    ]
    settings = DoseRadiomicsSettings(
        families=("statistics",),
        derived=("'左肺' - 'PTV 照射野'",),
        dvh_object=True,
        segmentation=True,
        report_pdf=True,
        report_image=True,
    )
    outcome = run(request(folder, files, settings))
    assert [o.modality for o in outcome.objects] == list(KINDS)
    return outcome.objects


@pytest.mark.dciodvfy
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error_in_any_output(objects, kind):
    path = objects[KINDS[kind]].path

    checked = subprocess.run(
        [program("dciodvfy"), path], capture_output=True, text=True, check=False, timeout=60,
        errors="replace",
    )  # fmt: skip

    assert checked.returncode == 0
    assert "Error" not in checked.stderr + checked.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_patient_keeps_the_name_in_every_output(objects, kind):
    ds = pydicom.dcmread(objects[KINDS[kind]].path)

    assert str(ds.PatientName) == "Yamada^Tarou=山田^太郎"


@pytest.mark.dcmtk
@pytest.mark.parametrize(("tool", "options"), [("dsrdump", []), ("dsr2html", ["+U8"])])
def test_dcmtk_shows_names_in_their_own_script(objects, tool, options):
    read = subprocess.run(
        [program(tool), *options, objects[0].path], capture_output=True, check=False, timeout=60
    )

    assert read.returncode == 0
    shown = read.stdout.decode("utf-8")
    assert all(name in shown for name in NAMES)
    assert "Yamada" in shown
    # DCMTK 3.6.7 remarks that its own check of lengths does not know UTF-8; nothing else
    assert all("VR checker does not support" in line for line in read.stderr.decode().splitlines()
               if line.strip())  # fmt: skip


def test_highdicom_reads_names_and_values_of_the_report(objects):
    groups = hd.sr.srread(objects[0].path).content.get_volumetric_roi_measurement_groups()

    tracking = [
        next(i.TextValue for i in g[0].ContentSequence
             if i.ConceptNameCodeSequence[0].CodeValue == "112039")
        for g in groups
    ]  # fmt: skip
    assert tracking == [*NAMES, "'左肺' - 'PTV 照射野'"]


def test_highdicom_reads_the_masks_with_the_volume_of_the_contours(objects):
    seg = hd.seg.segread(objects[2].path)

    assert [s.SegmentLabel for s in seg.SegmentSequence][:3] == NAMES
    volume = seg.get_volume(combine_segments=False)
    assert volume.spacing == (2.0, 2.0, 2.0)
    cc = volume.array.sum(axis=(0, 1, 2)) * 8 / 1000
    truth = [np.pi * r**2 * 20 / 1000 for r in (10, 6, 6)]
    # the end caps half cover the last voxels: those at their rim fall out at the threshold
    assert cc[:3] == pytest.approx(truth, rel=0.07)
    # the middle of the first cylinder is the origin of the patient
    index = np.argwhere(volume.array[..., 0]).mean(axis=0)
    place = volume.affine @ [*index, 1]
    assert place[:3] == pytest.approx([0, 0, 0], abs=1e-6)


def test_masks_and_report_follow_a_region_by_one_uid(objects):
    seg = pydicom.dcmread(objects[2].path)
    sr = pydicom.dcmread(objects[0].path)

    groups = sr.ContentSequence[-1].ContentSequence
    assert [s.TrackingUID for s in seg.SegmentSequence] == [
        g.ContentSequence[1].UID for g in groups
    ]


@pytest.mark.dcmtk
def test_the_document_is_a_pdf_that_names_no_patient(objects, tmp_path):
    extracted = tmp_path / "report.pdf"
    subprocess.run([program("dcm2pdf"), objects[3].path, extracted], check=True, timeout=60)

    read = subprocess.run([program("pdftotext"), "-layout", extracted, "-"], capture_output=True,
                          text=True, check=True, timeout=60).stdout  # fmt: skip
    assert "Unapproved draft" in read
    assert "Statistical Mean" in read
    assert not any(word in read for word in ("Yamada", "山田", "DOSE-1"))


@pytest.mark.orthanc
def test_an_archive_takes_every_output_and_returns_the_same_data(objects, tmp_path):
    archive = OrthancArchive(program("Orthanc"), tmp_path / "orthanc")
    try:
        peer = Peer(host="127.0.0.1", port=archive.port, called=archive.ae_title, calling="T")
        sent = push([made.path for made in objects], peer)
        assert [s.status for s in sent] == [0] * len(objects)
        deadline = time.monotonic() + 60
        fetched: list[Path] = []
        while len(fetched) < len(objects) and time.monotonic() < deadline:
            fetched = list(archive.fetch(tmp_path / f"received{time.monotonic_ns()}"))
    finally:
        archive.stop()

    back = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, fetched)}
    for made in objects:
        assert back[made.sop_instance_uid] == pydicom.dcmread(made.path)
