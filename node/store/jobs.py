"""The queue: claims with a lease, a fence around every write of a worker, and one finish.

A claim raises `attempt` and `token`; whatever the worker does later names its token, and when
another claim happened meanwhile, 0 rows match and the work is thrown away. Attempts count at the
claim, so a job that kills the whole node is bounded too.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, select, update

from node.domain import Job, JobInput, NewJob, Uid
from node.errors import LedgerError
from node.lifecycle import JobEvent, JobState
from node.store import schema
from node.store.base import LedgerPart, is_due, step_job
from node.store.decisions import insert_job
from node.store.files import BlobFiles

SPENT: Final = "attempts spent"
"""How the reason of a job ends that was tried often enough."""


class JobLedger(LedgerPart):
    """Claim, heartbeat, fail, drain, release and cancel; `finish_job` is in `results`."""

    def claim_job(
        self, *, owner: str, lease_s: float, pipelines: Collection[str] | None = None
    ) -> Job | None:
        """Take the most urgent job that is due; attempt and token are raised.

        Parameters
        ----------
        owner : str
            Who works on it, for people.
        lease_s : float
            How long it is ours without a heartbeat. [s]
        pipelines : collection of str, optional
            Only jobs of these.
        """
        now = self._clock.now()
        query = _due(now, pipelines)
        if self._database.read(lambda c: c.execute(query).first()) is None:
            return None  # the common case costs no commit

        def run(connection: Connection) -> Job | None:
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            after = step_job(
                connection,
                now,
                row.id,
                JobEvent.CLAIMED,
                attempt=row.attempt + 1,
                token=row.token + 1,
                owner=owner,
                lease_until=now + timedelta(seconds=lease_s),
                not_before=None,
                reason="",
                hint="",
            )
            connection.execute(
                schema.attempt.insert().values(
                    job_id=after.id,
                    token=after.token,
                    number=after.attempt,
                    owner=owner,
                    started_at=now,
                    outcome="",
                    reason="",
                )
            )
            return to_job(after, inputs_of(connection, after.id, self._files))

        return self._database.write(run)

    def heartbeat(self, job_id: int, token: int, *, lease_s: float) -> bool:
        """Prolong the lease; False when the job is lost: kill the child, throw the work away."""
        until = self._clock.now() + timedelta(seconds=lease_s)
        statement = (
            update(schema.job)
            .where(*ours(job_id, token))
            .values(lease_until=until)
            .returning(schema.job.c.id)
        )
        return self._database.write(lambda c: c.execute(statement).first() is not None)

    def fail_job(
        self,
        job_id: int,
        token: int,
        *,
        reason: str,
        hint: str,
        transient: bool,
        not_before: datetime | None = None,
    ) -> JobState | None:
        """Record that an attempt failed.

        Returns
        -------
        JobState or None
            SCHEDULED for another try not before `not_before`; HELD when the failure is final or
            the attempts are spent; None when fenced out.
        """
        now = self._clock.now()

        def run(connection: Connection) -> JobState | None:
            row = connection.execute(select(schema.job).where(*ours(job_id, token))).one_or_none()
            if row is None:
                return None
            return give_up(
                connection,
                now,
                row,
                JobEvent.FAILED_TRANSIENTLY if transient else JobEvent.FAILED,
                reason=reason,
                hint=hint,
                not_before=not_before,
            )

        return self._write_and_wake(run)

    def drain_job(self, job_id: int, token: int) -> bool:
        """Give a job back because the node stops in order; the attempt does not count."""
        now = self._clock.now()

        def run(connection: Connection) -> bool:
            row = connection.execute(select(schema.job).where(*ours(job_id, token))).one_or_none()
            if row is None:
                return False
            end_attempt(connection, now, row, JobEvent.DRAINED, "the node stopped in order")
            step_job(
                connection,
                now,
                job_id,
                JobEvent.DRAINED,
                attempt=row.attempt - 1,
                lease_until=None,
                reason="",
            )
            return True

        return self._database.write(run)

    def expire_leases(self) -> list[int]:
        """Take back the jobs whose worker gave no sign; return their numbers."""
        now = self._clock.now()
        j = schema.job.c
        query = select(schema.job).where(j.state == JobState.IN_PROGRESS.value, j.lease_until < now)
        if self._database.read(lambda c: c.execute(query).first()) is None:
            return []

        def run(connection: Connection) -> list[int]:
            rows = connection.execute(query.with_for_update()).all()
            for row in rows:
                give_up(
                    connection,
                    now,
                    row,
                    JobEvent.LEASE_EXPIRED,
                    reason="the worker gave no sign of life",
                    hint="look at the load and the memory of the machine",
                )
            return [int(row.id) for row in rows]

        return self._write_and_wake(run)

    def release_job(self, job_id: int) -> Job:
        """Let a held job run, with all its attempts.

        Raises
        ------
        KeyError
            There is no such job.
        IllegalTransition
            It is not HELD.
        """
        return self._step(job_id, JobEvent.RELEASED, attempt=0, not_before=None, reason="", hint="")

    def cancel_job(self, job_id: int, reason: str) -> Job:
        """Give a job up for good; a worker that has it learns by its next heartbeat.

        Raises
        ------
        KeyError
            There is no such job.
        IllegalTransition
            It is COMPLETED or CANCELED.
        """
        return self._step(job_id, JobEvent.CANCELED, lease_until=None, reason=reason, hint="")

    def reprocess_job(self, job_id: int, priority: int = 10) -> Job:
        """Run a job's inputs once more; the results get UIDs of their own.

        Raises
        ------
        KeyError
            There is no such job.
        LedgerError
            Retention removed an input.
        """
        now = self._clock.now()

        def run(connection: Connection) -> Job:
            old = job_of(connection, job_id, self._files)
            if old is None:
                raise KeyError(f"there is no job {job_id}")
            _require_inputs(connection, old)
            wanted = replace(_again(old), priority=priority)
            number, created = insert_job(connection, now, wanted)
            while not created:
                wanted = replace(wanted, revision=wanted.revision + 1)
                number, created = insert_job(connection, now, wanted)
            new = job_of(connection, number, self._files)
            if new is None:
                raise KeyError(f"there is no job {number}")
            return new

        return self._write_and_wake(run)

    def _step(self, job_id: int, event: JobEvent, **changes: object) -> Job:
        now = self._clock.now()

        def run(connection: Connection) -> Job:
            before = connection.execute(
                select(schema.job).where(schema.job.c.id == job_id)
            ).one_or_none()
            row = step_job(connection, now, job_id, event, **changes)
            if before is not None and before.state == JobState.IN_PROGRESS.value:
                end_attempt(connection, now, before, event, str(changes.get("reason", "")))
            return to_job(row, inputs_of(connection, job_id, self._files))

        return self._write_and_wake(run)


def ours(job_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    """Return the fence: the job still runs under the claim that gave `token`."""
    j = schema.job.c
    return j.id == job_id, j.token == token, j.state == JobState.IN_PROGRESS.value


def give_up(
    connection: Connection,
    now: datetime,
    row: Row[Any],
    event: JobEvent,
    *,
    reason: str,
    hint: str,
    not_before: datetime | None = None,
) -> JobState:
    """End a running attempt; a job whose attempts are spent is held for a person."""
    end_attempt(connection, now, row, event, reason)
    if event is not JobEvent.FAILED and row.attempt >= row.max_attempts:
        event = JobEvent.FAILED
        reason = f"{reason} ({row.attempt} of {row.max_attempts} {SPENT})"
    final = event is JobEvent.FAILED
    after = step_job(
        connection,
        now,
        row.id,
        event,
        lease_until=None,
        not_before=None if final else not_before,
        reason=reason,
        hint=hint,
    )
    return JobState(after.state)


def end_attempt(
    connection: Connection, now: datetime, row: Row[Any], event: JobEvent, reason: str
) -> None:
    """Close the attempt of a job's current claim."""
    a = schema.attempt.c
    connection.execute(
        update(schema.attempt)
        .where(a.job_id == row.id, a.token == row.token)
        .values(ended_at=now, outcome=event.value, reason=reason)
    )


