"""Features of CT and MR inside structures: closed-form values, settings, refusals, one result."""

import csv
import json

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import dcmread

from pipelines.api import InputRejected
from pipelines.dicom.sr import read_back
from pipelines.image_radiomics.pipeline import run
from pipelines.image_radiomics.settings import ImageRadiomicsSettings, Processing
from pipelines.radiomics.filter_settings import LaplacianOfGaussian, Mean, Wavelet
from tests.unit.pipelines.dose_radiomics.support import square, structure_set
from tests.unit.pipelines.image_radiomics.image_kit import OBLIQUE, request, series

HEIGHTS = np.arange(-10.5, 11, 3.0)
"""Of contours: a box from z = -12 to 12 mm."""


def ramp(points):
    """Return 40 HU at the origin, 2 HU/mm along x, 3 along z; air outside 26 mm in y."""
    inside = np.abs(points[..., 1]) < 26
    return np.where(inside, 40 + 2 * points[..., 0] + 3 * points[..., 2], -1000)


def box(name="GTV", kind="GTV", low=-15.0, high=15.0):
    return (name, kind, [("CLOSED_PLANAR", square(low, high, z)) for z in HEIGHTS])


def values(outcome, *, filtered=""):
    folder = outcome.objects[0].path.parent / "report"
    with (folder / "features.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["filter"] == filtered]
    return {row["code"]: float(row["value"]) for row in rows if row["aggregation"] != "3D averaged"}


def test_a_box_in_a_ramp_has_the_values_of_the_formulas(tmp_path):
    """Mean 40; variance of a uniform ramp in x (30 mm) and in z (24 mm) on 2 mm voxels."""
    outcome = run(request(tmp_path, series(ramp), structure_set([box()])))

    found = values(outcome)

    assert found["YEKZ"] == pytest.approx(30 * 30 * 24, rel=0.07)
    assert found["Q4LE"] == pytest.approx(40, abs=3.1)
    assert found["ECT3"] == pytest.approx(4 * 30**2 / 12 + 9 * 24**2 / 12, rel=0.07)
    assert found["1PR8"] == np.floor((found["1GSF"] + 1000) / 25) + 1
    assert outcome.figures["rois"]["GTV"]["volume_cc"] == pytest.approx(21.6)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE], ids=["axial", "oblique"])
