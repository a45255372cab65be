"""Removing files of finished work: the row stays and says when, nothing that waits is touched.

A patient's files are kept together: as long as anything of the patient is on its way (a series
that arrives or has gaps, a decision or a job that waits, a result that is not delivered, a
storage commitment that is not answered) none of them goes, because each may be an input of what
comes next. The condition is asked again inside the transaction that marks a file, and the same
thread writes what arrives, so nothing can come between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from node.lifecycle import DeliveryState, JobState, SeriesState
from node.store import schema
from node.store.base import LedgerPart, record_event
from node.store.commitments import Direction, TransactionState
from node.store.records import DecisionState

_B: Final = schema.blob.c
_S: Final = schema.series.c
_J: Final = schema.job.c
_I: Final = schema.instance.c
_R: Final = schema.result.c

_OPEN_JOBS: Final = (
    JobState.SCHEDULED.value,
    JobState.IN_PROGRESS.value,
    JobState.HELD.value,
)
_DONE_DELIVERIES: Final = (
    DeliveryState.SENT.value,
    DeliveryState.COMMITTED.value,
    DeliveryState.CANCELED.value,
)
_OPEN_DECISIONS: Final = (DecisionState.WAITING.value, DecisionState.UNJUDGED.value)
BATCH: Final = 200
"""Files that one transaction marks: what arrives meanwhile waits a moment only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purgeable:
    """A file that nobody needs any more."""

    sha256: str
    name: str
    """Relative to the data folder."""
    size: int
    created_at: datetime


class RetentionLedger(LedgerPart):
    """What may go, and what went."""

    def purgeable(self, before: datetime) -> Iterator[Purgeable]:
        """Yield files of finished work that came before `before`, oldest first."""
        after: tuple[str, datetime | None] = ("", None)
        while True:
            page = self._database.read(partial(_page, before=before, after=after))
            yield from self._database.read(partial(_unneeded, page=page))
            if len(page) < BATCH:
                return
            after = (page[-1].sha256, page[-1].created_at)

    def kept_bytes(self) -> int:
        """Return the size of all data sets that are kept."""
        query = select(func.coalesce(func.sum(_B.size), 0)).where(_B.purged_at.is_(None))
        return int(self._database.read(lambda c: c.execute(query).scalar_one()))

    def purge(self, chosen: Sequence[Purgeable], *, reason: str) -> int:
        """Mark at most `BATCH` files as removed, then remove them; return how many.

        What became needed since it was chosen stays. After a kill in between, `purge_leftovers`
        finishes the work.

        Raises
        ------
        OutOfResources, LedgerError
            Some files are still there; call `purge_leftovers`.
        """
        now = self._clock.now()

        def run(connection: Connection) -> list[Purgeable]:
            still = _unneeded(connection, _kept(connection, chosen))
            for item in still:
                connection.execute(
                    update(schema.blob).where(_B.sha256 == item.sha256).values(purged_at=now)
                )
                record_event(connection, now, "file_purged", kind="file", subject=item.sha256,
                             reason=reason, size=item.size)  # fmt: skip
            return still

        gone = self._database.write(run)
        for item in gone:
            self._files.remove(item.name)
        return len(gone)

    def purge_leftovers(self) -> int:
        """Remove the files of rows that say so and were interrupted; return how many."""
        query = select(_B.path).where(_B.purged_at.is_not(None))
        names = self._database.read(lambda c: c.execute(query).scalars().all())
        there = [name for name in names if self._files.absolute(name).exists()]
        for name in there:
            self._files.remove(name)
        return len(there)


def _page(
    connection: Connection, before: datetime, after: tuple[str, datetime | None]
) -> list[Purgeable]:
    """Return the next files by age, needed or not."""
    query = select(schema.blob).where(_B.purged_at.is_(None), _B.created_at < before)
    sha256, at = after
    if at is not None:
        later = and_(_B.created_at == at, _B.sha256 > sha256)
        query = query.where(or_(_B.created_at > at, later))
    rows = connection.execute(query.order_by(_B.created_at, _B.sha256).limit(BATCH))
    return [_to_purgeable(row) for row in rows]


