"""Image radiomics end to end: IBSI-1 from DICOM, a real thorax, a real MR, and the SR's readers."""

import csv
import subprocess

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pipelines.api import InputFile, Inputs, Role
from pipelines.image_radiomics.evaluate import Evaluator
from pipelines.image_radiomics.inputs import read_case
from pipelines.image_radiomics.pipeline import run
from pipelines.image_radiomics.settings import ImageRadiomicsSettings, Processing
from pipelines.radiomics.families import DEFAULT
from pipelines.radiomics.filter_settings import LaplacianOfGaussian
from tests.conformance.ibsi_reference import VALUES, agrees
from tests.conftest import program
from tests.unit.pipelines.dose_radiomics.support import circle, save, square, structure_set
from tests.unit.pipelines.image_radiomics.image_kit import (
    names_images,
    request,
    request_of,
    series,
)

HU = {"rounded": True, "mask": "voxels"}
CONFIGURATIONS = {
    "c": Processing(**HU, range=(-1000.0, 400.0), bin_size=25.0, ivh_step=2.5),
    "d": Processing(**HU, outlier_sigma=3.0, bin_number=32, ivh_step=1.0),
    "e": Processing(
        **HU, interpolation="cubic", range=(-1000.0, 400.0), outlier_sigma=3.0, bin_number=32
    ),
}
"""Of the IBSI manual, table 5.1, in the words of our settings."""


@pytest.fixture(scope="module")
def phantom(devpack):
    """Return the CT radiomics phantom of IBSI, read from its DICOM images and structure set."""
    folder = devpack / "dev_ibsi1" / "ibsi_1_ct_radiomics_phantom" / "dicom"
    files = [
        InputFile(role=role, path=path, sop_instance_uid=path.name, sha256="")
        for role, name in ((Role.IMAGE, "image"), (Role.RTSTRUCT, "mask"))
        for path in (folder / name).glob("*.dcm")
    ]
    return read_case(Inputs(files=tuple(files)))


@pytest.mark.devpack
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_all_210_values_agree_with_the_consensus_from_dicom(devpack, phantom, name):
    settings = ImageRadiomicsSettings(
        rois=("*",), ct=CONFIGURATIONS[name], families=(*DEFAULT, "autocorrelation")
    )
    table = devpack / "dev_ibsi1" / "reference_values_csv_mirp" / f"ibsi_1_chest_config_{name}.csv"
    with table.open(newline="") as file:
        published = {row[2]: (row[0], row[1]) for row in csv.reader(file, delimiter=";")}

    (result,) = Evaluator(phantom, settings).run()

    found = {"": result.features.values, "merged": result.features.values,
             "averaged": result.features.averaged}  # fmt: skip
    wrong = []
    for tag, code, how, _, _ in VALUES:
        reference, tolerance = (float(v) for v in published[tag])
        if not agrees(found[how][code], reference, tolerance):
            wrong.append((tag, found[how][code], reference, tolerance))
    assert len(VALUES) == 210
    assert not wrong


