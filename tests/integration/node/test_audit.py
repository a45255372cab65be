"""The audit trail of a whole node: at a real TLS syslog server, or waiting for one."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.audit.exporter import AuditExporter, receiver_of
from node.audit.trail import Reporter
from node.cli import doctor
from node.cli.main import main
from node.config.audit import AuditSection
from node.control.handlers import operator_handlers
from node.errors import ConfigError, NodeError
from node.tls import Credentials
from tests import node_kit
from tests.audit_kit import SyslogServer, violations
from tests.node_kit import CONTOURS, config, send, until
from tests.store_kit import FakeClock, complete, ct, finish, source, start_job, store
from tests.tls_kit import OPENSSL, authority

CANARY = "CANARY-4711"


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    ours = authority(tmp_path_factory.mktemp("ca"))
    return ours.issue("server"), ours.issue("node")


def section(port: int, credentials) -> dict:
    return {
        "host": "127.0.0.1",
        "port": port,
        "tls_name": "localhost",
        "certificate": str(credentials.certificate),
        "key": str(credentials.key),
        "authorities": str(credentials.authorities),
        "site": "radiotherapy",
    }


def told(server: SyslogServer) -> list[tuple[str, str, str]]:
    """Return (EventID, first EventTypeCode or action, outcome) of every message, checked."""
    found = []
    for document in server.documents():
        assert violations(document) == []
        identification = document[0]
        types = identification.findall("EventTypeCode")
        found.append(
            (
                identification[0].get("originalText"),
                types[0].get("originalText") if types else identification.get("EventActionCode"),
                identification.get("EventOutcomeIndicator"),
            )
        )
    return found


def ids(document) -> list[str]:
    return [o.get("ParticipantObjectID") for o in document.iter("ParticipantObjectIdentification")]


def users(document) -> list[tuple[str, str | None]]:
    return [(p.get("UserID"), p.get("NetworkAccessPointID")) for p in
            document.iter("ActiveParticipant")]  # fmt: skip


@pytest.mark.slow
def test_a_study_leaves_its_whole_trail_at_the_server_and_no_patient_in_the_log(
    tmp_path: Path, parties, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    route = CONTOURS | {"destinations": ["pacs", "shelf"]}
    with SyslogServer(parties[0]) as server:
        changes = {
            "audit": section(server.port, parties[1]),
            "routes": (route,),
            "folders": {"shelf": {"path": str(tmp_path / "shelf")}},
        }
        with node_kit.node(tmp_path / "data", 1, **changes) as node:
            send(node.port, [ct(n, patient=CANARY) for n in (1, 2, 3)])
            until(lambda: ("Export", "R", "0") in told(server), 60, "the export was not told")
        until(lambda: ("Application Activity", "Application Stop", "0") in told(server), 20)

        found = told(server)
        assert found[0] == ("Application Activity", "Application Start", "0")
        arrived = server.documents()[found.index(("DICOM Instances Transferred", "C", "0"))]
        assert ids(arrived) == ["1.2.3.1", CANARY]
        assert arrived.find(".//SOPClass").get("NumberOfInstances") == "3"
        assert users(arrived) == [("CTSIM1", "127.0.0.1"), ("rtnode@RTNODE", None)]
        assert ("DICOM Instances Accessed", "C", "0") in found
        assert ("Begin Transferring DICOM Instances", "E", "0") in found
        export = server.documents()[found.index(("Export", "R", "0"))]
        assert users(export)[1] == ((tmp_path / "shelf").as_uri(), None)
        assert export.find(".//MediaType").get("originalText") == "URI"
        assert arrived.find("AuditSourceIdentification").get("AuditEnterpriseSiteID")
    logged = capsys.readouterr()
    assert CANARY not in logged.out + logged.err + caplog.text


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock) -> Iterator:
    with store(tmp_path / "data", clock=clock) as into:
        yield into


def exporter(opened, tmp_path: Path, server: SyslogServer, credentials, clock) -> AuditExporter:
    settings = config(tmp_path / "data", 1, audit=section(server.port, credentials))
    made = AuditExporter(opened.ledger, settings, settings.audit, clock)
    opened.ledger.begin_audit()
    return made


def test_what_happened_while_the_server_was_away_comes_in_order_and_survives_a_restart(
    opened, tmp_path: Path, parties, clock: FakeClock
) -> None:
    with SyslogServer(parties[0], die_after=1) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        handlers = operator_handlers(opened.ledger)
        for number in range(5):
            handlers["audit"]({"action": "login", "by": f"user{number}", "address": "192.0.2.9"})
        with pytest.raises(OSError, match=r".*"):
            trail.send()
        assert opened.ledger.audit_backlog()[0] == 5

        server.die_after = None
        again = exporter(opened, tmp_path, server, parties[1], clock)
        assert again.send() == 5
        assert again.send() == 0

        assert [users(d)[0] for d in server.documents()] == [
            (f"user{number}", "192.0.2.9") for number in range(5)
        ]
        assert opened.ledger.audit_backlog() == (0, None)


def test_the_node_never_waits_for_a_server_that_does_not_answer(
    opened, tmp_path: Path, parties, clock: FakeClock
) -> None:
    """A server that is gone keeps nobody from working, and the trail stays in the ledger."""
    with SyslogServer(parties[0]) as server:
        port = server.port
    settings = config(tmp_path / "data", 1, audit=section(port, parties[1]))
    trail = AuditExporter(opened.ledger, settings, settings.audit, clock)
    trail.start()
    began = time.monotonic()
    for _ in range(20):
        opened.ledger.note("web_login", kind="user", subject="a", address="")
    assert time.monotonic() - began < 5
    trail.stop()

    assert opened.ledger.audit_backlog()[0] == 20


def test_a_trail_begins_when_it_is_switched_on(
    opened, tmp_path: Path, parties, clock: FakeClock
) -> None:
    opened.ledger.note("web_login", kind="user", subject="before", address="")
    with SyslogServer(parties[0]) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        opened.ledger.note("web_logout", kind="user", subject="after", address="")
        trail.send()

        assert [users(d)[0][0] for d in server.documents()] == ["after"]


def test_who_looked_at_images_and_who_acted_is_told(
    opened, tmp_path: Path, parties, clock: FakeClock
) -> None:
    with SyslogServer(parties[0]) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        start_job(opened)
        finish(opened, tmp_path)
        handlers = operator_handlers(opened.ledger)
        handlers["audit"]({"action": "viewed", "by": "m.tanaka", "kind": "job", "subject": "1",
                           "address": "192.0.2.7"})  # fmt: skip
        handlers["audit"]({"action": "login_refused", "by": "mallory", "address": "192.0.2.8"})
        with pytest.raises(NodeError):
            handlers["retry"]({"job": 1, "by": "m.tanaka", "reason": "try <again>"})
        trail.send()

        found = told(server)
        viewed = server.documents()[found.index(("DICOM Instances Accessed", "R", "0"))]
        assert users(viewed)[0] == ("m.tanaka", "192.0.2.7")
        assert ids(viewed) == ["1.2.3.1", "P1"]
        assert ("User Authentication", "Login", "4") in found
        place = found.index(("Security Alert", "Use of Restricted Function", "0"))
        alert = server.documents()[place]
        detail = alert.find(".//ParticipantObjectDetail")
        assert base64.b64decode(detail.get("value")).decode() == "try <again>"
        assert ("Security Alert", "Use of Restricted Function", "4") in found


def test_an_event_that_cannot_be_told_does_not_keep_the_rest_back(
    opened, tmp_path: Path, parties, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with SyslogServer(parties[0]) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        opened.ledger.note("web_viewed", kind="job", subject="no number", by="a", address="")
        opened.ledger.note("web_login", kind="user", subject="b", address="")

        assert trail.send() == 1
        assert [users(d)[0][0] for d in server.documents()] == ["b"]
    assert "audit_event_untold" in caplog.text


def test_many_objects_to_one_destination_are_one_message(
    opened, tmp_path: Path, parties, clock: FakeClock
) -> None:
    with SyslogServer(parties[0]) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        start_job(opened, destinations=("pacs",))
        finish(opened, tmp_path, results=30)
        for delivery in opened.ledger.claim_deliveries("pacs", limit=100):
            opened.ledger.delivery_sent(delivery.id, status=0)
        trail.send()

        sent = [d for d in server.documents() if d[0][0].get("csd-code") == "110104"]
        assert len(sent) == 1
        assert sent[0].find(".//SOPClass").get("NumberOfInstances") == "30"
        assert users(sent[0])[1] == ("PACS", "127.0.0.1")


def test_a_patient_whose_files_are_gone_is_unknown(opened, tmp_path: Path, parties, clock) -> None:
    with SyslogServer(parties[0]) as server:
        trail = exporter(opened, tmp_path, server, parties[1], clock)
        opened.intake.association_opened(source())
        complete(opened)
        for path in (tmp_path / "data" / "blobs").rglob("*.dcm"):
            path.unlink()
        opened.intake.association_ended("0000abcd", end="ABORTED", received=2, refused=1)
        trail.send()

        assert told(server) == [("DICOM Instances Transferred", "C", "4")]
        assert ids(server.documents()[0]) == ["1.2.3.1", "unknown"]


def test_credentials_that_cannot_be_used_are_named(tmp_path: Path, parties) -> None:
    given = section(1, parties[1]) | {"key": str(tmp_path / "nothing")}
    with pytest.raises(ConfigError, match=r"audit\.key: cannot read"):
        receiver_of(AuditSection.model_validate_json(json.dumps(given)))


def test_the_trail_knows_every_kind_of_destination(tmp_path: Path, opened) -> None:
    settings = config(
        tmp_path / "data", 1,
        dicomweb={"cloud": {"url": "https://pacs.example.org/dicom-web"}},
        folders={"shelf": {"path": str(tmp_path)}},
    )  # fmt: skip
    reporter = Reporter(opened.ledger, settings)

    assert reporter.destination("pacs")[0].user_id == "PACS"
    assert reporter.destination("cloud") == (reporter.destination("cloud")[0], True)
    assert reporter.destination("shelf")[1] is False
    assert reporter.destination("gone")[0].user_id == "gone"


def test_doctor_tries_the_server_and_check_judges_the_files(
    tmp_path: Path, parties: tuple[Credentials, Credentials]
) -> None:
    with SyslogServer(parties[0]) as server:
        good = config(tmp_path, 1, audit=section(server.port, parties[1]))
        (result,) = doctor._audit(good)
        assert result.health is doctor.Health.OK
    (result,) = doctor._audit(good)
    assert result.health is doctor.Health.BAD
    assert "wait in the database" in result.fix
    assert list(doctor._audit(config(tmp_path, 1))) == []

    path = tmp_path / "config.yaml"
    bad = section(1, parties[1]) | {"certificate": str(tmp_path / "nothing")}
    path.write_text(json.dumps(node_kit.settings(tmp_path, 1, audit=bad)))
    answer = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert answer.exit_code == 2
    assert "audit.certificate: cannot read" in answer.stderr
