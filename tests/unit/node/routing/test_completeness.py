"""When is a series whole: a table of everything that real senders do."""

import random
from dataclasses import replace

import pytest

from node.config.match import Kind
from node.routing.completeness import Patience, Wholeness, examine
from node.routing.facts import Arrival
from tests.routing_kit import RELEASED, instance, slices

PATIENCE = Patience(after_release_s=5.0, otherwise_s=30.0)
OPEN = Arrival(quiet_s=1.0, open_associations=1, interrupted=False, one_by_one=False)
BROKEN = Arrival(quiet_s=100.0, open_associations=0, interrupted=True, one_by_one=False)
AXIAL = [3.0 * k for k in range(20)]


def verdict(instances, arrival=RELEASED, *, kind=Kind.CT, referenced=()):
    return examine(kind, instances, arrival, PATIENCE, referenced=referenced)


def test_equally_spaced_slices_of_a_released_association_are_whole_in_a_moment() -> None:
    answer = verdict(slices(AXIAL), replace(RELEASED, quiet_s=0.31))

    assert answer.wholeness is Wholeness.WHOLE
    assert answer.sentence == "20 slices, 3.00 mm apart, no gap; the association was released"


def test_a_moment_passes_after_a_release_because_a_parallel_association_may_follow() -> None:
    answer = verdict(slices(AXIAL), replace(RELEASED, quiet_s=0.1))

    assert answer.wholeness is Wholeness.WAIT
    assert answer.sentence == "20 received, the association has just ended"


def test_the_order_of_arrival_does_not_matter() -> None:
    shuffled = slices(AXIAL)
    random.Random(7).shuffle(shuffled)

    assert verdict(shuffled) == verdict(slices(AXIAL)) == verdict(slices(AXIAL)[::-1])


def test_nothing_is_whole_while_an_association_delivers() -> None:
    assert verdict(slices(AXIAL), OPEN).wholeness is Wholeness.WAIT


def test_an_association_that_stays_open_in_silence_counts_after_the_longer_period() -> None:
    assert verdict(slices(AXIAL), replace(OPEN, quiet_s=29.0)).wholeness is Wholeness.WAIT
    assert verdict(slices(AXIAL), replace(OPEN, quiet_s=30.0)).wholeness is Wholeness.WHOLE


def test_one_association_for_each_image_needs_the_quiet_period() -> None:
    single = replace(RELEASED, one_by_one=True)

    assert verdict(slices(AXIAL), single).wholeness is Wholeness.WAIT
    assert verdict(slices(AXIAL), replace(single, quiet_s=5.0)).wholeness is Wholeness.WHOLE


def test_two_slices_show_no_spacing_and_need_the_quiet_period() -> None:
    assert verdict(slices([0, 3])).wholeness is Wholeness.WAIT
    assert verdict(slices([0, 3]), replace(RELEASED, quiet_s=5.0)).wholeness is Wholeness.WHOLE


def test_a_gap_is_waited_for_and_named() -> None:
    answer = verdict(slices([z for z in AXIAL if z != 30.0]), replace(RELEASED, quiet_s=500.0))

    assert answer.wholeness is Wholeness.WAIT
    assert "a slice is missing between 27.0 and 33.0 mm" in answer.sentence


def test_slices_side_by_side_of_a_broken_association_may_lack_the_rest() -> None:
    """A12: geometry cannot see that the tail is missing."""
    answer = verdict(slices(AXIAL[:11]), BROKEN)

    assert answer.wholeness is Wholeness.WAIT
    assert "an association broke off" in answer.sentence


def test_a_structure_set_that_references_all_slices_outweighs_a_broken_association() -> None:
    whole = slices(AXIAL)
    named = {i.header.sop_instance_uid for i in whole}

    answer = verdict(whole, BROKEN, referenced=named)

    assert answer.wholeness is Wholeness.WHOLE
    assert "all images that other objects reference are here" in answer.sentence


