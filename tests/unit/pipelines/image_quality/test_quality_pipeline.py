"""A CT with less noise, or with thinner slices: same place, same means, or a clear refusal."""

import json
import subprocess
from dataclasses import asdict

import numpy as np
import pydicom
import pytest
from safetensors.torch import save_file

from demo import dicom
from demo.grid import centered_grid
from models.quality_net import QualityNet
from models.training.loop import RECORD, WEIGHTS
from models.training.quality import CONFIGS
from models.training.quality_pack import build_pack
from models.training.sct_pack import Description
from models.training.sct_tasks import Recipe
from node import worker
from pipelines.api import InputRejected, ModelUnavailable, Severity
from pipelines.dicom.volume import read_volume
from pipelines.image_quality.classical import averages
from tests.conformance.test_ct_series import OLDER_THAN_THE_STANDARD
from tests.conftest import program
from tests.unit.pipelines.image_quality import quality_support as support

BODY = support.truth() > -300


def _hu(outcome):
    return np.asarray(read_volume([o.path for o in outcome.objects]).hu, np.float32)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return support.run_on(tmp_path_factory.mktemp("quiet"), support.series())


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    return support.run_on(
        tmp_path_factory.mktemp("thin"), support.series(), task="super_resolution", slice_mm=2.0
    )


def test_noise_falls_and_the_image_comes_nearer_to_the_truth(quiet):
    before = np.abs(support.noisy() - support.truth())[BODY].mean()
    after = np.abs(_hu(quiet) - support.truth())[BODY].mean()

    assert after < 0.85 * before
    assert quiet.figures["verdict"] == "PASS"
    sd = {name: row["sd_hu"] for name, row in quiet.figures["noise_power"].items()}
    assert sd["after"] < 0.75 * sd["before"]


def test_no_voxel_changes_by_more_than_the_setting_allows(tmp_path):
    outcome = support.run_on(tmp_path, support.series(), max_change_hu=7.0)

    source = np.rint(support.noisy())
    assert np.abs(_hu(outcome) - np.clip(source, -1024, 3071)).max() <= 7.6


def test_half_the_strength_leaves_more_noise(tmp_path, quiet):
    half = support.run_on(tmp_path, support.series(), strength=0.5)

    left = [o.figures["noise_power"]["after"]["sd_hu"] for o in (quiet, half)]
    assert left[1] > left[0] + 1


