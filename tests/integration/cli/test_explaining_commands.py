"""``explain``, ``routes test``, ``config show`` and ``doctor`` on a real data folder."""

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.cli import doctor
from node.cli.exits import Exit
from node.config.load import load
from node.control.channel import ControlServer
from tests import factories
from tests.integration.cli.conftest import IDENTIFIER, NAME, Site

ROUTES = """
node: {ae_titles: ["RTNODE"], host: 127.0.0.1, data_dir: data}
peers: {pacs: {ae_title: "PACS", host: 127.0.0.1, port: 104}}
routes:
  - {name: contours, match: {kind: [CT]}, pipeline: autocontour, destinations: [pacs]}
  - {name: dose, match: {kind: [RTDOSE]}, pipeline: dose_radiomics, destinations: [pacs]}
"""


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, objects in factories.study().items():
        factories.save(objects, folder / name)
    return folder


def test_a_held_job_is_explained_from_its_first_object_to_the_hint(site: Site) -> None:
    code, out, _ = site.invoke("explain", "1")

    told = [line.split(maxsplit=2)[-1] for line in out.split("\n\n")[0].splitlines()]
    assert code == Exit.DONE
    assert told == [
        "series       the first CT arrived",
        "series       complete: all there",
        "job 1        held: a slice is missing",
        "series       route contours is held, job 1: r",
    ]
    assert "job 1: HELD   route contours   autocontour" in out
    assert "hint: send it again; then `rtnode retry 1`" in out


def test_the_story_of_a_series_tells_all_its_jobs(site: Site) -> None:
    code, out, _ = site.invoke("explain", "1.2.3")

    assert code == Exit.DONE
    assert "job 1: HELD" in out
    assert "job 2: SCHEDULED" in out


def test_a_refused_delivery_is_told_with_its_destination_and_hint(refused_site: Site) -> None:
    _, out, _ = refused_site.invoke("explain", "1.2.3.9")

    assert "pacs         sending, attempt 1" in out
    assert "pacs         refused: refused" in out
    assert "  to pacs: HELD 1" in out
    assert "  held: refused; hint: look at its log" in out


def test_a_uid_that_nobody_sent_is_said_to_be_unknown(site: Site) -> None:
    code, out, err = site.invoke("explain", "9.9.9")

    assert (code, out) == (Exit.FAILED, "")
    assert "nothing is known of 9.9.9" in err


def test_an_explanation_is_json_for_scripts_and_names_no_patient(site: Site) -> None:
    _, out, _ = site.invoke("explain", "1", "--json")

    told = json.loads(out)
    assert [job["job"]["state"] for job in told["jobs"]] == ["HELD"]
    assert NAME not in out
    assert IDENTIFIER not in out


def test_a_folder_is_rehearsed_series_by_series(empty_site: Site, patient: Path) -> None:
    empty_site.config.write_text(ROUTES)

    code, out, _ = empty_site.invoke("routes", "test", str(patient))

    assert code == Exit.DONE
    assert "6 series of 1 patient;" in out
    assert "contours: RUNS   autocontour; kind is CT" in out
    assert "with 12 CT, 1 RTSTRUCT; results go to pacs" in out
    assert "with 12 CT, 1 RTDOSE, 1 RTPLAN, 1 RTSTRUCT; results go to pacs" in out
    assert "contours: no; the kind is not CT" in out
    assert str(factories.study()["CT"][0].PatientName) not in out


def test_a_missing_input_is_rehearsed_with_its_hint(empty_site: Site, patient: Path) -> None:
    empty_site.config.write_text(ROUTES)
    for folder in patient.iterdir():
        if folder.name != "RTDOSE":
            for path in folder.iterdir():
                path.unlink()

    code, out, _ = empty_site.invoke("routes", "test", str(patient))

    assert code == Exit.FAILED
    assert "dose: would wait or be HELD" in out
    assert "hint: send the" in out


def test_a_gap_is_rehearsed_as_not_whole(empty_site: Site, tmp_path: Path) -> None:
    empty_site.config.write_text(ROUTES)
    factories.save(factories.without(factories.ct_series(), 5), tmp_path / "gap")

    code, out, _ = empty_site.invoke("routes", "test", str(tmp_path / "gap"), "--json")

    (series,) = json.loads(out)["series"]
    assert code == Exit.FAILED
    assert series["whole"] is False
    assert series["routes"][0]["runs"] is False
    assert "the series is not whole" in series["routes"][0]["reason"]


