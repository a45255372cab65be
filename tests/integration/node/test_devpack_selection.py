"""Real files: what each set of the development pack is taken for, and what it could start."""

import pytest

from node.config.match import DEFAULT_CBCT, Kind
from node.routing.folder import Found, scan, strangers
from node.routing.selection import Ambiguous, Missing, Selected, cases, select
from pipelines.catalog import PIPELINES

pytestmark = [
    pytest.mark.devpack,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom on files that are odd on purpose
]


def look(folder) -> Found:
    return scan(folder, DEFAULT_CBCT)


def kinds(found: Found) -> list[tuple[str, int, bool]]:
    return sorted((c.kind.value, len(c.instances), c.complete) for c in found.candidates)


def choose(found: Found, pipeline: str):
    """Return what selection says to each complete trigger of a pipeline."""
    spec = PIPELINES[pipeline]
    return [
        select(
            spec,
            case,
            found.candidates,
            strangers=strangers(found.candidates, candidate.patient_key),
        )
        for candidate in found.candidates
        if candidate.kind.value == spec.trigger.value and candidate.complete
        for case in cases(spec, candidate)
    ]


def roles(selection) -> dict[str, int]:
    assert isinstance(selection, Selected), selection
    found = [i.role for i in selection.inputs]
    return {role: found.count(role) for role in sorted(set(found))}


def test_the_thorax_gives_one_case_to_each_pipeline(devpack) -> None:
    found = look(devpack / "dev_lung1_001_thorax")

    assert [roles(s) for s in choose(found, "autocontour")] == [{"CT": 134, "RTSTRUCT": 1}]
    assert [roles(s) for s in choose(found, "synthetic_ct")] == [
        {"CBCT": 64, "PLANNING_CT": 134, "REG": 1, "RTSTRUCT": 1}
    ]
    assert [roles(s) for s in choose(found, "dose_radiomics")] == [
        {"CT": 134, "RTDOSE": 1, "RTPLAN": 1, "RTSTRUCT": 1}
    ]


def test_the_console_of_a_cone_beam_ct_exports_points_and_no_structures(devpack) -> None:
    found = look(devpack / "dev_obi_cbct_catphan_pelvis" / "CBCT")

    assert kinds(found) == [("CBCT", 64, True), ("POINTS", 1, True)]
    assert [roles(s) for s in choose(found, "synthetic_ct")] == [{"CBCT": 64}]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("incomplete_26_slices_with_gaps", "slices are missing in 13 more places"),
        ("mixed_two_geometries_same_series_uid", "1 UID of it came again with other content"),
    ],
)
def test_broken_cone_beam_series_start_nothing(devpack, folder, words) -> None:
    found = look(devpack / "dev_obi_cbct_catphan_pelvis" / folder)

    (verdict,) = found.verdicts.values()
    assert words in verdict.sentence
    assert choose(found, "synthetic_ct") == []


def test_phases_of_a_4dct_without_a_patient_id_are_six_cases(devpack) -> None:
    found = look(devpack / "dev_4dct_light")

    assert [roles(s) for s in choose(found, "autocontour")] == [{"CT": 47}] * 6
    assert len({c.patient_key for c in found.candidates}) == 1


def test_structures_on_another_patients_images_are_a_question(devpack) -> None:
    (answer,) = choose(look(devpack / "dev_rt_breast_eclipse_noct"), "dose_radiomics")

    assert isinstance(answer, Ambiguous)
    assert answer.reason == "the structure set references images of another patient"


def test_beam_doses_of_one_plan_are_one_case_and_an_empty_dose_lacks_structures(devpack) -> None:
    answers = choose(look(devpack / "dev_rt_oncentra_phantom"), "dose_radiomics")

    assert sorted(type(a).__name__ for a in answers) == ["Missing", "Selected"]
    (selected,) = (a for a in answers if isinstance(a, Selected))
    assert roles(selected) == {"CT": 5, "RTDOSE": 4, "RTPLAN": 1, "RTSTRUCT": 1}
    assert any(isinstance(a, Missing) for a in answers)


def test_a_dose_whose_plan_is_absent_takes_the_only_structure_set_of_its_frame(devpack) -> None:
    for patient in ("pt_1", "pt_2"):
        (answer,) = choose(look(devpack / "dev_openkbp_hn" / patient), "dose_radiomics")

        assert roles(answer) == {"CT": 128, "RTDOSE": 1, "RTSTRUCT": 1}


def test_no_mr_and_no_foreign_report_is_taken_for_anything_else(devpack) -> None:
    found = look(devpack / "dev_mr_prostatex_t2")

    assert {c.kind for c in found.candidates} == {Kind.MR, Kind.SR}
    assert not any(choose(found, name) for name in PIPELINES)


def test_odd_files_lead_to_a_verdict_each(devpack) -> None:
    found = look(devpack / "dev_odd_dicom")

    assert found.instances > 150
    assert all(verdict.sentence for verdict in found.verdicts.values())
    sentences = " | ".join(v.sentence for v in found.verdicts.values())
    for words in (
        "gantry tilt",
        "share a position",
        "belong to 3 different patients",
        "state no position",
        "there is only one slice",
        "161 slices are missing",
    ):
        assert words in sentences
    assert Kind.LOCALIZER in {c.kind for c in found.candidates}
