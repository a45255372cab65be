"""STOW-RS against a server that answers as told, and against Orthanc's DICOMweb plugin."""

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import pytest

from node.config.model import DicomWeb
from node.errors import AssociationRejected, ConfigError, DeliveryError, PeerUnreachable
from node.scu.dicomweb import Server
from node.scu.sender import Outcome
from node.scu.stow import StowDestination
from tests.integration.network.support import dead_port, outgoing, silent_listener, write_object
from tests.orthanc_kit import DICOMWEB, orthanc


class Web:
    """A DICOMweb server: stores what comes, answers with what it is told."""

    def __init__(self, *, status=200, failed=None, warned=None, body=None, held=(), query=None):
        self.status, self.failed, self.warned = status, failed or {}, warned or {}
        self.body, self.held, self.query = body, set(held), query
        self.hangs_up = False
        self.requests: list[tuple[str, dict, bytes]] = []

    def __enter__(self) -> Self:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_GET(self) -> None:
                web.requests.append((self.path, dict(self.headers), b""))
                if web.query is not None:
                    self.answer(web.query, b"")
                    return
                uid = self.path.rpartition("=")[2]
                found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if uid in web.held else []
                self.answer(web.status if not found else 200, json.dumps(found).encode())

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                web.requests.append((self.path, dict(self.headers), content))
                said = web.answer(content)
                if web.hangs_up:
                    self.close_connection = True
                    return
                self.answer(web.status, said)

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/web"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, content: bytes) -> bytes:
        if self.body is not None:
            return self.body
        uids = [u for u in (f"2.25.1234567890.{n}" for n in range(1, 40)) if f"{u}\0".encode()
                in content or u.encode() in content]  # fmt: skip
        stored = [u for u in uids if u not in self.failed]
        return json.dumps({
            "00081199": {"vr": "SQ", "Value": [self._item(u, "00081196", self.warned)
                                               for u in stored]},
            "00081198": {"vr": "SQ", "Value": [self._item(u, "00081197", self.failed)
                                               for u in self.failed]},
        }).encode()  # fmt: skip

    @staticmethod
    def _item(uid: str, tag: str, reasons: dict) -> dict:
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        return item | ({tag: {"vr": "US", "Value": [reasons[uid]]}} if uid in reasons else {})

    @property
    def posts(self) -> list[tuple[dict, bytes]]:
        return [(headers, body) for path, headers, body in self.requests if body]


def destination(url: str, timeout_s: float = 3.0, **more) -> StowDestination:
    return StowDestination("web", Server(url=url, timeout_s=timeout_s, **more))


@pytest.fixture
def items(tmp_path):
    return [outgoing(write_object(tmp_path, n), key=n) for n in range(11, 14)]


def deliver(to: StowDestination, items):
    try:
        return list(to.deliver(items))
    finally:
        to.close()


def test_files_go_as_they_are_stored_in_one_request(items):
    with Web() as web:
        results = deliver(destination(web.url), items)

    assert [r.outcome for r in results] == [Outcome.SENT] * 3
    ((headers, body),) = web.posts
    kind, _, boundary = headers["Content-Type"].partition("; boundary=")
    assert kind == 'multipart/related; type="application/dicom"'
    parts = body.split(f"--{boundary}".encode())
    assert parts[-1] == b"--\r\n"
    assert [p.partition(b"\r\n\r\n")[2][:-2] for p in parts[1:-1]] == [
        i.path.read_bytes() for i in items
    ]
    assert headers["Accept"] == "application/dicom+json"


def test_many_objects_are_sent_in_several_requests_over_one_connection(tmp_path):
    items = [outgoing(write_object(tmp_path, n), key=n) for n in range(1, 36)]
    with Web() as web:
        results = deliver(destination(web.url), items)

    assert [r.item.key for r in results if r.delivered] == list(range(1, 36))
    assert len(web.posts) == 3


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (0xA700, Outcome.RETRY),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x0110, Outcome.RETRY_FEW),
        (0xB000, Outcome.RETRY_FEW),
        (0x0111, Outcome.SENT_WITH_WARNING),  # it holds our UID, which is made from the content
    ],
)
def test_the_reason_of_a_failed_object_means_what_it_means_to_c_store(items, reason, outcome):
    bad = items[1].sop_instance_uid
    with Web(status=202, failed={bad: reason}) as web:
        results = deliver(destination(web.url), items)

    assert [r.outcome for r in results] == [Outcome.SENT, outcome, Outcome.SENT]
    assert results[1].status == reason


def test_a_warning_counts_as_stored(items):
    with Web(status=202, warned={items[0].sop_instance_uid: 0xB000}) as web:
        results = deliver(destination(web.url), items[:1])

    assert results[0].outcome is Outcome.SENT_WITH_WARNING


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    "body", [b"", b"<html>welcome</html>", b"[]", b'{"00081199": 7}', b"\xff" * 100]
)
def test_what_an_answer_does_not_name_counts_when_it_can_be_found(items, body, status):
    """A proxy answers 200 to everything: only the query tells what the server holds."""
    with Web(body=body, status=status, held=[items[1].sop_instance_uid]) as web:
        results = deliver(destination(web.url), items)

    assert [r.outcome for r in results] == [Outcome.RETRY_FEW, Outcome.SENT, Outcome.RETRY_FEW]


def test_an_answer_that_names_only_some_says_nothing_about_the_others(items):
    first = json.dumps({"00081199": {"Value": [Web._item(items[0].sop_instance_uid, "", {})]}})
    with Web(body=first.encode()) as web:
        results = deliver(destination(web.url), items)

    assert [r.outcome for r in results] == [Outcome.SENT, Outcome.RETRY_FEW, Outcome.RETRY_FEW]


