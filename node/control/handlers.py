"""What an operator may change, one table of commands.

Held work is released, jobs are canceled, results sent once more, a series declared complete. Each
action is written down with the name of the person (`by`) and the reason before it is done; what
was refused is written down too. The same table serves the control channel of a running node and,
with the lock of the data folder held, the command line while no node runs.
"""

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from pydantic import JsonValue

from node.control.channel import Handler
from node.errors import NodeError
from node.lifecycle import DeliveryState, IllegalTransition, JobState, SeriesEvent
from node.log import describe, event
from node.store.audit import VIEWED
from node.store.ledger import Ledger

logger = logging.getLogger(__name__)

ALL_HELD: Final = "all-held"
"""Instead of a job id: every held job and delivery."""


COMMAND_LINE: Final = "command line"
"""Who acts where no user is named: whoever may open the socket."""
AUDITED: Final = frozenset({"login", "login_refused", "logout"})
"""What the web page tells of its users; nothing else is taken from it."""
VIEWABLE: Final = frozenset({"job", "series", "study"})
"""Whose images a person may have looked at."""
_LONGEST_NAME: Final = 64
_LONGEST_REASON: Final = 500


class NothingToDo(NodeError):
    """There is nothing held."""

    hint = "look at `rtnode jobs`"


class ReasonMissing(NodeError):
    """A reason is missing."""

    hint = "say in a few words why; it is kept with the series"


