"""The pipeline from files to report: selection, refusals, findings, reproducibility."""

import csv
import json
import re

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import dcmread

from pipelines.api import InputRejected, OutputInvalid, Role, Severity
from pipelines.dicom import sr_file
from pipelines.dose_radiomics import evaluate
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from tests.unit.pipelines.dose_radiomics.support import (
    circle,
    cylinder,
    dose,
    linear_z,
    names_plan,
    plan,
    request,
    save,
    square,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)
FAMILIES = ("statistics", "glcm")


def settings(**values):
    return DoseRadiomicsSettings(**({"families": FAMILIES, "pictures": False} | values))


def rois():
    body = [("CLOSED_PLANAR", square(-28, 28, z)) for z in np.arange(-19, 20, 2.0)]
    return [
        ("PTV", "PTV", cylinder(10, HEIGHTS)),
        ("BODY", "EXTERNAL", body),
        ("Lung-Left", "ORGAN", cylinder(7, HEIGHTS, x=-15)),
        ("Lung-Right", "ORGAN", cylinder(7, HEIGHTS, x=15)),
        ("GTV-1", "GTV", cylinder(3, HEIGHTS, x=15)),
    ]


class Files:
    """A consistent set; every object can be spoiled before it is written."""

    def __init__(self, folder):
        self.folder = folder
        self.rs = structure_set(rois())
        self.rp = plan(self.rs)
        self.rd = names_plan(dose(linear_z), self.rp)
        self.more = []

    def request(self, *, with_plan=True, **changes):
        files = [
            (Role.RTDOSE, save(self.rd, self.folder / "rd.dcm")),
            (Role.RTSTRUCT, save(self.rs, self.folder / "rs.dcm")),
        ]
        if with_plan:
            files.append((Role.RTPLAN, save(self.rp, self.folder / "rp.dcm")))
        for n, (role, ds) in enumerate(self.more):
            files.append((role, save(ds, self.folder / f"more{n}.dcm")))
        return request(self.folder, files, settings(**changes))


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def codes(outcome, roi=None):
    return {f.code for f in outcome.findings if roi in {None, f.roi}}


def test_every_roi_and_the_preset_come_back_with_closed_form_values(files):
    outcome = run(files.request())

    rois = outcome.figures["rois"]
    assert list(rois) == ["PTV", "BODY", "Lung-Left", "Lung-Right", "GTV-1", "Lungs - GTV"]
    assert rois["PTV"]["volume_cc"] == pytest.approx(2 * np.pi, rel=1e-3)
    assert rois["PTV"]["mean_gy"] == pytest.approx(25, abs=1e-3)
    assert rois["PTV"]["V20Gy_percent"] == pytest.approx(75, abs=1)
    lungs = (2 * 49 - 9) * np.pi * 20 / 1000
    assert rois["Lungs - GTV"]["volume_cc"] == pytest.approx(lungs, rel=2e-3)
    assert rois["BODY"]["features"] == 0
    assert rois["PTV"]["features"] == 18 + 25
    (sr,) = outcome.objects
    assert sr.modality == "SR"
    assert dcmread(sr.path).SOPInstanceUID == sr.sop_instance_uid


def test_target_indices_follow_the_prescription_of_the_plan(files):
    outcome = run(files.request())

    ptv = outcome.figures["rois"]["PTV"]
    assert outcome.figures["prescription_gy"] == 20
    assert ptv["Coverage"] == pytest.approx(0.75, abs=0.01)
    piv = 56 * 56 * 25 / 1000  # cells above z = -5 inside BODY, up to its top at 20
    assert ptv["CI_RTOG"] == pytest.approx(piv / (2 * np.pi), rel=0.03)
    assert ptv["CN_Paddick"] == pytest.approx(0.75**2 / (piv / (2 * np.pi)), rel=0.04)
    assert "Coverage" not in outcome.figures["rois"]["Lung-Left"]


def test_without_a_plan_there_are_no_indices_but_all_else(files):
    ptv = run(files.request(with_plan=False)).figures["rois"]["PTV"]

    assert "Coverage" not in ptv
    assert "HI_ICRU83" in ptv


