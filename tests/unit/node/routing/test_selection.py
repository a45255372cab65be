"""Which objects belong together: by reference, by frame of reference, never across patients."""

import random
from dataclasses import replace

import pytest

from node.routing.selection import Ambiguous, Missing, Selected, cases, select
from pipelines.catalog import PIPELINES
from tests.routing_kit import OBI, candidate, instance, refs, slices

DOSE = PIPELINES["dose_radiomics"]
SYNTHETIC = PIPELINES["synthetic_ct"]
CONTOURS = PIPELINES["autocontour"]

CT = slices([0, 3, 6], series="1.2.1", frame="F.ct")
CT_UIDS = [i.header.sop_instance_uid for i in CT]
CBCT = slices([0, 2, 4], series="1.2.5", study="1.3", frame="F.cbct", **OBI)


def rtstruct(uid="S.1", *, frame=None, frames=("F.ct",), images=CT_UIDS, **changes):
    return instance(
        uid,
        modality="RTSTRUCT",
        series=f"{uid}.series",
        frame=frame,
        references=refs("FRAME", *frames) + refs("IMAGE", *images),
        ContourGeometricType=changes.pop("types", ["CLOSED_PLANAR"]),
        **changes,
    )


def rtplan(uid="P.1", structures="S.1", **changes):
    return instance(
        uid,
        modality="RTPLAN",
        series=f"{uid}.series",
        references=refs("STRUCTURE_SET", structures),
        **changes,
    )


def rtdose(uid="D.1", plan="P.1", *, structures=None, frame="F.ct", kind="PLAN", **changes):
    named = refs("PLAN", plan) if plan else ()
    named += refs("STRUCTURE_SET", structures) if structures else ()
    return instance(
        uid,
        modality="RTDOSE",
        series=changes.pop("series", "D.series"),
        frame=frame,
        references=named,
        DoseSummationType=kind,
        **changes,
    )


def reg(uid="R.1", *, frames=("F.ct", "F.cbct"), images=(), date="20260101", **changes):
    return instance(
        uid,
        modality="REG",
        series=f"{uid}.series",
        references=refs("FRAME", *frames) + refs("IMAGE", *images),
        ContentDate=date,
        ContentTime="120000",
        **changes,
    )


def chosen(spec, *series, trigger=0, strangers=()):
    """Select for the series at `trigger`; all are given as lists of instances."""
    patient = [candidate(s if isinstance(s, list) else [s]) for s in series]
    (case,) = cases(spec, patient[trigger])
    return select(spec, case, patient, strangers=strangers)


def uids(selection, role):
    assert isinstance(selection, Selected), selection
    return [i.sop_instance_uid for i in selection.inputs if i.role == role]


def test_a_ct_alone_is_all_that_contouring_needs() -> None:
    assert uids(chosen(CONTOURS, CT, rtstruct()), "CT") == CT_UIDS


def test_contours_are_compared_with_the_one_structure_set_drawn_on_the_images() -> None:
    elsewhere = rtstruct("S.2", images=["9.9"])

    assert uids(chosen(CONTOURS, CT, rtstruct(), elsewhere), "RTSTRUCT") == ["S.1"]
    assert uids(chosen(CONTOURS, CT, elsewhere), "RTSTRUCT") == []


def test_several_structure_sets_on_the_images_never_hold_the_contours() -> None:
    answer = chosen(CONTOURS, CT, rtstruct("S.1"), rtstruct("S.2"))

    assert uids(answer, "CT") == CT_UIDS
    assert uids(answer, "RTSTRUCT") == []
    assert "without RTSTRUCT: 2 structure sets were drawn on these images" in answer.reason


def test_contours_are_not_compared_with_our_own() -> None:
    patient = [candidate(list(CT)), candidate([rtstruct()], ours=True)]

    answer = select(CONTOURS, tuple(CT), patient)

    assert uids(answer, "RTSTRUCT") == []


def test_a_dose_is_followed_to_plan_structure_set_and_ct() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(), rtstruct(), rtstruct("S.2"), CT)

    assert uids(answer, "RTPLAN") == ["P.1"]
    assert uids(answer, "RTSTRUCT") == ["S.1"]
    assert uids(answer, "CT") == CT_UIDS


def test_the_order_of_arrival_leaves_no_trace() -> None:
    """A10: the inputs, and with them the dedupe key, are the same."""
    rest = [[rtplan()], [rtstruct()], [rtstruct("S.2")], CT]
    expected = chosen(DOSE, rtdose(), *rest)
    for seed in range(5):
        mixed = [random.Random(seed).sample(s, len(s)) for s in rest]
        random.Random(seed).shuffle(mixed)

        assert chosen(DOSE, rtdose(), *mixed) == expected


def test_a_dose_may_name_its_structure_set_itself() -> None:
    answer = chosen(DOSE, rtdose(plan=None, structures="S.2"), rtstruct(), rtstruct("S.2"))

    assert uids(answer, "RTSTRUCT") == ["S.2"]


