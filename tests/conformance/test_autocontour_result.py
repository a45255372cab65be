"""The pipeline as a whole: on the procedural patient, on real thorax data, on what it refuses."""

import hashlib
import json
import subprocess

import numpy as np
import pydicom
import pytest

from demo import dicom
from demo.grid import Grid
from models.phantom import thorax
from pipelines.api import (
    InputFile,
    InputRejected,
    Inputs,
    Provenance,
    Request,
    Role,
    settings_sha256,
)
from pipelines.autocontour.pipeline import run
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.volume import read_volume
from pipelines.geometry.polygons import rasterise
from tests import factories
from tests.conftest import program

SPACING = (3.0, 3.0, 3.0)


def request(paths, output, **settings):
    """Return a request over CT files as the node would make it."""
    files = []
    for path in paths:
        uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(InputFile(role=Role.CT, path=path, sop_instance_uid=uid, sha256=sha))
    chosen = AutocontourSettings(**settings)
    output.mkdir()
    return Request(
        inputs=Inputs(files=tuple(files)),
        settings=chosen,
        provenance=Provenance(
            pipeline="autocontour",
            version="0.1.0",
            settings_sha256=settings_sha256(chosen),
            sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in files)),
        ),
        output=output,
    )


def saved(datasets, folder):
    folder.mkdir()
    for k, ds in enumerate(datasets):
        ds.save_as(folder / f"{k:03}.dcm", enforce_file_format=True)
    return list(folder.iterdir())


@pytest.fixture(scope="module")
def patient():
    return thorax((84, 96, 128), SPACING, 2, center=(0.0, 0.0, 18.0))


@pytest.fixture(scope="module")
def ct(patient, tmp_path_factory):
    grid = Grid(shape=patient.hu.shape, spacing=SPACING, origin=patient.origin)
    datasets = dicom.ct_series(factories.CASE, patient.hu, grid)
    for ds in datasets:
        ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    return saved(datasets, tmp_path_factory.mktemp("phantom") / "ct")


@pytest.fixture(scope="module")
def outcome(ct, tmp_path_factory):
    return run(request(ct, tmp_path_factory.mktemp("result") / "out"))


def masks(path, ct_paths):
    """Return the masks in a structure set, on the grid of the CT."""
    volume = read_volume(ct_paths)
    slices = {str(h.SOPInstanceUID): k for k, h in enumerate(volume.headers)}
    found = {}
    for roi in read_structure_set(path).rois:
        mask = np.zeros(volume.geometry.shape, np.bool_)
        for k in range(len(mask)):
            loops = [
                volume.geometry.indices(loop.points)[:, 1:]
                for loop in roi.closed
                if slices[loop.image_uid] == k
            ]
            mask[k] = rasterise(loops, mask.shape[1:])
        found[roi.name] = mask
    return found


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_the_file_holds_every_structure_of_the_procedural_patient(outcome, ct, patient):
    found = masks(outcome.objects[0].path, ct)

    assert list(found) == ["External", "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal"]
    for name, least in (("External", 0.985), ("Lung_L", 0.95), ("Lung_R", 0.95), ("Bones", 0.85)):
        assert dice(found[name], patient.labels[name]) >= least
    rois = outcome.figures["rois"]
    for name, mask in found.items():
        assert rois[name]["volume_cc"] == pytest.approx(mask.sum() * 0.027, abs=0.01)
        assert rois[name]["round_trip_dice"] == 1.0


