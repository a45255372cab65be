"""The outbox: one queue for each destination, read from committed rows and files."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, select

from node.domain import Delivery, SentDelivery, Uid
from node.lifecycle import DeliveryEvent, DeliveryState
from node.store import schema
from node.store.base import LedgerPart, is_due, record_event, step_deliveries, step_delivery
from node.store.dialect import insert_once
from node.store.files import BlobFiles

_OPEN = (DeliveryState.PENDING.value, DeliveryState.SENDING.value, DeliveryState.HELD.value)


class DeliveryLedger(LedgerPart):
    """Claim, answer and release deliveries."""

    def claim_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        """Take what is due for a destination: urgent jobs first, then oldest; attempt + 1."""
        now = self._clock.now()
        query = _due(destination, now).limit(limit)
        if self._database.read(lambda c: c.execute(query).first()) is None:
            return []  # the common case costs no commit

        def run(connection: Connection) -> list[Delivery]:
            rows = connection.execute(query.with_for_update(of=schema.delivery)).all()
            claimed: dict[int, dict[str, object]] = {
                row.id: {
                    "attempt": row.attempt + 1,
                    "not_before": None,
                    "status": None,  # until there is an answer: how an attempt of a dead node shows
                }
                for row in rows
            }
            step_deliveries(connection, now, DeliveryEvent.CLAIMED, claimed)
            return [_to_delivery(row, self._files) for row in rows]

        return self._database.write(run)

    def deliveries_sent(self, sent: Sequence[SentDelivery]) -> None:
        """Record, in one transaction, that the peer stored these objects.

        Without a status one was sent and not answered: the commitment that is asked for will tell.

        Raises
        ------
        KeyError, IllegalTransition
            One was not claimed; nothing is recorded.
        """
        now = self._clock.now()
        answers = {
            one.delivery_id: {"status": one.status, "reason": one.note, "hint": ""} for one in sent
        }
        self._database.write(lambda c: step_deliveries(c, now, DeliveryEvent.STORED, answers))

    def delivery_sent(self, delivery_id: int, *, status: int | None, note: str = "") -> None:
        """Record one object, as `deliveries_sent` does."""
        self.deliveries_sent([SentDelivery(delivery_id=delivery_id, status=status, note=note)])

    def delivery_failed(
        self,
        delivery_id: int,
        *,
        transient: bool,
        status: int | None,
        reason: str,
        hint: str,
        not_before: datetime | None = None,
    ) -> None:
        """Record a failure: PENDING until `not_before` when transient, else HELD for a person.

        A delivery whose job was superseded meanwhile is not tried again.

        Raises
        ------
        KeyError, IllegalTransition
            It was not claimed.
        """
        now = self._clock.now()
        event = DeliveryEvent.FAILED_TRANSIENTLY if transient else DeliveryEvent.REFUSED

        def run(connection: Connection) -> None:
            row = step_delivery(
                connection,
                now,
                delivery_id,
                event,
                status=status,
                reason=reason,
                hint=hint,
                not_before=not_before if transient else None,
            )
            _drop_if_superseded(connection, now, row)

        self._database.write(run)

    def return_deliveries(self, ids: Collection[int]) -> None:
        """Put back what was claimed and not tried; the attempt does not count."""
        now = self._clock.now()

        def run(connection: Connection) -> None:
            d = schema.delivery.c
            claimed = connection.execute(
                select(d.id, d.attempt).where(
                    d.id.in_(sorted(ids)), d.state == DeliveryState.SENDING.value
                )
            )
            for line in claimed.all():
                row = step_delivery(
                    connection, now, line.id, DeliveryEvent.INTERRUPTED, attempt=line.attempt - 1
                )
                _drop_if_superseded(connection, now, row)

        if ids:
            self._database.write(run)

    def next_delivery_at(self, destination: str) -> datetime | None:
        """Return when the next delivery to a destination is due; None when nothing waits."""
        d = schema.delivery.c
        query = select(func.min(func.coalesce(d.not_before, d.created_at))).where(
            d.destination == destination, d.state == DeliveryState.PENDING.value
        )
        found = self._database.read(lambda c: c.execute(query).scalar_one_or_none())
        return found if isinstance(found, datetime) else None

    def queue_fallback(self, destination: str, fallback: str, *, after: timedelta) -> int:
        """Queue for `fallback` what `destination` did not take in time; return how many.

        The first destination keeps its deliveries and gets them when it is back: each of the two
        gets an object once.
        """
        now = self._clock.now()
        d = schema.delivery.c
        there = schema.delivery.alias()
        query = select(schema.delivery).where(
            d.destination == destination,
            d.state == DeliveryState.PENDING.value,
            d.created_at <= now - after,
            ~exists().where(
                there.c.destination == fallback, there.c.sop_instance_uid == d.sop_instance_uid
            ),
        )
        if self._database.read(lambda c: c.execute(query.limit(1)).first()) is None:
            return 0

        def run(connection: Connection) -> int:
            rows = connection.execute(query.order_by(d.id)).all()
            for row in rows:
                insert_once(
                    connection,
                    schema.delivery,
                    ("destination", "sop_instance_uid"),
                    {
                        "job_id": row.job_id,
                        "result_id": row.result_id,
                        "destination": fallback,
                        "sop_instance_uid": row.sop_instance_uid,
                        "state": DeliveryState.PENDING.value,
                        "attempt": 0,
                        "reason": f"instead of {destination}, which does not take it",
                        "hint": "",
                        "created_at": now,
                        "changed_at": now,
                    },
                )
                record_event(connection, now, "delivery_fallback", kind="node",
                             subject=destination, fallback=fallback,
                             sop_instance_uid=row.sop_instance_uid)  # fmt: skip
            return len(rows)

        return self._write_and_wake(run)

    def destinations_with_open_deliveries(self) -> dict[str, int]:
        """Return destination -> number of deliveries that are not at an end."""
        d = schema.delivery.c
        query = (
            select(d.destination, func.count().label("open"))
            .where(d.state.in_(_OPEN))
            .group_by(d.destination)
            .order_by(d.destination)
        )
        return self._database.read(
            lambda c: {row.destination: row.open for row in c.execute(query)}
        )

    def release_delivery(self, delivery_id: int) -> None:
        """Let a held delivery be tried again at once.

        Raises
        ------
        KeyError
            There is no such delivery.
        IllegalTransition
            It is not HELD.
        """
        now = self._clock.now()
        self._write_and_wake(lambda c: _release(c, now, delivery_id))

    def release_deliveries(self, destination: str) -> int:
        """Let all held deliveries to a destination be tried again; return how many."""
        now = self._clock.now()
        d = schema.delivery.c
        query = select(d.id).where(
            d.destination == destination, d.state == DeliveryState.HELD.value
        )

        def run(connection: Connection) -> int:
            ids = connection.execute(query).scalars().all()
            for delivery_id in ids:
                _release(connection, now, delivery_id)
            return len(ids)

        return self._write_and_wake(run)

    def resend_job(self, job_id: int) -> list[int]:
        """Send what a job delivered once more; return the numbers of the deliveries.

        The objects and their UIDs stay the same. What was superseded is not sent again.
        """
        now = self._clock.now()
        d, j = schema.delivery.c, schema.job.c
        query = (
            select(d.id)
            .join(schema.job, j.id == d.job_id)
            .where(
                d.job_id == job_id,
                d.state.in_((DeliveryState.SENT.value, DeliveryState.COMMITTED.value)),
                j.superseded_by.is_(None),
            )
            .order_by(d.id)
        )

        def run(connection: Connection) -> list[int]:
            ids = [int(found) for found in connection.execute(query).scalars()]
            for delivery_id in ids:
                step_delivery(
                    connection, now, delivery_id, DeliveryEvent.RESENT,
                    attempt=0, not_before=None, status=None, reason="", hint="",
                )  # fmt: skip
            return ids

        return self._write_and_wake(run)

    def cancel_delivery(self, delivery_id: int, reason: str) -> None:
        """Give a waiting or held delivery up: a person decided so.

        Raises
        ------
        KeyError
            There is no such delivery.
        IllegalTransition
            It is being sent, sent or canceled.
        """
        now = self._clock.now()
        self._write_and_wake(
            lambda c: step_delivery(
                c, now, delivery_id, DeliveryEvent.SUPERSEDED, reason=reason, hint=""
            )
        )


def _due(destination: str, now: datetime) -> Select[Any]:
    d, j, r, b = schema.delivery.c, schema.job.c, schema.result.c, schema.blob.c
    return (
        select(
            schema.delivery,
            j.correlation,
            j.report,
            r.sop_class_uid,
            b.path,
            b.transfer_syntax_uid,
        )
        .join(schema.job, j.id == d.job_id)
        .join(schema.result, r.id == d.result_id)
        .join(schema.blob, b.sha256 == r.sha256)
        .where(
            d.destination == destination,
            d.state == DeliveryState.PENDING.value,
            is_due(schema.delivery, now),
        )
        .order_by(j.priority.desc(), d.job_id, d.id)
    )


def _to_delivery(row: Row[Any], files: BlobFiles) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        destination=row.destination,
        sop_class_uid=Uid(row.sop_class_uid),
        sop_instance_uid=Uid(row.sop_instance_uid),
        transfer_syntax_uid=Uid(row.transfer_syntax_uid),
        path=files.absolute(row.path),
        attempt=row.attempt + 1,
        created_at=row.created_at,
        correlation=row.correlation,
        doubtful=row.attempt > 0 and row.status is None,
        report=Path(row.report) if row.report else None,
    )


def _release(connection: Connection, now: datetime, delivery_id: int) -> None:
    step_delivery(
        connection, now, delivery_id, DeliveryEvent.RELEASED, not_before=None, reason="", hint=""
    )


def _drop_if_superseded(connection: Connection, now: datetime, row: Row[Any]) -> None:
    """Cancel a delivery that came back after its job was superseded."""
    superseded = connection.execute(
        select(schema.job.c.superseded_by).where(schema.job.c.id == row.job_id)
    ).scalar_one()
    if superseded is not None:
        step_delivery(
            connection,
            now,
            row.id,
            DeliveryEvent.SUPERSEDED,
            reason=f"superseded by revision {superseded} of the series",
        )
