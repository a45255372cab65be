"""Storage commitment in the ledger: what we asked of destinations, and what peers asked of us.

A transaction is a row before its first byte is sent, so that a report that overtakes the answer
finds it, and a node that dies knows what it waits for. An answer counts only for the instances
that its transaction names and for the peer that was asked; the same answer again changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, exists, func, or_, select, update

from node.domain import AETitle, Uid
from node.lifecycle import DeliveryEvent, DeliveryState
from node.store import schema
from node.store.base import LedgerPart, record_event, step_delivery
from node.store.dialect import insert_once
from node.store.files import BlobFiles

NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
CLASS_NOT_SUPPORTED: Final = 0x0122
DUPLICATE_TRANSACTION: Final = 0x0131
PROCESSING_FAILURE: Final = 0x0110
RESOURCE_LIMITATION: Final = 0x0213
"""Failure Reason (0008,1197) of a report (PS3.3 C.14.1.1)."""

REASONS: Final[Mapping[int, str]] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "it does not hold the object",
    CLASS_CONFLICT: "it holds the object under another SOP class",
    CLASS_NOT_SUPPORTED: "it does not commit to objects of this SOP class",
    DUPLICATE_TRANSACTION: "the transaction UID is in use",
    RESOURCE_LIMITATION: "it has no room",
}
"""Failure Reason -> words."""

_FEW: Final = 5
"""Attempts of a delivery after which one more failed commitment asks a person."""
_MOST_QUESTIONS: Final = 3
"""Unanswered transactions about a delivery, then its state stays as it is."""


class Direction(StrEnum):
    """Who asked whom."""

    ASKED = "ASKED"
    RECEIVED = "RECEIVED"


class TransactionState(StrEnum):
    """Where a transaction stands."""

    OPEN = "OPEN"
    """The report is awaited, or is to be sent."""
    DONE = "DONE"
    UNANSWERED = "UNANSWERED"
    """The deadline passed, or the peer could not be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceName:
    """An instance as a commitment names it."""

    sop_class_uid: Uid
    sop_instance_uid: Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingReport:
    """What we owe to a peer that asked: the truth about what it named."""

    number: int
    ae_title: AETitle
    transaction_uid: Uid
    attempt: int
    created_at: datetime
    held: tuple[InstanceName, ...]
    failed: tuple[tuple[InstanceName, int], ...]
    """With the Failure Reason."""


