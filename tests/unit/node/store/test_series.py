"""Questions about series, and the one step that declares them whole."""

import pytest

from node.domain import Reference
from node.lifecycle import IllegalTransition, SeriesEvent, SeriesState
from tests.store_kit import SERIES, STUDY, complete, ct, push, store, structure_set


@pytest.fixture
def opened(tmp_path):
    with store(tmp_path) as opened:
        yield opened


def test_a_series_that_grew_since_it_was_looked_at_is_not_declared_whole(opened):
    """Else the slice that came between the look and the step would be missing in the job."""
    push(opened, ct(1))
    seen = opened.ledger.series(SERIES)
    push(opened, ct(2))

    assert opened.ledger.advance_series(seen, SeriesEvent.WHOLE, "whole") is None

    assert opened.ledger.series(SERIES).state is SeriesState.RECEIVING


def test_a_whole_series_keeps_the_evidence(opened):
    done = complete(opened)

    assert done.reason == "all slices are here"
    assert opened.ledger.series_in_state(SeriesState.COMPLETE) == [done]
    assert opened.ledger.series_in_state(SeriesState.RECEIVING) == []
    assert opened.ledger.undecided_series() == [done]


def test_a_step_that_the_table_does_not_hold_is_a_mistake_of_ours(opened):
    done = complete(opened)

    with pytest.raises(IllegalTransition):
        opened.ledger.advance_series(done, SeriesEvent.DEADLINE_PASSED, "no")


def test_an_incomplete_series_is_shown_to_a_person(opened):
    push(opened, ct(1))
    seen = opened.ledger.series(SERIES)

    opened.ledger.advance_series(seen, SeriesEvent.DEADLINE_PASSED, "slice 2 is missing")

    (item,) = opened.ledger.held()
    assert (item.kind, item.id, item.reason) == ("series", SERIES, "slice 2 is missing")


def test_study_and_patient_bring_series_together(opened):
    push(opened, ct(1))
    push(opened, ct(1, series="1.2.8", patient="P2"))
    first = opened.ledger.series(SERIES)

    assert [s.series_instance_uid for s in opened.ledger.study_series(STUDY)] == [SERIES, "1.2.8"]
    assert opened.ledger.patient_series(first.patient_key) == [first]


def test_references_are_found_both_ways(opened):
    push(opened, ct(1))
    images = [f"{SERIES}.{n}" for n in (1, 2, 3)]
    push(opened, structure_set(images))

    (pointing,) = opened.ledger.referencing("IMAGE", f"{SERIES}.1")
    assert pointing.header.sop_instance_uid == "1.2.4.1"
    assert Reference(kind="SERIES", uid=SERIES) in pointing.header.references
    assert opened.ledger.referencing("PLAN", f"{SERIES}.1") == []
    assert opened.ledger.referenced_images(SERIES) == set(images)
    assert opened.ledger.referenced_images("1.2.8") == set()


def test_instances_are_found_by_uid_in_any_number(opened):
    push(opened, ct(1))
    wanted = [f"1.9.{n}" for n in range(1200)] + [f"{SERIES}.1"]

    (found,) = opened.ledger.instances_by_sop_uid(wanted)

    assert found.header.sop_instance_uid == f"{SERIES}.1"
    assert opened.ledger.instances_by_sop_uid([]) == []
