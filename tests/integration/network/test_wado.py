"""Fetching from a DICOMweb server: what it lists, what it brings, and what it may not do."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.domain import AETitle, Uid
from node.errors import (
    AssociationRejected,
    DeliveryError,
    OutOfResources,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
)
from node.routing.wants import Want
from node.scu.dicomweb import Server, WebClient
from node.scu.pull import Puller
from node.scu.wado import WebArchive
from tests.integration.network.support import FakeDoor, data_set_of, dead_port, write_object
from tests.store_kit import FakeClock

STUDY, SERIES = "2.25.1", "2.25.2"
MARK = b"boundary-of-the-server"
RELATED = f'multipart/related; type="application/dicom"; boundary={MARK.decode()}'


class Web:
    """A DICOMweb server that lists what it is told and answers a retrieval as told."""

    def __init__(
        self,
        files: list[Path] = (),
        *,
        patient="CANARY-ID",
        status=200,
        kind=RELATED,
        body: Callable[[], bytes] | None = None,
        feed: Callable[[Callable[[bytes], object]], None] | None = None,
    ) -> None:
        self.files, self.patient, self.status, self.kind = list(files), patient, status, kind
        self.body, self.feed = body or (lambda: multipart(self.files)), feed
        self.paths: list[str] = []
        self.location = ""

    def __enter__(self) -> Self:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_GET(self) -> None:
                web.paths.append(self.path)
                if "?" in self.path:
                    self.say(200, "application/dicom+json", json.dumps(web.listed(self)).encode())
                elif web.feed is not None:
                    self.send_response(200)
                    self.send_header("Content-Type", web.kind)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    with suppress(OSError):
                        web.feed(self.wfile.write)
                    self.close_connection = True
                else:
                    self.say(web.status, web.kind, web.body())

            def say(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if web.location:
                    self.send_header("Location", web.location)
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/web"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listed(self, request) -> list[dict]:
        path = urlsplit(request.path).path
        item = {"0020000D": [STUDY], "00100020": [self.patient]}
        if "/series" in path:
            item |= {"0020000E": [SERIES], "00080060": ["CT"]}
        return [{tag: {"vr": "UI", "Value": value} for tag, value in item.items()}]


def multipart(files: list[Path]) -> bytes:
    parts = b"".join(
        b"\r\n--" + MARK + b"\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes()
        for path in files
    )
    return parts + b"\r\n--" + MARK + b"--"


def archive(url: str, door, *, timeout_s: float = 3.0, largest: int = 4 << 20) -> WebArchive:
    client = WebClient(Server(url=url, timeout_s=timeout_s))
    return WebArchive(name="cloud", client=client, pause_s=0.0, door=door,
                      title=AETitle("RTNODE"), largest=largest)  # fmt: skip


def series_keys(**more) -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID, keys.SeriesInstanceUID = STUDY, SERIES
    for keyword, value in more.items():
        setattr(keys, keyword, value)
    return keys


def fetched(web: Web, door, **more):
    one = archive(web.url, door, **more)
    try:
        return one.retrieve(series_keys())
    finally:
        one.close()


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


def test_what_is_wanted_is_found_and_comes_in_by_the_door(tmp_path, door):
    files = [write_object(tmp_path, n, pixels=1 << 20) for n in (1, 2)]
    want = Want(
        patient_key="k", study_instance_uid=Uid(STUDY), trigger=write_object(tmp_path, 99),
        series=frozenset({Uid(SERIES)}),
    )  # fmt: skip
    with Web(files) as web:
        looking = Puller([archive(web.url, door)], FakeClock())
        assert looking.ask(want)
        looking.run_once()

    assert [s.dataset for s in door.stored] == [data_set_of(path) for path in files]
    assert {s.source.calling_ae_title for s in door.stored} == {"CLOUD"}
    assert [(end, received, refused) for _, end, received, refused in door.ended] == [
        ("RELEASED", 2, 0)
    ]
    assert [urlsplit(path).path for path in web.paths] == [
        "/web/studies",
        f"/web/studies/{STUDY}/series",
        f"/web/studies/{STUDY}/series/{SERIES}",
    ]
    query = parse_qs(urlsplit(web.paths[0]).query)
    assert query["PatientID"] == ["CANARY-ID"]
    assert "StudyInstanceUID" in query["includefield"]
    assert not looking.ask(want)  # it is here now


def test_another_patient_of_the_same_server_is_passed_over(tmp_path, door):
    want = Want(
        patient_key="k", study_instance_uid=Uid(STUDY), trigger=write_object(tmp_path, 99),
        series=frozenset({Uid(SERIES)}),
    )  # fmt: skip
    with Web([write_object(tmp_path)], patient="SOMEBODY-ELSE") as web:
        looking = Puller([archive(web.url, door)], FakeClock())
        looking.ask(want)
        looking.run_once()

    assert len(web.paths) == 1
    assert not door.stored


@pytest.mark.parametrize("size", [512, 1 << 20], ids=["small", "large"])
def test_another_patients_object_in_the_answer_does_not_come_in(tmp_path, door, size):
    """A large one is refused before its pixels are anywhere but in the air."""
    other = write_object(tmp_path, 2, pixels=size)
    changed = dcmread(other)
    changed.SeriesInstanceUID, changed.PatientID = "2.25.3", "SOMEBODY-ELSE"
    changed.save_as(other)
    with Web([write_object(tmp_path, 1), other, write_object(tmp_path, 3)]) as web:
        done = fetched(web, door)

    assert [s.sop_instance_uid[-2:] for s in door.stored] == [".1", ".3"]
    assert (done.completed, done.failed) == (2, 1)
    assert [end[1:] for end in door.ended] == [("ABORTED", 2, 1)]


def test_a_flood_of_what_nobody_asked_for_is_cut(tmp_path, door):
    other = write_object(tmp_path)
    changed = dcmread(other)
    changed.StudyInstanceUID = "2.25.3"
    changed.save_as(other)
    with Web([other] * 300) as web, pytest.raises(PeerUnreachable, match="nobody asked for"):
        fetched(web, door)

    assert [end[1] for end in door.ended] == ["LOST"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>please log in</html>"),
        ("application/dicom+json", b"[]"),
        ("multipart/related", b"no boundary"),
        (RELATED, b"no multipart at all"),
        (RELATED, b""),
    ],
)
def test_an_answer_of_another_type_brings_nothing(door, kind, body):
    with Web(kind=kind, body=lambda: body) as web, pytest.raises(PeerUnreachable):
        fetched(web, door)

    assert not door.stored
    assert [end[1] for end in door.ended] == ["LOST"]


@pytest.mark.parametrize(("keep", "begun"), [(0.3, 1), (0.6, 0), (0.95, 1)])
def test_a_truncated_answer_keeps_what_was_whole_and_nothing_else(tmp_path, door, keep, begun):
    """Of the second object so little comes at 0.6 that it is not even known which it is."""
    files = [write_object(tmp_path, n, pixels=1 << 20) for n in (1, 2)]
    whole = multipart(files)
    with (
        Web(body=lambda: whole[: int(len(whole) * keep)]) as web,
        pytest.raises(PeerUnreachable, match="in the middle"),
    ):
        fetched(web, door)

    assert len(door.stored) == (1 if keep > 0.5 else 0)
    assert door.discarded == begun
    assert [end[1] for end in door.ended] == ["LOST"]


def test_an_object_without_end_is_cut_at_the_limit(tmp_path, door):
    path = write_object(tmp_path, pixels=1 << 20)

    def feed(write) -> None:
        write(multipart([path])[: -len(MARK) - 8])
        while True:
            write(bytes(1 << 16))

    with Web(feed=feed) as web, pytest.raises(PeerUnreachable, match="on and on"):
        fetched(web, door, largest=2 << 20)

    assert not door.stored
    assert door.discarded == 1


def test_an_answer_that_drips_is_cut(door):
    def feed(write) -> None:
        for _ in range(200):
            write(b"-")
            time.sleep(0.02)

    begun = time.monotonic()
    with Web(feed=feed) as web, pytest.raises(PeerUnreachable, match="too slowly"):
        fetched(web, door, timeout_s=0.3)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1.99"])
def test_a_compressed_or_deflated_object_is_refused(tmp_path, door, syntax):
    path = write_object(tmp_path, 2)
    stored = path.read_bytes()
    explicit = b"UI\x14\x001.2.840.10008.1.2.1\0"
    assert stored.count(explicit) == 1
    named = syntax.encode() + b"\0" * (len(syntax) % 2)
    path.write_bytes(stored.replace(explicit, b"UI" + bytes([len(named), 0]) + named))
    with Web([write_object(tmp_path, 1), path]) as web:
        done = fetched(web, door)

    assert (done.completed, done.failed) == (1, 1)


def test_a_full_disk_is_no_success(tmp_path, door):
    door.error = OutOfResources("full")
    with Web([write_object(tmp_path)]) as web:
        done = fetched(web, door)

    assert (done.completed, done.failed) == (0, 1)
    assert [end[1] for end in door.ended] == ["ABORTED"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, PeerRefused), (406, PeerRefused), (401, AssociationRejected), (503, PeerBusy),
     (302, PeerUnreachable), (500, PeerUnreachable)],
)  # fmt: skip
def test_a_failure_is_told_as_what_it_is_and_a_redirect_is_not_followed(door, status, error):
    with Web(status=status, body=lambda: b"") as web:
        web.location = "http://192.0.2.1/elsewhere"
        with pytest.raises(error, match=str(status)):
            fetched(web, door)

    assert len(web.paths) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"null", b'"text"', b"[1]", b"[" * 100_000, b'[{"0020000D": 3}]', bytes(5 << 20)],
    ids=["empty", "cut", "null", "text", "number", "nested", "no values", "endless"],
)
def test_a_list_of_matches_that_is_none_is_an_error_and_no_crash(door, monkeypatch, answer):
    monkeypatch.setattr(Web, "listed", lambda *_: [])
    monkeypatch.setattr("tests.integration.network.test_wado.json.dumps", lambda _: Text(answer))
    with Web() as web:
        one = archive(web.url, door)
        with pytest.raises(DeliveryError):
            one.find(series_keys(Modality=""), limit=10)
        one.close()


class Text(str):
    """A text of given bytes."""

    def __new__(cls, content: bytes):
        return super().__new__(cls, "")

    def __init__(self, content: bytes) -> None:
        self.content = content

    def encode(self, *_) -> bytes:
        return self.content


def test_a_dead_server_is_told(door):
    one = archive(f"http://127.0.0.1:{dead_port()}/web", door)
    with pytest.raises(PeerUnreachable, match="lost"):
        one.find(series_keys(), limit=1)