def test_a_request_that_breaks_leaves_all_its_objects_in_doubt(items):
    """The server may hold each of them: none is sent again without a look."""
    results = []
    with Web() as web:
        web.hangs_up = True
        with pytest.raises(PeerUnreachable):
            results.extend(destination(web.url).deliver(items))

    # the first one is blamed by the worker
    assert [(r.item.key, r.outcome, r.status) for r in results] == [
        (12, Outcome.RETRY, None),
        (13, Outcome.RETRY, None),
    ]


def test_a_file_that_is_gone_is_refused_and_its_neighbors_go(items):
    items[1].path.unlink()
    with Web() as web:
        results = deliver(destination(web.url), items)

    outcomes = {r.item.key: r.outcome for r in results}
    assert outcomes == {11: Outcome.SENT, 12: Outcome.REFUSED, 13: Outcome.SENT}


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_server_without_queries_is_sent_to_all_the_same(items, status):
    """It answered no query before either: the same bytes once more do no harm."""
    with Web(query=status) as web:
        to = destination(web.url)
        to.probe()
        results = deliver(to, [dataclasses.replace(i, doubtful=True) for i in items])

    assert [r.outcome for r in results] == [Outcome.SENT] * 3


@pytest.mark.parametrize("status", [302, 500, 502, 503])
def test_a_server_that_cannot_look_is_not_sent_to_blindly(items, status):
    with Web(query=status) as web:
        to = destination(web.url)
        with pytest.raises(DeliveryError):
            to.probe()
        with pytest.raises(DeliveryError):
            deliver(to, [dataclasses.replace(items[0], doubtful=True)])

    assert not web.posts


def test_one_bad_object_does_not_refuse_its_neighbors(items):
    bad = items[1].sop_instance_uid
    with Web() as web:
        answer = web.answer

        def judge(content: bytes) -> bytes:
            web.status = 400 if bad.encode() in content else 200
            return b"" if web.status == 400 else answer(content)

        web.answer = judge
        results = deliver(destination(web.url), items)

    assert [r.outcome for r in results] == [Outcome.SENT, Outcome.REFUSED, Outcome.SENT]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AssociationRejected),
        (403, AssociationRejected),
        (503, AssociationRejected),
        (404, PeerUnreachable),
        (500, PeerUnreachable),
        (302, PeerUnreachable),
    ],
)
def test_a_server_in_trouble_keeps_its_deliveries(items, status, error):
    with Web(status=status) as web, pytest.raises(error) as raised:
        deliver(destination(web.url), items)

    assert raised.value.transient or status in (401, 403)
    assert raised.value.advice


def test_a_server_that_is_away_or_silent_is_left_in_time(items):
    with pytest.raises(PeerUnreachable):
        deliver(destination(f"http://127.0.0.1:{dead_port()}/web"), items)
    with silent_listener() as port, pytest.raises(DeliveryError):
        deliver(destination(f"http://127.0.0.1:{port}/web", timeout_s=0.3), items)


def test_what_may_have_arrived_is_looked_up_before_it_is_sent_again(items):
    first, second = (dataclasses.replace(i, doubtful=True) for i in items[:2])
    with Web(held=[first.sop_instance_uid]) as web:
        results = deliver(destination(web.url), [first, second])

    assert {r.item.key: r.outcome for r in results} == {11: Outcome.SENT, 12: Outcome.SENT}
    ((_, body),) = web.posts
    assert second.sop_instance_uid.encode() in body
    assert first.sop_instance_uid.encode() not in body
    query = web.requests[0][0]
    assert query.startswith("/web/studies/2.25.1/series/2.25.2/instances?SOPInstanceUID=")


def test_a_probe_is_one_query(items):
    with Web() as web:
        destination(web.url).probe()

    assert [path for path, _, _ in web.requests] == ["/web/studies?limit=1"]


def test_secrets_come_from_files_that_are_ours_alone(tmp_path, items):
    secret = tmp_path / "password"
    secret.write_text("geheim\n")
    secret.chmod(0o600)
    section = DicomWeb(url="https://example.org/web/", user="rtnode", secret_file=secret)
    server = Server.of("web", section)
    assert server.url == "https://example.org/web"
    assert server.tls is not None
    with Web() as web:
        deliver(destination(web.url, authorization=server.authorization), items)
        assert web.posts[0][0]["Authorization"] == "Basic cnRub2RlOmdlaGVpbQ=="

    token = DicomWeb(url="https://example.org", secret_file=secret)
    assert Server.of("web", token).authorization == "Bearer geheim"
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        Server.of("web", section)


def test_a_secret_never_travels_in_the_clear(tmp_path):
    with pytest.raises(ValueError, match="use https"):
        DicomWeb(url="http://example.org", secret_file=tmp_path / "token")


@pytest.mark.orthanc
def test_orthanc_stores_what_we_send(tmp_path, items):
    if not DICOMWEB.exists():
        pytest.skip("missing tool: orthanc-dicomweb is not installed")
    settings = {"DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with orthanc(tmp_path / "orthanc", plugins=[DICOMWEB], **settings) as archive:
        to = destination(f"{archive.url}/dicom-web", timeout_s=20.0)
        to.probe()
        results = deliver(to, items)
        again = deliver(to, [dataclasses.replace(i, doubtful=True) for i in items])

        assert [r.outcome for r in results] == [Outcome.SENT] * 3
        assert archive.instances() == {i.sop_instance_uid for i in items}
        assert {r.reason for r in again} == {"the server holds it already"}
