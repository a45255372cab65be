"""Results and their deliveries: one transaction, one content for each UID, one queue each."""

import errno
from datetime import timedelta

import pytest

from node.domain import SentDelivery
from node.errors import CannotUnderstand, InstanceMismatch, LedgerError, OutOfResources
from node.lifecycle import DeliveryState, IllegalTransition, JobState
from node.store.writer import CommitUncertain
from tests.store_kit import (
    FailingOps,
    FakeClock,
    blobs,
    claim,
    finish,
    result_file,
    start_job,
    store,
)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opened(tmp_path, clock):
    with store(tmp_path, clock=clock) as opened:
        yield opened


def states(opened, job_id):
    return [d.state for d in opened.ledger.job_detail(job_id).deliveries]


def test_finishing_records_results_and_a_delivery_for_each_destination(opened, tmp_path):
    job_id = start_job(opened, destinations=("pacs", "tps"))

    assert finish(opened, tmp_path, results=2)

    detail = opened.ledger.job_detail(job_id)
    assert detail.job.state is JobState.COMPLETED
    assert [r.sop_instance_uid for r in detail.results] == ["1.2.99.1", "1.2.99.2"]
    assert all(r.path.is_file() for r in detail.results)
    assert sorted((d.destination, d.sop_instance_uid) for d in detail.deliveries) == [
        (d, f"1.2.99.{n}") for d in ("pacs", "tps") for n in (1, 2)
    ]
    assert opened.ledger.verify() == []
    assert opened.ledger.result_uids(["1.2.99.1", "1.2.3"]) == {"1.2.99.1"}


def test_the_work_folder_is_not_needed_after_the_finish(opened, tmp_path):
    start_job(opened)
    finish(opened, tmp_path)
    for path in tmp_path.glob("*.dcm"):
        path.unlink()

    (delivery,) = opened.ledger.claim_deliveries("pacs", 10)

    assert delivery.path.is_file()
    assert delivery.path.is_relative_to(tmp_path / "blobs")
    assert (delivery.attempt, delivery.correlation) == (1, "0000abcd")


def test_a_result_that_is_there_with_the_same_bytes_is_not_stored_twice(opened, tmp_path):
    """C13: a re-run gives no second set."""
    job_id = start_job(opened)
    finish(opened, tmp_path)
    files = blobs(tmp_path)
    again = opened.ledger.reprocess_job(job_id)

    assert finish(opened, tmp_path)

    assert blobs(tmp_path) == files
    assert opened.ledger.job_detail(again.id).results == ()
    assert states(opened, job_id) == [DeliveryState.PENDING]


def test_the_first_committed_bytes_of_a_uid_stay(opened, tmp_path):
    """L5: one UID has at most one content."""
    job_id = start_job(opened)
    finish(opened, tmp_path)
    (first,) = opened.ledger.job_detail(job_id).results
    again = opened.ledger.reprocess_job(job_id)
    job = claim(opened)

    assert opened.ledger.finish_job(
        job.id, job.token, [result_file(tmp_path, 1, pixel=7)], findings=[], figures={}
    )

    assert opened.ledger.job_detail(job_id).results == (first,)
    assert "result_differs" in [e.action for e in opened.ledger.job_detail(again.id).events]
    assert opened.ledger.verify() == []


def test_held_results_wait_for_a_person(opened, tmp_path):
    job_id = start_job(opened)

    finish(opened, tmp_path, hold=("lung volume is 0", "look at the CT"))

    assert states(opened, job_id) == [DeliveryState.HELD]
    assert opened.ledger.claim_deliveries("pacs", 10) == []
    (item,) = opened.ledger.held()
    assert (item.kind, item.reason, item.hint) == ("delivery", "lung volume is 0", "look at the CT")
    opened.ledger.release_delivery(int(item.id))
    assert len(opened.ledger.claim_deliveries("pacs", 10)) == 1