def test_a_structure_set_that_is_named_and_absent_is_not_replaced_by_another() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(structures="S.9"), rtstruct())

    assert answer == Missing(
        reason="the structure set S.9 that is referenced is not here",
        hint="send the structure set to this node; the job starts by itself",
    )


@pytest.mark.parametrize(
    "structures",
    [
        rtstruct(frame="F.ct", frames=(), images=()),
        rtstruct(frame=None, frames=("F.ct",), images=()),
        rtstruct(frame=None, frames=(), images=CT_UIDS),
    ],
    ids=["stated", "only in the referenced frames", "only through its images"],
)
def test_without_a_plan_the_only_structure_set_in_the_frame_is_taken(structures) -> None:
    answer = chosen(DOSE, rtdose(), structures, CT, rtstruct("S.7", frames=("F.x",), images=()))

    assert uids(answer, "RTSTRUCT") == ["S.1"]


def test_two_structure_sets_in_the_frame_are_a_question_that_the_plan_answers() -> None:
    question = chosen(DOSE, rtdose(), rtstruct(), rtstruct("S.2"), CT)
    answer = chosen(DOSE, rtdose(), rtstruct(), rtstruct("S.2"), CT, rtplan(structures="S.2"))

    assert isinstance(question, Ambiguous)
    assert question.hint == "send the RTPLAN: it names the structure set"
    assert uids(answer, "RTSTRUCT") == ["S.2"]


def test_points_from_a_cone_beam_console_are_no_planning_structures() -> None:
    answer = chosen(DOSE, rtdose(), rtstruct(types=["POINT"]))

    assert isinstance(answer, Missing)


def test_our_own_contours_are_not_taken_for_the_plans() -> None:
    ours = rtstruct("S.ours", Manufacturer="rtnode")

    assert uids(chosen(DOSE, rtdose(), rtstruct(), ours, CT), "RTSTRUCT") == ["S.1"]


def test_a_dose_without_its_ct_is_no_reason_to_wait() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(), rtstruct())

    assert uids(answer, "CT") == []
    assert "without CT" in answer.reason


def test_another_patients_structure_set_is_never_taken() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(), rtstruct(patient="patient-b"))

    assert isinstance(answer, Missing)


def test_a_structure_set_on_another_patients_images_is_held() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(), rtstruct(), strangers={CT_UIDS[1]})

    assert isinstance(answer, Ambiguous)
    assert answer.reason == "the structure set references images of another patient"


def test_a_structure_set_that_belongs_to_another_patient_is_held() -> None:
    answer = chosen(DOSE, rtdose(), rtplan(), strangers={"S.1"})

    assert isinstance(answer, Ambiguous)
    assert answer.reason == "the structure set that is referenced belongs to another patient"


def test_the_dose_of_the_plan_is_taken_from_a_series_of_beam_doses() -> None:
    series = [rtdose("D.1", kind="BEAM"), rtdose("D.2", kind="PLAN"), rtdose("D.3", kind="BEAM")]

    assert cases(DOSE, candidate(series)) == ((series[1],),)


def test_each_dose_of_a_whole_plan_is_a_case() -> None:
    series = [rtdose("D.1"), rtdose("D.2", plan="P.2")]

    assert len(cases(DOSE, candidate(series))) == 2


def test_the_planning_ct_is_found_through_the_registration() -> None:
    answer = chosen(SYNTHETIC, CBCT, CT, reg())

    assert uids(answer, "PLANNING_CT") == CT_UIDS
    assert uids(answer, "REG") == ["R.1"]


def test_the_planning_ct_is_found_in_the_same_frame_of_reference() -> None:
    same = slices([0, 3], series="1.2.8", frame="F.cbct")

    answer = chosen(SYNTHETIC, CBCT, same)

    assert uids(answer, "PLANNING_CT") == ["1.2.8.1", "1.2.8.2"]
    assert uids(answer, "REG") == []


@pytest.mark.parametrize(
    "others",
    [
        (),
        (CT,),
        (CT, reg(frames=("F.ct", "F.other"))),
        (slices([0, 3], series="1.2.8", frame="F.cbct", Manufacturer="rtnode"),),
        (slices([0, 3], series="1.2.8", frame="F.cbct", patient="patient-b"),),
    ],
    ids=["alone", "no link", "registration of others", "our own sCT", "another patient's"],
)
def test_a_cbct_goes_alone_where_no_planning_ct_is_linked(others) -> None:
    answer = chosen(SYNTHETIC, CBCT, *others)

    assert uids(answer, "PLANNING_CT") == []
    assert len(uids(answer, "CBCT")) == 3


def test_an_incomplete_planning_ct_is_not_taken() -> None:
    patient = [candidate(CBCT), candidate(CT, complete=False), candidate([reg()])]

    answer = select(SYNTHETIC, tuple(CBCT), patient)

    assert uids(answer, "PLANNING_CT") == []


