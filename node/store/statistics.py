"""Numbers about the node's work, for monitoring; nothing here writes or names a patient."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Column, Connection, func, select

from node.lifecycle import JobEvent, JobState
from node.store import schema
from node.store.base import LedgerPart

WINDOW: Final = timedelta(hours=24)
"""How far back durations and findings look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a monitor asks for beside `Counts`, since the data folder began or as it says."""

    associations: Mapping[str, int]
    """End (RELEASED, ABORTED, LOST; OPEN while it runs) -> count."""
    refused: int
    """Objects that were answered with a failure."""
    jobs: Mapping[tuple[str, str], int]
    """(pipeline, state) -> count."""
    failed_attempts: Mapping[str, int]
    """Pipeline -> attempts that did not finish."""
    job_seconds: Mapping[str, tuple[float, ...]]
    """Pipeline -> sorted durations of the attempts that finished within `WINDOW`. [s]"""
    findings: Mapping[tuple[str, str, str], int]
    """(pipeline, code, severity) -> jobs of `WINDOW` with such a finding."""


class StatisticsLedger(LedgerPart):
    """One question: how it is going."""

    def statistics(self) -> Statistics:
        """Return all numbers, read at one moment."""
        since = self._clock.now() - WINDOW
        a, j = schema.association.c, schema.job.c

        def look(connection: Connection) -> Statistics:
            ends = _counted(connection, a.end)
            return Statistics(
                associations={end or "OPEN": many for (end,), many in ends.items()},
                refused=int(
                    connection.execute(select(func.coalesce(func.sum(a.refused), 0))).scalar_one()
                ),
                jobs=_counted(connection, j.pipeline, j.state),
                failed_attempts=_failed(connection),
                job_seconds=_durations(connection, since),
                findings=_findings(connection, since),
            )

        return self._database.read(look)


def _counted(connection: Connection, *columns: Column[Any]) -> dict[Any, int]:
    """Return the values of `columns`, as tuples in their order -> number of rows."""
    query = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}


def _failed(connection: Connection) -> dict[str, int]:
    j, t = schema.job.c, schema.attempt.c
    query = (
        select(j.pipeline, func.count().label("many"))
        .join(schema.attempt, j.id == t.job_id)
        .where(t.outcome != JobEvent.FINISHED.value, t.ended_at.is_not(None))
        .group_by(j.pipeline)
    )
    return {row.pipeline: row.many for row in connection.execute(query)}


def _durations(connection: Connection, since: datetime) -> dict[str, tuple[float, ...]]:
    j, t = schema.job.c, schema.attempt.c
    query = (
        select(j.pipeline, t.started_at, t.ended_at)
        .join(schema.attempt, j.id == t.job_id)
        .where(t.outcome == JobEvent.FINISHED.value, t.ended_at >= since)
    )
    seconds: dict[str, list[float]] = {}
    for row in connection.execute(query):
        took = (row.ended_at - row.started_at).total_seconds()
        seconds.setdefault(row.pipeline, []).append(took)
    return {pipeline: tuple(sorted(values)) for pipeline, values in seconds.items()}


def _findings(connection: Connection, since: datetime) -> dict[tuple[str, str, str], int]:
    j = schema.job.c
    query = select(j.pipeline, j.findings).where(
        j.changed_at >= since, j.state != JobState.CANCELED.value
    )
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in connection.execute(query):
        counts.update(
            {(row.pipeline, str(f["code"]), str(f["severity"])) for f in row.findings or ()}
        )
    return dict(sorted(counts.items()))