def test_other_destinations_may_be_named_at_the_end(opened, tmp_path):
    job_id = start_job(opened, destinations=("sender",))

    finish(opened, tmp_path, destinations=["CTSIM1"])

    assert [d.destination for d in opened.ledger.job_detail(job_id).deliveries] == ["CTSIM1"]


def test_a_file_that_is_not_the_announced_object_finishes_nothing(opened, tmp_path):
    start_job(opened)
    job = claim(opened)
    honest, lying = result_file(tmp_path, 1), result_file(tmp_path, 2)
    lying.path.write_bytes(honest.path.read_bytes())
    received = len(blobs(tmp_path))

    with pytest.raises(InstanceMismatch):
        opened.ledger.finish_job(job.id, job.token, [honest, lying], findings=[], figures={})
    lying.path.write_bytes(b"nonsense" * 30)
    with pytest.raises(CannotUnderstand):
        opened.ledger.finish_job(job.id, job.token, [honest, lying], findings=[], figures={})

    assert len(blobs(tmp_path)) == received
    assert opened.ledger.job(job.id).state is JobState.IN_PROGRESS


def test_a_full_disk_at_the_end_of_a_job_loses_nothing(tmp_path):
    ops = FailingOps()
    with store(tmp_path, ops=ops) as opened:
        start_job(opened)
        job = claim(opened)
        files = [result_file(tmp_path)]
        before = blobs(tmp_path)
        ops.write_error = errno.ENOSPC
        with pytest.raises(OutOfResources):
            opened.ledger.finish_job(job.id, job.token, files, findings=[], figures={})
        assert blobs(tmp_path) == before
        ops.write_error = 0

        assert opened.ledger.finish_job(job.id, job.token, files, findings=[], figures={})


@pytest.mark.parametrize(
    ("error", "kept"), [(LedgerError, 0), (CommitUncertain, 1)], ids=["refused", "uncertain"]
)
def test_files_stay_where_a_failed_commit_may_still_come_true(
    opened, tmp_path, monkeypatch, error, kept
):
    start_job(opened)
    job = claim(opened)
    before = len(blobs(tmp_path))

    def refuse(run, *, sync=()):
        raise error("no")

    monkeypatch.setattr(opened._database, "write", refuse)

    with pytest.raises(error):
        opened.ledger.finish_job(
            job.id, job.token, [result_file(tmp_path)], findings=[], figures={}
        )

    assert len(blobs(tmp_path)) == before + kept


def test_urgent_jobs_are_delivered_first_and_each_destination_has_its_own_queue(opened, tmp_path):
    job_id = start_job(opened, destinations=("pacs", "tps"))
    finish(opened, tmp_path, results=1)
    stat = opened.ledger.reprocess_job(job_id, priority=100)
    job = claim(opened)
    opened.ledger.finish_job(job.id, job.token, [result_file(tmp_path, 5)], findings=[], figures={})

    assert [d.job_id for d in opened.ledger.claim_deliveries("pacs", 10)] == [stat.id, job_id]
    assert len(opened.ledger.claim_deliveries("tps", 1)) == 1
    assert len(opened.ledger.claim_deliveries("tps", 10)) == 1
    assert opened.ledger.claim_deliveries("nobody", 10) == []


def test_a_transient_failure_waits_and_a_refusal_is_held(opened, tmp_path, clock):
    """D3."""
    job_id = start_job(opened)
    finish(opened, tmp_path)
    (first,) = opened.ledger.claim_deliveries("pacs", 10)
    due = clock.now() + timedelta(seconds=5)

    opened.ledger.delivery_failed(
        first.id, transient=True, status=None, reason="no association", hint="h", not_before=due
    )
    assert opened.ledger.claim_deliveries("pacs", 10) == []
    assert opened.ledger.next_delivery_at("pacs") == due
    clock.advance(6)
    (second,) = opened.ledger.claim_deliveries("pacs", 10)
    opened.ledger.delivery_failed(
        second.id, transient=False, status=0xA900, reason="class mismatch", hint="look"
    )

    (line,) = opened.ledger.job_detail(job_id).deliveries
    assert (line.state, line.attempt, line.status) == (DeliveryState.HELD, 2, 0xA900)
    assert opened.ledger.next_delivery_at("pacs") is None
    assert opened.ledger.destinations_with_open_deliveries() == {"pacs": 1}
    assert opened.ledger.release_deliveries("pacs") == 1
    assert opened.ledger.next_delivery_at("pacs") is not None


