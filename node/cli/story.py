"""The events of the ledger told as a story: one line a step, repeats of a step on one line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.store.records import EventLine
from pipelines.api import Json

_Detail = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened, or the same thing that happened to several objects in a row."""

    at: datetime
    until: datetime
    count: int
    who: str
    """What it happened to: series, ``job 7``, or the name of a destination."""
    what: str


def tell(events: Sequence[EventLine]) -> list[Step]:
    """Return `events`, which are in the order of time, as steps.

    Neighbours in time that differ only in the object become one step with a count: fifty slices
    that a destination stored are one line. Deliveries to one destination are gathered even when
    those to another lie between them.
    """
    steps: list[Step] = []
    last_of: dict[tuple[str, str], int] = {}
    for event in events:
        who, what = _who(event), _what(event)
        place = last_of.get((who, what)) if event.kind in {"delivery", "instance"} else None
        if place is None:
            last_of[who, what] = len(steps)
            steps.append(Step(at=event.at, until=event.at, count=1, who=who, what=what))
            continue
        known = steps[place]
        steps[place] = Step(at=known.at, until=event.at, count=known.count + 1, who=who, what=what)
    return steps


def _who(event: EventLine) -> str:
    if event.kind == "delivery":
        return str(event.detail.get("destination", "delivery"))
    return f"job {event.subject}" if event.kind == "job" else event.kind


def _what(event: EventLine) -> str:
    words = _WORDS.get(event.action)
    if words is None:
        told = event.action.removeprefix(f"{event.kind}_").replace("_", " ").replace("-", " ")
        reason = event.detail.get("reason")
        return f"{told}: {reason}" if reason else told
    return words(event.detail)


def _with_reason(told: str) -> Callable[[_Detail], str]:
    return lambda detail: f"{told}: {detail['reason']}" if detail.get("reason") else told


_WORDS: Final[Mapping[str, Callable[[_Detail], str]]] = {
    "series_started": lambda d: f"the first {d.get('modality') or 'object'} arrived",
    "series_complete": _with_reason("complete"),
    "series_incomplete": _with_reason("incomplete"),
    "decision_job": lambda d: f"route {d['route']} starts job {d['job']}",
    "decision_held": lambda d: f"route {d['route']} is held, job {d['job']}: {d['reason']}",
    "decision_waiting": lambda d: (
        f"route {d['route']} waits: {d['reason']}" if d.get("route") else str(d["reason"])
    ),
    "decision_none": _with_reason("nothing to do"),
    "job_created": lambda d: f"created for {d['pipeline']}: {d['reason']}",
    "job_claimed": lambda d: f"attempt {d['attempt']} begins",
    "job_finished": lambda d: str(d["state"]),
    "delivery_claimed": lambda d: f"sending, attempt {d['attempt']}",
    "delivery_stored": lambda _: "stored there",
}
"""Action -> its sentence; others are told by their name and reason."""
