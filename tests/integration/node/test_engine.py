"""Jobs that go wrong: rejected, crashed, killed, too long, too large, not ours, not wanted."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.config.model import Limits
from node.engine import slot
from node.engine.engine import Engine
from node.engine.options import EngineOptions
from node.errors import OutOfResources
from node.lifecycle import DeliveryState, JobState
from pipelines.catalog import PIPELINES
from tests.node_kit import FAKE_WORKER, until
from tests.store_kit import start_job, store

VERSION = PIPELINES["autocontour"].version
OPTIONS = EngineOptions(
    limits=lambda _: Limits(timeout_s=20.0, memory_mb=4096),
    preload=("autocontour",),
    threads=1,
    retry_first_s=0.1,
    retry_max_s=0.2,
    lease_s=30.0,
    drain_s=0.5,
    command=FAKE_WORKER,
)


@pytest.fixture
def tell(monkeypatch, tmp_path):
    """Tell the fake pipelines what to do."""

    def say(**instructions) -> None:
        if instructions.pop("once", False):
            instructions["once"] = str(tmp_path / "once")
        monkeypatch.setenv("FAKE", json.dumps(instructions))

    say()
    return say


class Running:
    """A store with one job and an engine that works on it."""

    def __init__(self, folder, **changes) -> None:
        self.store = store(folder, clock=SystemClock(), on_change=self.wake)
        self.engine = None
        self.job_id = start_job(self.store, pipeline_version=changes.pop("version", VERSION))
        options = replace(OPTIONS, **changes)
        self.engine = Engine(self.store.ledger, folder / "work", options, SystemClock())

    def wake(self) -> None:
        if getattr(self, "engine", None):
            self.engine.wake()

    @property
    def job(self):
        return self.store.ledger.job(self.job_id)

    @property
    def detail(self):
        return self.store.ledger.job_detail(self.job_id)

    def __enter__(self):
        self.engine.start()
        return self

    def __exit__(self, *_) -> None:
        self.engine.stop()
        self.store.close()

    def until(self, *states, seconds=20.0) -> None:
        until(lambda: self.job.state in states, seconds, what=f"{self.job}")


def child_of(folder) -> int:
    """Return the process id of the fake child that works for this process, 0: there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if FAKE_WORKER[1].encode() in words and str(os.getpid()).encode() in words:
            return int(entry.name)
    return 0


def test_a_finished_job_has_results_deliveries_figures_and_a_report(tmp_path, tell) -> None:
    with Running(tmp_path) as running:
        running.until(JobState.COMPLETED)

        assert running.job.attempt == 1
        assert [d.state for d in running.detail.deliveries] == [DeliveryState.PENDING]
        assert running.detail.figures == {"inputs": 2}
        assert (tmp_path / "work" / f"{running.job_id}-1" / "report" / "index.html").exists()
        assert not list((tmp_path / "work").rglob("*.dcm"))


def test_a_rejected_input_is_held_at_once_with_the_reason(tmp_path, tell) -> None:
    tell(fail="reject")
    with Running(tmp_path) as running:
        running.until(JobState.HELD)

        assert running.job.attempt == 1
        assert running.job.reason == "InputRejected: a slice is missing between 27.0 and 33.0 mm"
        assert running.job.hint == "correct or re-send the input; a new revision starts by itself"


def test_a_mistake_of_the_pipeline_is_held_without_its_words(tmp_path, tell, caplog) -> None:
    """B12: the text of a foreign exception may quote a patient's name."""
    tell(fail="crash")
    with Running(tmp_path) as running:
        running.until(JobState.HELD)

        assert running.job.reason == "RuntimeError: the pipeline failed: RuntimeError"
        assert "CANARY" not in caplog.text
        assert "CANARY" not in str([r.__dict__ for r in caplog.records])


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("exit", "the worker process ended with code 3"),
        ("kill", "the worker process was killed by SIGSEGV"),
    ],
)
def test_a_child_that_dies_is_run_again_and_gives_one_result(tmp_path, tell, fail, reason) -> None:
    """C1."""
    tell(fail=fail, once=True)
    with Running(tmp_path) as running:
        running.until(JobState.COMPLETED)

        assert [(a.number, a.reason) for a in running.detail.attempts] == [(1, reason), (2, "")]
        assert len(running.detail.results) == 1


def test_a_child_that_always_dies_is_held_after_its_attempts(tmp_path, tell) -> None:
    tell(fail="exit")
    with Running(tmp_path) as running:
        running.until(JobState.HELD)

        assert running.job.attempt == 3
        assert "3 of 3 attempts spent" in running.job.reason


def test_killing_the_child_from_outside_costs_one_attempt(tmp_path, tell) -> None:
    """C1."""
    tell(sleep_s=30, once=True)
    with Running(tmp_path) as running:
        until(lambda: list((tmp_path / "work").glob("*/began")))
        os.kill(child_of(tmp_path), signal.SIGKILL)
        running.until(JobState.COMPLETED)

        assert running.job.attempt == 2
        assert len(running.detail.results) == 1


def test_a_runaway_is_killed_at_its_limit_and_the_next_attempt_has_a_clean_child(
    tmp_path, tell
) -> None:
    """C4."""
    tell(fail="loop", once=True)
    limits = Limits(timeout_s=1.0, memory_mb=4096)
    with Running(tmp_path, limits=lambda _: limits) as running:
        running.until(JobState.COMPLETED)

        assert running.detail.attempts[0].reason == "ResourceExhausted: killed after 1 s"