def _kept(connection: Connection, chosen: Sequence[Purgeable]) -> list[Purgeable]:
    """Return those of `chosen` that still have their file."""
    query = select(schema.blob).where(
        _B.purged_at.is_(None), _B.sha256.in_([item.sha256 for item in chosen])
    )
    return [_to_purgeable(row) for row in connection.execute(query)]


def _unneeded(connection: Connection, page: Sequence[Purgeable]) -> list[Purgeable]:
    """Return those of which nothing is on its way for any patient they belong to."""
    wanted = [item.sha256 for item in page]
    received = select(_I.sha256, _I.patient_key).where(_I.sha256.in_(wanted))
    made = (
        select(_R.sha256, _S.patient_key)
        .join(schema.job, _J.id == _R.job_id)
        .join(schema.series, _S.series_instance_uid == _J.series_instance_uid)
        .where(_R.sha256.in_(wanted))
    )
    owners: dict[str, set[str]] = {}
    for query in (received, made):
        for sha256, patient in connection.execute(query):
            owners.setdefault(sha256, set()).add(patient)
    busy = _busy(connection, sorted(set().union(*owners.values())) if owners else [])
    return [item for item in page if item.sha256 in owners and not owners[item.sha256] & busy]


def _busy(connection: Connection, patients: Sequence[str]) -> set[str]:
    """Return those of `patients` of whom anything is on its way."""
    d, v, n, i = (
        schema.decision.c,
        schema.delivery.c,
        schema.job_input.c,
        schema.commitment_item.c,
    )
    decided = (
        select(d.series_instance_uid)
        .where(d.series_instance_uid == _S.series_instance_uid, d.series_revision == _S.revision)
        .exists()
    )
    open_jobs = select(_J.series_instance_uid).where(_J.state.in_(_OPEN_JOBS))
    unsent = (
        select(_J.series_instance_uid)
        .join(schema.delivery, v.job_id == _J.id)
        .where(
            or_(
                v.state.not_in(_DONE_DELIVERIES),
                # sent, and never answered: only a commitment could tell that it arrived
                and_(v.state == DeliveryState.SENT.value, v.status.is_(None)),
            )
        )
    )
    unanswered = (
        select(_J.series_instance_uid)
        .join(schema.delivery, v.job_id == _J.id)
        .join(schema.commitment_item, i.delivery_id == v.id)
        .join(schema.commitment, schema.commitment.c.id == i.commitment_id)
        .where(
            schema.commitment.c.direction == Direction.ASKED.value,
            schema.commitment.c.state == TransactionState.OPEN.value,
        )
    )
    waiting = select(d.series_instance_uid).where(d.state.in_(_OPEN_DECISIONS))
    on_its_way = select(_S.patient_key).where(
        _S.patient_key.in_(patients),
        or_(
            _S.state != SeriesState.COMPLETE.value,
            ~decided,
            _S.series_instance_uid.in_(open_jobs),
            _S.series_instance_uid.in_(unsent),
            _S.series_instance_uid.in_(unanswered),
            _S.series_instance_uid.in_(waiting),
        ),
    )
    given = (
        select(_I.patient_key)
        .join(schema.job_input, n.sha256 == _I.sha256)
        .join(schema.job, _J.id == n.job_id)
        .where(_J.state.in_(_OPEN_JOBS), _I.patient_key.in_(patients))
    )
    found = (connection.execute(query).scalars() for query in (on_its_way, given))
    return {str(patient) for patients_found in found for patient in patients_found}


def _to_purgeable(row: Row[Any]) -> Purgeable:
    return Purgeable(sha256=row.sha256, name=row.path, size=row.size, created_at=row.created_at)
