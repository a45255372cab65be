"""The story of a job, from the first byte of its trigger to the last delivery.

Pure: events of the ledger in, lines out. What happened to many objects at once (deliveries) is
one line a destination and outcome.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.domain import Series
from node.store.records import AssociationInfo, EventLine, JobDetail
from pipelines.api import Json

GOOD: Final = "good"
BAD: Final = "bad"
PLAIN: Final = "plain"
PERSON: Final = "person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of the story."""

    at: datetime
    title: str
    """English words, looked up in the table of strings."""
    detail: str = ""
    tone: str = PLAIN
    """good, bad, person or plain: how it is colored."""
    count: int = 0
    until: datetime | None = None
    """End of what took a while."""


_TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "series_complete": ("Series complete", GOOD),
    "series_incomplete": ("Series incomplete", BAD),
    "series_resent": ("Series sent again", PLAIN),
    "decision_waiting": ("Waits for an input", PLAIN),
    "decision_held": ("Held for a person", BAD),
    "job_created": ("Job created", PLAIN),
    "job_claimed": ("Worker started", PLAIN),
    "job_finished": ("Pipeline finished", GOOD),
    "job_failed_transiently": ("Attempt failed, tried again", BAD),
    "job_lease_expired": ("Worker lost", BAD),
    "job_failed": ("Failed: held", BAD),
    "job_held": ("Held for a person", BAD),
    "job_released": ("Released", PLAIN),
    "job_canceled": ("Canceled", BAD),
    "job_drained": ("Given back: the node stopped", PLAIN),
    "operator_retry": ("A person released it", PERSON),
    "operator_cancel": ("A person canceled it", PERSON),
    "operator_resend": ("A person sent the results again", PERSON),
    "operator_complete": ("A person declared the series complete", PERSON),
}
"""Action of an event -> (title, tone)."""
_DELIVERIES: Final[Mapping[str, tuple[str, str]]] = {
    "delivery_stored": ("Delivered", GOOD),
    "delivery_committed": ("The peer keeps it for good", GOOD),
    "delivery_commitment_failed": ("The peer lost it: sent again", BAD),
    "delivery_commitment_refused": ("The peer lost it again: held", BAD),
    "delivery_failed_transiently": ("Delivery failed, tried again", BAD),
    "delivery_refused": ("Delivery refused: held", BAD),
    "delivery_superseded": ("Delivery canceled", PLAIN),
}


def story(
    detail: JobDetail,
    series: Series | None,
    associations: Sequence[AssociationInfo],
    series_events: Iterable[EventLine],
) -> list[Moment]:
    """Return the moments of a job in the order in which they happened."""
    moments: list[Moment] = []
    if series is not None:
        moments += _arrival(series, associations)
    events = [e for e in series_events if e.kind == "series" and e.action != "job_created"]
    moments += [m for e in (*events, *detail.events) if (m := _moment(e)) is not None]
    moments += _delivered(e for e in detail.events if e.action in _DELIVERIES)
    return sorted(moments, key=lambda moment: moment.at)


def _arrival(series: Series, associations: Sequence[AssociationInfo]) -> list[Moment]:
    return [
        Moment(
            at=series.first_received_at if number == 0 else a.opened_at,
            title="First byte" if number == 0 else "More arrived",
            detail=f"{a.calling_ae_title} → {a.called_ae_title} · {a.address}",
            count=a.instances,
            until=a.ended_at,
        )
        for number, a in enumerate(associations)
    ]


def _moment(event: EventLine) -> Moment | None:
    known = _TITLES.get(event.action)
    if known is None:
        return None
    title, tone = known
    return Moment(at=event.at, title=title, tone=tone, detail=_words(event))


def _words(event: EventLine) -> str:
    words = [_text(event.detail.get("by")), _text(event.detail.get("reason"))]
    return ": ".join(word for word in words if word)


def _delivered(events: Iterable[EventLine]) -> list[Moment]:
    """Return one moment for each run of the same outcome at the same destination."""
    groups: dict[tuple[str, str, str], list[EventLine]] = {}
    for event in events:
        reason = _text(event.detail.get("reason"))
        groups.setdefault(
            (event.action, _text(event.detail.get("destination")), reason), []
        ).append(event)
    moments = []
    for (action, destination, reason), found in groups.items():
        title, tone = _DELIVERIES[action]
        moments.append(
            Moment(
                at=found[-1].at,
                title=title,
                tone=tone,
                detail=f"{destination}: {reason}" if reason else destination,
                count=len(found),
            )
        )
    return moments


def _text(value: Json) -> str:
    return "" if value is None else str(value)
