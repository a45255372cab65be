"""The worklist: jobs and studies by filter, search and page, as the web page shows them.

Everything here is one bounded query or a few: a page of fifty costs the same with ten jobs in the
ledger and with ten thousand. Text that a person typed is a bound parameter of LIKE, its wildcards
escaped.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select

from node.domain import Series, Uid
from node.lifecycle import DeliveryState, JobState, SeriesState
from node.store import schema
from node.store.base import LedgerPart
from node.store.listing import to_event
from node.store.records import EventLine
from node.store.series import to_series

PAGE: Final = 50
"""Lines of one page."""
ARRIVED: Final = (DeliveryState.SENT.value, DeliveryState.COMMITTED.value)
"""States of a delivery that is at the destination."""
_ESCAPE: Final = "\\"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to show; empty fields ask for nothing."""

    states: tuple[JobState, ...] = ()
    pipeline: str = ""
    route: str = ""
    text: str = ""
    """Part of a UID (series, study), route, AE title or association, or a whole job number."""
    since: datetime | None = None
    page: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """A job in one line."""

    id: int
    state: JobState
    route: str
    pipeline: str
    modality: str
    series_instance_uid: Uid
    study_instance_uid: Uid
    patient_key: str
    attempt: int
    max_attempts: int
    created_at: datetime
    changed_at: datetime
    reason: str
    deliveries: Mapping[str, int]
    """Delivery state -> count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of jobs, newest first."""

    lines: tuple[JobLine, ...]
    total: int
    """Jobs that the filter lets through, on all pages."""
    counts: Mapping[str, int]
    """State -> count with the filter, without its states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLine:
    """A study in one line."""

    study_instance_uid: Uid
    last_received_at: datetime
    series: tuple[Series, ...]
    jobs: tuple[tuple[int, str, JobState], ...]
    """(number, pipeline, state), oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPage:
    """One page of studies, last received first."""

    lines: tuple[StudyLine, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSeries:
    """The inputs of a job that belong to one series."""

    role: str
    series_instance_uid: Uid
    study_instance_uid: Uid
    modality: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What happened since a time."""

    received: int
    refused: int
    associations: int
    ended_badly: int
    """Associations that were aborted or lost."""
    jobs: Mapping[str, Mapping[str, int]]
    """Pipeline -> job state -> count, of jobs created since."""
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that runs now."""

    id: int
    pipeline: str
    route: str
    owner: str
    attempt: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldResults:
    """Results of one job that are held for one destination."""

    job_id: int
    destination: str
    reason: str
    hint: str
    count: int
    since: datetime


class Worklist(LedgerPart):
    """Pages of jobs and studies."""

    def job_page(self, wanted: JobFilter) -> JobPage:
        """Return one page of the jobs that `wanted` lets through."""
        j, s = schema.job.c, schema.series.c
        lines = select(schema.job, s.modality, s.study_instance_uid, s.patient_key).select_from(
            _WITH_SERIES
        )

        def look(connection: Connection) -> JobPage:
            # Numbers first: the wide rows are read for one page only.
            ids, counts = (_searched if wanted.text else _filtered)(connection, wanted)
            rows = connection.execute(lines.where(j.id.in_(ids)).order_by(j.id.desc())).all()
            deliveries = _deliveries_of(connection, ids)
            states = [state.value for state in wanted.states] or list(counts)
            return JobPage(
                lines=tuple(_job_line(row, deliveries.get(row.id, {})) for row in rows),
                total=sum(counts.get(state, 0) for state in states),
                counts=counts,
            )

        return self._database.read(look)

    def study_page(
        self, text: str = "", page: int = 1, states: Sequence[SeriesState] = ()
    ) -> StudyPage:
        """Return one page of studies.

        Parameters
        ----------
        text : str
            Part of a study or series UID.
        states : sequence of SeriesState
            Only studies that hold a series in one of these.
        """
        s = schema.series.c
        where: list[ColumnElement[bool]] = []
        if text:
            where.append(_like(text, s.study_instance_uid, s.series_instance_uid))
        if states:
            where.append(s.state.in_([state.value for state in states]))
        how_many = select(func.count(s.study_instance_uid.distinct())).where(*where)
        paged = (
            select(s.study_instance_uid, func.max(s.last_received_at).label("at"))
            .where(*where)
            .group_by(s.study_instance_uid)
            .order_by(func.max(s.last_received_at).desc())
            .limit(PAGE)
            .offset((page - 1) * PAGE)
        )

        def look(connection: Connection) -> StudyPage:
            total = connection.execute(how_many).scalar_one()
            rows: list[tuple[str, datetime]] = [
                (uid, last) for uid, last in connection.execute(paged)
            ]
            series = _series_of_studies(connection, [uid for uid, _ in rows])
            jobs = _jobs_of_series(
                connection, [one.series_instance_uid for held in series.values() for one in held]
            )
            return StudyPage(
                total=total,
                lines=tuple(
                    _study_line(uid, last, series.get(uid, []), jobs) for uid, last in rows
                ),
            )

        return self._database.read(look)

    def jobs_of_series(self, series_instance_uid: str) -> list[tuple[int, str, JobState]]:
        """Return (number, pipeline, state) of the jobs that a series started or is an input of."""
        j, i, n = schema.job.c, schema.job_input.c, schema.instance.c
        inputs = (
            select(i.job_id)
            .join(schema.instance, n.sop_instance_uid == i.sop_instance_uid)
            .where(n.series_instance_uid == series_instance_uid)
        )
        query = (
            select(j.id, j.pipeline, j.state)
            .where(or_(j.series_instance_uid == series_instance_uid, j.id.in_(inputs)))
            .order_by(j.id)
        )
        return self._database.read(
            lambda c: [(row.id, row.pipeline, JobState(row.state)) for row in c.execute(query)]
        )

    def job_input_series(self, job_id: int) -> list[InputSeries]:
        """Return the inputs of a job by role and series."""
        i, n = schema.job_input.c, schema.instance.c
        keys = (i.role, n.series_instance_uid, n.study_instance_uid, n.modality)
        query = (
            select(*keys, func.count().label("many"))
            .join(
                schema.instance,
                (n.sop_instance_uid == i.sop_instance_uid) & (n.sha256 == i.sha256),
            )
            .where(i.job_id == job_id)
            .group_by(*keys)
            .order_by(i.role, n.series_instance_uid)
        )
        return self._database.read(
            lambda c: [
                InputSeries(
                    role=row.role,
                    series_instance_uid=Uid(row.series_instance_uid),
                    study_instance_uid=Uid(row.study_instance_uid),
                    modality=row.modality,
                    count=row.many,
                )
                for row in c.execute(query)
            ]
        )

    def activity(self, since: datetime) -> Activity:
        """Return what happened since a time."""
        a, j, e = schema.association.c, schema.job.c, schema.delivery.c
        begun = a.opened_at >= since

        def look(connection: Connection) -> Activity:
            arrived = connection.execute(
                select(
                    func.coalesce(func.sum(a.received), 0).label("received"),
                    func.coalesce(func.sum(a.refused), 0).label("refused"),
                    func.count().label("many"),
                ).where(begun)
            ).one()
            badly = connection.execute(
                select(func.count()).where(begun, a.end.in_(["ABORTED", "LOST"]))
            ).scalar_one()
            jobs: dict[str, dict[str, int]] = {}
            tally = (
                select(j.pipeline, j.state, func.count().label("many"))
                .where(j.created_at >= since)
                .group_by(j.pipeline, j.state)
                .order_by(j.pipeline)
            )
            for row in connection.execute(tally):
                jobs.setdefault(row.pipeline, {})[row.state] = row.many
            sent = connection.execute(
                select(func.count()).where(e.state.in_(ARRIVED), e.changed_at >= since)
            ).scalar_one()
            return Activity(
                received=int(arrived.received),
                refused=int(arrived.refused),
                associations=arrived.many,
                ended_badly=badly,
                jobs=jobs,
                sent=sent,
            )

        return self._database.read(look)

    def held_results(self) -> list[HeldResults]:
        """Return the results that are held, by job, destination and reason, oldest first."""
        d = schema.delivery.c
        keys = (d.job_id, d.destination, d.reason, d.hint)
        query = (
            select(*keys, func.count().label("many"), func.min(d.changed_at).label("since"))
            .where(d.state == DeliveryState.HELD.value)
            .group_by(*keys)
            .order_by(func.min(d.changed_at))
        )
        return self._database.read(
            lambda c: [
                HeldResults(
                    job_id=row.job_id,
                    destination=row.destination,
                    reason=row.reason,
                    hint=row.hint,
                    count=row.many,
                    since=row.since,
                )
                for row in c.execute(query)
            ]
        )

    def running(self) -> list[Running]:
        """Return the jobs that run now, oldest start first."""
        j, t = schema.job.c, schema.attempt.c
        query = (
            select(j.id, j.pipeline, j.route, j.owner, j.attempt, t.started_at)
            .join(schema.attempt, (t.job_id == j.id) & (t.token == j.token))
            .where(j.state == JobState.IN_PROGRESS.value)
            .order_by(t.started_at)
        )
        return self._database.read(
            lambda c: [
                Running(
                    id=row.id,
                    pipeline=row.pipeline,
                    route=row.route,
                    owner=row.owner,
                    attempt=row.attempt,
                    started_at=row.started_at,
                )
                for row in c.execute(query)
            ]
        )

    def recent_actions(self, limit: int = PAGE) -> list[EventLine]:
        """Return what people did lately, newest first: actions, logins, refusals."""
        e = schema.event.c
        query = (
            select(schema.event)
            .where(or_(e.action.startswith("operator_"), e.kind == "user"))
            .order_by(e.id.desc())
            .limit(limit)
        )
        return self._database.read(lambda c: [to_event(row) for row in c.execute(query)])


_WITH_SERIES: Final = schema.job.outerjoin(
    schema.series, schema.series.c.series_instance_uid == schema.job.c.series_instance_uid
)


def _filtered(connection: Connection, wanted: JobFilter) -> tuple[list[int], dict[str, int]]:
    """Return the numbers of the page and the count of each state, both by an index."""
    j = schema.job.c
    where = _job_conditions(wanted)
    tally = select(j.state, func.count().label("many")).where(*where).group_by(j.state)
    numbers = (
        select(j.id)
        .where(*where, *_in_states(wanted))
        .order_by(j.id.desc())
        .limit(PAGE)
        .offset((wanted.page - 1) * PAGE)
    )
    counts = {row.state: int(row.many) for row in connection.execute(tally)}
    return [int(number) for number in connection.execute(numbers).scalars()], counts


def _searched(connection: Connection, wanted: JobFilter) -> tuple[list[int], dict[str, int]]:
    """Return the same for a search: the texts of all jobs are compared once, not twice."""
    j = schema.job.c
    query = select(j.id, j.state).select_from(_WITH_SERIES).where(*_job_conditions(wanted))
    found = connection.execute(query.order_by(j.id.desc())).all()
    states = {state.value for state in wanted.states}
    numbers = [int(number) for number, state in found if not states or state in states]
    first = (wanted.page - 1) * PAGE
    return numbers[first : first + PAGE], dict(Counter(str(state) for _, state in found))


def _job_conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    j, s = schema.job.c, schema.series.c
    where: list[ColumnElement[bool]] = []
    if wanted.pipeline:
        where.append(j.pipeline == wanted.pipeline)
    if wanted.route:
        where.append(j.route == wanted.route)
    if wanted.since is not None:
        where.append(j.changed_at >= wanted.since)
    if wanted.text:
        found = _like(
            wanted.text, j.series_instance_uid, s.study_instance_uid, j.route, j.correlation
        )
        number = int(wanted.text) if wanted.text.isdecimal() and len(wanted.text) < 10 else None  # noqa: PLR2004 - a longer one is part of a UID
        where.append(found if number is None else or_(found, j.id == number))
    return where


def _in_states(wanted: JobFilter) -> list[ColumnElement[bool]]:
    if not wanted.states:
        return []
    return [schema.job.c.state.in_([state.value for state in wanted.states])]


def _like(text: str, *columns: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that `text` is part of one of the columns, whatever its case."""
    return or_(*(column.icontains(text, autoescape=True, escape=_ESCAPE) for column in columns))


def _deliveries_of(connection: Connection, jobs: list[int]) -> dict[int, dict[str, int]]:
    d = schema.delivery.c
    query = (
        select(d.job_id, d.state, func.count().label("many"))
        .where(d.job_id.in_(jobs))
        .group_by(d.job_id, d.state)
    )
    found: dict[int, dict[str, int]] = {}
    for row in connection.execute(query):
        found.setdefault(row.job_id, {})[row.state] = row.many
    return found


def _job_line(row: Row[Any], deliveries: Mapping[str, int]) -> JobLine:
    return JobLine(
        id=row.id,
        state=JobState(row.state),
        route=row.route,
        pipeline=row.pipeline,
        modality=row.modality or "",
        series_instance_uid=Uid(row.series_instance_uid),
        study_instance_uid=Uid(row.study_instance_uid or ""),
        patient_key=row.patient_key or "",
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        created_at=row.created_at,
        changed_at=row.changed_at,
        reason=row.reason,
        deliveries=deliveries,
    )


def _series_of_studies(connection: Connection, studies: list[str]) -> dict[str, list[Series]]:
    s = schema.series.c
    query: Select[Any] = (
        select(schema.series).where(s.study_instance_uid.in_(studies)).order_by(s.first_received_at)
    )
    found: dict[str, list[Series]] = {}
    for row in connection.execute(query):
        found.setdefault(row.study_instance_uid, []).append(to_series(row))
    return found


def _jobs_of_series(
    connection: Connection, series: list[str]
) -> dict[str, list[tuple[int, str, JobState]]]:
    j = schema.job.c
    query = (
        select(j.series_instance_uid, j.id, j.pipeline, j.state)
        .where(j.series_instance_uid.in_(series))
        .order_by(j.id)
    )
    found: dict[str, list[tuple[int, str, JobState]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.series_instance_uid, []).append(
            (row.id, row.pipeline, JobState(row.state))
        )
    return found


def _study_line(
    study_instance_uid: str,
    last_received_at: datetime,
    series: Sequence[Series],
    jobs: Mapping[str, Sequence[tuple[int, str, JobState]]],
) -> StudyLine:
    return StudyLine(
        study_instance_uid=Uid(study_instance_uid),
        last_received_at=last_received_at,
        series=tuple(series),
        jobs=tuple(sorted(j for one in series for j in jobs.get(one.series_instance_uid, ()))),
    )
