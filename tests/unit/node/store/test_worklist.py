"""The worklist: filters, search and pages by the database."""

from datetime import timedelta
from pathlib import Path

import pytest

from node.lifecycle import JobState
from node.store.store import Store
from node.store.worklist import PAGE, JobFilter
from tests.store_kit import FakeClock, claim, finish, start_job, store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def data(tmp_path: Path, clock: FakeClock):
    with store(tmp_path / "data", clock=clock) as opened:
        yield opened


def numbers(data: Store, **wanted) -> list[int]:
    return [line.id for line in data.ledger.job_page(JobFilter(**wanted)).lines]


def test_jobs_are_found_by_state_route_text_and_number(data: Store, tmp_path: Path) -> None:
    first = start_job(data, series="1.2.3.100", route="lungs")
    second = start_job(data, series="1.2.3.200", held=("why", "what"))

    assert numbers(data) == [second, first]
    assert numbers(data, states=(JobState.HELD,)) == [second]
    assert numbers(data, route="lungs") == [first]
    assert numbers(data, pipeline="synthetic_ct") == []
    assert numbers(data, text="3.100") == [first]
    assert numbers(data, text="LUNGS") == [first]
    assert numbers(data, text=str(second)) == [second] or second in numbers(data, text=str(second))
    assert numbers(data, text="1.2.3.1") == [second, first]  # the study of both


@pytest.mark.parametrize("text", ["%", "_", "\\", "' OR 1=1 --", '"', "\0"])
def test_what_a_person_types_is_never_a_pattern_or_a_statement(data: Store, text: str) -> None:
    start_job(data)

    assert numbers(data, text=text.replace("\0", "")) == ([] if text != "\0" else numbers(data))


def test_a_page_has_a_fixed_length_and_counts_all(data: Store) -> None:
    for number in range(PAGE + 3):
        start_job(data, slices=1, series=f"1.2.3.{1000 + number}")

    first = data.ledger.job_page(JobFilter())
    second = data.ledger.job_page(JobFilter(page=2))

    assert (len(first.lines), len(second.lines)) == (PAGE, 3)
    assert first.total == PAGE + 3
    assert first.lines[0].id > first.lines[-1].id > second.lines[0].id
    assert data.ledger.job_page(JobFilter(page=3)).lines == ()


def test_counts_tell_every_state_whatever_state_is_shown(data: Store) -> None:
    start_job(data, series="1.2.3.100")
    start_job(data, series="1.2.3.200", held=("why", "what"))

    page = data.ledger.job_page(JobFilter(states=(JobState.HELD,)))

    assert page.counts == {"SCHEDULED": 1, "HELD": 1}
    assert page.total == 1


def test_a_line_tells_its_deliveries(data: Store, tmp_path: Path) -> None:
    start_job(data)
    finish(data, tmp_path, results=3)
    delivery = data.ledger.claim_deliveries("pacs", 1)[0]
    data.ledger.delivery_sent(delivery.id, status=0)

    (line,) = data.ledger.job_page(JobFilter()).lines

    assert line.deliveries == {"SENT": 1, "PENDING": 2}
    assert line.modality == "CT"


def test_studies_come_with_series_and_jobs(data: Store) -> None:
    job = start_job(data)

    page = data.ledger.study_page()

    (line,) = page.lines
    assert page.total == 1
    assert [s.modality for s in line.series] == ["CT"]
    assert line.jobs == ((job, "autocontour", JobState.SCHEDULED),)
    assert data.ledger.study_page("9.9.9").lines == ()


def test_the_last_day_counts_what_began_in_it(data: Store, clock: FakeClock) -> None:
    start_job(data, series="1.2.3.100")
    clock.advance(100_000)
    start_job(data, series="1.2.3.200")

    day = data.ledger.activity(clock.now() - timedelta(days=1))

    assert day.jobs == {"autocontour": {"SCHEDULED": 1}}
    assert numbers(data, since=clock.now() - timedelta(days=1)) == [2]


def test_running_jobs_and_inputs_are_told(data: Store) -> None:
    job = start_job(data, slices=3)
    claim(data, owner="slot-7")

    (running,) = data.ledger.running()
    (inputs,) = data.ledger.job_input_series(job)

    assert (running.id, running.owner, running.attempt) == (job, "slot-7", 1)
    assert (inputs.role, inputs.modality, inputs.count) == ("CT", "CT", 3)
    assert data.ledger.jobs_of_series(inputs.series_instance_uid) == [
        (job, "autocontour", JobState.IN_PROGRESS)
    ]


def test_what_people_did_is_listed_newest_first(data: Store) -> None:
    start_job(data)
    data.ledger.note("web_login", kind="user", subject="a")
    data.ledger.note("operator_retry", kind="job", subject="1", by="a", reason="")

    assert [e.action for e in data.ledger.recent_actions()] == ["operator_retry", "web_login"]