class CommitmentLedger(LedgerPart):
    """Transactions of both directions."""

    # -- what we ask -----------------------------------------------------------------------

    def ask_commitment(
        self, destination: str, transaction_uid: Uid, *, limit: int, wait: timedelta, age: timedelta
    ) -> tuple[InstanceName, ...]:
        """Open a transaction over what was sent and not asked about; empty when there is nothing.

        Parameters
        ----------
        wait : timedelta
            Until the report is late; doubled with each unanswered question about an object.
        age : timedelta
            Older deliveries are left alone: commitment was switched on after them.
        """
        now = self._clock.now()
        query = _unasked(destination, now - age).limit(limit)
        if self._database.read(lambda c: c.execute(query.limit(1)).first()) is None:
            return ()

        def run(connection: Connection) -> tuple[InstanceName, ...]:
            rows = connection.execute(query).all()
            if not rows:
                return ()
            attempt = 1 + max(row.asked for row in rows)
            number = insert_once(
                connection,
                schema.commitment,
                ("direction", "peer", "transaction_uid"),
                {
                    "direction": Direction.ASKED.value,
                    "peer": destination,
                    "transaction_uid": transaction_uid,
                    "state": TransactionState.OPEN.value,
                    "attempt": attempt,
                    "not_before": now + wait * 2 ** (attempt - 1),
                    "created_at": now,
                },
            )
            named = tuple(
                InstanceName(
                    sop_class_uid=Uid(row.sop_class_uid), sop_instance_uid=Uid(row.sop_instance_uid)
                )
                for row in rows
            )
            numbers = [row.id for row in rows]
            _insert_items(connection, number, named, numbers)
            record_event(connection, now, "commitment_asked", kind="node", subject=destination,
                         transaction=transaction_uid, objects=len(rows))  # fmt: skip
            return named

        return self._database.write(run)

    def commitment_reported(
        self,
        destination: str,
        transaction_uid: Uid,
        *,
        held: Sequence[Uid],
        failed: Mapping[Uid, int],
    ) -> bool:
        """Record a report; False when this destination was never asked so.

        What it holds is COMMITTED, what it lacks is PENDING again; what it does not mention stays
        open until the deadline. A failure counts more than a success of the same object.
        """
        now = self._clock.now()

        def run(connection: Connection) -> bool:
            transaction = _transaction(connection, Direction.ASKED, destination, transaction_uid)
            if transaction is None:
                return False
            if transaction.state == TransactionState.DONE.value:
                return True  # a repeat; what was sent again since then is another question
            items = _deliveries_of(connection, transaction.id)
            kept = set(held) - set(failed)
            waiting = 0
            for item in items:
                if item.state != DeliveryState.SENT.value:
                    continue
                uid = item.sop_instance_uid
                if uid in kept:
                    step_delivery(connection, now, item.id, DeliveryEvent.COMMITTED,
                                  reason="", hint="")  # fmt: skip
                elif uid in failed:
                    _commitment_failed(connection, now, item, failed[uid])
                else:
                    waiting += 1
            if not waiting:
                _close(connection, transaction.id, TransactionState.DONE)
            record_event(connection, now, "commitment_reported", kind="node",
                         subject=destination, transaction=transaction_uid,
                         held=len(kept), failed=len(failed))  # fmt: skip
            return True

        return self._write_and_wake(run)

    def expire_commitments(self, destination: str) -> int:
        """Close the transactions whose report is late; return how many there were.

        An object is asked about again, up to a limit. After that one whose C-STORE was answered
        stays SENT with a note; one whose C-STORE was not is sent again, the same bytes.
        """
        now = self._clock.now()
        c = schema.commitment.c
        query = select(schema.commitment).where(
            c.direction == Direction.ASKED.value,
            c.peer == destination,
            c.state == TransactionState.OPEN.value,
            c.not_before <= now,
        )
        if self._database.read(lambda r: r.execute(query.limit(1)).first()) is None:
            return 0

        def run(connection: Connection) -> int:
            rows = connection.execute(query).all()
            for row in rows:
                _close(connection, row.id, TransactionState.UNANSWERED)
                record_event(connection, now, "commitment_unanswered", kind="node",
                             subject=destination, transaction=row.transaction_uid,
                             attempt=row.attempt)  # fmt: skip
                if row.attempt >= _MOST_QUESTIONS:
                    for item in _deliveries_of(connection, row.id):
                        _never_answered(connection, now, item)
            return len(rows)

        return self._write_and_wake(run)

    def commitment_not_asked(self, destination: str, transaction_uid: Uid) -> None:
        """Forget a transaction that did not reach the peer: its question does not count."""

        def run(connection: Connection) -> None:
            row = _transaction(connection, Direction.ASKED, destination, transaction_uid)
            if row is not None:
                i, c = schema.commitment_item, schema.commitment
                connection.execute(i.delete().where(i.c.commitment_id == row.id))
                connection.execute(c.delete().where(c.c.id == row.id))

        self._database.write(run)

    def next_commitment_at(self, destination: str) -> datetime | None:
        """Return when the next report of a destination is late; None when none is awaited."""
        c = schema.commitment.c
        query = select(func.min(c.not_before)).where(
            c.direction == Direction.ASKED.value,
            c.peer == destination,
            c.state == TransactionState.OPEN.value,
        )
        found = self._database.read(lambda r: r.execute(query).scalar_one_or_none())
        return found if isinstance(found, datetime) else None

    # -- what we are asked -----------------------------------------------------------------

    def commitment_received(
        self, ae_title: AETitle, transaction_uid: Uid, named: Sequence[InstanceName]
    ) -> bool:
        """Record a request of a peer; False when the transaction UID stands for other objects.

        The same request again is reported on again.
        """
        now = self._clock.now()

        def run(connection: Connection) -> bool:
            number = insert_once(
                connection,
                schema.commitment,
                ("direction", "peer", "transaction_uid"),
                {
                    "direction": Direction.RECEIVED.value,
                    "peer": ae_title,
                    "transaction_uid": transaction_uid,
                    "state": TransactionState.OPEN.value,
                    "attempt": 0,
                    "not_before": now,
                    "created_at": now,
                },
            )
            if number is not None:
                _insert_items(connection, number, named, None)
                return True
            before = _transaction(connection, Direction.RECEIVED, ae_title, transaction_uid)
            if before is None or _names_of(connection, before.id) != set(named):
                return False
            connection.execute(
                update(schema.commitment)
                .where(schema.commitment.c.id == before.id)
                .values(
                    state=TransactionState.OPEN.value, attempt=0, not_before=now, created_at=now
                )
            )
            return True

        return self._write_and_wake(run)

    def due_reports(self, limit: int = 16) -> list[OutgoingReport]:
        """Return the reports that we owe now, oldest first, each with the truth as of now."""
        now = self._clock.now()
        c = schema.commitment.c
        query = (
            select(schema.commitment)
            .where(
                c.direction == Direction.RECEIVED.value,
                c.state == TransactionState.OPEN.value,
                c.not_before <= now,
            )
            .order_by(c.not_before)
            .limit(limit)
        )
        return self._database.read(
            lambda r: [_report(r, row, self._files) for row in r.execute(query).all()]
        )

    def next_report_at(self) -> datetime | None:
        """Return when the next report is to be sent; None when we owe none."""
        c = schema.commitment.c
        query = select(func.min(c.not_before)).where(
            c.direction == Direction.RECEIVED.value, c.state == TransactionState.OPEN.value
        )
        found = self._database.read(lambda r: r.execute(query).scalar_one_or_none())
        return found if isinstance(found, datetime) else None

    def report_sent(self, number: int) -> None:
        """Record that the peer took the report."""
        self._database.write(lambda c: _close(c, number, TransactionState.DONE))

    def report_failed(self, number: int, *, not_before: datetime | None) -> None:
        """Record that the peer could not be told; without `not_before` it is given up."""
        c = schema.commitment.c
        changes: dict[str, object] = {"attempt": c.attempt + 1}
        if not_before is None:
            changes["state"] = TransactionState.UNANSWERED.value
        else:
            changes["not_before"] = not_before
        statement = update(schema.commitment).where(c.id == number).values(**changes)
        self._database.write(lambda connection: connection.execute(statement))