def test_the_grid_is_kept_digit_by_digit(quiet):
    source = {str(ds.SOPInstanceUID): ds for ds in support.series()}

    for item in quiet.objects:
        ds = pydicom.dcmread(item.path)
        origin = source[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert [str(v) for v in ds[keyword].value] == [str(v) for v in origin[keyword].value]
        assert ds.FrameOfReferenceUID == origin.FrameOfReferenceUID


def test_the_series_says_what_was_done_and_by_which_model(quiet, thin):
    one, two = (pydicom.dcmread(o.objects[0].path) for o in (quiet, thin))

    assert one.SeriesDescription == "NR classical PASS UNAPPROVED"
    assert two.SeriesDescription == "SR x2 classical PASS UNAPPROVED"
    assert list(one.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert (one.SyntheticData, two.SyntheticData) == ("NO", "YES")
    assert "average to the source slice" in two.DerivationDescription
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert one.KVP == support.series()[0].KVP


def test_thin_slices_average_to_the_thick_ones(thin):
    source = np.clip(np.rint(support.noisy()), -1024, 3071)

    assert _hu(thin).shape == (20, 150, 210)
    assert np.abs(averages(_hu(thin), 2) - source).max() <= 0.51


@pytest.mark.parametrize(("position", "tilt_deg"), [("HFS", 15.0), ("FFS", 0.0), ("HFDL", 0.0)])
def test_thin_slices_lie_inside_the_thick_ones_in_every_position(tmp_path, position, tilt_deg):
    grid = centered_grid(support.SHAPE, support.SPACING, position=position, tilt_deg=tilt_deg)
    outcome = support.run_on(
        tmp_path,
        support.series(grid=grid, position=position),
        task="super_resolution",
        slice_mm=1.4,
    )
    thick = read_volume(sorted((tmp_path / "in").rglob("*.dcm"))).geometry
    made = read_volume([o.path for o in outcome.objects]).geometry

    assert made.shape[0] == 3 * thick.shape[0]
    assert made.spacing[0] == pytest.approx(thick.spacing[0] / 3, abs=1e-6)
    assert made.origins.reshape(-1, 3, 3).mean(axis=1) == pytest.approx(thick.origins, abs=1e-6)
    for item in outcome.objects[:3]:
        assert float(pydicom.dcmread(item.path).SliceThickness) == pytest.approx(4 / 3, abs=1e-6)


def test_the_order_of_the_files_changes_nothing(tmp_path, thin):
    again = support.run_on(tmp_path, support.series()[::-1], task="super_resolution", slice_mm=2.0)

    assert [o.path.read_bytes() for o in again.objects] == [
        o.path.read_bytes() for o in thin.objects
    ]


def test_slices_that_are_fine_enough_are_left_alone(tmp_path):
    outcome = support.run_on(tmp_path, support.series(), task="super_resolution", slice_mm=4.0)

    assert outcome.objects == ()
    assert [(f.code, f.severity) for f in outcome.findings] == [
        ("slices-fine-enough", Severity.INFO)
    ]


def test_slices_that_overlap_are_told(tmp_path):
    datasets = support.series()
    for ds in datasets:
        ds.SliceThickness = "8"

    outcome = support.run_on(tmp_path, datasets, task="super_resolution", slice_mm=2.0)

    assert "slices-not-side-by-side" in {f.code for f in outcome.findings}
    description = pydicom.dcmread(outcome.objects[0].path).SeriesDescription
    assert description == "SR x2 classical WARN UNAPPROVED"


def test_the_report_holds_numbers_and_pictures(quiet):
    report = quiet.objects[0].path.parent / "report"

    document = json.loads((report / "report.json").read_text())

    assert document["figures"]["gates"]["edges-kept"]["verdict"] == "PASS"
    assert {p.name for p in report.iterdir()} >= {"change.png", "curves.png", "report.html"}


@pytest.mark.dciodvfy
def test_every_slice_is_valid_dicom(quiet, thin):
    dciodvfy = program("dciodvfy")
    for item in (*quiet.objects[::6], *thin.objects[::9]):
        done = subprocess.run([dciodvfy, item.path], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if OLDER_THAN_THE_STANDARD not in line]
        assert [line for line in lines if line.startswith("Error")] == []


def test_a_network_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(ModelUnavailable, match="no model pack"):
        support.run_on(tmp_path, support.series(), method="network", model_pack="not-there")


def _mr(datasets):
    for ds in datasets:
        ds.Modality = "MR"
    return datasets


def _gap(datasets):
    return [ds for k, ds in enumerate(datasets) if k != 5]


def _tilted(datasets):
    """Return images whose planes lean while the table moves straight on."""
    for k, ds in enumerate(datasets):
        x, y, z = (float(v) for v in ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x, y + 0.9 * k, z]
    return datasets


def _uneven(datasets):
    for k, ds in enumerate(datasets):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, float(z) + (0.3 * (k - 5) if k > 5 else 0.0)]
    return datasets


def _tiny(_):
    return support.series(np.full((12, 1, 1), -500.0, np.float32))


def _color(datasets):
    for ds in datasets:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = b"\0" * (3 * ds.Rows * ds.Columns)
    return datasets


def _air(datasets):
    return support.series(np.full(support.SHAPE, -1000.0, np.float32))


HOSTILE = {
    "modality MR": _mr,
    "missing": _gap,
    "tilt": _tilted,
    "unevenly": _uneven,
    "only one slice": lambda d: d[:1],
    "1 x 1": _tiny,
    "gray value|decoded": _color,
    "no body": _air,
}


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("task", ["noise_reduction", "super_resolution"])
def test_hostile_input_ends_in_a_clear_refusal(tmp_path, words, task):
    with pytest.raises(InputRejected, match=words):
        support.run_on(tmp_path, HOSTILE[words](support.series()), task=task)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Return a pack for each task whose network changes nothing: no training, the same head."""
    made = {}
    for task, config in CONFIGS.items():
        run = tmp_path_factory.mktemp(task)
        net = QualityNet(config)
        save_file(dict(net.state_dict()), run / WEIGHTS)
        record = {"task": task, "network": asdict(config), "recipe": asdict(Recipe()), "images": 0}
        (run / RECORD).write_text(json.dumps(record | {"steps": 0, "minutes": 0.0}))
        described = Description(
            id="still", version="1.0.0", title="Changes nothing", body_region="-", data=()
        )
        made[task] = build_pack(run, run / "pack", described, {})
    return made


def test_a_network_runs_only_where_it_is_asked_for_and_every_image_says_so(tmp_path, packs):
    outcome = support.run_on(
        tmp_path,
        support.series(),
        task="super_resolution",
        slice_mm=2.0,
        method="network",
        model_pack=str(packs["super-resolution"]),
    )

    ds = pydicom.dcmread(outcome.objects[0].path)
    assert outcome.figures["method"] == "network"
    assert ds.SeriesDescription == "SR x2 still 1.0.0 WARN UNAPPROVED"
    assert "model still 1.0.0 sha256" in ds.DerivationDescription
    assert "still 1.0.0" in ds.ContributingEquipmentSequence[0].ContributionDescription
    assert "network-not-validated" in {f.code for f in outcome.findings}


def test_slices_that_the_network_does_not_know_are_left_to_the_classical_method(tmp_path, packs):
    outcome = support.run_on(
        tmp_path,
        support.series(),
        task="super_resolution",
        slice_mm=1.0,
        method="network",
        model_pack=str(packs["super-resolution"]),
    )

    assert outcome.figures["method"] == "classical"
    (told,) = [f for f in outcome.findings if f.code == "outside-contract"]
    assert "it makes 2 slices of one, 4 are wanted" in told.message


def test_a_pack_for_the_other_task_is_refused(tmp_path, packs):
    with pytest.raises(ModelUnavailable, match="is a pack for super-resolution"):
        support.run_on(
            tmp_path,
            support.series(),
            method="network",
            model_pack=str(packs["super-resolution"]),
        )


@pytest.mark.parametrize("kind", ["CT", "CBCT"])
def test_the_worker_takes_a_ct_or_a_cbct_out_of_a_folder(tmp_path, kind):
    """`rtnode process`: selection, pipeline, provenance and files as in the node."""
    device = {"CT": dicom.PLANNING_CT, "CBCT": dicom.VARIAN_CBCT}[kind]
    (tmp_path / "in").mkdir()
    grid = centered_grid(support.SHAPE, support.SPACING)
    dicom.save(dicom.ct_series(support.CASE, support.noisy(), grid, device=device), tmp_path / "in")

    code = worker.process_folder(
        "image_quality", tmp_path / "in", tmp_path / "out", {"task": "super_resolution"}
    )

    made = read_volume(sorted((tmp_path / "out").glob("*.dcm")))
    source = read_volume(sorted((tmp_path / "in").rglob("*.dcm")))
    assert code == 0
    assert made.geometry.shape[0] == 3 * source.geometry.shape[0]
    assert made.frame_of_reference_uid == source.frame_of_reference_uid
    assert np.abs(averages(np.asarray(made.hu, np.float32), 3) - source.hu).max() < 0.6
