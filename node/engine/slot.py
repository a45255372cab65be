"""One slot of the engine: claim a job, hand it to the warm child, record what became of it.

The child has no database; every word about a job is written here, fenced by the token of the
claim, so that a worker that was given up can never record a result. A failure is tried again when
its class says that this may help, with a pause that doubles; otherwise, and when the attempts are
spent, the ledger holds the job with reason and hint.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from node.domain import Clock, Job
from node.engine.bell import Bell
from node.engine.child import Child, ChildDied, Line
from node.engine.options import EngineOptions
from node.engine.results import Checked, NotOurResult, check
from node.errors import NodeError
from node.lifecycle import JobState
from node.log import bound, event
from node.store.ledger import Ledger
from pipelines.api import Json, ResourceExhausted
from pipelines.catalog import PIPELINES

T = TypeVar("T")

_log = logging.getLogger(__name__)

_POLL_S: Final = 1.0
"""How often a slot looks for jobs that became due without anybody ringing, and for a stop."""
_RETRY_RECORD_S: Final = 2.0
"""Pause before a result that the disk or the database refused is recorded again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why an attempt gave no result."""

    reason: str
    hint: str
    transient: bool


class _Fenced(Exception):
    """The job was canceled or given to somebody else; what we have is worthless."""


class _Drained(Exception):
    """The node stops before the job ended."""


class Slot:
    """At most one child and one job at a time, all in the one thread that calls `serve`."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        work_dir: Path,
        options: EngineOptions,
        clock: Clock,
        bell: Bell,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._work_dir = work_dir
        self._options = options
        self._clock = clock
        self._bell = bell
        self._child: Child | None = None
        self._jobs_of_child = 0
        self._failed_starts = 0

    def serve(self) -> None:
        """Run jobs until the bell is closed; the child ends with this thread."""
        try:
            while not self._bell.closed:
                rings = self._bell.rings
                child = self._warm_child()
                job = self._claim() if child else None
                if child and job:
                    self._attempt_safely(child, job)
                elif not self._bell.closed:
                    self._bell.wait(_POLL_S, since=rings)
        finally:
            self._drop_child()

    def _claim(self) -> Job | None:
        try:
            self._ledger.expire_leases()
            return self._ledger.claim_job(owner=self._name, lease_s=self._options.lease_s)
        except NodeError as error:
            event(_log, "claim_failed", level=logging.ERROR, error=error)
            return None

    def _attempt_safely(self, child: Child, job: Job) -> None:
        """Run one attempt; a mistake of ours must not end the slot.

        The claim stays open then: its lease expires, and the attempts bound how often.
        """
        with bound(**job.log_context()):
            try:
                self._attempt(child, job)
            except Exception as error:  # noqa: BLE001 - the edge of the worker, see house rules
                event(_log, "slot_failed", level=logging.ERROR, error=error)
                self._drop_child()
                self._bell.pause(_RETRY_RECORD_S)

    def _attempt(self, child: Child, job: Job) -> None:
        """Run one attempt and record its end; never raises for what a job can do."""
        self._jobs_of_child += 1
        started = self._clock.monotonic()
        output = self._work_dir / f"{job.id}-{job.token}"
        event(_log, "job_started", inputs=len(job.inputs), worker=child.pid)
        try:
            failure = self._run(child, job, output)
        except _Fenced:
            event(_log, "job_fenced_out", level=logging.WARNING)
            self._drop_child()
            shutil.rmtree(output, ignore_errors=True)
            return
        except _Drained:
            self._drop_child()
            shutil.rmtree(output, ignore_errors=True)
            self._insist(lambda: self._ledger.drain_job(job.id, job.token), job)
            event(_log, "job_given_back")
            return
        seconds = round(self._clock.monotonic() - started, 2)
        if failure is None:
            event(_log, "job_finished", seconds=seconds)
            for path in output.glob("*.dcm"):
                path.unlink(missing_ok=True)  # published; the report stays
        else:
            self._drop_child()
            self._fail(job, failure, seconds)
            if failure.transient:
                shutil.rmtree(output, ignore_errors=True)

    def _run(self, child: Child, job: Job, output: Path) -> _Failure | None:
        """Return None when the results are recorded, else why there are none."""
        version = PIPELINES[job.pipeline].version
        if version != job.pipeline_version:
            return _Failure(
                reason=f"the job is for version {job.pipeline_version} of {job.pipeline}, this"
                f" node has {version}",
                hint="cancel the job and send the series again",
                transient=False,
            )
        try:
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(mode=0o750)
            answer = self._ask(child, job, output)
            if answer is None:
                limit = self._options.limits(job.pipeline).timeout_s
                return _Failure(
                    reason=f"ResourceExhausted: killed after {limit:g} s",
                    hint=ResourceExhausted.hint,
                    transient=True,
                )
            if not answer.get("ok"):
                return _Failure(
                    reason=f"{answer.get('error')}: {answer.get('message')}",
                    hint=str(answer.get("hint") or ""),
                    transient=answer.get("transient") is True,
                )
            checked = check(job, answer, output)
        except ChildDied as error:
            event(_log, "worker_died", level=logging.WARNING, note=child.tail())
            return _Failure(reason=str(error), hint=ResourceExhausted.hint, transient=True)
        except NotOurResult as error:
            return _Failure(reason=str(error), hint=error.advice, transient=False)
        except OSError as error:
            reason = f"the work folder cannot be used: {error.strerror}"
            return _Failure(reason=reason, hint="free space on the data volume", transient=True)
        return self._finish(job, checked, output)

    def _finish(self, job: Job, checked: Checked, output: Path) -> _Failure | None:
        """Record the results; the one transaction that makes them exist."""
        report = output / "report"
        try:
            recorded = self._insist(
                lambda: self._ledger.finish_job(
                    job.id,
                    job.token,
                    checked.results,
                    findings=checked.findings,
                    figures=checked.figures,
                    report=str(report) if report.is_dir() else "",
                    hold=checked.hold,
                    held=checked.held,
                ),
                job,
            )
        except NodeError as error:
            return _Failure(reason=str(error), hint=error.advice, transient=False)
        if not recorded:
            raise _Fenced
        return None

    def _ask(self, child: Child, job: Job, output: Path) -> Line | None:
        """Return the answer of the child, None when its time is over; the claim is kept alive."""
        limits = self._options.limits(job.pipeline)
        profiles = {d: p for d, p in self._options.profiles.items() if d in job.destinations}
        child.send(_line(job, output, limits.memory_mb, profiles))
        now = self._clock.monotonic()
        end, beat = now + limits.timeout_s, now + self._options.lease_s / 3
        drained: float | None = None
        while True:
            now = self._clock.monotonic()
            if now >= end:
                return None
            if now >= beat:
                beat = now + self._options.lease_s / 3
                self._heartbeat(job)
            if self._bell.closed:
                drained = drained if drained is not None else now + self._options.drain_s
                if now >= drained:
                    raise _Drained
            answer = child.receive(min(_POLL_S, end - now, beat - now))
            if answer is not None:
                return answer

    def _heartbeat(self, job: Job) -> None:
        try:
            ours = self._ledger.heartbeat(job.id, job.token, lease_s=self._options.lease_s)
        except NodeError as error:
            event(_log, "heartbeat_failed", level=logging.WARNING, error=error)
            return  # the lease outlasts three of these
        if not ours:
            raise _Fenced

    def _fail(self, job: Job, failure: _Failure, seconds: float) -> None:
        pause = timedelta(seconds=self._options.pause_s(job.attempt))
        try:
            state = self._insist(
                lambda: self._ledger.fail_job(
                    job.id,
                    job.token,
                    reason=failure.reason,
                    hint=failure.hint,
                    transient=failure.transient,
                    not_before=self._clock.now() + pause,
                ),
                job,
            )
        except _Fenced:
            state = None
        held = state is JobState.HELD
        event(
            _log,
            "job_held" if held else "job_failed",
            level=logging.ERROR if held else logging.WARNING,
            state=state.value if state else "fenced out",
            reason=failure.reason,
            hint=failure.hint,
            seconds=seconds,
        )

    def _insist(self, write: Callable[[], T], job: Job) -> T | None:
        """Repeat a write that disk or database refuse; None when the node stops meanwhile.

        The claim is kept alive, so that no other slot repeats what is done; one that is left open
        at a stop is taken up again at the next start.
        """
        while True:
            try:
                return write()
            except NodeError as error:
                if not error.transient:
                    raise
                event(_log, "record_failed", level=logging.ERROR, error=error)
            if self._bell.closed:
                return None
            self._bell.pause(_RETRY_RECORD_S)
            self._heartbeat(job)

    def _warm_child(self) -> Child | None:
        """Return a child that said it is ready; a new one after so many jobs; None: not yet."""
        if self._child is not None and self._jobs_of_child >= self._options.jobs_per_worker:
            self._drop_child()
        if self._child is None:
            self._child = self._start_child()
            self._jobs_of_child = 0
        return self._child

    def _start_child(self) -> Child | None:
        options = self._options
        child = None
        try:
            child = Child(options.command, options.preload, options.threads, self._clock.monotonic)
            end = self._clock.monotonic() + options.start_timeout_s
            while not self._bell.closed and self._clock.monotonic() < end:
                if (child.receive(_POLL_S) or {}).get("ready"):
                    self._failed_starts = 0
                    return child
            reason = "it did not say that it is ready in time"
        except (ChildDied, OSError) as error:
            reason = str(error)
        if child is not None:
            child.kill()
        if not self._bell.closed:
            self._failed_starts += 1
            pause = options.pause_s(self._failed_starts)
            event(_log, "worker_not_ready", level=logging.ERROR, reason=reason, retry_in_s=pause)
            self._bell.pause(pause)
        return None

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _line(job: Job, output: Path, memory_mb: int, profiles: dict[str, Json]) -> Line:
    """Return the line of the child protocol that asks for `job`."""
    inputs: list[Json] = [
        {
            "role": i.role,
            "path": str(i.path),
            "sop_instance_uid": i.sop_instance_uid,
            "sha256": i.sha256,
        }
        for i in job.inputs
    ]
    return {
        "job": job.id,
        "pipeline": job.pipeline,
        "settings": json.loads(job.settings_json),
        "inputs": inputs,
        "revision": job.revision,
        "output": str(output),
        "memory_mb": memory_mb,
        "profiles": profiles,
    }