def test_images_that_are_referenced_and_missing_are_waited_for() -> None:
    whole = slices(AXIAL)
    named = {i.header.sop_instance_uid for i in whole} | {"1.2.1.99"}

    answer = verdict(whole, replace(RELEASED, quiet_s=500.0), referenced=named)

    assert answer.wholeness is Wholeness.WAIT
    assert answer.sentence == "1 of 21 images that other objects reference are missing"


CONTRADICTIONS = {
    "two geometries under one series": (
        slices([0, 3, 6]) + slices([1, 4, 7], series="1.2.7", Rows=256, Columns=256),
        "different sizes",
    ),
    "a localizer-like second orientation": (
        slices([0, 3, 6]) + slices([0], series="1.2.7", orientation=(1, 0, 0, 0, 0, -1)),
        "2 different orientations",
    ),
    "a position that is there twice": (slices([0, 3, 3, 6]), "share a position"),
    "gantry tilt": (slices(AXIAL, shift=0.2), "gantry tilt"),
    "two patients": (slices([0, 3]) + slices([6], patient="patient-b"), "2 different patients"),
    "two studies": (slices([0, 3]) + slices([6], study="1.3"), "2 different studies"),
    "two frames of reference": (
        slices([0, 3]) + slices([6], frame="1.2.10"),
        "2 different frames of reference",
    ),
    "no position": (slices([0, 3], ImagePositionPatient=None), "state no position"),
}


@pytest.mark.parametrize(("instances", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_what_more_slices_cannot_cure_is_a_contradiction_once_the_transfer_is_over(
    instances, words
) -> None:
    early = verdict(instances)
    late = verdict(instances, replace(RELEASED, quiet_s=5.0))

    assert early.wholeness is Wholeness.WAIT
    assert late.wholeness is Wholeness.CONTRADICTION
    assert words in late.sentence


def test_a_single_slice_is_no_volume() -> None:
    answer = verdict(slices([0]), replace(RELEASED, quiet_s=500.0))

    assert answer.wholeness is Wholeness.WAIT
    assert answer.sentence == "1 slice: there is only one slice"


def test_uneven_steps_without_a_gap_need_the_quiet_period() -> None:
    steps = [*range(0, 40, 2), *range(40, 90, 5)]

    assert verdict(slices(steps)).wholeness is Wholeness.WAIT
    late = verdict(slices(steps), replace(RELEASED, quiet_s=5.0))
    assert late.wholeness is Wholeness.WHOLE
    assert "uneven steps" in late.sentence


def test_a_multi_frame_ct_is_whole_by_the_release() -> None:
    enhanced = [instance("1.2.1.1", sop_class="1.2.840.10008.5.1.4.1.1.2.1", NumberOfFrames=60)]

    assert verdict(enhanced).wholeness is Wholeness.WHOLE


@pytest.mark.parametrize("kind", [Kind.RTSTRUCT, Kind.RTPLAN, Kind.RTDOSE, Kind.REG, Kind.POINTS])
def test_an_rt_object_is_whole_by_itself_even_after_a_broken_association(kind) -> None:
    answer = verdict([instance("1.2.1.1", modality="RTPLAN")], BROKEN, kind=kind)

    assert answer.wholeness is Wholeness.WHOLE


def test_an_mr_series_need_not_be_one_stack() -> None:
    echoes = slices([0, 0, 3, 3], modality="MR")

    assert verdict(echoes, kind=Kind.MR).wholeness is Wholeness.WHOLE


def test_many_gaps_are_still_only_gaps() -> None:
    holes = [z for z in AXIAL if z not in {6.0, 15.0, 24.0, 33.0, 42.0, 51.0}]

    assert verdict(slices(holes), replace(RELEASED, quiet_s=500.0)).wholeness is Wholeness.WAIT


def test_slices_under_one_uid_are_named_as_the_reason_of_a_lone_slice() -> None:
    late = replace(RELEASED, quiet_s=500.0)

    answer = examine(Kind.CBCT, slices([0]), late, PATIENCE, conflicts=1)

    assert answer.sentence == (
        "1 slice: there is only one slice; 1 UID of it came again with other content"
    )
