"""The whole pipeline on a small patient: better HU on the same grid, or a clear refusal."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipelines.api import InputRejected, Outcome, Role, Severity
from pipelines.dicom.volume import read_volume
from pipelines.imaging.body import find_regions
from tests.unit.pipelines.synthetic_ct import sct_support as support

TRUTH, CBCT = support.truth(), support.cbct_hu()
BODY = find_regions(CBCT, support.CBCT_SPACING).body


def _error(outcome: Outcome) -> float:
    """Return the mean absolute error in the body, HU."""
    hu = read_volume([o.path for o in outcome.objects]).hu
    return float(np.abs(np.asarray(hu, np.float32) - TRUTH)[BODY].mean())


RAW = float(np.abs(CBCT - TRUTH)[BODY].mean())


def _codes(outcome: Outcome) -> dict[str, Severity]:
    return {f.code: f.severity for f in outcome.findings}


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    objects = {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
    }
    return support.run_on(tmp_path_factory.mktemp("matched"), objects)


def test_the_planning_ct_halves_the_error(matched: Outcome) -> None:
    assert matched.figures["method"] == "hybrid"
    assert _error(matched) < 0.5 * RAW


def test_the_grid_of_the_cbct_is_kept_digit_by_digit(matched: Outcome) -> None:
    source = {str(ds.SOPInstanceUID): ds for ds in support.cbct()}

    for item in matched.objects:
        ds = pydicom.dcmread(item.path)
        origin = source[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert list(ds[keyword].value) == list(origin[keyword].value)
        assert ds.FrameOfReferenceUID == origin.FrameOfReferenceUID
        assert ds.StudyInstanceUID == origin.StudyInstanceUID
        assert ds.SeriesInstanceUID != origin.SeriesInstanceUID


def test_the_series_says_what_it_is(matched: Outcome) -> None:
    ds = pydicom.dcmread(matched.objects[0].path)

    assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert ds.SyntheticData == "YES"
    assert ds.SeriesDescription.startswith("sCT hybrid")
    assert ds.SeriesDescription.endswith("UNAPPROVED")
    assert ds.Manufacturer == "rtnode"
    assert "not for diagnosis" in ds.ImageComments
    assert "spatial registration object" in ds.DerivationDescription


def test_the_report_holds_numbers_and_pictures(matched: Outcome) -> None:
    report = matched.objects[0].path.parent / "report"

    document = json.loads((report / "report.json").read_text())

    assert document["figures"]["planning_ct"]["placed_by"] == "spatial registration object"
    assert {p.name for p in report.iterdir()} >= {
        "comparison.png", "planes.png", "checkerboard.png", "report.html",
        "report.pdf", "report.png",
    }  # fmt: skip


def test_a_registration_the_wrong_way_round_is_noticed(tmp_path: Path) -> None:
    """A REG that moves the patient 90 mm off: the planning CT does not show what the CBCT shows."""
    wrong = np.eye(4)
    wrong[:3, 3] = (60, 40, 20)
    objects = {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration(wrong)],
    }

    outcome = support.run_on(tmp_path, objects)

    assert _codes(outcome)["planning-ct-does-not-fit"] is Severity.WARN
    assert outcome.figures["method"] == "lut"


def test_the_matrix_is_used_in_the_right_direction(matched: Outcome) -> None:
    """The shift is asymmetric: the inverse would leave the planning CT 27 mm off."""
    placed = matched.figures["planning_ct"]

    assert placed["body_dice"] > 0.97
    assert placed["gradient_correlation"] > 0.8


def test_without_a_registration_object_the_images_are_registered(tmp_path: Path) -> None:
    objects = {Role.CBCT: support.cbct(), Role.PLANNING_CT: support.planning_ct()}

    outcome = support.run_on(tmp_path, objects)

    assert _codes(outcome)["planning-ct-placed"] is Severity.WARN
    assert outcome.figures["method"] == "hybrid"
    assert _error(outcome) < 0.55 * RAW


def test_without_a_planning_ct_the_look_up_lowers_the_error(tmp_path: Path) -> None:
    outcome = support.run_on(tmp_path, {Role.CBCT: support.cbct()})

    assert outcome.figures["method"] == "lut"
    assert _error(outcome) < 0.8 * RAW


def test_the_page_goes_out_as_pdf_and_image_when_the_route_says_so(tmp_path: Path) -> None:
    outcome = support.run_on(
        tmp_path, {Role.CBCT: support.cbct()}, report_pdf=True, report_image=True
    )

    *images, document, picture = [pydicom.dcmread(o.path) for o in outcome.objects]
    assert len(images) == len(support.cbct())
    assert document.SOPClassUID == pydicom.uid.EncapsulatedPDFStorage
    assert bytes(document.EncapsulatedDocument).startswith(b"%PDF-")
    assert picture.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert document.StudyInstanceUID == picture.StudyInstanceUID == images[0].StudyInstanceUID


def test_hybrid_is_better_than_the_match_alone(tmp_path: Path, matched: Outcome) -> None:
    objects = {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
    }

    outcome = support.run_on(tmp_path, objects, method="histmatch")

    assert outcome.figures["method"] == "histmatch"
    assert _error(matched) < _error(outcome)


def test_the_planning_ct_of_another_patient_is_not_used(tmp_path: Path) -> None:
    stranger = replace(support.CASE, seed=9)
    objects = {Role.CBCT: support.cbct(), Role.PLANNING_CT: support.planning_ct(stranger)}
    for ds in objects[Role.PLANNING_CT]:
        ds.PatientID = "SOMEBODY-ELSE"

    outcome = support.run_on(tmp_path, objects)

    assert _codes(outcome)["planning-ct-of-another-patient"] is Severity.WARN
    assert "SOMEBODY" not in json.dumps([f.message for f in outcome.findings])


def test_the_policies_for_couch_and_field_of_view_are_followed(tmp_path: Path) -> None:
    objects = {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
    }

    outcome = support.run_on(tmp_path, objects, couch="remove", hu_curve_of="none")

    hu = read_volume([o.path for o in outcome.objects]).hu
    assert np.all(hu[:, 76:] == -1024)
    assert pydicom.dcmread(outcome.objects[0].path).KVP is None


def test_a_test_cylinder_is_refused(tmp_path: Path) -> None:
    _, y, x = np.mgrid[:22, :88, :88]
    cylinder = np.where(np.hypot(y - 43.5, x - 43.5) < 23, 60, -1000).astype(np.float32)

    with pytest.raises(InputRejected, match="test phantom"):
        support.run_on(tmp_path, {Role.CBCT: support.cbct(hu=cylinder)})


def test_an_empty_scan_is_refused(tmp_path: Path) -> None:
    air = np.full((22, 88, 88), -1000, dtype=np.float32)

    with pytest.raises(InputRejected, match="no body"):
        support.run_on(tmp_path, {Role.CBCT: support.cbct(hu=air)})


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    slices = support.cbct()
    del slices[9]

    with pytest.raises(InputRejected, match="missing"):
        support.run_on(tmp_path, {Role.CBCT: slices})


def test_an_mr_is_refused(tmp_path: Path) -> None:
    slices = support.cbct()
    for ds in slices:
        ds.Modality = "MR"

    with pytest.raises(InputRejected, match="not a CT"):
        support.run_on(tmp_path, {Role.CBCT: slices})


def test_an_image_of_noise_sends_a_report_only(tmp_path: Path) -> None:
    """Soft tissue without any structure: no method can make a plausible CT of it."""
    hu = support.cbct_hu()
    hu[BODY] = np.random.default_rng(1).normal(-20, 250, int(BODY.sum()))

    outcome = support.run_on(
        tmp_path,
        {
            Role.CBCT: support.cbct(hu=hu),
            Role.PLANNING_CT: support.planning_ct(),
            Role.REG: [support.registration()],
        },
    )

    assert outcome.objects == ()
    assert _codes(outcome)["no-plausible-image"] is Severity.BLOCK
    assert (tmp_path / "out" / "report" / "report.json").exists()