def _unasked(destination: str, since: datetime) -> Select[Any]:
    """Return the SENT deliveries with a question left to ask, and how often nobody answered.

    None is left while a transaction is open, and when one that was answered left the delivery as
    it is: the peer does not commit to such objects.
    """
    d, r = schema.delivery.c, schema.result.c
    c, i = schema.commitment.c, schema.commitment_item.c
    covering = schema.commitment_item.join(schema.commitment, c.id == i.commitment_id)
    covered = exists().select_from(covering).where(
        i.delivery_id == d.id,
        or_(
            c.state == TransactionState.OPEN.value,
            and_(c.state == TransactionState.DONE.value, c.created_at >= d.changed_at),
        ),
    )  # fmt: skip
    asked = (
        select(func.count())
        .select_from(covering)
        .where(i.delivery_id == d.id, c.state == TransactionState.UNANSWERED.value)
        .scalar_subquery()
    )
    return (
        select(d.id, d.sop_instance_uid, r.sop_class_uid, asked.label("asked"))
        .join(schema.result, r.id == d.result_id)
        .where(
            d.destination == destination,
            d.state == DeliveryState.SENT.value,
            d.changed_at >= since,
            ~covered,
            asked < _MOST_QUESTIONS,
        )
        .order_by(d.id)
    )


def _insert_items(
    connection: Connection,
    number: int,
    named: Sequence[InstanceName],
    deliveries: Sequence[int] | None,
) -> None:
    connection.execute(
        schema.commitment_item.insert(),
        [
            {
                "commitment_id": number,
                "sop_instance_uid": name.sop_instance_uid,
                "sop_class_uid": name.sop_class_uid,
                "delivery_id": None if deliveries is None else deliveries[at],
            }
            for at, name in enumerate(named)
        ],
    )


def _transaction(
    connection: Connection, direction: Direction, peer: str, transaction_uid: Uid
) -> Row[Any] | None:
    c = schema.commitment.c
    return connection.execute(
        select(schema.commitment).where(
            c.direction == direction.value, c.peer == peer, c.transaction_uid == transaction_uid
        )
    ).one_or_none()


