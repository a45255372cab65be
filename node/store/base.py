"""What the parts of the ledger share: access to the database, the clock, events and steps."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Table,
    bindparam,
    or_,
    select,
    update,
)

from node.domain import Clock
from node.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    advance,
)
from node.store import schema
from node.store.files import BlobFiles
from node.store.writer import Access

T = TypeVar("T")
UNKNOWN = "there is no {} {}"


RESENT: Final = "series_resent"
"""Event: a released association brought objects of the series that were here already."""


class LedgerPart:
    """Access to one database, for a group of named queries.

    Parameters
    ----------
    on_change : callable
        Called after a commit that somebody may be waiting for.
    """

    def __init__(
        self, database: Access, files: BlobFiles, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._on_change = on_change

    def _write_and_wake(self, run: Callable[[Connection], T]) -> T:
        answer = self._database.write(run)
        self._on_change()
        return answer


def is_due(table: Table, now: datetime) -> ColumnElement[bool]:
    """Return the condition that a row of `table` may be tried now.

    A row that was changed in the future tells that the wall clock was set back since: its pause
    would last as long as the jump, so it is tried at once. At worst that repeats a try.
    """
    c = table.c
    return or_(c.not_before.is_(None), c.not_before <= now, c.changed_at > now)


def record_event(
    connection: Connection,
    now: datetime,
    action: str,
    *,
    kind: str,
    subject: str,
    correlation: str = "",
    **detail: object,
) -> None:
    """Append an event in the transaction of what happened."""
    connection.execute(
        schema.event.insert(),
        {
            "at": now,
            "action": action,
            "kind": kind,
            "subject": subject,
            "correlation": correlation,
            "detail": detail,
        },
    )


def step_job(
    connection: Connection, now: datetime, job_id: int, event: JobEvent, **changes: object
) -> Row[Any]:
    """Move a job along the table and append the event.

    Parameters
    ----------
    **changes
        Further columns; `reason` is part of the event.

    Raises
    ------
    KeyError
        There is no such job.
    IllegalTransition
        The table holds no such step.
    """
    before = _locked(connection, schema.job, job_id)
    state = advance(JOB_TRANSITIONS, JobState(before.state), event)
    after = connection.execute(
        update(schema.job)
        .where(schema.job.c.id == job_id, schema.job.c.state == before.state)
        .values(state=state.value, changed_at=now, **changes)
        .returning(schema.job)
    ).one()
    record_event(
        connection,
        now,
        f"job_{event.lower()}",
        kind="job",
        subject=str(job_id),
        correlation=after.correlation,
        state=state.value,
        attempt=after.attempt,
        reason=str(changes.get("reason", "")),
    )
    return after


def step_delivery(
    connection: Connection, now: datetime, delivery_id: int, event: DeliveryEvent, **changes: object
) -> Row[Any]:
    """Move a delivery along the table and append the event; return its row.

    Raises
    ------
    KeyError
        There is no such delivery.
    IllegalTransition
        The table holds no such step.
    """
    step_deliveries(connection, now, event, {delivery_id: changes})
    return connection.execute(
        select(schema.delivery).where(schema.delivery.c.id == delivery_id)
    ).one()


def step_deliveries(
    connection: Connection,
    now: datetime,
    event: DeliveryEvent,
    changes: Mapping[int, Mapping[str, object]],
) -> None:
    """Move deliveries along the table by the same event, with few statements for all of them.

    Parameters
    ----------
    changes : mapping
        Number of the delivery -> further columns; the same ones for each.

    Raises
    ------
    KeyError
        There is no such delivery.
    IllegalTransition
        The table holds no such step for one of them; nothing was changed.
    """
    d = schema.delivery.c
    query = (
        select(schema.delivery, schema.job.c.correlation)
        .join(schema.job, schema.job.c.id == d.job_id)
        .where(d.id.in_(sorted(changes)))
        .with_for_update(of=schema.delivery)
    )
    rows = {row.id: row for row in connection.execute(query)}
    steps: list[dict[str, object]] = []
    events: list[dict[str, object]] = []
    for number, columns in changes.items():
        row = rows.get(number)
        if row is None:
            raise KeyError(UNKNOWN.format(schema.delivery.name, number))
        state = advance(DELIVERY_TRANSITIONS, DeliveryState(row.state), event)
        after = {**row._mapping, **columns}
        steps.append({"number": number, "state": state.value, "changed_at": now, **columns})
        events.append(
            {
                "at": now,
                "action": f"delivery_{event.lower()}",
                "kind": "delivery",
                "subject": row.sop_instance_uid,
                "correlation": row.correlation,
                "detail": {
                    "destination": row.destination,
                    "delivery": number,
                    "attempt": after["attempt"],
                    "status": after["status"],
                    "reason": after["reason"],
                },
            }
        )
    if steps:
        values: dict[str, BindParameter[Any]] = {
            name: bindparam(name) for name in steps[0] if name != "number"
        }
        statement = update(schema.delivery).where(d.id == bindparam("number")).values(values)
        connection.execute(statement, steps)
        connection.execute(schema.event.insert(), events)


def _locked(connection: Connection, table: Table, row_id: int) -> Row[Any]:
    row = connection.execute(
        select(table).where(table.c.id == row_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise KeyError(UNKNOWN.format(table.name, row_id))
    return row