@pytest.mark.devpack
def test_the_gtv_of_the_real_thorax_has_its_features(devpack, tmp_path):
    folder = devpack / "dev_lung1_001_thorax"
    files = [
        (role, path, dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for role, name in ((Role.IMAGE, "CT"), (Role.RTSTRUCT, "RTSTRUCT"))
        for path in sorted((folder / name).glob("*.dcm"))
    ]
    settings = ImageRadiomicsSettings(
        filters=(LaplacianOfGaussian(sigma_mm=3.0),), rois=("GTV*", "Lung-Left")
    )

    outcome = run(request_of(tmp_path, files, settings))

    gtv = outcome.figures["rois"]["GTV-1"]
    assert gtv["volume_cc"] == pytest.approx(156.35, abs=0.01)
    assert gtv["features"] == 168
    assert gtv["responses"] == 1
    report = hd.sr.srread(outcome.objects[0].path)
    groups = report.content.get_planar_roi_measurement_groups()
    groups += report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 4
    with (tmp_path / "out" / "report" / "features.csv").open(newline="") as file:
        mean = {
            row["region"]: float(row["value"])
            for row in csv.DictReader(file)
            if row["code"] == "Q4LE" and not row["filter"]
        }
    assert -100 < mean["GTV-1"] < 60  # a solid tumor with some lung about it
    assert -900 < mean["Lung-Left"] < -600


@pytest.mark.devpack
def test_a_real_mr_with_a_structure_set_has_its_features(devpack, tmp_path):
    """The pack has no structures on its MR: a cylinder is drawn on it here, in its planes."""
    paths = sorted((devpack / "dev_mr_prostatex_t2" / "Prostatex-0000" / "t2_tse_tra").glob("*"))
    images = [dcmread(path) for path in paths]
    images.sort(key=lambda ds: float(ds.InstanceNumber))
    loops = []
    for ds in images[6:12]:
        row, column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        spacing = [float(v) for v in ds.PixelSpacing]
        middle = np.array(ds.ImagePositionPatient, float)
        middle = middle + row * spacing[1] * ds.Columns / 2 + column * spacing[0] * ds.Rows / 2
        around = circle(15.0, 0, 0, 0, count=90)[:, :2]
        loops.append(("CLOSED_PLANAR", middle + around @ np.stack([row, column])))
    structures = structure_set([("GTV prostate", "GTV", loops)])
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(structures, keyword, images[0].get(keyword))
    structures.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = images[
        0
    ].FrameOfReferenceUID
    for roi in structures.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = images[0].FrameOfReferenceUID
    names_images(structures, images)
    files = [(Role.RTSTRUCT, save(structures, tmp_path / "rs.dcm"), structures.SOPInstanceUID)]
    files += [(Role.IMAGE, p, dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in paths]

    outcome = run(request_of(tmp_path, files, ImageRadiomicsSettings()))

    found = outcome.figures["rois"]["GTV prostate"]
    assert outcome.figures["modality"] == "MR"
    assert found["volume_cc"] == pytest.approx(np.pi * 15**2 * 18 / 1000, rel=0.01)
    assert found["voxels"] == pytest.approx(found["volume_cc"] * 1000, rel=0.03)
    assert found["features"] == 168


@pytest.fixture(scope="module")
def small_report(tmp_path_factory):
    """Return the SR of a generated CT with two regions and a response map."""
    folder = tmp_path_factory.mktemp("image-sr")

    def value(points):
        inside = np.abs(points[..., 1]) < 26
        wave = 40 + 2 * points[..., 0] + 3 * points[..., 2] * np.cos(points[..., 1])
        return np.where(inside, wave, -1000)

    loops = [("CLOSED_PLANAR", square(-12, 12, z)) for z in np.arange(-10.5, 11, 3)]
    structures = structure_set([("GTV", "GTV", loops), ("PTV", "PTV", loops)])
    settings = ImageRadiomicsSettings(filters=(LaplacianOfGaussian(sigma_mm=3.0),))
    return run(request(folder, series(value), structures, settings)).objects[0].path


@pytest.mark.dciodvfy
def test_dciodvfy_finds_no_error_in_the_report(small_report):
    done = subprocess.run([program("dciodvfy"), "-new", str(small_report)], capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip

    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert errors == []


@pytest.mark.dcmtk
@pytest.mark.parametrize(("reader", "unit"), [("dsrdump", "Hounsfield unit"), ("dsr2html", "hnsf")])
def test_dcmtk_reads_the_report(small_report, reader, unit):
    done = subprocess.run([program(reader), str(small_report)], capture_output=True, timeout=60,
                          text=True, check=False)  # fmt: skip

    assert done.returncode == 0
    assert unit in done.stdout
    assert "LoG 3 mm" in done.stdout
