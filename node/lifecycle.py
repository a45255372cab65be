"""States and the only legal steps between them, as tables.

Jobs use the words of the Unified Procedure Step (PS3.4 CC.1.1) plus HELD: a person must act.
`advance` is the one way to a new state; the ledger applies its answer with
``UPDATE ... WHERE id = ? AND state = ?`` and appends the event in the same transaction.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class SeriesState(StrEnum):
    """Whether a series is whole."""

    RECEIVING = "RECEIVING"
    """Instances arrive, or the series has gaps that may still be filled."""
    COMPLETE = "COMPLETE"
    """Evidence says that nothing is missing; the reason is recorded."""
    INCOMPLETE = "INCOMPLETE"
    """The deadline passed with gaps or contradictions: shown, never run silently."""


class SeriesEvent(StrEnum):
    """What can happen to a series."""

    INSTANCE_STORED = "INSTANCE_STORED"
    WHOLE = "WHOLE"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    FORCED = "FORCED"
    """A person declared it complete as it is; the reason is recorded."""


class JobState(StrEnum):
    """Where a job stands."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    HELD = "HELD"
    """A person must act; reason and hint say how."""
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIMED = "CLAIMED"
    FINISHED = "FINISHED"
    FAILED_TRANSIENTLY = "FAILED_TRANSIENTLY"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    FAILED = "FAILED"
    HELD = "HELD"
    RELEASED = "RELEASED"
    CANCELED = "CANCELED"
    DRAINED = "DRAINED"
    """The node stops in order; the attempt is given back."""


class DeliveryState(StrEnum):
    """Where the delivery of one object to one destination stands."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    SENT = "SENT"
    """The peer answered success; final where it offers no commitment."""
    COMMITTED = "COMMITTED"
    """The peer took responsibility for the object (storage commitment)."""
    HELD = "HELD"
    CANCELED = "CANCELED"


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    CLAIMED = "CLAIMED"
    STORED = "STORED"
    COMMITTED = "COMMITTED"
    COMMITMENT_FAILED = "COMMITMENT_FAILED"
    """The peer says that it does not hold what it had answered success to."""
    COMMITMENT_REFUSED = "COMMITMENT_REFUSED"
    """The same again and again: a person must look."""
    FAILED_TRANSIENTLY = "FAILED_TRANSIENTLY"
    INTERRUPTED = "INTERRUPTED"
    """The node stopped or died between claim and answer."""
    REFUSED = "REFUSED"
    RELEASED = "RELEASED"
    RESENT = "RESENT"
    """A person asked for it once more, for example because the peer lost it."""
    SUPERSEDED = "SUPERSEDED"


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

SERIES_TRANSITIONS: Final[Mapping[tuple[SeriesState, SeriesEvent], SeriesState]] = {
    (SeriesState.RECEIVING, SeriesEvent.INSTANCE_STORED): SeriesState.RECEIVING,
    (SeriesState.RECEIVING, SeriesEvent.WHOLE): SeriesState.COMPLETE,
    (SeriesState.RECEIVING, SeriesEvent.DEADLINE_PASSED): SeriesState.INCOMPLETE,
    (SeriesState.RECEIVING, SeriesEvent.FORCED): SeriesState.COMPLETE,
    (SeriesState.INCOMPLETE, SeriesEvent.FORCED): SeriesState.COMPLETE,
    (SeriesState.COMPLETE, SeriesEvent.INSTANCE_STORED): SeriesState.RECEIVING,
    (SeriesState.INCOMPLETE, SeriesEvent.INSTANCE_STORED): SeriesState.RECEIVING,
}

JOB_TRANSITIONS: Final[Mapping[tuple[JobState, JobEvent], JobState]] = {
    (JobState.SCHEDULED, JobEvent.CLAIMED): JobState.IN_PROGRESS,
    (JobState.SCHEDULED, JobEvent.HELD): JobState.HELD,
    (JobState.SCHEDULED, JobEvent.CANCELED): JobState.CANCELED,
    (JobState.IN_PROGRESS, JobEvent.FINISHED): JobState.COMPLETED,
    (JobState.IN_PROGRESS, JobEvent.FAILED_TRANSIENTLY): JobState.SCHEDULED,
    (JobState.IN_PROGRESS, JobEvent.LEASE_EXPIRED): JobState.SCHEDULED,
    (JobState.IN_PROGRESS, JobEvent.DRAINED): JobState.SCHEDULED,
    (JobState.IN_PROGRESS, JobEvent.FAILED): JobState.HELD,
    (JobState.IN_PROGRESS, JobEvent.CANCELED): JobState.CANCELED,
    (JobState.HELD, JobEvent.RELEASED): JobState.SCHEDULED,
    (JobState.HELD, JobEvent.CANCELED): JobState.CANCELED,
}

DELIVERY_TRANSITIONS: Final[Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState]] = {
    (DeliveryState.PENDING, DeliveryEvent.CLAIMED): DeliveryState.SENDING,
    (DeliveryState.PENDING, DeliveryEvent.SUPERSEDED): DeliveryState.CANCELED,
    (DeliveryState.SENDING, DeliveryEvent.STORED): DeliveryState.SENT,
    (DeliveryState.SENDING, DeliveryEvent.FAILED_TRANSIENTLY): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.INTERRUPTED): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.REFUSED): DeliveryState.HELD,
    (DeliveryState.SENT, DeliveryEvent.COMMITTED): DeliveryState.COMMITTED,
    (DeliveryState.SENT, DeliveryEvent.COMMITMENT_FAILED): DeliveryState.PENDING,
    (DeliveryState.SENT, DeliveryEvent.COMMITMENT_REFUSED): DeliveryState.HELD,
    (DeliveryState.SENT, DeliveryEvent.RESENT): DeliveryState.PENDING,
    (DeliveryState.COMMITTED, DeliveryEvent.RESENT): DeliveryState.PENDING,
    (DeliveryState.HELD, DeliveryEvent.RELEASED): DeliveryState.PENDING,
    (DeliveryState.HELD, DeliveryEvent.SUPERSEDED): DeliveryState.CANCELED,
}


class IllegalTransition(Exception):
    """A step that the table does not hold; always a mistake of ours, never of a peer."""


def advance(table: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """Return the state that follows `state` on `event`.

    Raises
    ------
    IllegalTransition
        If the table holds no such step.
    """
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransition(f"{state} does not allow {event}") from None


def sources(table: Mapping[tuple[S, E], S], event: E) -> frozenset[S]:
    """Return the states from which `event` is legal: the WHERE clause of its update."""
    return frozenset(state for state, e in table if e == event)