def test_the_patients_name_arrives_and_the_report_does_not_hold_it(outcome):
    path = outcome.objects[0].path
    report = path.parent / "report"

    assert str(pydicom.dcmread(path).PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert json.loads((report / "report.json").read_text())["figures"] == outcome.figures
    for file in report.iterdir():
        assert b"Yamada" not in file.read_bytes()
        assert factories.CASE.patient_id.encode() not in file.read_bytes()


def test_the_order_of_the_files_changes_nothing_and_a_second_run_gives_the_same_bytes(
    outcome, ct, tmp_path
):
    again = run(request(sorted(ct, reverse=True), tmp_path / "out"))

    assert again.objects[0].path.read_bytes() == outcome.objects[0].path.read_bytes()
    assert again.objects[0].sop_instance_uid == outcome.objects[0].sop_instance_uid


def test_only_the_structures_asked_for_are_written(ct, tmp_path):
    outcome = run(request(ct, tmp_path / "out", structures=("Lungs", "External")))

    assert list(outcome.figures["rois"]) == ["External", "Lungs"]


def test_lungs_that_the_scan_cuts_are_named_as_parts(patient, tmp_path):
    part = slice(30, 50)
    grid = Grid(shape=patient.hu[part].shape, spacing=SPACING, origin=patient.origin)
    ct = saved(dicom.ct_series(factories.CASE, patient.hu[part], grid), tmp_path / "ct")

    outcome = run(request(ct, tmp_path / "out"))

    assert {"Lung~_L", "Lung~_R", "Lungs~"} <= set(outcome.figures["rois"])
    assert "roi-cut-by-image" in {f.code for f in outcome.findings}


def test_what_is_not_there_is_left_out_with_its_reason(tmp_path):
    """A block of water: an outline, and no organ."""
    hu = np.full((20, 48, 64), -1000.0, np.float32)
    hu[:, 8:40, 10:54] = 0
    grid = Grid(shape=hu.shape, spacing=(4.0, 4.0, 4.0), origin=(-120, -90, 0))
    ct = saved(dicom.ct_series(factories.CASE, hu, grid), tmp_path / "ct")

    outcome = run(request(ct, tmp_path / "out"))

    assert list(outcome.figures["rois"]) == ["External"]
    assert {f.roi for f in outcome.findings} == {
        "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal"}  # fmt: skip


@pytest.mark.parametrize("case", ["cbct", "gap", "air", "mr"])
def test_wrong_input_is_refused_and_nothing_is_written(case, tmp_path):
    datasets = factories.cbct_series() if case == "cbct" else factories.ct_series()
    if case == "gap":
        datasets = factories.without(datasets, 4)
    for ds in datasets:
        if case == "air":
            ds.PixelData = bytes(len(ds.PixelData))
        if case == "mr":
            ds.Modality = "MR"
    ct = saved(datasets, tmp_path / "in")

    with pytest.raises(InputRejected):
        run(request(ct, tmp_path / "out"))

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.dciodvfy
def test_the_validator_finds_no_error_in_the_result(outcome):
    result = subprocess.run(
        [program("dciodvfy"), outcome.objects[0].path], capture_output=True, text=True, check=False
    )

    assert [line for line in result.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.devpack
@pytest.mark.slow
def test_the_lungs_of_the_real_thorax_agree_with_its_clinical_contours(devpack, tmp_path):
    case = devpack / "dev_lung1_001_thorax"
    ct = sorted((case / "CT").iterdir())

    outcome = run(request(ct, tmp_path / "out"))

    ours = masks(outcome.objects[0].path, ct)
    theirs = masks(next((case / "RTSTRUCT").iterdir()), ct)
    assert dice(ours["Lung_L"], theirs["Lung-Left"]) >= 0.97
    assert dice(ours["Lung_R"], theirs["Lung-Right"]) >= 0.97
    assert not (theirs["Spinal-Cord"] & ~ours["External"]).any()
    inside = np.count_nonzero(theirs["Spinal-Cord"] & ours["SpinalCanal"])
    assert inside / np.count_nonzero(theirs["Spinal-Cord"]) >= 0.9
    for line in subprocess.run(
        [program("dciodvfy"), outcome.objects[0].path], capture_output=True, text=True, check=False
    ).stderr.splitlines():
        assert not line.startswith("Error"), line


@pytest.mark.devpack
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("dev_odd_dicom/dicom2nifti_failing/gantrytilting", "gantry tilt"),
        ("dev_odd_dicom/dicom2nifti_failing/notavolume", "share a position"),
        ("dev_odd_dicom/dicom2nifti_failing/sliceincrement", "2 series"),
        ("dev_obi_cbct_catphan_pelvis/incomplete_26_slices_with_gaps", "missing between"),
        ("dev_mr_prostatex_t2", "not a CT"),
    ],
    ids=["tilt", "duplicates", "two-series", "gaps", "mr"],
)
def test_odd_series_of_real_scanners_are_refused_with_the_reason(folder, words, devpack):
    paths = [
        p
        for p in (devpack / folder).rglob("*")
        if p.is_file() and p.read_bytes()[128:132] == b"DICM"
    ]

    with pytest.raises(InputRejected, match=words):
        read_volume(paths)