def test_the_report_folder_holds_tables_picture_and_page(files):
    job = files.request(pictures=True)

    run(job)

    report = job.output / "report"
    assert {p.name for p in report.iterdir()} == {
        "metrics.csv", "features.csv", "dvh.csv", "report.json", "dvh.png", "dose.png",
        "index.html", "report.pdf", "report.png",
    }  # fmt: skip
    stored = json.loads((report / "report.json").read_text())
    assert stored["recipe"] == "dose-ibsi-v1"
    with (report / "features.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "PTV"]
    assert {row["aggregation"] for row in rows if row["family"] == "glcm"} == {
        "3D merged", "3D averaged",
    }  # fmt: skip
    by_code = {row["code"]: float(row["value"]) for row in rows if row["family"] == "statistics"}
    assert by_code == {c: stored["regions"][0]["features"][c] for c in by_code}
    classes = {row["code"]: row["stability"] for row in rows if row["aggregation"] != "3D averaged"}
    assert classes == stored["regions"][0]["features_stability"]
    assert (classes["Q4LE"], classes["7NFM"]) == ("stable", "unstable")
    page = (report / "index.html").read_text()
    assert re.search(
        r"<td>Cluster Shade of GLCM</td><td>1</td><td style=\"[^\"]+\">unstable<", page
    )


def test_another_recipe_has_no_shipped_classes(files):
    job = files.request(bin_gy=0.5)

    outcome = run(job)

    stored = json.loads((job.output / "report" / "report.json").read_text())
    assert all(region["features_stability"] == {} for region in stored["regions"])
    assert b"Stability against" not in outcome.objects[0].path.read_bytes()


def test_the_report_tells_what_is_not_stable(files):
    content = run(files.request()).objects[0].path.read_bytes()

    assert b"Stability against dose grid and interpolation, unstable: KLMA, " in content


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    everything = {"pictures": True, "report_pdf": True, "segmentation": True, "dvh_object": True}
    one = Files(tmp_path / "a").request(**everything)
    other = Files(tmp_path / "b").request(**everything)

    run(one)
    run(other)

    for path in sorted(p for p in one.output.rglob("*") if p.is_file()):
        assert (other.output / path.relative_to(one.output)).read_bytes() == path.read_bytes()


def test_tracking_uids_survive_a_change_of_the_dose(files):
    first = dcmread(run(files.request()).objects[0].path)
    tracking = [g.ContentSequence[1].UID for g in first.ContentSequence[-1].ContentSequence]
    files.rd.DoseGridScaling = "2e-6"
    files.folder /= "second"
    files.folder.mkdir()

    second = dcmread(run(files.request()).objects[0].path)

    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert tracking == [
        g.ContentSequence[1].UID for g in second.ContentSequence[-1].ContentSequence
    ]


def one_by_one(files):
    files.rd.Rows = files.rd.Columns = 1
    files.rd.PixelData = files.rd.PixelData[: 4 * files.rd.NumberOfFrames]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: setattr(f.rd, "DoseUnits", "RELATIVE"), "units are RELATIVE"),
        (lambda f: delattr(f.rd, "PixelData"), "no pixels"),
        (lambda f: setattr(f.rd, "DoseSummationType", "FRACTION"), "only doses of type FRACTION"),
        (lambda f: setattr(f.rd, "DoseSummationType", "BEAM"), "1 BEAM doses and no PLAN dose"),
        (lambda f: setattr(f.rd, "FrameOfReferenceUID", "2.25.99"), "frames of reference"),
        (lambda f: setattr(f.rd, "PatientID", "DOSE-2"), "different patients"),
        (lambda f: setattr(f.rp, "PatientID", "DOSE-2"), "different patients"),
        (lambda f: setattr(f.rd, "DoseType", "ERROR"), "dose type is ERROR"),
        (one_by_one, "dose grid is 21x1x1"),
    ],
    ids=[
        "relative",
        "no pixels",
        "fraction",
        "beam",
        "frame",
        "patient",
        "plan of another",
        "difference",
        "1x1",
    ],
)
def test_what_does_not_belong_together_is_refused_with_the_reason(files, spoil, reason):
    spoil(files)

    with pytest.raises(InputRejected, match=reason) as refusal:
        run(files.request())
    assert "DOSE-" not in str(refusal.value)


def test_a_dose_without_any_structure_set_is_refused(files):
    rd = save(files.rd, files.folder / "rd.dcm")

    with pytest.raises(InputRejected, match="no RT Structure Set for the dose"):
        run(request(files.folder, [(Role.RTDOSE, rd)], settings()))


def test_effective_dose_is_evaluated_and_told(files):
    files.rd.DoseType = "EFFECTIVE"

    outcome = run(files.request())

    assert outcome.figures["dose_type"] == "EFFECTIVE"
    assert b"Dose type EFFECTIVE" in outcome.objects[0].path.read_bytes()


def test_structures_of_points_only_are_refused(files):
    files.rs = structure_set([("Iso", "ISOCENTER", [("POINT", np.zeros((1, 3)))])])

    with pytest.raises(InputRejected, match="points or open contours only"):
        run(files.request(with_plan=False))


def test_two_plan_doses_are_ambiguous(files):
    files.more.append((Role.RTDOSE, dose(linear_z, key="other")))

    with pytest.raises(InputRejected, match="2 doses of summation type PLAN"):
        run(files.request())


