"""``status``, ``jobs``, ``retry`` and ``cancel`` on a real ledger, with and without a node."""

import json
import os

import pytest

from node.cli.exits import Exit
from node.clock import SystemClock
from node.control.channel import ControlServer
from node.control.handlers import operator_handlers
from node.lifecycle import DeliveryState, JobState
from node.store.store import open_reader
from tests.integration.cli.conftest import IDENTIFIER, NAME, Site


def state_of(site: Site, job_id: int) -> JobState:
    job = open_reader(site.data_dir, clock=SystemClock()).job(job_id)
    assert job is not None
    return job.state


def test_status_shows_on_one_screen_what_needs_a_person(site: Site) -> None:
    code, out, _ = site.invoke("status")

    assert code == Exit.UNREACHABLE
    lines = out.splitlines()
    assert len(lines) <= 40
    assert lines[0] == "node          DOWN"
    assert "listens on    127.0.0.1:11112 as RTNODE" in lines
    assert "received      1 instances, 0 conflicts, 0 in quarantine" in lines
    assert "jobs          HELD 1   SCHEDULED 1" in lines
    assert "HELD: 1 need a person (then `rtnode retry <job>`)" in lines
    assert "      a slice is missing" in lines
    assert "      hint: send it again" in lines
    assert "8f2a01cc     LINAC1  RTNODE" in out


def test_status_before_the_first_start_says_so(empty_site: Site) -> None:
    code, out, _ = empty_site.invoke("status")

    assert code == Exit.UNREACHABLE
    assert "database      none yet: the node has not run here" in out


def test_status_is_json_for_scripts(site: Site) -> None:
    code, out, _ = site.invoke("status", "--json")

    told = json.loads(out)
    assert code == Exit.UNREACHABLE
    assert told["running"] is False
    assert told["counts"]["jobs"] == {"HELD": 1, "SCHEDULED": 1}
    assert told["held"][0]["reason"] == "a slice is missing"
    assert told["associations"][0]["calling_ae_title"] == "LINAC1"


def test_status_of_a_running_node_is_a_success(site: Site) -> None:
    facts = {"version": "0.1.0", "pid": 12}
    with ControlServer(site.data_dir, {"status": lambda _arguments: dict(facts)}):
        code, out, _ = site.invoke("status")

    assert code == Exit.DONE
    assert out.startswith("node          UP   version 0.1.0   pid 12\n")


def test_a_running_node_with_a_trouble_fails_the_command_and_names_it(site: Site) -> None:
    with (
        site.store() as store,
        ControlServer(site.data_dir, operator_handlers(store.ledger, lambda: ["receiver is dead"])),
    ):
        code, out, _ = site.invoke("status")

    assert code == Exit.FAILED
    assert f"pid {os.getpid()}" in out
    assert "TROUBLE       receiver is dead" in out.splitlines()


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--json"], ["jobs"], ["jobs", "--json"]]
)
def test_no_command_names_a_patient(site: Site, arguments: list[str]) -> None:
    _, out, err = site.invoke(*arguments)

    assert NAME not in out + err
    assert IDENTIFIER not in out + err


def test_jobs_are_listed_newest_first_with_reason_and_hint_of_what_is_held(site: Site) -> None:
    code, out, _ = site.invoke("jobs")

    assert code == Exit.DONE
    rows = out.splitlines()
    assert rows[0].split() == ["job", "state", "pipeline", "route", "attempt", "created", "series"]
    assert [row.split()[:2] for row in rows[1:3]] == [["2", "SCHEDULED"], ["1", "HELD"]]
    assert "job 1 is held: a slice is missing\n  hint: send it again" in out


def test_jobs_are_filtered_by_state(site: Site) -> None:
    _, out, _ = site.invoke("jobs", "--state", "held", "--json")

    assert [(job["id"], job["state"]) for job in json.loads(out)] == [(1, "HELD")]


def test_jobs_without_a_ledger_fail_with_a_hint(empty_site: Site) -> None:
    code, _, err = empty_site.invoke("jobs")

    assert code == Exit.FAILED
    assert "there is no ledger in the data folder" in err
    assert "hint: " in err


def test_a_held_job_is_released_while_the_node_is_down(site: Site) -> None:
    code, out, _ = site.invoke("retry", "1")

    assert (code, out) == (Exit.DONE, "released jobs: 1\n")
    assert state_of(site, 1) is JobState.SCHEDULED


def test_a_held_job_is_released_by_the_running_node(site: Site) -> None:
    with (
        site.store() as store,  # holds the lock, as a node does
        ControlServer(site.data_dir, operator_handlers(store.ledger)),
    ):
        code, out, _ = site.invoke("retry", "1", "--json")

    assert (code, json.loads(out)) == (Exit.DONE, {"jobs": [1], "deliveries": []})
    assert state_of(site, 1) is JobState.SCHEDULED


def test_everything_held_is_released_at_once(site: Site) -> None:
    first = site.invoke("retry", "all-held")
    second = site.invoke("retry", "all-held")

    assert first[:2] == (Exit.DONE, "released jobs: 1\n")
    assert second[:2] == (Exit.DONE, "nothing is held\n")


def test_the_held_deliveries_of_a_job_are_released_with_it(refused_site: Site) -> None:
    code, out, _ = refused_site.invoke("retry", "1")

    assert (code, out) == (Exit.DONE, "released deliveries: 1\n")
    detail = open_reader(refused_site.data_dir, clock=SystemClock()).job_detail(1)
    assert detail is not None
    assert [d.state for d in detail.deliveries] == [DeliveryState.PENDING]


def test_a_held_delivery_is_among_everything_held(refused_site: Site) -> None:
    assert refused_site.invoke("retry", "all-held")[1] == "released deliveries: 1\n"


@pytest.mark.parametrize(
    ("job", "code", "message"),
    [
        ("2", Exit.FAILED, "job 2 is SCHEDULED and none of its deliveries is held"),
        ("99", Exit.FAILED, "there is no job 99"),
        ("all", Exit.USAGE, "'all' is neither a job number nor all-held"),
    ],
)
def test_what_cannot_be_retried_is_explained(site: Site, job: str, code: int, message: str) -> None:
    result = site.invoke("retry", job)

    assert result[0] == code
    assert message in result[2]


def test_a_job_is_canceled_once(site: Site) -> None:
    first = site.invoke("cancel", "2", "--reason", "wrong route")
    second = site.invoke("cancel", "2")

    assert first[:2] == (Exit.DONE, "job 2 is canceled\n")
    assert state_of(site, 2) is JobState.CANCELED
    assert second[0] == Exit.FAILED
    assert "CANCELED does not allow CANCELED" in second[2]


def test_without_a_data_folder_there_is_nothing_to_retry(empty_site: Site) -> None:
    code, _, err = empty_site.invoke("retry", "1")

    assert code == Exit.UNREACHABLE
    assert "No node runs on this data folder" in err
    assert not empty_site.data_dir.exists()


def test_a_node_that_starts_or_stops_keeps_others_from_writing(site: Site) -> None:
    """The lock is held and the socket is not there."""
    with site.store():
        code, _, err = site.invoke("retry", "1")

    assert code == Exit.FAILED
    assert "another node uses this data folder" in err
