"""From associations to delivered results: a whole node with pipelines that take no time."""

import random
import threading

import pytest

from node.errors import ConfigError
from node.lifecycle import JobState, SeriesState
from node.store.records import DecisionState
from tests.integration.network.support import FakePeer
from tests.node_kit import CONTOURS, DOSE, node, send, send_together, until
from tests.store_kit import ct, structure_set


@pytest.fixture
def pacs():
    with FakePeer() as peer:
        yield peer


def series(uid="1.2.3.2", count=8, patient="P1"):
    return [ct(n, series=uid, patient=patient) for n in range(1, count + 1)]


def jobs(running, *states):
    return running.store.ledger.jobs(states or None)


def state_of(running, uid="1.2.3.2"):
    found = running.store.ledger.series(uid)
    return found.state if found else None


def test_a_series_that_was_sent_comes_back_as_a_result(tmp_path, pacs) -> None:
    with node(tmp_path, pacs.port) as running:
        assert send(running.port, series()) == [0] * 8
        until(lambda: pacs.received)

        (job,) = jobs(running)
        detail = running.store.ledger.job_detail(job.id)
        assert job.state is JobState.COMPLETED
        assert "8 slices, 3.00 mm apart, no gap; the association was released" in job.start_reason
        assert job.start_reason.startswith("route contours: kind is CT")
        assert detail.figures == {"inputs": 8}
        assert [r.sop_instance_uid for r in detail.results] == [pacs.received[0][0]]
        assert (tmp_path / "work" / f"{job.id}-1" / "report" / "index.html").exists()


def test_a_shadow_route_keeps_its_results_and_sends_nothing(tmp_path, pacs) -> None:
    with node(tmp_path, pacs.port, routes=[{**CONTOURS, "shadow": True}]) as running:
        send(running.port, series())
        until(lambda: [job.state for job in jobs(running)] == [JobState.COMPLETED])

        detail = running.store.ledger.job_detail(1)
        assert len(detail.results) == 1
        assert detail.deliveries == ()
        assert not pacs.received


def test_order_does_not_matter(tmp_path, pacs) -> None:
    """A10: in order, reversed and shuffled give the same result, byte for byte."""
    mixed = series()
    random.Random(3).shuffle(mixed)
    for number, order in enumerate([series(), series()[::-1], mixed]):
        with node(tmp_path / str(number), pacs.port) as running:
            send(running.port, order)
            until(lambda number=number: len(pacs.received) == number + 1)

    assert len({(uid, content) for uid, content, _ in pacs.received}) == 1


def test_two_series_interleaved_make_two_jobs(tmp_path, pacs) -> None:
    """A11."""
    both = [ds for pair in zip(series("1.2.3.2"), series("1.2.3.5"), strict=True) for ds in pair]
    with node(tmp_path, pacs.port) as running:
        send(running.port, both)
        until(lambda: len(pacs.received) == 2)

        assert len(jobs(running)) == 2


def test_one_series_over_four_associations_makes_one_job(tmp_path, pacs) -> None:
    """A11."""
    whole = series(count=24)
    random.Random(1).shuffle(whole)
    with node(tmp_path, pacs.port) as running:
        send_together(running.port, [whole[k::4] for k in range(4)])
        until(lambda: pacs.received)

        (job,) = jobs(running)
        assert len(running.store.ledger.job(job.id).inputs) == 24


def test_a_broken_association_waits_and_goes_on_when_the_rest_comes(tmp_path, pacs) -> None:
    """A12: what came lies side by side, but nothing says that it is all."""
    with node(tmp_path, pacs.port) as running:
        send(running.port, series()[:5], abort=True)
        until(lambda: not running.store.ledger.open_associations())
        with pytest.raises(AssertionError):
            until(lambda: state_of(running) is not SeriesState.RECEIVING, seconds=3.0)

        send(running.port, series())
        until(lambda: pacs.received)

        (job,) = jobs(running)
        assert len(running.store.ledger.job(job.id).inputs) == 8