def job_of(connection: Connection, job_id: int, files: BlobFiles) -> Job | None:
    """Return a job with its inputs."""
    row = connection.execute(select(schema.job).where(schema.job.c.id == job_id)).one_or_none()
    return None if row is None else to_job(row, inputs_of(connection, job_id, files))


def inputs_of(connection: Connection, job_id: int, files: BlobFiles) -> tuple[JobInput, ...]:
    """Return the frozen inputs of a job, sorted by role and UID."""
    i = schema.job_input.c
    query = (
        select(schema.job_input, schema.blob.c.path)
        .join(schema.blob, schema.blob.c.sha256 == i.sha256)
        .where(i.job_id == job_id)
        .order_by(i.role, i.sop_instance_uid)
    )
    return tuple(
        JobInput(
            role=row.role,
            sop_instance_uid=Uid(row.sop_instance_uid),
            sha256=row.sha256,
            path=files.absolute(row.path),
        )
        for row in connection.execute(query)
    )


def to_job(row: Row[Any], inputs: Iterable[JobInput] = ()) -> Job:
    """Return the value object of a row."""
    return Job(
        id=row.id,
        route=row.route,
        pipeline=row.pipeline,
        pipeline_version=row.pipeline_version,
        settings_json=row.settings_json,
        destinations=tuple(row.destinations),
        priority=row.priority,
        series_instance_uid=Uid(row.series_instance_uid),
        series_revision=row.series_revision,
        revision=row.revision,
        state=JobState(row.state),
        reason=row.reason,
        hint=row.hint,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        token=row.token,
        start_reason=row.start_reason,
        correlation=row.correlation,
        created_at=row.created_at,
        not_before=row.not_before,
        inputs=tuple(inputs),
    )


def _due(now: datetime, pipelines: Collection[str] | None) -> Select[Any]:
    j = schema.job.c
    query = select(schema.job).where(j.state == JobState.SCHEDULED.value, is_due(schema.job, now))
    if pipelines is not None:
        query = query.where(j.pipeline.in_(sorted(pipelines)))
    return query.order_by(j.priority.desc(), j.created_at, j.id).limit(1)


def _require_inputs(connection: Connection, job: Job) -> None:
    """Refuse to run a job again of which an input is no longer kept."""
    b = schema.blob.c
    gone = connection.execute(
        select(b.sha256)
        .where(b.sha256.in_([i.sha256 for i in job.inputs]), b.purged_at.is_not(None))
        .limit(1)
    ).first()
    if gone is not None:
        raise LedgerError(
            f"retention removed inputs of job {job.id}",
            hint="send its series again; they are kept again then, and the job can be repeated",
        )


def _again(job: Job) -> NewJob:
    return NewJob(
        route=job.route,
        pipeline=job.pipeline,
        pipeline_version=job.pipeline_version,
        settings_json=job.settings_json,
        destinations=job.destinations,
        priority=job.priority,
        series_instance_uid=job.series_instance_uid,
        series_revision=job.series_revision,
        inputs=job.inputs,
        revision=job.revision + 1,
        start_reason=f"re-process of job {job.id}",
        correlation=job.correlation,
        max_attempts=job.max_attempts,
    )