def test_of_two_cts_in_the_frame_the_one_that_the_plan_rests_on_is_taken() -> None:
    second = slices([0, 3, 6], series="1.2.2", frame="F.ct")

    question = chosen(SYNTHETIC, CBCT, CT, second, reg())
    by_plan = chosen(SYNTHETIC, CBCT, CT, second, reg(), rtstruct(), rtplan())
    by_image = chosen(SYNTHETIC, CBCT, CT, second, reg(images=["1.2.2.1"]))

    assert isinstance(question, Ambiguous)
    assert uids(by_plan, "PLANNING_CT") == CT_UIDS
    assert uids(by_image, "PLANNING_CT") == ["1.2.2.1", "1.2.2.2", "1.2.2.3"]


def test_without_any_link_the_one_ct_that_a_plan_rests_on_is_taken() -> None:
    """The pipeline registers it by the images, and takes it only where both show the same."""
    second = slices([0, 3, 6], series="1.2.2", frame="F.2")
    other = rtstruct("S.2", frames=("F.2",), images=[i.header.sop_instance_uid for i in second])

    planned = chosen(SYNTHETIC, CBCT, CT, second, rtstruct(), rtplan())
    drawn_only = chosen(SYNTHETIC, CBCT, CT, rtstruct())
    two_plans = chosen(SYNTHETIC, CBCT, CT, second, rtstruct(), rtplan(), other,
                       rtplan("P.2", "S.2"))  # fmt: skip
    linked_to_one_to_come = chosen(
        SYNTHETIC, CBCT, CT, rtstruct(), rtplan(), reg(frames=("F.cbct", "F.new"))
    )

    assert uids(planned, "PLANNING_CT") == CT_UIDS
    assert uids(planned, "RTSTRUCT") == ["S.1"]
    for answer in (drawn_only, two_plans, linked_to_one_to_come):
        assert uids(answer, "PLANNING_CT") == []
        assert uids(answer, "RTSTRUCT") == []


def test_planning_contours_go_with_the_planning_ct_that_they_were_drawn_on() -> None:
    another = rtstruct("S.2", images=["elsewhere"])
    second = rtstruct("S.3")
    ours = rtstruct("S.4", Manufacturer="rtnode")
    points = rtstruct("S.5", types=["POINT"])
    stranger = rtstruct("S.6", patient="patient-b")
    base = (SYNTHETIC, CBCT, CT, reg(), rtstruct())

    one = chosen(*base, another, ours, points, stranger)
    two = chosen(*base, second)
    two_and_a_plan = chosen(*base, second, rtplan())

    assert uids(one, "RTSTRUCT") == ["S.1"]
    assert uids(two, "RTSTRUCT") == []
    assert uids(two, "PLANNING_CT") == CT_UIDS
    assert uids(two_and_a_plan, "RTSTRUCT") == ["S.1"]


def test_the_newest_registration_is_taken_and_two_of_one_time_are_a_question() -> None:
    older = reg("R.0", date="20251231")

    assert uids(chosen(SYNTHETIC, CBCT, CT, reg(), older), "REG") == ["R.1"]
    assert isinstance(chosen(SYNTHETIC, CBCT, CT, reg(), reg("R.2")), Ambiguous)


def test_an_input_of_which_two_contents_arrived_holds_the_job() -> None:
    """A9."""
    conflicting = replace(candidate(CT), conflicts=(CT_UIDS[0],))

    answer = select(CONTOURS, tuple(CT), [conflicting])

    assert isinstance(answer, Ambiguous)
    assert "arrived twice with different content" in answer.reason


FEATURES = PIPELINES["image_radiomics"]
MR = slices([0, 3, 6], series="1.2.7", frame="F.mr", modality="MR")
MR_UIDS = [i.header.sop_instance_uid for i in MR]


@pytest.mark.parametrize(
    ("images", "kind"), [(CT, "CT"), (CBCT, "CBCT"), (MR, "MR")], ids=["ct", "cbct", "mr"]
)
def test_features_of_an_image_take_the_images_that_the_structure_set_names(images, kind):
    drawn = rtstruct(images=[i.header.sop_instance_uid for i in images])
    others = [candidate(series) for series in (CT, CBCT, MR)]

    answer = select(FEATURES, (drawn,), [candidate([drawn]), *others])

    assert isinstance(answer, Selected)
    assert {i.role for i in answer.inputs} == {"RTSTRUCT", "IMAGE"}
    assert len(answer.inputs) == 1 + len(images)


def test_features_of_an_image_wait_until_it_is_complete():
    drawn = rtstruct()

    answer = select(FEATURES, (drawn,), [candidate([drawn]), candidate(CT, complete=False)])

    assert isinstance(answer, Missing)


def test_structures_that_name_images_of_another_patient_are_a_question():
    drawn = rtstruct()

    answer = select(FEATURES, (drawn,), [candidate([drawn])], strangers=CT_UIDS)

    assert isinstance(answer, Ambiguous)


def test_every_structure_set_of_a_series_is_a_case():
    series = candidate([rtstruct("S.1"), rtstruct("S.2")])

    assert [len(case) for case in cases(FEATURES, series)] == [1, 1]
