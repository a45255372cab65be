"""What an operator may do, and what is written down of it."""

from pathlib import Path

import pytest

from node.control.handlers import NothingToDo, ReasonMissing, operator_handlers
from node.lifecycle import DeliveryState, JobState, SeriesState
from node.store.store import Store
from tests.store_kit import SERIES, ct, finish, push, start_job, store


@pytest.fixture
def data(tmp_path: Path):
    with store(tmp_path / "data") as opened:
        yield opened


def actions(data: Store) -> list[tuple[str, str, str]]:
    return [
        (e.action, str(e.detail.get("by")), str(e.detail.get("reason")))
        for e in data.ledger.recent_actions()
    ]


def deliveries(data: Store, job: int) -> list[DeliveryState]:
    detail = data.ledger.job_detail(job)
    assert detail is not None
    return [d.state for d in detail.deliveries]


def test_sending_again_starts_with_all_attempts(data: Store, tmp_path: Path) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=2)
    for delivery in data.ledger.claim_deliveries("pacs", 5):
        data.ledger.delivery_sent(delivery.id, status=0)

    operator_handlers(data.ledger)["resend"]({"job": job, "by": "a", "reason": "lost there"})

    assert deliveries(data, job) == [DeliveryState.PENDING] * 2
    again = data.ledger.claim_deliveries("pacs", 5)
    assert [d.attempt for d in again] == [1, 1]
    assert actions(data) == [("operator_resend", "a", "lost there")]


def test_nothing_is_sent_again_that_was_never_sent(data: Store, tmp_path: Path) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=1)

    with pytest.raises(NothingToDo, match="delivered nothing"):
        operator_handlers(data.ledger)["resend"]({"job": job, "by": "a"})

    assert deliveries(data, job) == [DeliveryState.PENDING]
    assert actions(data)[0][0] == "operator_resend_refused"


def test_a_series_is_declared_complete_with_name_and_reason(data: Store) -> None:
    push(data, ct(1))
    push(data, ct(3))
    asked: list[bool] = []
    handlers = operator_handlers(data.ledger, revisit=lambda: asked.append(True))

    handlers["complete"]({"series": SERIES, "by": "a", "reason": "the scanner lost a slice"})

    series = data.ledger.series(SERIES)
    assert series is not None
    assert series.state is SeriesState.COMPLETE
    assert series.reason.startswith("declared complete by a: the scanner lost a slice")
    assert asked == [True]


def test_it_needs_a_reason(data: Store) -> None:
    push(data, ct(1))

    with pytest.raises(ReasonMissing):
        operator_handlers(data.ledger)["complete"]({"series": SERIES, "by": "a", "reason": " "})

    series = data.ledger.series(SERIES)
    assert series is not None
    assert series.state is SeriesState.RECEIVING


def test_a_slice_that_comes_later_makes_it_a_new_revision(data: Store) -> None:
    push(data, ct(1))
    operator_handlers(data.ledger)["complete"]({"series": SERIES, "by": "a", "reason": "r"})
    push(data, ct(2))

    series = data.ledger.series(SERIES)

    assert series is not None
    assert (series.state, series.revision) == (SeriesState.RECEIVING, 1)


def test_who_acts_is_written_down_before_the_action(data: Store) -> None:
    job = start_job(data, held=("why", "what"))

    operator_handlers(data.ledger)["retry"]({"job": job, "by": "a"})

    found = data.ledger.job_detail(job)
    assert found is not None
    assert found.job.state is JobState.SCHEDULED
    told = [e.action for e in found.events]
    assert told.index("operator_retry") < told.index("job_released")


def test_the_command_line_is_named_where_nobody_is(data: Store) -> None:
    job = start_job(data)

    operator_handlers(data.ledger)["cancel"]({"job": job, "reason": "r"})

    assert actions(data) == [("operator_cancel", "command line", "r")]


def test_only_known_words_enter_the_audit_from_the_page(data: Store) -> None:
    audit = operator_handlers(data.ledger)["audit"]
    audit({"action": "login", "by": "a", "address": "10.0.0.1"})

    with pytest.raises(NothingToDo):
        audit({"action": "job_finished", "by": "a"})

    (event,) = data.ledger.recent_actions()
    assert (event.action, event.kind, event.subject) == ("web_login", "user", "a")
