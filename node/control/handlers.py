"""What an operator may change: held jobs and deliveries released, jobs canceled.

The same table serves the control channel of a running node and, with the lock of the data folder
held, the command line while no node runs.
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
from node.lifecycle import DeliveryState, IllegalTransition, JobState
from node.log import event
from node.store.ledger import Ledger

logger = logging.getLogger(__name__)

ALL_HELD: Final = "all-held"
"""Instead of a job id: every held job and delivery."""


class NothingToDo(NodeError):
    """There is nothing held."""

    hint = "look at `rtnode jobs`"


def operator_handlers(
    ledger: Ledger, troubles: Callable[[], list[str]] = list
) -> dict[str, Handler]:
    """Return the commands ``status``, ``retry`` and ``cancel`` for a writable `ledger`.

    Parameters
    ----------
    ledger : Ledger
        Of the process that answers.
    troubles : callable
        What is wrong with the process itself, asked anew for each ``status``.
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

    return {"status": status, "retry": retry, "cancel": cancel}


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