def test_the_mask_follows_the_patient_wherever_the_image_lies(tmp_path, orientation):
    """A slab that is bright in patient coordinates, contoured in the planes of the image."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    origin = -33.0 * row - 30.0 * column - 22.5 * normal

    def bright(points):
        inside = np.all(
            [np.abs(points @ axis) < half for axis, half in ((row, 12), (column, 9), (normal, 12))],
            axis=0,
        )
        return np.where(inside, 1000.0, -900.0)

    corners = [(-10, -7), (10, -7), (10, 7), (-10, 7)]
    loops = [
        ("CLOSED_PLANAR", np.array([x * row + y * column + (k * 3 - 22.5) * normal
                                    for x, y in corners]))
        for k in range(5, 11)
    ]  # fmt: skip
    images = series(bright, orientation=orientation, first=origin)
    settings = ImageRadiomicsSettings(ct=Processing(resample_mm=1.0, bin_size=25.0))

    found = values(run(request(tmp_path, images, structure_set([("GTV", "GTV", loops)]), settings)))

    # 6 planes of 3 mm reach 1.5 mm beyond the last contours: still within the bright slab
    assert found["YEKZ"] == pytest.approx(20 * 14 * 18, rel=0.02)
    assert found["Y12H"] == 1000
    assert found["QG58"] == 1000


def test_the_page_goes_out_as_pdf_and_image_when_the_route_says_so(tmp_path):
    settings = ImageRadiomicsSettings(report_pdf=True, report_image=True)

    outcome = run(request(tmp_path, series(ramp), structure_set([box()]), settings))

    classes = [dcmread(o.path).SOPClassUID.name for o in outcome.objects]
    assert classes == [
        "Comprehensive SR Storage", "Encapsulated PDF Storage", "Secondary Capture Image Storage"
    ]  # fmt: skip
    assert (tmp_path / "out" / "report" / "report.png").exists()


def test_resegmentation_leaves_the_shape_and_cuts_the_intensities(tmp_path):
    ct = Processing(rounded=True, range=(20.0, 60.0), bin_size=5.0)
    outcome = run(request(tmp_path, series(ramp), structure_set([box()]),
                          ImageRadiomicsSettings(ct=ct)))  # fmt: skip

    found = values(outcome)

    assert found["YEKZ"] == pytest.approx(30 * 30 * 24, rel=0.07)
    assert found["1GSF"] >= 20
    assert found["84IY"] <= 60
    assert found["3NCY"] <= 9


def test_outliers_are_cut_by_the_deviation_inside_the_range(tmp_path):
    def spiked(points):
        return np.where(np.all(np.abs(points) < 3, axis=-1), 3000.0, ramp(points))

    def highest(sigma, name):
        ct = Processing(outlier_sigma=sigma, bin_number=16)
        settings = ImageRadiomicsSettings(ct=ct)
        return values(run(request(tmp_path / name, series(spiked), structure_set([box()]),
                                  settings)))["84IY"]  # fmt: skip

    assert highest(None, "all") > 1000
    assert highest(3.0, "cut") < 1000


def test_an_mr_has_values_without_a_unit_and_a_fixed_bin_number(tmp_path):
    images = series(lambda p: 400 + ramp(p) * (np.abs(p[..., 1]) < 26), modality="MR")
    settings = ImageRadiomicsSettings(
        mr=Processing(resample_mm=1.5, bin_number=32), filters=(Mean(support=3),)
    )

    outcome = run(request(tmp_path, images, structure_set([box()]), settings))

    found = values(outcome)
    assert found["Q4LE"] == pytest.approx(440, abs=3.1)
    assert found["3NCY"] == 32
    folder = outcome.objects[0].path.parent / "report"
    report = json.loads((folder / "report.json").read_text())
    assert report["modality"] == "MR"
    text = (folder / "features.csv").read_text()
    assert "HU" not in text
    assert "hnsf" not in text


def test_response_maps_are_groups_of_their_own_with_all_parameters(tmp_path):
    """The Laplacian of a ramp is its mean times what the cut kernel leaves: nearly nothing."""
    settings = ImageRadiomicsSettings(
        filters=(LaplacianOfGaussian(sigma_mm=2.0), Wavelet(bands="LLH"), Mean(support=3)),
        filter_families=("statistics", "glcm"),
    )
    outcome = run(request(tmp_path, series(ramp), structure_set([box()]), settings))

    plain, log = values(outcome), values(outcome, filtered="LoG 2 mm")
    mean = values(outcome, filtered="mean 3")
    groups = list(read_back(dcmread(outcome.objects[0].path)))

    assert len({uid for uid, _, _ in groups}) == len(groups) == 4
    assert [len(found) for _, _, found in groups[1:]] == [18 + 25] * 3
    assert mean["Q4LE"] == pytest.approx(plain["Q4LE"], abs=0.6)
    assert abs(log["Q4LE"]) < 0.3
    text = dcmread(outcome.objects[0].path).to_json()
    assert "Measured on a response map: LoG 2 mm: boundary mirror, sigma_mm 2.0, cutoff 4.0" in text
    assert "GTV, LoG 2 mm" in text


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    first = run(request(tmp_path / "a", series(ramp), structure_set([box()])))
    again = run(request(tmp_path / "b", series(ramp), structure_set([box()])))

    assert first.objects[0].path.read_bytes() == again.objects[0].path.read_bytes()


def test_one_roi_that_cannot_be_measured_does_not_stop_the_others(tmp_path):
    structures = structure_set(
        [
            box(),
            ("GTV point", "GTV", [("POINT", np.zeros((1, 3)))]),
            ("GTV tiny", "GTV", [("CLOSED_PLANAR", square(0, 3, 1.5))]),
            ("GTV edge", "GTV", [("CLOSED_PLANAR", square(20, 60, z)) for z in HEIGHTS]),
            ("Heart", "ORGAN", box()[2]),
        ]
    )

    outcome = run(request(tmp_path, series(ramp), structures))

    codes = {(f.roi, f.code) for f in outcome.findings}
    assert codes >= {
        ("GTV point", "roi-without-volume"),
        ("GTV tiny", "roi-too-small-for-texture"),
        ("GTV edge", "roi-partly-outside-image"),
    }
    assert set(outcome.figures["rois"]) == {"GTV", "GTV tiny", "GTV edge"}


def test_images_of_another_patient_frame_or_modality_are_refused(tmp_path):
    other_frame = series(ramp)
    for ds in other_frame:
        ds.FrameOfReferenceUID = "2.25.9"
    cases = {
        "different patients": series(ramp, patient="SOMEONE"),
        "different frames of reference": other_frame,
        "CT or MR": series(lambda p: np.abs(ramp(p)), modality="PT"),
    }
    for k, (reason, images) in enumerate(cases.items()):
        with pytest.raises(InputRejected, match=reason):
            run(request(tmp_path / str(k), images, structure_set([box()])))


def test_no_region_at_all_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputRejected, match="none matches the settings"):
        run(request(tmp_path, series(ramp), structure_set([box("Heart", "ORGAN")])))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ct": {"bin_size": 25.0, "bin_number": 32}},
        {"ct": {}},
        {"ct": {"bin_size": 25.0, "range": [400.0, -1000.0]}},
        {"mr": {"bin_number": 32, "resample_mm": None}, "filters": [{"kind": "mean"}]},
        {"filters": [{"kind": "mean", "support": 4}]},
        {"filters": [{"kind": "mean"}, {"kind": "mean", "boundary": "zero"}]},
        {"filters": [{"kind": "laws", "kernels": "W3L5L5"}]},
        {"filters": [{"kind": "simoncelli", "riesz": [0, 0, 0]}]},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ValidationError):
        ImageRadiomicsSettings.model_validate_json(json.dumps(wrong))