def test_a_broken_association_is_made_good_by_a_repeat_alone(tmp_path, pacs) -> None:
    """A12: everything had arrived; the sender cannot know and sends it again."""
    with node(tmp_path, pacs.port) as running:
        send(running.port, series(), abort=True)
        until(lambda: not running.store.ledger.open_associations())
        send(running.port, series())
        until(lambda: pacs.received)

        assert len(jobs(running)) == 1


def test_a_series_with_a_gap_is_held_and_shown_and_replaced_when_the_slice_comes(
    tmp_path, pacs
) -> None:
    """A12, A13: held with the reason; the late slice makes a new revision that runs."""
    whole = series()
    with node(tmp_path, pacs.port, receive={"hold_after_s": 1.0}) as running:
        send(running.port, whole[:3] + whole[4:])
        until(lambda: jobs(running, JobState.HELD))

        (held,) = jobs(running)
        assert state_of(running) is SeriesState.INCOMPLETE
        assert "a slice is missing between 9.0 and 15.0 mm" in held.reason
        assert not pacs.received

        send(running.port, whole[3:4])
        until(lambda: pacs.received)
        until(lambda: not jobs(running, JobState.HELD))

        newest = jobs(running, JobState.COMPLETED)[0]
        assert newest.series_revision == held.series_revision + 1
        assert running.store.ledger.job(held.id).state is JobState.CANCELED


def test_a_late_slice_makes_a_new_revision_with_a_result_of_its_own(tmp_path, pacs) -> None:
    """A13: both are visible, the older one is marked."""
    with node(tmp_path, pacs.port) as running:
        send(running.port, series(count=8))
        until(lambda: len(pacs.received) == 1)
        send(running.port, series(count=9)[8:])
        until(lambda: len(pacs.received) == 2)

        new, old = jobs(running)
        assert (old.series_revision + 1, old.state) == (new.series_revision, JobState.COMPLETED)
        until(lambda: running.store.ledger.job_detail(old.id).superseded_by == new.series_revision)
        assert len({uid for uid, _, _ in pacs.received}) == 2


def test_a_study_that_is_sent_again_produces_nothing_new(tmp_path, pacs) -> None:
    """A8, C13."""
    with node(tmp_path, pacs.port) as running:
        send(running.port, series())
        until(lambda: pacs.received)
        assert send(running.port, series()) == [0] * 8
        with pytest.raises(AssertionError):
            until(lambda: len(pacs.received) > 1 or len(jobs(running)) > 1, seconds=1.5)


def test_our_own_images_that_an_archive_sends_back_start_nothing(tmp_path, pacs) -> None:
    ours = series()
    for ds in ours:
        ds.Manufacturer = "rtnode"
    with node(tmp_path, pacs.port) as running:
        send(running.port, ours)
        until(lambda: running.store.ledger.decisions([DecisionState.NONE]))

        (decision,) = running.store.ledger.decisions([DecisionState.NONE])
        assert decision.reason == "a result of this node came back; it starts nothing"
        assert not jobs(running)


def test_a_result_that_comes_back_is_known_by_its_uid(tmp_path, pacs) -> None:
    """An archive may have changed the manufacturer."""
    with node(tmp_path, pacs.port) as running:
        send(running.port, series())
        until(lambda: pacs.received)
        back = structure_set([], sop=pacs.received[0][0])
        send(running.port, [back])
        until(lambda: state_of(running, "1.2.4") is SeriesState.COMPLETE)
        until(lambda: running.store.ledger.decisions([DecisionState.NONE]))

        (decision,) = running.store.ledger.decisions([DecisionState.NONE])
        assert decision.reason == "a result of this node came back; it starts nothing"


def test_no_mr_enters_a_ct_pipeline_even_where_a_route_asks_for_it(tmp_path, pacs) -> None:
    route = {**CONTOURS, "match": {"modality": ["CT", "MR"]}}
    slices = series()
    for ds in slices:
        ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.4", "MR"
    with node(tmp_path, pacs.port, routes=[route]) as running:
        send(running.port, slices)
        until(lambda: running.store.ledger.decisions([DecisionState.NONE]))

        (decision,) = running.store.ledger.decisions([DecisionState.NONE])
        assert "autocontour takes CT and this is MR" in decision.reason
        assert not jobs(running)