def test_memory_is_limited_for_the_job_and_running_out_is_worth_another_try(tmp_path, tell) -> None:
    tell(fail="leak", once=True)
    limits = Limits(timeout_s=20.0, memory_mb=512)
    with Running(tmp_path, limits=lambda _: limits) as running:
        running.until(JobState.COMPLETED)

        assert running.detail.attempts[0].reason == "ResourceExhausted: memory ran out"


def test_a_blocking_finding_keeps_the_result_and_holds_its_deliveries(tmp_path, tell) -> None:
    tell(fail="block")
    with Running(tmp_path) as running:
        running.until(JobState.COMPLETED)

        assert [d.state for d in running.detail.deliveries] == [DeliveryState.HELD]
        assert running.job.reason == "looked"


def test_a_result_of_another_patient_is_never_recorded(tmp_path, tell) -> None:
    tell(fail="stranger")
    with Running(tmp_path) as running:
        running.until(JobState.HELD)

        assert running.job.reason == "object 1 is of another patient than the inputs"
        assert not running.detail.results


def test_success_without_an_object_is_no_success(tmp_path, tell) -> None:
    tell(fail="silent")
    with Running(tmp_path) as running:
        running.until(JobState.HELD)

        assert "wrote no object" in running.job.reason


def test_a_job_of_another_version_of_the_pipeline_is_not_run_by_this_one(tmp_path, tell) -> None:
    """C11."""
    with Running(tmp_path, version="0.0.0") as running:
        running.until(JobState.HELD)

        assert "the job is for version 0.0.0 of autocontour" in running.job.reason


def test_a_short_job_is_finished_while_the_node_stops(tmp_path, tell) -> None:
    """C7."""
    tell(sleep_s=0.3)
    running = Running(tmp_path, drain_s=10.0)
    running.engine.start()
    until(lambda: list((tmp_path / "work").glob("*/began")))
    running.engine.stop()

    assert running.job.state is JobState.COMPLETED
    running.store.close()


def test_a_long_job_is_given_back_without_using_an_attempt(tmp_path, tell) -> None:
    """C7."""
    tell(sleep_s=60)
    running = Running(tmp_path)
    running.engine.start()
    until(lambda: list((tmp_path / "work").glob("*/began")))
    child = child_of(tmp_path)
    began = time.monotonic()
    running.engine.stop()

    assert time.monotonic() - began < 5
    assert (running.job.state, running.job.attempt) == (JobState.SCHEDULED, 0)
    assert not Path(f"/proc/{child}").exists()
    running.store.close()


def test_a_canceled_job_is_killed_and_its_work_thrown_away(tmp_path, tell) -> None:
    tell(sleep_s=60)
    with Running(tmp_path, lease_s=0.6) as running:
        until(lambda: list((tmp_path / "work").glob("*/began")))
        child = child_of(tmp_path)
        running.store.ledger.cancel_job(running.job_id, "not wanted")
        until(lambda: not Path(f"/proc/{child}").exists())

        assert running.job.state is JobState.CANCELED
        assert not running.detail.results


def test_a_stale_worker_cannot_record_a_result(tmp_path, tell) -> None:
    """C10: somebody else took the job over while we were stopped."""
    tell(sleep_s=1.5, once=True)
    with Running(tmp_path, lease_s=30.0) as running:
        until(lambda: list((tmp_path / "work").glob("*/began")))
        first = running.job.token
        running.store.ledger.drain_job(running.job_id, first)
        taken = running.store.ledger.claim_job(owner="another host", lease_s=60)
        assert taken.token == first + 1
        time.sleep(2.5)

        assert running.job.state is JobState.IN_PROGRESS
        assert not running.detail.results


def test_a_worker_is_replaced_after_so_many_jobs(tmp_path, tell) -> None:
    with Running(tmp_path, jobs_per_worker=1) as running:
        running.until(JobState.COMPLETED)
        until(lambda: child_of(tmp_path))
        first = child_of(tmp_path)
        again = running.store.ledger.reprocess_job(running.job_id)
        until(lambda: running.store.ledger.job(again.id).state is JobState.COMPLETED)

        until(lambda: child_of(tmp_path) not in {0, first})


def test_no_child_outlives_the_engine(tmp_path, tell) -> None:
    with Running(tmp_path) as running:
        running.until(JobState.COMPLETED)
        child = child_of(tmp_path)

    assert not Path(f"/proc/{child}").exists()


def test_a_result_that_waits_for_disk_space_keeps_its_claim(tell, tmp_path, monkeypatch) -> None:
    """Without a heartbeat another slot takes the job, and the finished work is thrown away."""
    monkeypatch.setattr(slot, "_RETRY_RECORD_S", 0.2)
    with Running(tmp_path, slots=2, lease_s=1.0) as running:
        real, full_until = running.store.ledger.finish_job, time.monotonic() + 4.0

        def finish(*arguments, **named):
            if time.monotonic() < full_until:
                raise OutOfResources("the data volume is full")
            return real(*arguments, **named)

        monkeypatch.setattr(running.store.ledger, "finish_job", finish)
        running.until(JobState.COMPLETED)

        assert running.job.attempt == 1