def _close(connection: Connection, number: int, state: TransactionState) -> None:
    c = schema.commitment.c
    connection.execute(update(schema.commitment).where(c.id == number).values(state=state.value))


def _deliveries_of(connection: Connection, number: int) -> Sequence[Row[Any]]:
    d, i = schema.delivery.c, schema.commitment_item.c
    query = (
        select(schema.delivery)
        .join(schema.commitment_item, i.delivery_id == d.id)
        .where(i.commitment_id == number)
        .order_by(d.id)
    )
    return connection.execute(query).all()


def _commitment_failed(connection: Connection, now: datetime, item: Row[Any], reason: int) -> None:
    """Send again what the peer lacks; ask a person when that happens again and again."""
    words = REASONS.get(reason, "a reason of its own")
    text = f"storage commitment failed: {words} (0x{reason:04X})"
    if reason == CLASS_NOT_SUPPORTED:
        return  # it answered 0x0000 to the C-STORE, and more than that it does not offer
    if reason == CLASS_CONFLICT or item.attempt >= _FEW:
        step_delivery(connection, now, item.id, DeliveryEvent.COMMITMENT_REFUSED, status=reason,
                      reason=text, hint="look at the log of the peer; release it to send it"
                      " again")  # fmt: skip
        return
    # an answer, so no doubt is left: the peer does not answer for the object, whatever its reason
    step_delivery(connection, now, item.id, DeliveryEvent.COMMITMENT_FAILED, status=reason,
                  reason=text, hint="it is sent again by itself", not_before=None)  # fmt: skip


def _never_answered(connection: Connection, now: datetime, item: Row[Any]) -> None:
    if item.state != DeliveryState.SENT.value:
        return
    text = f"storage commitment was not answered {_MOST_QUESTIONS} times"
    if item.status is None:  # nor was the C-STORE: the same bytes again do no harm
        step_delivery(connection, now, item.id, DeliveryEvent.COMMITMENT_FAILED,
                      status=PROCESSING_FAILURE, reason=text,
                      hint="it is sent again by itself", not_before=None)  # fmt: skip
        return
    connection.execute(
        update(schema.delivery)
        .where(schema.delivery.c.id == item.id)
        .values(
            reason=text,
            hint="the peer must know our AE title, host and port to report; or set"
            " commitment: false",
        )
    )


def _names_of(connection: Connection, number: int) -> set[InstanceName]:
    i = schema.commitment_item.c
    rows = connection.execute(select(schema.commitment_item).where(i.commitment_id == number))
    return {
        InstanceName(
            sop_class_uid=Uid(row.sop_class_uid), sop_instance_uid=Uid(row.sop_instance_uid)
        )
        for row in rows
    }


def _report(connection: Connection, row: Row[Any], files: BlobFiles) -> OutgoingReport:
    held: list[InstanceName] = []
    failed: list[tuple[InstanceName, int]] = []
    named = sorted(_names_of(connection, row.id), key=lambda name: name.sop_instance_uid)
    for name in named:
        reason = _reason_against(connection, name, files)
        if reason is None:
            held.append(name)
        else:
            failed.append((name, reason))
    return OutgoingReport(
        number=row.id,
        ae_title=AETitle(row.peer),
        transaction_uid=Uid(row.transaction_uid),
        attempt=row.attempt,
        created_at=row.created_at,
        held=tuple(held),
        failed=tuple(failed),
    )


def _reason_against(connection: Connection, name: InstanceName, files: BlobFiles) -> int | None:
    """Return why we cannot commit to an instance; None when row and file are here."""
    i, b = schema.instance.c, schema.blob.c
    query = (
        select(i.sop_class_uid, b.path, b.purged_at)
        .join(schema.blob, b.sha256 == i.sha256)
        .where(i.sop_instance_uid == name.sop_instance_uid)
    )
    rows = connection.execute(query).all()
    here = [row for row in rows if row.purged_at is None and files.absolute(row.path).is_file()]
    if not here:
        return NO_SUCH_INSTANCE
    if all(row.sop_class_uid != name.sop_class_uid for row in here):
        return CLASS_CONFLICT
    return None
