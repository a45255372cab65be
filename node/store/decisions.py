"""What routes made of series, and the birth of jobs: one transaction for both."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, select, update

from node.domain import NewJob, Series, Uid
from node.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    JobEvent,
    JobState,
    SeriesState,
    sources,
)
from node.store import schema
from node.store.base import LedgerPart, record_event, step_delivery, step_job
from node.store.dialect import insert, insert_once
from node.store.records import Decision, DecisionState
from node.store.series import to_series, unchanged
from pipelines.api import canonical_json


class DecisionLedger(LedgerPart):
    """Decisions, jobs they start, and jobs they make obsolete."""

    def record_decision(
        self,
        seen: Series,
        *,
        route: str,
        state: DecisionState,
        reason: str,
        job: NewJob | None = None,
    ) -> Decision | None:
        """Record what a route makes of a series, and insert its job in the same transaction.

        There is one decision for each (series, revision, route). WAITING and UNJUDGED may become
        anything; HELD may become HELD or JOB, then its held job is canceled, unless a person
        released it: that decides. JOB and NONE stay. A job exists at most once by its
        `dedupe_key`: a decision that asks for one that is there points to it.

        Parameters
        ----------
        seen : Series
            As it was when it was judged.
        job : NewJob, optional
            Needed for JOB and HELD; for HELD with `NewJob.held`.

        Returns
        -------
        Decision or None
            The decision as it now stands; None when something arrived since: look again.

        Raises
        ------
        ValueError
            State and job do not fit together.
        """
        if (job is not None) != (state in (DecisionState.JOB, DecisionState.HELD)):
            raise ValueError(f"a decision {state} needs {'no' if job else 'a'} job")
        now = self._clock.now()

        def run(connection: Connection) -> Decision | None:
            row = connection.execute(
                select(schema.series.c.revision).where(*unchanged(seen)).with_for_update()
            ).one_or_none()
            if row is None:
                return None
            before = _decision(connection, seen, route)
            if before is not None and _stands(connection, before):
                return before
            job_id, created = (None, False) if job is None else insert_job(connection, now, job)
            if before is not None and before.job_id not in (None, job_id):
                _give_way(connection, now, before.job_id, job_id)
            first_at = now if before is None else before.first_at
            _write(connection, seen, route, state=state.value, reason=reason, job_id=job_id,
                   first_at=first_at)  # fmt: skip
            if before is None or (before.state, before.reason) != (state, reason):
                record_event(
                    connection,
                    now,
                    f"decision_{state.lower()}",
                    kind="series",
                    subject=seen.series_instance_uid,
                    correlation=job.correlation if job else "",
                    route=route,
                    reason=reason,
                    job=job_id,
                    revision=seen.revision,
                )
            return Decision(
                series_instance_uid=seen.series_instance_uid,
                series_revision=seen.revision,
                route=route,
                state=state,
                reason=reason,
                first_at=first_at,
                job_id=job_id,
                created=created,
            )

        return self._write_and_wake(run)

    def decisions(
        self, states: Collection[DecisionState], *, patients: Collection[str] | None = None
    ) -> list[Decision]:
        """Return the decisions in `states` about the current revision of their series.

        Parameters
        ----------
        patients : collection of str, optional
            Only series of these `patient_key`s.
        """
        d, s = schema.decision.c, schema.series.c
        query = (
            select(schema.decision)
            .join(
                schema.series,
                and_(
                    s.series_instance_uid == d.series_instance_uid, s.revision == d.series_revision
                ),
            )
            .where(d.state.in_([state.value for state in states]))
            .order_by(d.id)
        )
        if patients is not None:
            query = query.where(s.patient_key.in_(sorted(patients)))
        return self._database.read(lambda c: [_to_decision(row) for row in c.execute(query)])

    def decisions_of(self, series_instance_uid: str, revision: int) -> list[Decision]:
        """Return what all routes made of one revision of a series."""
        query = _about(series_instance_uid, revision).order_by(schema.decision.c.id)
        return self._database.read(lambda c: [_to_decision(row) for row in c.execute(query)])

    def undecided_series(self) -> list[Series]:
        """Return the COMPLETE series about whose revision nothing is decided, oldest first."""
        d, s = schema.decision.c, schema.series.c
        decided = exists().where(
            d.series_instance_uid == s.series_instance_uid, d.series_revision == s.revision
        )
        query = (
            select(schema.series)
            .where(s.state == SeriesState.COMPLETE.value, ~decided)
            .order_by(s.last_received_at)
        )
        return self._database.read(lambda c: [to_series(row) for row in c.execute(query)])

    def supersede(self, series_instance_uid: str, revision: int) -> int:
        """Cancel what older revisions of a trigger series still want to do.

        Open jobs are CANCELED, unsent deliveries too; what was delivered stays. Jobs that a
        decision about `revision` points to are left alone, so record those decisions first.

        Returns
        -------
        int
            How many jobs were marked.
        """
        now = self._clock.now()
        j, d = schema.job.c, schema.decision.c
        wanted = (
            select(d.job_id)
            .where(
                d.series_instance_uid == series_instance_uid,
                d.series_revision >= revision,
                d.job_id.is_not(None),
            )
            .scalar_subquery()
        )
        query = select(j.id, j.state).where(
            j.series_instance_uid == series_instance_uid,
            j.series_revision < revision,
            j.superseded_by.is_(None),
            j.id.not_in(wanted),
        )
        reason = f"superseded by revision {revision} of the series"

        def run(connection: Connection) -> int:
            rows = connection.execute(query).all()
            for row in rows:
                if JobState(row.state) in sources(JOB_TRANSITIONS, JobEvent.CANCELED):
                    step_job(connection, now, row.id, JobEvent.CANCELED, reason=reason, hint="")
                connection.execute(
                    update(schema.job).where(j.id == row.id).values(superseded_by=revision)
                )
                _cancel_deliveries(connection, now, row.id, reason)
            return len(rows)

        return self._write_and_wake(run)


def dedupe_key(job: NewJob) -> str:
    """Return the identity of a job: what it runs, on what, for whom."""
    identity = [
        job.pipeline,
        job.pipeline_version,
        job.settings_json,
        job.revision,
        sorted([i.role, i.sop_instance_uid, i.sha256] for i in job.inputs),
        sorted(job.destinations),
    ]
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def insert_job(connection: Connection, now: datetime, job: NewJob) -> tuple[int, bool]:
    """Insert a job unless it is there; return (its number, whether it is new).

    One that a newer revision has superseded does not count as being there: when the newer
    revision asks for the same inputs after all, it runs as a re-process with UIDs of its own.
    """
    held = job.held is not None
    reason, hint = job.held or ("", "")
    job_id = insert_once(
        connection,
        schema.job,
        ("dedupe",),
        {
            "dedupe": dedupe_key(job),
            "route": job.route,
            "pipeline": job.pipeline,
            "pipeline_version": job.pipeline_version,
            "settings_json": job.settings_json,
            "destinations": list(job.destinations),
            "priority": job.priority,
            "series_instance_uid": job.series_instance_uid,
            "series_revision": job.series_revision,
            "revision": job.revision,
            "state": (JobState.HELD if held else JobState.SCHEDULED).value,
            "reason": reason,
            "hint": hint,
            "attempt": 0,
            "max_attempts": job.max_attempts,
            "token": 0,
            "owner": "",
            "start_reason": job.start_reason,
            "correlation": job.correlation,
            "created_at": now,
            "changed_at": now,
            "findings": [],
            "figures": {},
            "report": "",
        },
    )
    if job_id is None:
        return _job_that_is_there(connection, now, job)
    if job.inputs:
        connection.execute(
            schema.job_input.insert(),
            [
                {
                    "job_id": job_id,
                    "role": i.role,
                    "sop_instance_uid": i.sop_instance_uid,
                    "sha256": i.sha256,
                }
                for i in job.inputs
            ],
        )
    record_event(
        connection,
        now,
        "job_held" if held else "job_created",
        kind="job",
        subject=str(job_id),
        correlation=job.correlation,
        route=job.route,
        pipeline=job.pipeline,
        reason=reason or job.start_reason,
        series=job.series_instance_uid,
    )
    return int(job_id), True


def _job_that_is_there(connection: Connection, now: datetime, job: NewJob) -> tuple[int, bool]:
    row = connection.execute(select(schema.job).where(schema.job.c.dedupe == dedupe_key(job))).one()
    if row.superseded_by is not None and row.superseded_by <= job.series_revision:
        return insert_job(connection, now, replace(job, revision=job.revision + 1))
    return int(row.id), False


def _stands(connection: Connection, before: Decision) -> bool:
    """Return whether a decision is made: by the routes, or by a person who released its job."""
    if before.state is not DecisionState.HELD or before.job_id is None:
        return before.state in (DecisionState.JOB, DecisionState.NONE)
    query = select(schema.job.c.state).where(schema.job.c.id == before.job_id)
    state = connection.execute(query).scalar_one()
    return state not in (JobState.HELD.value, JobState.CANCELED.value)


def _give_way(connection: Connection, now: datetime, old: int | None, new: int | None) -> None:
    """Cancel the held job of an earlier decision, if nobody released it meanwhile."""
    row = connection.execute(select(schema.job.c.state).where(schema.job.c.id == old)).one()
    if old is not None and row.state == JobState.HELD.value:
        why = f"superseded by job {new}" if new else "the decision changed"
        step_job(connection, now, old, JobEvent.CANCELED, reason=why, hint="")


def _cancel_deliveries(connection: Connection, now: datetime, job_id: int, reason: str) -> None:
    unsent = [s.value for s in sources(DELIVERY_TRANSITIONS, DeliveryEvent.SUPERSEDED)]
    d = schema.delivery.c
    rows = connection.execute(select(d.id).where(d.job_id == job_id, d.state.in_(unsent))).all()
    for row in rows:
        step_delivery(connection, now, row.id, DeliveryEvent.SUPERSEDED, reason=reason, hint="")


def _about(series_instance_uid: str, revision: int) -> Select[Any]:
    d = schema.decision.c
    return select(schema.decision).where(
        d.series_instance_uid == series_instance_uid, d.series_revision == revision
    )


def _decision(connection: Connection, seen: Series, route: str) -> Decision | None:
    query = _about(seen.series_instance_uid, seen.revision)
    row = connection.execute(query.where(schema.decision.c.route == route)).one_or_none()
    return None if row is None else _to_decision(row)


def _write(connection: Connection, seen: Series, route: str, **values: object) -> None:
    statement = insert(connection, schema.decision).values(
        series_instance_uid=seen.series_instance_uid,
        series_revision=seen.revision,
        route=route,
        **values,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["series_instance_uid", "series_revision", "route"], set_=values
        )
    )


def _to_decision(row: Row[Any]) -> Decision:
    return Decision(
        series_instance_uid=Uid(row.series_instance_uid),
        series_revision=row.series_revision,
        route=row.route,
        state=DecisionState(row.state),
        reason=row.reason,
        first_at=row.first_at,
        job_id=row.job_id,
    )
