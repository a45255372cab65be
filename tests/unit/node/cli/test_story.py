"""Events told as a story: one line a step, repeats gathered."""

from datetime import UTC, datetime, timedelta

from node.cli.story import tell
from node.store.records import EventLine

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def line(second: int, kind: str, action: str, subject: str = "1", **detail) -> EventLine:
    return EventLine(
        at=START + timedelta(seconds=second),
        action=action,
        kind=kind,
        subject=subject,
        correlation="8f2a01cc",
        detail=detail,
    )


def test_fifty_slices_stored_at_one_destination_are_one_step() -> None:
    events = [
        line(n, "delivery", "delivery_stored", f"1.2.{n}", destination="pacs") for n in range(50)
    ]

    (step,) = tell(events)

    assert (step.who, step.what, step.count) == ("pacs", "stored there", 50)
    assert step.until - step.at == timedelta(seconds=49)


def test_two_destinations_in_turn_are_gathered_each() -> None:
    events = [
        line(n, "delivery", "delivery_stored", f"1.2.{n}", destination=("pacs", "tps")[n % 2])
        for n in range(6)
    ]

    assert [(step.who, step.count) for step in tell(events)] == [("pacs", 3), ("tps", 3)]


def test_a_second_attempt_of_a_job_is_a_step_of_its_own() -> None:
    events = [
        line(0, "job", "job_claimed", attempt=1),
        line(1, "job", "job_failed_transiently", reason="memory ran out"),
        line(2, "job", "job_claimed", attempt=2),
        line(3, "job", "job_failed_transiently", reason="memory ran out"),
    ]

    assert [step.what for step in tell(events)] == [
        "attempt 1 begins",
        "failed transiently: memory ran out",
        "attempt 2 begins",
        "failed transiently: memory ran out",
    ]


def test_an_action_that_nobody_gave_words_is_told_by_its_name() -> None:
    (step,) = tell([line(0, "node", "operator_asked", reason="a test")])

    assert (step.who, step.what) == ("node", "operator asked: a test")
