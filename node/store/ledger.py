"""The ledger: every question that the node asks of its database, and every step it takes there.

Each part is a group of named queries: series and instances, decisions and the birth of jobs, the
queue, results, deliveries, and listings for people. All of it is thread-safe; a write is durable
when it returns, and raises `node.errors.LedgerError` when the database refuses.
"""

from contextlib import AbstractContextManager

from sqlalchemy import Connection, select, update

from node.lifecycle import DeliveryEvent, DeliveryState, JobEvent, JobState
from node.store import schema
from node.store.acceptance import AcceptanceLedger
from node.store.audit import AuditLedger
from node.store.base import step_delivery
from node.store.commitments import CommitmentLedger
from node.store.decisions import DecisionLedger
from node.store.deliveries import DeliveryLedger
from node.store.jobs import JobLedger, give_up
from node.store.listing import Listing
from node.store.records import Recovered
from node.store.results import ResultLedger
from node.store.retention import RetentionLedger
from node.store.series import SeriesLedger
from node.store.statistics import StatisticsLedger
from node.store.verify import Verification
from node.store.worklist import Worklist

LOST = "LOST"
"""End of an association that the node did not live to see."""


class Ledger(
    SeriesLedger,
    DecisionLedger,
    JobLedger,
    ResultLedger,
    DeliveryLedger,
    CommitmentLedger,
    RetentionLedger,
    AuditLedger,
    AcceptanceLedger,
    Listing,
    StatisticsLedger,
    Worklist,
    Verification,
):
    """One face for all parts."""

    def recover_at_start(self) -> Recovered:
        """Put right what a dead node left: running jobs, deliveries on the way, associations."""
        now = self._clock.now()
        j, d, a = schema.job.c, schema.delivery.c, schema.association.c

        def run(connection: Connection) -> Recovered:
            running = connection.execute(
                select(schema.job).where(j.state == JobState.IN_PROGRESS.value)
            ).all()
            states = [
                give_up(
                    connection,
                    now,
                    row,
                    JobEvent.LEASE_EXPIRED,
                    reason="the node stopped while the job ran",
                    hint="look for a crash in the log; `rtnode retry` starts it again",
                )
                for row in running
            ]
            sending = connection.execute(
                select(d.id).where(d.state == DeliveryState.SENDING.value)
            ).scalars()
            interrupted = [
                step_delivery(connection, now, number, DeliveryEvent.INTERRUPTED)
                for number in sending.all()
            ]
            lost = connection.execute(
                update(schema.association)
                .where(a.ended_at.is_(None))
                .values(ended_at=now, end=LOST)
                .returning(a.id)
            ).all()
            return Recovered(
                jobs_rescheduled=states.count(JobState.SCHEDULED),
                jobs_held=states.count(JobState.HELD),
                deliveries_pending=len(interrupted),
                associations_lost=len(lost),
            )

        return self._database.write(run)

    def unhurried(self) -> AbstractContextManager[None]:
        """Let the looks of this thread miss what was received within the last tenth of a second."""
        return self._database.unhurried()

    def close(self) -> None:
        """Let go of the database; for a ledger that only reads. A `Store` closes its own."""
        self._database.close()
