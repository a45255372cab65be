"""Decisions start jobs once; claims are fenced; attempts are bounded."""

from datetime import timedelta

import pytest

from node.lifecycle import IllegalTransition, JobState
from node.store.decisions import dedupe_key
from node.store.records import DecisionState
from tests.store_kit import (
    SERIES,
    FakeClock,
    claim,
    complete,
    ct,
    finish,
    new_job,
    push,
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


def decide(opened, seen, state=DecisionState.JOB, route="thorax", **changes):
    job = None
    if state in (DecisionState.JOB, DecisionState.HELD):
        held = ("two CTs fit", "pick one") if state is DecisionState.HELD else None
        job = new_job(opened, seen, route=route, held=held, **changes)
    return opened.ledger.record_decision(seen, route=route, state=state, reason="because", job=job)


def test_a_decision_starts_its_job_in_the_same_transaction(opened):
    seen = complete(opened)

    decision = decide(opened, seen)

    job = opened.ledger.job(decision.job_id)
    assert decision.created
    assert job.state is JobState.SCHEDULED
    assert [i.sop_instance_uid for i in job.inputs] == [f"{SERIES}.1", f"{SERIES}.2"]
    assert all(i.path.is_file() for i in job.inputs)
    assert opened.ledger.undecided_series() == []
    assert opened.ledger.decisions_of(SERIES, 0)[0].job_id == decision.job_id


def test_the_same_decision_again_changes_nothing(opened):
    seen = complete(opened)
    first = decide(opened, seen)

    second = decide(opened, seen)

    assert (second.job_id, second.created) == (first.job_id, False)
    assert len(opened.ledger.jobs()) == 1


def test_two_routes_that_ask_for_the_same_work_share_one_job(opened):
    """C3: dedupe by pipeline, version, settings, inputs and destinations."""
    seen = complete(opened)
    first = decide(opened, seen)

    second = decide(opened, seen, route="again")
    third = decide(opened, seen, route="elsewhere", destinations=("tps",))

    assert (second.job_id, second.created) == (first.job_id, False)
    assert third.created


def test_the_dedupe_key_does_not_depend_on_the_order_of_inputs(opened):
    """A10."""
    seen = complete(opened, 3)
    job = new_job(opened, seen)
    shuffled = new_job(opened, seen, inputs=job.inputs[::-1], route="other", priority=1)

    assert dedupe_key(job) == dedupe_key(shuffled)
    assert dedupe_key(job) != dedupe_key(new_job(opened, seen, inputs=job.inputs[:2]))
    assert dedupe_key(job) != dedupe_key(new_job(opened, seen, revision=1))
    assert dedupe_key(job) != dedupe_key(new_job(opened, seen, settings_json='{"a":1}'))


def test_a_decision_about_an_older_look_is_not_recorded(opened):
    seen = complete(opened)
    push(opened, ct(3))

    assert decide(opened, seen) is None

    assert opened.ledger.jobs() == []


def test_waiting_becomes_a_job_and_keeps_its_first_time(opened):
    seen = complete(opened)
    waiting = decide(opened, seen, DecisionState.WAITING)

    started = decide(opened, seen)

    assert opened.ledger.decisions([DecisionState.WAITING]) == []
    (now,) = opened.ledger.decisions([DecisionState.JOB])
    assert now.first_at == waiting.first_at == started.first_at


def test_a_held_job_gives_way_to_the_one_that_can_run(opened):
    seen = complete(opened)
    held = decide(opened, seen, DecisionState.HELD, inputs=())
    (item,) = opened.ledger.held()
    assert (item.kind, item.reason, item.hint) == ("job", "two CTs fit", "pick one")

    started = decide(opened, seen)

    assert opened.ledger.job(held.job_id).state is JobState.CANCELED
    assert f"job {started.job_id}" in opened.ledger.job(held.job_id).reason
    assert opened.ledger.held() == []


def test_what_a_person_released_meanwhile_is_not_doubled(opened):
    """The release and the new decision cross: one job runs, that which the person chose."""
    seen = complete(opened)
    held = decide(opened, seen, DecisionState.HELD, inputs=())
    opened.ledger.release_job(held.job_id)

    again = decide(opened, seen)

    assert again.job_id == held.job_id
    assert [job.id for job in opened.ledger.jobs()] == [held.job_id]
    assert opened.ledger.verify() == []


def test_a_decision_to_do_nothing_stays(opened):
    seen = complete(opened)
    decide(opened, seen, DecisionState.NONE, route="")

    assert decide(opened, seen, DecisionState.NONE, route="").state is DecisionState.NONE
    assert opened.ledger.undecided_series() == []


@pytest.mark.parametrize("state", [DecisionState.JOB, DecisionState.WAITING])
def test_state_and_job_of_a_decision_must_fit(opened, state):
    seen = complete(opened)
    job = None if state is DecisionState.JOB else new_job(opened, seen)

    with pytest.raises(ValueError, match="a decision"):
        opened.ledger.record_decision(seen, route="r", state=state, reason="", job=job)


def test_the_most_urgent_job_is_claimed_first_then_the_oldest(opened):
    """C6."""
    seen = complete(opened)
    normal = decide(opened, seen, route="a", destinations=("a",)).job_id
    later = decide(opened, seen, route="b", destinations=("b",)).job_id
    stat = decide(opened, seen, route="c", destinations=("c",), priority=100).job_id

    assert [claim(opened).id for _ in range(3)] == [stat, normal, later]
    assert opened.ledger.claim_job(owner="x", lease_s=1) is None


def test_only_wanted_pipelines_are_claimed(opened):
    start_job(opened)

    assert opened.ledger.claim_job(owner="x", lease_s=1, pipelines=["synthetic_ct"]) is None
    assert opened.ledger.claim_job(owner="x", lease_s=1, pipelines=["autocontour"]) is not None


def test_a_claim_raises_attempt_and_token_and_lists_the_inputs(opened):
    job_id = start_job(opened)

    job = claim(opened)

    assert (job.id, job.state, job.attempt, job.token) == (job_id, JobState.IN_PROGRESS, 1, 1)
    assert len(job.inputs) == 2


def test_a_transient_failure_waits_its_time_and_a_spent_job_is_held(opened, clock):
    start_job(opened, max_attempts=2)
    job = claim(opened)
    later = clock.now() + timedelta(seconds=60)

    first = opened.ledger.fail_job(
        job.id, job.token, reason="too big", hint="h", transient=True, not_before=later
    )
    assert first is JobState.SCHEDULED
    assert opened.ledger.claim_job(owner="x", lease_s=1) is None
    clock.advance(61)
    again = claim(opened)
    last = opened.ledger.fail_job(
        again.id, again.token, reason="too big", hint="more memory", transient=True
    )

    held = opened.ledger.job(job.id)
    assert last is JobState.HELD
    assert (held.attempt, held.reason) == (2, "too big (2 of 2 attempts spent)")
    assert held.hint == "more memory"
    outcomes = [a.outcome for a in opened.ledger.job_detail(job.id).attempts]
    assert outcomes == ["FAILED_TRANSIENTLY", "FAILED_TRANSIENTLY"]


def test_a_final_failure_is_held_at_once(opened):
    start_job(opened)
    job = claim(opened)

    state = opened.ledger.fail_job(job.id, job.token, reason="r", hint="h", transient=False)

    assert state is JobState.HELD
    (item,) = opened.ledger.held()
    assert (item.id, item.reason, item.hint) == (str(job.id), "r", "h")


def test_a_lease_that_ran_out_goes_to_another_and_fences_the_first(opened, clock, tmp_path):
    """C10: the stale worker changes nothing."""
    start_job(opened)
    stale = claim(opened)
    assert opened.ledger.expire_leases() == []
    clock.advance(31)

    assert opened.ledger.expire_leases() == [stale.id]
    fresh = claim(opened)

    assert fresh.token == stale.token + 1
    assert not opened.ledger.heartbeat(stale.id, stale.token, lease_s=30)
    assert not opened.ledger.finish_job(
        stale.id, stale.token, [result_file(tmp_path)], findings=[], figures={}
    )
    assert opened.ledger.fail_job(stale.id, stale.token, reason="", hint="", transient=True) is None
    assert not opened.ledger.drain_job(stale.id, stale.token)
    assert opened.ledger.job_detail(stale.id).results == ()
    assert opened.ledger.heartbeat(fresh.id, fresh.token, lease_s=30)


def test_a_heartbeat_keeps_the_lease(opened, clock):
    start_job(opened)
    job = claim(opened)

    clock.advance(20)
    assert opened.ledger.heartbeat(job.id, job.token, lease_s=30)
    clock.advance(20)

    assert opened.ledger.expire_leases() == []


def test_a_drained_job_has_its_attempt_back(opened):
    """C7."""
    start_job(opened, max_attempts=1)
    job = claim(opened)

    assert opened.ledger.drain_job(job.id, job.token)

    again = claim(opened)
    assert (again.attempt, again.token) == (1, 2)
    assert [a.outcome for a in opened.ledger.job_detail(job.id).attempts] == ["DRAINED", ""]


def test_a_released_job_has_all_its_attempts_again(opened):
    start_job(opened, max_attempts=1)
    job = claim(opened)
    opened.ledger.fail_job(job.id, job.token, reason="r", hint="h", transient=True)

    released = opened.ledger.release_job(job.id)

    assert (released.state, released.attempt, released.reason) == (JobState.SCHEDULED, 0, "")
    assert claim(opened).attempt == 1


def test_a_canceled_job_is_lost_to_its_worker(opened):
    start_job(opened)
    job = claim(opened)

    opened.ledger.cancel_job(job.id, "not needed")

    assert not opened.ledger.heartbeat(job.id, job.token, lease_s=30)
    detail = opened.ledger.job_detail(job.id)
    assert detail.job.reason == "not needed"
    assert detail.attempts[0].outcome == "CANCELED"


@pytest.mark.parametrize("step", ["release_job", "cancel_job"])
def test_steps_that_are_not_allowed_say_so(opened, tmp_path, step):
    job_id = start_job(opened)
    assert finish(opened, tmp_path)
    arguments = () if step == "release_job" else ("why",)

    with pytest.raises(IllegalTransition):
        getattr(opened.ledger, step)(job_id, *arguments)
    with pytest.raises(KeyError, match="no job 99"):
        getattr(opened.ledger, step)(99, *arguments)


def test_a_reprocess_is_a_new_job_with_the_next_revision_each_time(opened, tmp_path):
    job_id = start_job(opened)
    finish(opened, tmp_path)

    first = opened.ledger.reprocess_job(job_id)
    second = opened.ledger.reprocess_job(job_id)

    assert (first.revision, second.revision) == (1, 2)
    assert first.inputs == second.inputs == opened.ledger.job(job_id).inputs
    assert first.priority == 10
    with pytest.raises(KeyError):
        opened.ledger.reprocess_job(99)


def test_a_late_slice_supersedes_what_is_not_yet_delivered(opened, tmp_path):
    """A13: older jobs are canceled, unsent deliveries too; what was sent stays."""
    done = start_job(opened)
    finish(opened, tmp_path, results=2)
    sent = opened.ledger.claim_deliveries("pacs", 1)[0]
    opened.ledger.delivery_sent(sent.id, status=0)
    waiting = opened.ledger.reprocess_job(done).id
    push(opened, ct(3))
    seen = complete(opened, 3)
    newer = decide(opened, seen).job_id

    assert opened.ledger.supersede(SERIES, seen.revision) == 2

    assert opened.ledger.job(waiting).state is JobState.CANCELED
    assert opened.ledger.job(done).state is JobState.COMPLETED
    assert opened.ledger.job(newer).state is JobState.SCHEDULED
    detail = opened.ledger.job_detail(done)
    assert detail.superseded_by == 1
    assert [d.state for d in detail.deliveries] == ["SENT", "CANCELED"]
    assert opened.ledger.supersede(SERIES, seen.revision) == 0


def test_a_revision_that_asks_for_the_same_work_keeps_the_job_it_points_to(opened, tmp_path):
    seen = complete(opened)
    inputs = new_job(opened, seen).inputs
    first = decide(opened, seen).job_id
    push(opened, ct(3))
    again = complete(opened, 3)
    second = decide(opened, again, inputs=inputs)

    opened.ledger.supersede(SERIES, again.revision)

    assert second.job_id == first
    assert opened.ledger.job(first).state is JobState.SCHEDULED


def test_work_that_was_superseded_too_early_runs_again_with_uids_of_its_own(opened):
    seen = complete(opened)
    inputs = new_job(opened, seen).inputs
    first = decide(opened, seen).job_id
    push(opened, ct(3))
    again = complete(opened, 3)
    opened.ledger.supersede(SERIES, again.revision)

    second = decide(opened, again, inputs=inputs)

    assert second.created
    assert second.job_id != first
    assert opened.ledger.job(second.job_id).revision == 1


def test_a_superseded_delivery_on_its_way_is_not_tried_again(opened, tmp_path):
    start_job(opened)
    finish(opened, tmp_path, results=2)
    one, two = opened.ledger.claim_deliveries("pacs", 2)
    push(opened, ct(3))
    opened.ledger.supersede(SERIES, 1)

    opened.ledger.delivery_failed(one.id, transient=True, status=0xA700, reason="full", hint="")
    opened.ledger.return_deliveries([two.id])

    assert opened.ledger.claim_deliveries("pacs", 9) == []
    assert opened.ledger.destinations_with_open_deliveries() == {}


def test_everything_about_a_job_can_be_told(opened, tmp_path, clock):
    job_id = start_job(opened)
    finish(opened, tmp_path, hold=None, report="work/1-1/report")

    detail = opened.ledger.job_detail(job_id)

    assert detail.finished_at == detail.changed_at
    assert detail.report == "work/1-1/report"
    assert [e.action for e in detail.events] == ["job_created", "job_claimed", "job_finished"]
    assert [e.action for e in opened.ledger.explain(f"job:{job_id}")] == [
        e.action for e in detail.events
    ]
    told = [e.action for e in opened.ledger.explain(f"{SERIES}.1")]
    assert told[:3] == ["series_started", "series_complete", "job_created"]
    assert opened.ledger.job_detail(99) is None
    assert opened.ledger.explain("job:x") == []


def test_queues_and_counts_show_what_waits(opened, tmp_path, clock):
    start_job(opened)
    clock.advance(100)

    (line,) = opened.ledger.queue()
    assert (line.kind, line.name, line.waiting) == ("job", "autocontour", 1)
    assert line.oldest_s == pytest.approx(100, abs=1)
    finish(opened, tmp_path)
    (line,) = opened.ledger.queue()
    assert (line.kind, line.name, line.waiting) == ("delivery", "pacs", 1)
    counts = opened.ledger.counts()
    assert counts.jobs == {"COMPLETED": 1}
    assert counts.deliveries == {"pacs": {"PENDING": 1}}
    assert (counts.series, counts.instances) == ({"COMPLETE": 1}, 2)
    assert opened.ledger.jobs([JobState.HELD]) == []
    assert len(opened.ledger.jobs([JobState.COMPLETED])) == 1