def test_the_plan_dose_is_preferred_to_beams_and_fractions(files):
    beam, fraction = dose(linear_z, key="beam"), dose(linear_z, key="fraction")
    beam.DoseSummationType, fraction.DoseSummationType = "BEAM", "FRACTION"
    files.more += [(Role.RTDOSE, beam), (Role.RTDOSE, fraction)]

    assert run(files.request()).figures["rois"]["PTV"]["mean_gy"] == pytest.approx(25, abs=1e-3)


def test_beams_add_up_when_asked_for_and_complete(files):
    files.rp = plan(files.rs, beams=(1, 2))
    files.rd = names_plan(dose(lambda p: linear_z(p) / 4, key="one"), files.rp, beam=1)
    other = names_plan(dose(lambda p: linear_z(p) * 3 / 4, key="two"), files.rp, beam=2)
    for beam in (files.rd, other):
        beam.DoseSummationType = "BEAM"
    with pytest.raises(InputRejected, match=r"missing: \[2\]"):
        run(files.request(sum_beams=True))
    files.more.append((Role.RTDOSE, other))
    files.folder /= "complete"
    files.folder.mkdir()

    outcome = run(files.request(sum_beams=True))

    assert outcome.figures["rois"]["PTV"]["mean_gy"] == pytest.approx(25, abs=1e-3)
    evidence = dcmread(outcome.objects[0].path).CurrentRequestedProcedureEvidenceSequence
    assert sum(len(s.ReferencedSOPSequence) for s in evidence[0].ReferencedSeriesSequence) == 4


def test_of_two_structure_sets_the_plan_decides(files):
    other = structure_set([("Wrong", "PTV", cylinder(5, HEIGHTS))], key="other")
    files.more.append((Role.RTSTRUCT, other))

    assert "PTV" in run(files.request()).figures["rois"]

    files.folder /= "undecided"
    files.folder.mkdir()
    with pytest.raises(InputRejected, match="no plan says which"):
        run(files.request(with_plan=False))


def test_one_odd_roi_is_told_and_the_others_are_reported(files):
    odd = [
        ("Points", "MARKER2", [("POINT", np.zeros((1, 3)))]),
        ("Empty", "ORGAN", []),
        ("Line", "ORGAN", [("CLOSED_PLANAR", np.array([[0, 0, 0], [5, 0, 0], [0, 0, 0]], float))]),
        ("Tiny", "ORGAN", cylinder(1, [0, 2])),
        ("Far", "ORGAN", cylinder(5, HEIGHTS + 300)),
        ("Half", "ORGAN", cylinder(5, np.arange(11, 40, 2.0))),
    ]
    files.rs = structure_set([*rois()[:1], *odd])

    outcome = run(files.request())

    assert codes(outcome, "Points") == {"roi-without-volume"}
    assert codes(outcome, "Empty") == {"roi-empty"}
    assert codes(outcome, "Line") == {"roi-empty"}
    assert codes(outcome, "Tiny") == {"roi-too-small-for-texture"}
    assert codes(outcome, "Far") == {"roi-outside-dose"}
    assert codes(outcome, "Half") == {"roi-partly-outside-dose"}
    assert {"PTV", "Tiny", "Half"} <= set(outcome.figures["rois"])
    assert outcome.figures["rois"]["Far"]["VolOutGrid_cc"] == pytest.approx(np.pi / 2, rel=0.01)
    assert outcome.figures["rois"]["PTV"]["mean_gy"] == pytest.approx(25, abs=1e-3)


def test_arithmetic_that_fails_in_one_roi_does_not_stop_the_others(files, monkeypatch):
    original = evaluate.region_features

    def fails(region, *rest):
        if region.cell_mm < 0.25:
            raise ZeroDivisionError
        return original(region, *rest)

    monkeypatch.setattr(evaluate, "region_features", fails)

    outcome = run(files.request())

    assert codes(outcome, "GTV-1") == {"roi-failed"}
    assert "PTV" in outcome.figures["rois"]


def test_derived_regions_are_reported_or_told(files):
    outcome = run(
        files.request(derived=("PTV & D>=50%", "Heart - PTV", "PTV &", "'PTV' & D>=1000Gy"))
    )

    half = outcome.figures["rois"]["PTV & D>=50%"]
    assert half["volume_cc"] == pytest.approx(2 * np.pi, rel=1e-3)
    assert codes(outcome, "Heart - PTV") == {"derived-not-computed"}
    assert codes(outcome, "PTV &") == {"expression-invalid"}
    assert codes(outcome, "'PTV' & D>=1000Gy") == {"roi-empty"}


