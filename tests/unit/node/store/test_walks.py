"""Random walks: whatever happens in whatever order, the ledger follows the tables (L4, L6)."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from node.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    IllegalTransition,
    JobEvent,
    JobState,
    advance,
)
from node.store.schema import event
from tests.postgres_kit import ENVIRONMENT
from tests.store_kit import SERIES, FakeClock, ct, push, result_file, start_job, store

JOBS = ("release_job", "cancel_job", "reprocess_job")


pytestmark = pytest.mark.slow


class LedgerWalk(RuleBasedStateMachine):
    """A worker, a sender, an operator and crashes, all at random."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=fast_folder())
        self.path = Path(self.folder.name)
        self.clock = FakeClock()
        self.store = store(self.path, clock=self.clock)
        self.first = start_job(self.store, slices=1, max_attempts=2)
        self.claims = []
        self.stale = []
        self.sending = []
        self.slices = 1

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    def ids(self):
        return sorted(job.id for job in self.store.ledger.jobs())

    @rule()
    def claim(self):
        job = self.store.ledger.claim_job(owner="w", lease_s=30)
        if job is not None:
            self.claims.append(job)

    @precondition(lambda self: self.claims)
    @rule(pixel=st.integers(0, 1), hold=st.booleans())
    def finish(self, pixel, hold):
        job = self.claims.pop()
        files = [result_file(self.path, job.revision, pixel=pixel)]
        why = ("look", "at it") if hold else None
        self.fenced(job, lambda: self.store.ledger.finish_job(
            job.id, job.token, files, findings=[], figures={}, hold=why))  # fmt: skip

    @precondition(lambda self: self.claims)
    @rule(transient=st.booleans())
    def fail(self, transient):
        job = self.claims.pop()
        self.fenced(job, lambda: self.store.ledger.fail_job(
            job.id, job.token, reason="r", hint="h", transient=transient) is not None)  # fmt: skip

    @precondition(lambda self: self.claims)
    @rule()
    def drain(self):
        job = self.claims.pop()
        self.fenced(job, lambda: self.store.ledger.drain_job(job.id, job.token))

    def fenced(self, job, act):
        before = self.store.ledger.job(job.id)
        ours = before.state is JobState.IN_PROGRESS and before.token == job.token
        assert act() is ours
        if not ours:
            assert self.store.ledger.job(job.id) == before

    @rule(data=st.data(), step=st.sampled_from(JOBS))
    def operate(self, data, step):
        job_id = data.draw(st.sampled_from(self.ids()))
        arguments = ("why",) if step == "cancel_job" else ()
        before = self.store.ledger.job(job_id)
        happening = {"release_job": JobEvent.RELEASED, "cancel_job": JobEvent.CANCELED}.get(step)
        try:
            getattr(self.store.ledger, step)(job_id, *arguments)
        except IllegalTransition:
            assert (before.state, happening) not in JOB_TRANSITIONS
        else:
            assert happening is None or (before.state, happening) in JOB_TRANSITIONS

    @rule()
    def send_some(self):
        self.sending += self.store.ledger.claim_deliveries("pacs", 2)

    @precondition(lambda self: self.sending)
    @rule(outcome=st.sampled_from(["sent", "later", "refused", "returned"]))
    def answer(self, outcome):
        delivery = self.sending.pop()
        ledger = self.store.ledger
        if outcome == "sent":
            ledger.delivery_sent(delivery.id, status=0)
        elif outcome == "returned":
            ledger.return_deliveries([delivery.id])
        else:
            ledger.delivery_failed(delivery.id, transient=outcome == "later", status=None,
                                   reason="r", hint="h",
                                   not_before=self.clock.now() + timedelta(seconds=5))  # fmt: skip

    @rule()
    def release_all_deliveries(self):
        self.store.ledger.release_deliveries("pacs")

    @rule()
    def time_passes(self):
        self.clock.advance(40)
        self.store.ledger.expire_leases()

    @precondition(lambda self: self.slices < 3)
    @rule()
    def a_slice_comes_late(self):
        self.slices += 1
        push(self.store, ct(self.slices))
        self.store.ledger.supersede(SERIES, self.store.ledger.series(SERIES).revision)

    @rule()
    def the_node_dies_and_starts(self):
        self.store.close()
        self.store = store(self.path, clock=self.clock)
        self.sending.clear()

    @invariant()
    def every_event_was_a_legal_step(self):
        jobs, deliveries = {}, {}
        rows = self.store._database.read(
            lambda c: c.execute(select(event).order_by(event.c.id)).all()
        )
        for row in rows:
            name = row.action.partition("_")[2].upper()
            if row.kind == "job" and row.action == "job_created":
                jobs[row.subject] = JobState.SCHEDULED
            elif row.kind == "job" and row.action.startswith("job_"):
                jobs[row.subject] = advance(JOB_TRANSITIONS, jobs[row.subject], JobEvent(name))
                assert jobs[row.subject] == row.detail["state"]
            elif row.kind == "delivery":
                number = row.detail["delivery"]
                step = DeliveryEvent(name)
                possible = {s for s, e in DELIVERY_TRANSITIONS if e == step}
                before = deliveries.get(number)
                assert before is None or before in possible
                deliveries[number] = DELIVERY_TRANSITIONS[next(iter(possible)), step]
        for job in self.store.ledger.jobs(limit=1000):
            assert jobs[str(job.id)] is job.state

    @invariant()
    def attempts_are_bounded_and_each_state_has_a_next_action(self):
        for job in self.store.ledger.jobs(limit=1000):
            assert job.attempt <= job.max_attempts
            assert job.state is not JobState.HELD or (job.reason and job.hint)
            detail = self.store.ledger.job_detail(job.id)
            finishes = [a for a in detail.attempts if a.outcome == "FINISHED"]
            assert len(finishes) == (job.state is JobState.COMPLETED)
            for delivery in detail.deliveries:
                assert delivery.state is not DeliveryState.HELD or delivery.reason
            if job.state is JobState.COMPLETED and detail.results:
                assert len(detail.deliveries) >= 1

    @invariant()
    def rows_files_and_hashes_agree(self):
        assert self.store.ledger.verify() == []


def fast_folder():
    """Return a memory file system where there is one: the walk is about logic, not about fsync."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


TestLedgerWalk = LedgerWalk.TestCase
TestLedgerWalk.settings = settings(
    max_examples=3 if ENVIRONMENT in os.environ else 8,  # a server takes longer for each step
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