def test_a_sent_delivery_is_at_its_end(opened, tmp_path):
    job_id = start_job(opened)
    finish(opened, tmp_path)
    (delivery,) = opened.ledger.claim_deliveries("pacs", 10)

    opened.ledger.delivery_sent(delivery.id, status=0xB000, note="coerced")

    (line,) = opened.ledger.job_detail(job_id).deliveries
    assert (line.state, line.status, line.reason) == (DeliveryState.SENT, 0xB000, "coerced")
    assert opened.ledger.destinations_with_open_deliveries() == {}
    with pytest.raises(IllegalTransition):
        opened.ledger.delivery_sent(delivery.id, status=0)
    with pytest.raises(KeyError):
        opened.ledger.delivery_sent(99, status=0)
    assert opened.ledger.job_detail(job_id).events[-1].detail["destination"] == "pacs"


def test_answers_are_recorded_together_or_not_at_all(opened, tmp_path):
    job_id = start_job(opened)
    finish(opened, tmp_path, results=3)
    claimed = opened.ledger.claim_deliveries("pacs", 10)
    sent = [SentDelivery(delivery_id=d.id, status=0) for d in claimed[:2]]

    with pytest.raises(KeyError):
        opened.ledger.deliveries_sent([*sent, SentDelivery(delivery_id=99, status=0)])
    assert {d.state for d in opened.ledger.job_detail(job_id).deliveries} == {DeliveryState.SENDING}
    opened.ledger.deliveries_sent(sent)

    detail = opened.ledger.job_detail(job_id)
    sent_state, sending = DeliveryState.SENT, DeliveryState.SENDING
    assert [d.state for d in detail.deliveries] == [sent_state, sent_state, sending]
    told = [e.detail["delivery"] for e in detail.events if e.action == "delivery_stored"]
    assert told == [d.id for d in claimed[:2]]


def test_one_destination_waits_for_a_person_and_the_other_does_not(opened, tmp_path):
    """What an import profile forbids is held where it forbids it."""
    job_id = start_job(opened, destinations=("pacs", "tps"))
    finish(opened, tmp_path, held={"tps": ("holes: 3 contours", "look at it")})

    lines = {d.destination: d for d in opened.ledger.job_detail(job_id).deliveries}
    assert lines["pacs"].state is DeliveryState.PENDING
    assert (lines["tps"].state, lines["tps"].reason, lines["tps"].hint) == (
        DeliveryState.HELD, "holes: 3 contours", "look at it",
    )  # fmt: skip
    assert opened.ledger.release_deliveries("tps") == 1
    assert len(opened.ledger.claim_deliveries("tps", 10)) == 1


def test_what_was_claimed_and_not_tried_is_given_back_with_its_attempt(opened, tmp_path):
    start_job(opened)
    finish(opened, tmp_path, results=3)
    claimed = opened.ledger.claim_deliveries("pacs", 10)
    opened.ledger.delivery_sent(claimed[0].id, status=0)

    opened.ledger.return_deliveries([d.id for d in claimed])
    opened.ledger.return_deliveries([])

    again = opened.ledger.claim_deliveries("pacs", 10)
    assert [d.id for d in again] == [claimed[1].id, claimed[2].id]
    assert {d.attempt for d in again} == {1}


def test_a_person_may_give_a_delivery_up(opened, tmp_path):
    job_id = start_job(opened)
    finish(opened, tmp_path)
    (line,) = opened.ledger.job_detail(job_id).deliveries

    opened.ledger.cancel_delivery(line.id, "the patient moved away")

    assert states(opened, job_id) == [DeliveryState.CANCELED]
    assert opened.ledger.claim_deliveries("pacs", 10) == []