def operator_handlers(
    ledger: Ledger,
    troubles: Callable[[], list[str]] = list,
    revisit: Callable[[], None] = lambda: None,
) -> dict[str, Handler]:
    """Return the commands for a writable `ledger`, by name.

    ``status``; ``retry``, ``cancel``, ``resend`` (a job) and ``complete`` (a series), each with
    `by` and `reason`; ``audit`` for what the web page has to tell of its users.

    Parameters
    ----------
    ledger : Ledger
        Of the process that answers.
    troubles : callable
        What is wrong with the process itself, asked anew for each ``status``.
    revisit : callable
        Asks the coordinator to look at series that a person changed.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def status(_arguments: Mapping[str, JsonValue]) -> JsonValue:
        wrong: list[JsonValue] = list(troubles())
        return {
            "version": _version(),
            "pid": os.getpid(),
            "started_at": started_at,
            "troubles": wrong,
        }

    def retry(arguments: Mapping[str, JsonValue]) -> JsonValue:
        wanted = arguments["job"]
        released = _release_all(ledger) if wanted == ALL_HELD else _release(ledger, _job_id(wanted))
        event(logger, "operator_released", wanted=str(wanted), jobs=len(released["jobs"]),
              deliveries=len(released["deliveries"]))  # fmt: skip
        return {"jobs": list(released["jobs"]), "deliveries": list(released["deliveries"])}

    def cancel(arguments: Mapping[str, JsonValue]) -> JsonValue:
        job_id = _job_id(arguments["job"])
        _known(ledger, job_id)
        ledger.cancel_job(job_id, str(arguments.get("reason") or "canceled by the operator"))
        event(logger, "operator_canceled", job=job_id)
        return {"canceled": [job_id]}

    def resend(arguments: Mapping[str, JsonValue]) -> JsonValue:
        job_id = _job_id(arguments["job"])
        _known(ledger, job_id)
        again = ledger.resend_job(job_id)
        if not again:
            raise NothingToDo(f"job {job_id} has delivered nothing that could be sent once more")
        event(logger, "operator_resent", job=job_id, deliveries=len(again))
        return {"deliveries": list(again)}

    def complete(arguments: Mapping[str, JsonValue]) -> JsonValue:
        uid = str(arguments["series"])
        _declare_complete(ledger, uid, _by(arguments), _reason(arguments))
        revisit()
        event(logger, "operator_completed", series=uid)
        return {"series": uid}

    def audit(arguments: Mapping[str, JsonValue]) -> JsonValue:
        action = str(arguments["action"])
        address = str(arguments.get("address") or "")[:_LONGEST_NAME]
        kind = str(arguments.get("kind") or "")
        if action == "viewed" and kind in VIEWABLE:
            subject = str(arguments.get("subject") or "")[:_LONGEST_NAME]
            ledger.note(VIEWED, kind=kind, subject=subject, by=_by(arguments), address=address)
            return {}
        if action not in AUDITED:
            raise NothingToDo("this is nothing that is written down")
        ledger.note(f"web_{action}", kind="user", subject=_by(arguments), address=address)
        return {}

    return {
        "status": status,
        "retry": _audited(ledger, "retry", retry),
        "cancel": _audited(ledger, "cancel", cancel),
        "resend": _audited(ledger, "resend", resend),
        "complete": _audited(ledger, "complete", complete),
        "audit": audit,
    }


def _audited(ledger: Ledger, command: str, handler: Handler) -> Handler:
    """Write down who asks for what before it is done, and what was refused."""

    def run(arguments: Mapping[str, JsonValue]) -> JsonValue:
        kind = "series" if "series" in arguments else "job"
        subject = str(arguments.get(kind, ""))
        by, reason = _by(arguments), _reason(arguments)
        ledger.note(f"operator_{command}", kind=kind, subject=subject, by=by, reason=reason)
        try:
            return handler(arguments)
        except (NodeError, IllegalTransition, LookupError, ValueError, TypeError) as error:
            refused = describe(error)
            ledger.note(f"operator_{command}_refused", kind=kind, subject=subject, by=by,
                        reason=refused)  # fmt: skip
            raise

    return run


def _declare_complete(ledger: Ledger, uid: str, by: str, reason: str) -> None:
    if not reason:
        raise ReasonMissing("a series is declared complete only with a reason")
    series = ledger.series(uid)
    if series is None:
        raise NothingToDo("there is no such series")
    words = f"declared complete by {by}: {reason} (before: {series.reason or 'being received'})"
    if ledger.advance_series(series, SeriesEvent.FORCED, words) is None:
        raise NothingToDo("something arrived for this series meanwhile", hint="look at it again")


def _by(arguments: Mapping[str, JsonValue]) -> str:
    return str(arguments.get("by") or COMMAND_LINE)[:_LONGEST_NAME]


def _reason(arguments: Mapping[str, JsonValue]) -> str:
    return str(arguments.get("reason") or "").strip()[:_LONGEST_REASON]


def _version() -> str:
    try:
        return importlib.metadata.version("rtnode")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed as a package)"


def _release(ledger: Ledger, job_id: int) -> dict[str, list[int]]:
    state = _known(ledger, job_id)
    released: list[int] = []
    if state is JobState.HELD:
        ledger.release_job(job_id)
        released.append(job_id)
    detail = ledger.job_detail(job_id)
    held = [d.id for d in detail.deliveries if d.state is DeliveryState.HELD] if detail else []
    for delivery_id in held:
        ledger.release_delivery(delivery_id)
    if not released and not held:
        raise NothingToDo(f"job {job_id} is {state} and none of its deliveries is held")
    return {"jobs": released, "deliveries": held}


def _release_all(ledger: Ledger) -> dict[str, list[int]]:
    jobs: list[int] = []
    deliveries: list[int] = []
    for item in ledger.held():
        with contextlib.suppress(IllegalTransition):  # somebody else was faster
            if item.kind == "job":
                ledger.release_job(int(item.id))
                jobs.append(int(item.id))
            elif item.kind == "delivery":
                ledger.release_delivery(int(item.id))
                deliveries.append(int(item.id))
    return {"jobs": jobs, "deliveries": deliveries}


def _known(ledger: Ledger, job_id: int) -> JobState:
    job = ledger.job(job_id)
    if job is None:
        raise NothingToDo(f"there is no job {job_id}")
    return job.state


def _job_id(value: JsonValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise NothingToDo("a job is named by its number")
    return value