def test_the_sender_decides_where_a_route_asks_for_it(empty_site: Site, patient: Path) -> None:
    empty_site.config.write_text(
        ROUTES.replace("{kind: [CT]}", '{kind: [CT], calling_ae_title: ["CTSIM1"]}').replace(
            "peers: {",
            'peers: {ctsim: {ae_title: "CTSIM1", receive: true, addresses: [192.0.2.7]}, ',
        )
    )

    _, out, _ = empty_site.invoke("routes", "test", str(patient))
    _, named, _ = empty_site.invoke("routes", "test", str(patient), "--from", "CTSIM1")

    assert "contours: no; the calling AE title is not CTSIM1" in out
    assert "contours: RUNS" in named


def test_the_effective_configuration_holds_the_defaults(empty_site: Site) -> None:
    _, out, _ = empty_site.invoke("config", "show")
    _, as_json, _ = empty_site.invoke("config", "show", "--json")

    assert "  port: 11112" in out.splitlines()
    assert json.loads(as_json)["node"]["port"] == 11112


@pytest.fixture
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check that starts a worker: it takes seconds and has a test of its own."""
    kept = tuple(check for check in doctor.CHECKS if check.__name__ != "_worker")
    monkeypatch.setattr(doctor, "CHECKS", kept)


def examined(site: Site) -> dict[str, dict[str, str]]:
    _, out, _ = site.invoke("doctor", "--json")
    return {result["check"]: result for result in json.loads(out)}


@pytest.mark.usefixtures("quick_doctor")
def test_the_doctor_finds_a_healthy_site_healthy_but_for_what_is_held(site: Site) -> None:
    site.data_dir.chmod(0o750)

    results = examined(site)

    assert results["data folder"]["health"] == "ok"
    assert results["disk sync"]["found"].startswith("a synced slice takes")
    assert "1 held" in results["database"]["found"]
    assert results["node"]["found"] == "does not run; 127.0.0.1:11112 is free"
    assert list(site.data_dir.glob(".doctor-*")) == []


@pytest.mark.usefixtures("quick_doctor")
@pytest.mark.parametrize(
    ("version", "health", "fix"),
    [("0001", "WARN", "`rtnode backup`"), ("9999", "BAD", "install that version")],
    ids=["older", "newer"],
)
def test_the_doctor_knows_a_database_of_another_release(
    site: Site, version: str, health: str, fix: str
) -> None:
    with closing(sqlite3.connect(site.data_dir / "ledger.db")) as connection, connection:
        connection.execute("update alembic_version set version_num = ?", (version,))

    result = examined(site)["database"]

    assert result["health"] == health
    assert f"schema {version}" in result["found"]
    assert fix in result["fix"]


@pytest.mark.usefixtures("quick_doctor")
def test_the_doctor_names_the_fix_for_what_is_broken(empty_site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        empty_site.config.write_text(
            f'node: {{ae_titles: ["RTNODE"], host: 127.0.0.1, port: {port}, data_dir: data}}\n'
            'peers: {pacs: {ae_title: "PACS", host: 127.0.0.1, port: 1}}\n'
            "folders: {out: {path: missing}}\n"
        )
        empty_site.data_dir.mkdir()
        empty_site.data_dir.chmod(0o755)

        code, out, _ = empty_site.invoke("doctor")

    assert code == Exit.FAILED
    assert f"cannot be taken: Address already in use\n{' ' * 19}fix: find the owner: ss" in out
    assert "is open to every user of this machine (mode 755)" in out
    assert "BAD   peer pacs    no connection to PACS at 127.0.0.1:1" in out
    assert "BAD   folder out" in out
    assert "3 bad" in out


@pytest.mark.usefixtures("quick_doctor")
def test_the_doctor_asks_a_running_node_itself(site: Site) -> None:
    with ControlServer(site.data_dir, {"status": lambda _arguments: {}}):
        results = examined(site)

    assert results["node"]["health"] == "WARN"
    assert "refuses a C-ECHO" in results["node"]["found"]


def test_the_doctor_starts_a_worker_as_the_engine_does(empty_site: Site) -> None:
    empty_site.config.write_text(ROUTES)

    (result,) = doctor._worker(load(empty_site.config))

    assert result.health is doctor.Health.OK
    assert "autocontour, dose_radiomics" in result.found
