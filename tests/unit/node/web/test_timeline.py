"""The story of a job, told from events."""

from pathlib import Path

import pytest

from node.store.store import Store
from node.web.timeline import BAD, PERSON, story
from tests.store_kit import SERIES, claim, finish, start_job, store


@pytest.fixture
def data(tmp_path: Path):
    with store(tmp_path / "data") as opened:
        yield opened


def told(data: Store, job: int) -> list[str]:
    detail = data.ledger.job_detail(job)
    assert detail is not None
    moments = story(
        detail,
        data.ledger.series(SERIES),
        data.ledger.series_associations(SERIES),
        data.ledger.explain(SERIES),
    )
    assert [m.at for m in moments] == sorted(m.at for m in moments)
    return [m.title for m in moments]


def test_it_runs_from_the_first_byte_to_the_delivery(data: Store, tmp_path: Path) -> None:
    job = start_job(data)
    assert finish(data, tmp_path, results=3)
    for delivery in data.ledger.claim_deliveries("pacs", 10):
        data.ledger.delivery_sent(delivery.id, status=0)

    titles = told(data, job)

    assert titles == [
        "First byte", "Series complete", "Job created", "Worker started", "Pipeline finished",
        "Delivered",
    ]  # fmt: skip


def test_many_deliveries_are_one_line_with_a_count(data: Store, tmp_path: Path) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=3)
    for delivery in data.ledger.claim_deliveries("pacs", 10):
        data.ledger.delivery_sent(delivery.id, status=0)
    detail = data.ledger.job_detail(job)
    assert detail is not None

    last = story(detail, None, [], [])[-1]

    assert (last.title, last.count, last.detail) == ("Delivered", 3, "pacs")


def test_a_failure_says_why_and_a_person_is_named(data: Store) -> None:
    job = start_job(data)
    running = claim(data)
    data.ledger.fail_job(running.id, running.token, reason="no air", hint="", transient=False)
    data.ledger.note("operator_retry", kind="job", subject=str(job), by="m.tanaka", reason="again")
    detail = data.ledger.job_detail(job)
    assert detail is not None

    failed, person = story(detail, None, [], [])[-2:]

    assert (failed.tone, failed.detail) == (BAD, "no air")
    assert (person.tone, person.detail) == (PERSON, "m.tanaka: again")
