"""Looking: what `status`, `jobs` and the page show. Nothing here writes."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from node.domain import AETitle, Job, Series, Uid
from node.lifecycle import DeliveryState, JobState, SeriesState
from node.store import schema
from node.store.base import LedgerPart, record_event
from node.store.jobs import inputs_of, to_job
from node.store.migrate import schema_version
from node.store.records import (
    AssociationLine,
    AttemptLine,
    Counts,
    DecisionState,
    DeliveryLine,
    EventLine,
    HeldItem,
    JobDetail,
    Quarantined,
    QueueLine,
    ResultLine,
)
from node.store.series import to_series


class Listing(LedgerPart):
    """Queries for people."""

    def jobs(self, states: Collection[JobState] | None = None, limit: int = 50) -> list[Job]:
        """Return jobs, newest first, without their inputs."""
        query = select(schema.job).order_by(schema.job.c.id.desc()).limit(limit)
        if states is not None:
            query = query.where(schema.job.c.state.in_([state.value for state in states]))
        return self._database.read(lambda c: [to_job(row) for row in c.execute(query)])

    def job(self, job_id: int) -> Job | None:
        """Return a job with its inputs."""

        def look(connection: Connection) -> Job | None:
            row = connection.execute(
                select(schema.job).where(schema.job.c.id == job_id)
            ).one_or_none()
            if row is None:
                return None
            return to_job(row, inputs_of(connection, job_id, self._files))

        return self._database.read(look)

    def job_detail(self, job_id: int) -> JobDetail | None:
        """Return everything about a job."""

        def look(connection: Connection) -> JobDetail | None:
            row = connection.execute(
                select(schema.job).where(schema.job.c.id == job_id)
            ).one_or_none()
            if row is None:
                return None
            return JobDetail(
                job=to_job(row, inputs_of(connection, job_id, self._files)),
                changed_at=row.changed_at,
                finished_at=row.changed_at if row.state == JobState.COMPLETED.value else None,
                superseded_by=row.superseded_by,
                findings=row.findings,
                figures=row.figures,
                report=row.report,
                attempts=tuple(_attempt(a) for a in connection.execute(_attempts(job_id))),
                results=tuple(self._result(r) for r in connection.execute(_results(job_id))),
                deliveries=tuple(_delivery(d) for d in connection.execute(_deliveries(job_id))),
                events=tuple(to_event(e) for e in connection.execute(_job_events(job_id))),
            )

        return self._database.read(look)

    def counts(self) -> Counts:
        """Return how much there is."""

        def look(connection: Connection) -> Counts:
            d = schema.delivery.c
            deliveries: dict[str, dict[str, int]] = {}
            for row in connection.execute(
                select(d.destination, d.state, func.count().label("many")).group_by(
                    d.destination, d.state
                )
            ):
                deliveries.setdefault(row.destination, {})[row.state] = row.many
            i = schema.instance.c
            return Counts(
                series=_by_state(connection, schema.series.c.state),
                jobs=_by_state(connection, schema.job.c.state),
                deliveries=deliveries,
                instances=connection.execute(select(func.count(i.id))).scalar_one(),
                conflicts=connection.execute(
                    select(func.count(i.id)).where(i.conflict.is_(True))
                ).scalar_one(),
                quarantined=connection.execute(
                    select(func.count(schema.quarantine.c.id))
                ).scalar_one(),
            )

        return self._database.read(look)

    def queue(self) -> list[QueueLine]:
        """Return what waits, and for how long."""
        now = self._clock.now()
        j, d = schema.job.c, schema.delivery.c
        jobs = select(
            j.pipeline.label("name"), func.count().label("many"), func.min(j.created_at).label("at")
        ).where(j.state == JobState.SCHEDULED.value)
        deliveries = select(
            d.destination.label("name"),
            func.count().label("many"),
            func.min(d.created_at).label("at"),
        ).where(d.state == DeliveryState.PENDING.value)
        queries = (
            ("job", jobs.group_by(j.pipeline).order_by(j.pipeline)),
            ("delivery", deliveries.group_by(d.destination).order_by(d.destination)),
        )
        return self._database.read(
            lambda c: [
                QueueLine(
                    kind=kind,
                    name=row.name,
                    waiting=row.many,
                    oldest_s=(now - row.at).total_seconds(),
                )
                for kind, query in queries
                for row in c.execute(query)
            ]
        )

    def held(self) -> list[HeldItem]:
        """Return what a person must look at, oldest first."""

        def look(connection: Connection) -> list[HeldItem]:
            items = [*_held_jobs(connection), *_held_deliveries(connection)]
            items += [*_incomplete_series(connection), *_unjudged(connection)]
            return sorted(items, key=lambda item: item.since)

        return self._database.read(look)

    def quarantined(self, limit: int = 50) -> list[Quarantined]:
        """Return what we could not understand, newest first."""
        query = select(schema.quarantine).order_by(schema.quarantine.c.id.desc()).limit(limit)
        return self._database.read(
            lambda c: [
                Quarantined(
                    id=row.id,
                    sha256=row.sha256,
                    path=self._files.absolute(row.path) if row.path else None,
                    size=row.size,
                    reason=row.reason,
                    calling_ae_title=AETitle(row.calling_ae_title),
                    association_id=row.association_id,
                    at=row.at,
                )
                for row in c.execute(query)
            ]
        )

    def recent_series(self, limit: int = 50) -> list[Series]:
        """Return the series that changed last, newest first."""
        query = select(schema.series).order_by(schema.series.c.last_received_at.desc()).limit(limit)
        return self._database.read(lambda c: [to_series(row) for row in c.execute(query)])

    def recent_associations(self, limit: int = 50) -> list[AssociationLine]:
        """Return the associations that opened last, newest first."""
        query = select(schema.association).order_by(schema.association.c.id.desc()).limit(limit)
        return self._database.read(
            lambda c: [
                AssociationLine(
                    association_id=row.association_id,
                    calling_ae_title=AETitle(row.calling_ae_title),
                    called_ae_title=AETitle(row.called_ae_title),
                    address=row.address,
                    opened_at=row.opened_at,
                    ended_at=row.ended_at,
                    end=row.end,
                    received=row.received,
                    refused=row.refused,
                )
                for row in c.execute(query)
            ]
        )

    def explain(self, uid: str) -> list[EventLine]:
        """Return what happened to a study, series, instance, result or ``job:<number>``."""

        def look(connection: Connection) -> list[EventLine]:
            series = _series_of(connection, uid)
            jobs = _jobs_of(connection, uid, series)
            r, e = schema.result.c, schema.event.c
            results = select(r.sop_instance_uid).where(r.job_id.in_(jobs))
            query = (
                select(schema.event)
                .where(
                    or_(
                        e.subject.in_([uid, *series]),
                        and_(e.kind == "job", e.subject.in_([str(job) for job in jobs])),
                        and_(e.kind == "delivery", e.subject.in_(results)),
                    )
                )
                .order_by(e.id)
            )
            return [to_event(row) for row in connection.execute(query)]

        return self._database.read(look)

    def has_event(self, action: str, subject: str) -> bool:
        """Return whether `action` was ever noted of `subject`."""
        e = schema.event.c
        query = select(e.id).where(e.subject == subject, e.action == action).limit(1)
        return self._database.read(lambda c: c.execute(query).first() is not None)

    def note(
        self, action: str, *, kind: str, subject: str, correlation: str = "", **detail: object
    ) -> None:
        """Append an event that belongs to no other change."""
        now = self._clock.now()
        self._database.write(
            lambda c: record_event(
                c, now, action, kind=kind, subject=subject, correlation=correlation, **detail
            )
        )

    def schema_version(self) -> str:
        """Return the revision of the database schema."""
        return self._database.read(schema_version)

    def _result(self, row: Row[Any]) -> ResultLine:
        return ResultLine(
            sop_instance_uid=Uid(row.sop_instance_uid),
            sop_class_uid=Uid(row.sop_class_uid),
            series_instance_uid=Uid(row.series_instance_uid),
            modality=row.modality,
            sha256=row.sha256,
            path=self._files.absolute(row.path),
        )


def _by_state(connection: Connection, state: Any) -> dict[str, int]:  # noqa: ANN401 - a column
    query = select(state.label("state"), func.count().label("many")).group_by(state)
    return {row.state: row.many for row in connection.execute(query)}


def _attempts(job_id: int) -> Select[Any]:
    a = schema.attempt.c
    return select(schema.attempt).where(a.job_id == job_id).order_by(a.token)


def _results(job_id: int) -> Select[Any]:
    r = schema.result.c
    return (
        select(schema.result, schema.blob.c.path)
        .join(schema.blob, schema.blob.c.sha256 == r.sha256)
        .where(r.job_id == job_id)
        .order_by(r.id)
    )


def _deliveries(job_id: int) -> Select[Any]:
    d = schema.delivery.c
    return select(schema.delivery).where(d.job_id == job_id).order_by(d.id)


def _job_events(job_id: int) -> Select[Any]:
    e, r = schema.event.c, schema.result.c
    results = select(r.sop_instance_uid).where(r.job_id == job_id)
    return (
        select(schema.event)
        .where(
            or_(
                and_(e.kind == "job", e.subject == str(job_id)),
                and_(e.kind == "delivery", e.subject.in_(results)),
            )
        )
        .order_by(e.id)
    )


def _attempt(row: Row[Any]) -> AttemptLine:
    return AttemptLine(
        number=row.number,
        owner=row.owner,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        reason=row.reason,
    )


def _delivery(row: Row[Any]) -> DeliveryLine:
    return DeliveryLine(
        id=row.id,
        destination=row.destination,
        sop_instance_uid=Uid(row.sop_instance_uid),
        state=DeliveryState(row.state),
        attempt=row.attempt,
        status=row.status,
        reason=row.reason,
        hint=row.hint,
        not_before=row.not_before,
        changed_at=row.changed_at,
    )


def to_event(row: Row[Any]) -> EventLine:
    """Return the value object of a row."""
    return EventLine(
        at=row.at,
        action=row.action,
        kind=row.kind,
        subject=row.subject,
        correlation=row.correlation,
        detail=row.detail,
    )


def _held_jobs(connection: Connection) -> list[HeldItem]:
    query = select(schema.job).where(schema.job.c.state == JobState.HELD.value)
    return [
        HeldItem(
            kind="job",
            id=str(row.id),
            subject=f"{row.route}: {row.pipeline}",
            reason=row.reason,
            hint=row.hint,
            since=row.changed_at,
        )
        for row in connection.execute(query)
    ]


def _held_deliveries(connection: Connection) -> list[HeldItem]:
    query = select(schema.delivery).where(schema.delivery.c.state == DeliveryState.HELD.value)
    return [
        HeldItem(
            kind="delivery",
            id=str(row.id),
            subject=f"{row.destination}: {row.sop_instance_uid}",
            reason=row.reason,
            hint=row.hint,
            since=row.changed_at,
        )
        for row in connection.execute(query)
    ]


def _incomplete_series(connection: Connection) -> list[HeldItem]:
    query = select(schema.series).where(schema.series.c.state == SeriesState.INCOMPLETE.value)
    return [
        HeldItem(
            kind="series",
            id=row.series_instance_uid,
            subject=row.modality,
            reason=row.reason,
            hint="send what is missing; the series is looked at again by itself",
            since=row.last_received_at,
        )
        for row in connection.execute(query)
    ]


def _unjudged(connection: Connection) -> list[HeldItem]:
    """Return the series over which the node itself stumbled."""
    d, s = schema.decision.c, schema.series.c
    query = (
        select(schema.decision, s.modality)
        .join(
            schema.series,
            and_(s.series_instance_uid == d.series_instance_uid, s.revision == d.series_revision),
        )
        .where(d.state == DecisionState.UNJUDGED.value)
    )
    return [
        HeldItem(
            kind="series",
            id=row.series_instance_uid,
            subject=f"{row.modality}: {row.route or 'all routes'}",
            reason=row.reason,
            hint="a mistake of rtnode: the log has the cause, please report it; the series is"
            " judged again at the next start of the node",
            since=row.first_at,
        )
        for row in connection.execute(query)
    ]


def _series_of(connection: Connection, uid: str) -> list[str]:
    """Return the series that a study, series or SOP Instance UID names."""
    i = schema.instance.c
    query = (
        select(i.series_instance_uid)
        .where(
            or_(
                i.sop_instance_uid == uid,
                i.series_instance_uid == uid,
                i.study_instance_uid == uid,
            )
        )
        .distinct()
    )
    return [str(found) for found in connection.execute(query).scalars()]


def _jobs_of(connection: Connection, uid: str, series: list[str]) -> list[int]:
    """Return the jobs that a UID or ``job:<number>`` concerns."""
    if uid.startswith("job:"):
        number = uid.removeprefix("job:")
        return [int(number)] if number.isdecimal() else []
    j, r, i = schema.job.c, schema.result.c, schema.job_input.c
    by_result = select(r.job_id).where(or_(r.sop_instance_uid == uid, r.series_instance_uid == uid))
    by_input = select(i.job_id).where(i.sop_instance_uid == uid)
    query = select(j.id).where(
        or_(j.series_instance_uid.in_(series), j.id.in_(by_result), j.id.in_(by_input))
    )
    return [int(found) for found in connection.execute(query).scalars()]