def dose(structures="1.2.4.1", frame="1.2.3.9"):
    ds = ct(1, series="1.2.7.1")
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE"
    ds.FrameOfReferenceUID, ds.DoseSummationType = frame, "PLAN"
    reference = structure_set([]).ReferencedFrameOfReferenceSequence[0].__class__()
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    reference.ReferencedSOPInstanceUID = structures
    ds.ReferencedStructureSetSequence = [reference]
    return ds


def test_a_dose_waits_for_its_structure_set(tmp_path, pacs) -> None:
    with node(tmp_path, pacs.port, routes=[DOSE]) as running:
        ledger = running.store.ledger
        send(running.port, [dose()])
        until(lambda: ledger.decisions([DecisionState.WAITING]))
        (waiting,) = ledger.decisions([DecisionState.WAITING])
        assert "the structure set 1.2.4.1 that is referenced is not here" in waiting.reason

        send(running.port, [structure_set([])])
        until(lambda: pacs.received)

        (job,) = jobs(running)
        assert {i.role for i in ledger.job(job.id).inputs} == {"RTDOSE", "RTSTRUCT"}


def test_a_dose_whose_structure_set_never_comes_is_held_and_runs_when_it_comes_after_all(
    tmp_path, pacs
) -> None:
    with node(tmp_path, pacs.port, routes=[DOSE], receive={"hold_after_s": 1.0}) as running:
        send(running.port, [dose()])
        until(lambda: jobs(running, JobState.HELD))
        (held,) = jobs(running)
        assert held.hint == "send the structure set to this node; the job starts by itself"

        send(running.port, [structure_set([])])
        until(lambda: pacs.received)

        assert running.store.ledger.job(held.id).state is JobState.CANCELED


def test_a_job_starts_only_when_the_patients_other_series_have_settled(tmp_path, pacs) -> None:
    """The structure set is whole while the CT beside it is still being pushed."""
    with node(tmp_path, pacs.port, routes=[DOSE]) as running:
        ledger = running.store.ledger
        images = [f"1.2.3.2.{n}" for n in range(1, 9)]
        pushing, finish = threading.Event(), threading.Event()

        def slowly(sent: int) -> None:
            pushing.set()
            if sent == 4:
                assert finish.wait(10)

        sender = threading.Thread(
            target=send, args=(running.port, series()), kwargs={"between": slowly}
        )
        sender.start()
        assert pushing.wait(10)
        send(running.port, [structure_set(images), dose()])
        until(lambda: state_of(running, "1.2.7.1") is SeriesState.COMPLETE)
        assert not jobs(running)
        finish.set()
        sender.join()
        until(lambda: pacs.received)

        (job,) = jobs(running)
        assert sum(i.role == "CT" for i in ledger.job(job.id).inputs) == 8


def test_sender_stands_for_the_peer_that_sent(tmp_path, pacs) -> None:
    route = {**CONTOURS, "destinations": ["sender"]}
    with node(tmp_path, pacs.port, routes=[route]) as running:
        send(running.port, series(), calling="PACS")
        until(lambda: pacs.received)
        send(running.port, series("1.2.3.5"), calling="STRANGER")
        until(lambda: jobs(running, JobState.HELD))

        (held,) = jobs(running, JobState.HELD)
        assert held.reason == "the sender STRANGER is no peer that can be sent to"


def test_a_start_is_refused_while_results_wait_for_a_destination_that_is_gone(
    tmp_path, pacs
) -> None:
    """D8."""
    closed = 1
    with node(tmp_path, closed) as running:
        send(running.port, series())
        until(running.store.ledger.destinations_with_open_deliveries)
    folder = {"results": {"path": str(tmp_path / "out")}}
    route = {**CONTOURS, "destinations": ["results"]}

    changed = node(tmp_path, closed, peers={}, folders=folder, routes=[route])

    with pytest.raises(ConfigError, match=r"peers\.pacs: 1 results still wait"):
        changed.start()
