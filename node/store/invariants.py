"""What must hold in every ledger at every moment, as a table of named questions.

Each question runs on one snapshot and yields what violates it; together they are the part of the
oracle that needs no file. The letters are those of the fault catalogue: L1 explained, L3 one live
result set, L4 no state without a next action, L5 one content under one UID, L6 fenced work.
The tables of `node.lifecycle` are the law: the recorded events of each series, job and delivery
are walked along them, and must end where its row stands.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from node.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    SeriesState,
)
from node.store import schema
from node.store.dialect import damage
from node.store.migrate import newest_schema, schema_version
from node.store.records import DecisionState, Problem

_S: Final = schema.series.c
_I: Final = schema.instance.c
_J: Final = schema.job.c
_D: Final = schema.decision.c
_R: Final = schema.result.c
_B: Final = schema.blob.c
_V: Final = schema.delivery.c
_A: Final = schema.attempt.c
_E: Final = schema.event.c
_N: Final = schema.job_input.c

_LIVE: Final = (
    JobState.SCHEDULED.value,
    JobState.IN_PROGRESS.value,
    JobState.COMPLETED.value,
)
"""A job in one of these, and not superseded, stands for the result set of its inputs."""


def violations(connection: Connection) -> list[Problem]:
    """Return what must not be in a ledger, read in one snapshot; empty when all is well."""
    return [
        Problem(kind=kind, subject=subject, detail=detail)
        for kind, ask in QUESTIONS
        for subject, detail in ask(connection)
    ]


def open_work(connection: Connection) -> dict[str, int]:
    """Return what has not come to its end yet, by kind; all zero in a node that settled."""
    undecided = (_S.state == SeriesState.COMPLETE.value) & ~exists().where(
        _D.series_instance_uid == _S.series_instance_uid, _D.series_revision == _S.revision
    )
    counted: Mapping[str, tuple[Any, Any]] = {
        "series": (schema.series, or_(_S.state == SeriesState.RECEIVING.value, undecided)),
        "decisions": (schema.decision, _D.state == DecisionState.WAITING.value),
        "jobs": (
            schema.job,
            _J.state.in_((JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)),
        ),
        "deliveries": (schema.delivery, _V.state.not_in(_CLOSED_DELIVERIES)),
    }
    return {
        name: connection.execute(
            select(func.count()).select_from(table).where(condition)
        ).scalar_one()
        for name, (table, condition) in counted.items()
    }


_CLOSED_DELIVERIES: Final = (
    DeliveryState.SENT.value,
    DeliveryState.COMMITTED.value,
    DeliveryState.HELD.value,
    DeliveryState.CANCELED.value,
)

Found = Iterator[tuple[str, str]]
"""(what it is about, what is wrong)."""


def _database(connection: Connection) -> Found:
    yield from (("ledger", line) for line in damage(connection))
    version = schema_version(connection)
    if version != newest_schema():
        yield "ledger", f"the schema is {version or 'missing'}, this node has {newest_schema()}"


def _unexplained(connection: Connection) -> Found:
    """L1: each instance has its series, and each series counts the instances that it has."""
    lonely = (
        select(_I.sop_instance_uid)
        .join(schema.series, _S.series_instance_uid == _I.series_instance_uid, isouter=True)
        .where(_S.series_instance_uid.is_(None), _I.conflict.is_(False))
    )
    yield from ((uid, "the instance has no series") for uid in _column(connection, lonely))
    here = (
        select(_I.series_instance_uid, func.count().label("here"))
        .where(_I.conflict.is_(False))
        .group_by(_I.series_instance_uid)
        .subquery()
    )
    counted = select(_S.series_instance_uid, _S["count"], here.c.here).join(
        here, here.c.series_instance_uid == _S.series_instance_uid, isouter=True
    )
    for uid, count, found in connection.execute(
        counted.where(_S["count"] != func.coalesce(here.c.here, 0))
    ):
        yield uid, f"the series counts {count} instances and has {found or 0}"
    silent = select(_S.series_instance_uid).where(
        _S.state != SeriesState.RECEIVING.value, _S.reason == ""
    )
    yield from ((uid, "the series has no reason") for uid in _column(connection, silent))


def _two_live_sets(connection: Connection) -> Found:
    """L3: one live job at most for a route, a revision of its trigger, and a forced revision."""
    live = (_J.state.in_(_LIVE), _J.superseded_by.is_(None))
    twice = (
        select(_J.series_instance_uid, _J.route, func.count().label("many"))
        .where(*live)
        .group_by(_J.route, _J.series_instance_uid, _J.series_revision, _J.revision)
        .having(func.count() > 1)
    )
    for uid, route, many in connection.execute(twice):
        yield uid, f"{many} live jobs of route {route} for one revision of the series"
    judged = ~exists().where(
        _D.series_instance_uid == _S.series_instance_uid,
        _D.series_revision == _S.revision,
        _D.state == DecisionState.WAITING.value,
    )
    newer = schema.decision.alias("newer")
    outlived = (
        select(_J.series_instance_uid, _J.id)
        .join(schema.series, _S.series_instance_uid == _J.series_instance_uid)
        .join(
            newer,
            and_(
                newer.c.series_instance_uid == _S.series_instance_uid,
                newer.c.series_revision == _S.revision,
                newer.c.state == DecisionState.JOB.value,
                newer.c.route == _J.route,
                newer.c.job_id != _J.id,
            ),
        )
        .where(
            *live,
            _S.state == SeriesState.COMPLETE.value,
            _J.series_revision < _S.revision,
            judged,
        )
    )
    for uid, job in connection.execute(outlived):
        yield uid, f"job {job} of an older revision is still live beside its successor"


def _without_result(connection: Connection) -> Found:
    """L3: a decision that promised a job has it; a job that ended has results."""
    promised = (DecisionState.JOB.value, DecisionState.HELD.value)
    empty = select(_D.series_instance_uid, _D.route).where(
        _D.state.in_(promised), _D.job_id.is_(None)
    )
    for uid, route in connection.execute(empty):
        yield uid, f"the decision of route {route} names no job"
    twin = schema.job.alias("twin")
    own = exists().where(_R.job_id == _J.id)
    shared = exists().where(
        _R.job_id == twin.c.id,
        twin.c.pipeline == _J.pipeline,
        twin.c.series_instance_uid == _J.series_instance_uid,
    )
    barren = select(_J.id).where(_J.state == JobState.COMPLETED.value, ~own, ~shared)
    yield from ((f"job {n}", "completed without a result") for n in _column(connection, barren))


def _undelivered(connection: Connection) -> Found:
    """L4: each result of a live job is queued for each destination of the job."""
    query = (
        select(_J.id, _J.destinations, _R.sop_instance_uid)
        .join(schema.result, _R.job_id == _J.id)
        .where(_J.state == JobState.COMPLETED.value, _J.superseded_by.is_(None))
        .order_by(_J.id)
    )
    queued = {
        (uid, destination)
        for uid, destination in connection.execute(select(_V.sop_instance_uid, _V.destination))
    }
    for job, destinations, uid in connection.execute(query):
        for destination in destinations:
            if (uid, destination) not in queued:
                yield f"job {job}", f"a result is not queued for {destination}: {uid}"


def _unsaid(connection: Connection) -> Found:
    """L4: what waits for a person says why; what runs has a lease."""
    held = select(_J.id).where(_J.state == JobState.HELD.value, _J.reason == "")
    yield from ((f"job {n}", "held without a reason") for n in _column(connection, held))
    running = select(_J.id).where(_J.state == JobState.IN_PROGRESS.value, _J.lease_until.is_(None))
    yield from ((f"job {n}", "in progress without a lease") for n in _column(connection, running))
    waiting = select(_V.id).where(_V.state == DeliveryState.HELD.value, _V.reason == "")
    yield from ((f"delivery {n}", "held without a reason") for n in _column(connection, waiting))


def _two_contents(connection: Connection) -> Found:
    """L5: a UID leaves the node with one content; a delivery sends the result it names."""
    twice = (
        select(_R.sop_instance_uid)
        .group_by(_R.sop_instance_uid)
        .having(func.count(_R.sha256.distinct()) > 1)
    )
    yield from ((uid, "two contents under one result UID") for uid in _column(connection, twice))
    astray = (
        select(_V.id)
        .join(schema.result, _R.id == _V.result_id)
        .where(_R.sop_instance_uid != _V.sop_instance_uid)
    )
    yield from ((f"delivery {n}", "sends another UID") for n in _column(connection, astray))
    contents = (
        select(_I.sop_instance_uid)
        .where(_I.conflict.is_(False))
        .group_by(_I.sop_instance_uid)
        .having(func.count() > 1)
    )
    yield from (
        (uid, "two received contents and none is flagged as conflict")
        for uid in _column(connection, contents)
    )


def _unfenced(connection: Connection) -> Found:
    """L6: attempts within their limit, one finish at most, tokens without a gap."""
    beyond = select(_J.id).where(_J.attempt > _J.max_attempts)
    yield from ((f"job {n}", "more attempts than allowed") for n in _column(connection, beyond))
    finished = func.count().filter(_A.outcome == JobEvent.FINISHED.value)
    query = (
        select(_J.id, _J.state, _J.token, func.max(_A.token), finished)
        .join(schema.attempt, _A.job_id == _J.id, isouter=True)
        .group_by(_J.id, _J.state, _J.token)
    )
    for job, state, token, newest, ends in connection.execute(query):
        if token != (newest or 0):
            yield f"job {job}", f"its token is {token}, its last claim had {newest or 0}"
        if ends != int(state == JobState.COMPLETED.value):
            yield f"job {job}", f"{state} with {ends} finished attempts"


def _inputs_gone(connection: Connection) -> Found:
    """L1: what a job was given is what was received."""
    query = (
        select(_N.job_id, _N.sop_instance_uid)
        .join(
            schema.instance,
            and_(_I.sop_instance_uid == _N.sop_instance_uid, _I.sha256 == _N.sha256),
            isouter=True,
        )
        .where(_I.id.is_(None))
    )
    for job, uid in connection.execute(query):
        yield f"job {job}", f"an input was never received: {uid}"


def _purged_too_early(connection: Connection) -> Found:
    """L7: no file is removed while somebody waits for it."""
    sending = (
        select(_V.id)
        .join(schema.result, _R.id == _V.result_id)
        .join(schema.blob, _B.sha256 == _R.sha256)
        .where(_B.purged_at.is_not(None), _V.state.not_in(_DELIVERED))
    )
    yield from ((f"delivery {n}", "its file was purged") for n in _column(connection, sending))
    needed = (
        select(_N.job_id)
        .join(schema.blob, _B.sha256 == _N.sha256)
        .join(schema.job, _J.id == _N.job_id)
        .where(_B.purged_at.is_not(None), _J.state.in_((*_LIVE[:2], JobState.HELD.value)))
        .distinct()
    )
    yield from ((f"job {n}", "an input was purged") for n in _column(connection, needed))


_DELIVERED: Final = (
    DeliveryState.SENT.value,
    DeliveryState.COMMITTED.value,
    DeliveryState.CANCELED.value,
)


def _illegal_steps(connection: Connection) -> Found:
    """Walk the recorded events along the tables: they must end where the row stands."""
    ends: dict[tuple[str, int], str | None] = {}
    query = select(_E.kind, _E.action, _E.subject, _E.detail).where(_E.kind.in_(tuple(_LAWS)))
    for kind, action, subject, detail in connection.execute(query.order_by(_E.id)):
        step = str(action).removeprefix(f"{kind}_").upper()
        number = subject if kind == "job" else detail.get("delivery")
        if number is None:
            continue
        key = (kind, int(number))
        if kind == "job" and "state" not in detail:
            ends[key] = _BIRTHS.get(step, ends.get(key))
            continue
        if step not in _STEPS[kind] or (key in ends and ends[key] is None):
            continue
        before = ends.get(key, _born(step))
        ends[key] = _LAWS[kind].get((before, step))
        if ends[key] is None:
            yield f"{kind} {number}", f"{step} is no legal step from {before}"
    for kind, table in (("job", _J), ("delivery", _V)):
        for row, state in connection.execute(select(table.id, table.state)):
            end = ends.get((kind, row), state)
            if end is not None and end != state:
                yield f"{kind} {row}", f"its row says {state}, its events end at {end}"


_BIRTHS: Final = {"CREATED": JobState.SCHEDULED.value, "HELD": JobState.HELD.value}
"""How a job is born: by the event that carries no state."""
_LAWS: Final[Mapping[str, Mapping[tuple[str | None, str], str]]] = {
    "job": {(a.value, e.value): b.value for (a, e), b in JOB_TRANSITIONS.items()},
    "delivery": {(a.value, e.value): b.value for (a, e), b in DELIVERY_TRANSITIONS.items()},
}
_STEPS: Final = {kind: {step for _, step in law} for kind, law in _LAWS.items()}


def _born(step: str) -> str:
    """Return the state in which a delivery was born, told by its first step."""
    held = step == DeliveryEvent.RELEASED.value
    return (DeliveryState.HELD if held else DeliveryState.PENDING).value


def _column(connection: Connection, query: Select[Any]) -> list[Any]:
    return list(connection.execute(query).scalars())


QUESTIONS: Final[tuple[tuple[str, Callable[[Connection], Found]], ...]] = (
    ("database", _database),
    ("unexplained", _unexplained),
    ("two result sets", _two_live_sets),
    ("no result", _without_result),
    ("not queued", _undelivered),
    ("no next action", _unsaid),
    ("two contents", _two_contents),
    ("not fenced", _unfenced),
    ("input gone", _inputs_gone),
    ("purged too early", _purged_too_early),
    ("illegal step", _illegal_steps),
)
"""Kind of problem -> question."""