def test_margins_and_rings_are_reported_with_their_lattice(files):
    job = files.request(derived=("(PTV + 5mm) - PTV", "PTV - 30mm", "PTV + 5"))

    outcome = run(job)

    ring = outcome.figures["rois"]["(PTV + 5mm) - PTV"]
    wider = np.pi * (100 * 20 + 400 * 5 + (20 + 10 * np.pi) * 25) + 4 / 3 * np.pi * 125
    wider += np.pi * 200 * 5  # the two ends
    assert ring["volume_cc"] == pytest.approx(wider / 1000 - 2 * np.pi, rel=0.03)
    assert codes(outcome, "PTV - 30mm") == {"roi-empty"}
    assert codes(outcome, "PTV + 5") == {"expression-invalid"}
    stored = json.loads((job.output / "report" / "report.json").read_text())
    (told,) = [r for r in stored["regions"] if r["name"] == "(PTV + 5mm) - PTV"]
    assert any("Margin +5 mm: exact Euclidean distance" in line for line in told["parameters"])


def test_an_unmatched_preset_is_a_note_not_a_warning(files):
    files.rs = structure_set(rois()[:1])

    outcome = run(files.request(with_plan=False))

    (finding,) = outcome.findings
    assert (finding.code, finding.severity) == ("derived-not-computed", Severity.INFO)
    assert "no ROI matches Lungs, GTV" in finding.message


def test_rois_can_be_chosen_and_types_left_out(files):
    outcome = run(files.request(rois=("ptv", "*lung*"), presets=(), exclude_types=("PTV",)))

    assert list(outcome.figures["rois"]) == ["Lung-Left", "Lung-Right"]


def test_rois_of_one_name_are_told_apart_by_their_number(files):
    files.rs = structure_set([rois()[0], ("PTV", "PTV", cylinder(5, HEIGHTS))])

    found = run(files.request(presets=())).figures["rois"]

    assert list(found) == ["PTV #1", "PTV #2"]
    assert found["PTV #2"]["volume_cc"] == pytest.approx(np.pi / 2, rel=1e-3)


def test_nothing_that_matches_is_refused(files):
    with pytest.raises(InputRejected, match="no ROI matches the settings"):
        run(files.request(rois=("Heart",), presets=()))


def test_eqd2_needs_fractions_and_changes_the_dose(files):
    with pytest.raises(InputRejected, match="number of fractions"):
        run(files.request(with_plan=False, dose="EQD2"))
    files.folder /= "with"
    files.folder.mkdir()

    outcome = run(files.request(dose="EQD2", alpha_beta_by_roi=(("PTV", 10.0),)))

    # mean of D (D/10 + 10) / 12 for D uniform in 15..35 Gy
    expected = ((25**2 + 400 / 12) / 10 + 10 * 25) / 12
    assert outcome.figures["rois"]["PTV"]["mean_gy"] == pytest.approx(expected, abs=0.01)


def test_missing_frame_and_summation_are_told(files):
    del files.rd.FrameOfReferenceUID, files.rd.DoseSummationType

    assert {"frame-of-reference-missing", "summation-type-missing"} <= codes(run(files.request()))


def test_contours_across_another_axis_of_the_dose_are_evaluated(files):
    rd = dose(lambda p: 25 + p[..., 0] * 0, orientation=(0, 1, 0, 0, 0, -1), first=(30, -30, 30),
              shape=(31, 31, 31))  # fmt: skip
    files.rd = names_plan(rd, files.rp)

    outcome = run(files.request(rois=("PTV",), presets=()))

    assert outcome.figures["rois"]["PTV"]["volume_cc"] == pytest.approx(2 * np.pi, rel=1e-3)


def test_contours_oblique_to_the_dose_are_refused(files):
    tilted = circle(10, 0, 0, 0)
    tilted[:, 1:] = np.c_[tilted[:, 1] * 0.8, tilted[:, 1] * 0.6]
    files.rs = structure_set([("PTV", "PTV", [("CLOSED_PLANAR", tilted)])])

    with pytest.raises(InputRejected, match="oblique"):
        run(files.request(with_plan=False))


def test_a_report_that_was_not_written_right_is_not_returned(files, monkeypatch):
    monkeypatch.setattr(sr_file, "read_back", lambda _: iter(()))

    with pytest.raises(OutputInvalid):
        run(files.request())


@pytest.mark.parametrize(
    "text", ['{"bin_gy": 0}', '{"geud_a": [0]}', '{"families": ["x"]}', '{"colour": 1}']
)
def test_settings_refuse_what_makes_no_sense(text):
    with pytest.raises(ValidationError):
        DoseRadiomicsSettings.model_validate_json(text)


def test_settings_survive_json():
    chosen = settings(alpha_beta_by_roi=(("PTV*", 10.0),), derived=("A - B",))

    assert DoseRadiomicsSettings.model_validate_json(chosen.model_dump_json()) == chosen
