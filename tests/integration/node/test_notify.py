"""Who is told what: over real sockets, once, and never with a patient's name."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from node.config.notify import EmailSection, NotifySection
from node.errors import ConfigError
from node.lifecycle import DeliveryState
from node.notify import Notifier, channels_of
from node.store.records import DecisionState
from node.store.store import Store
from tests import store_kit
from tests.store_kit import FakeClock, complete, finish, new_job, start_job


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    with store_kit.store(tmp_path / "data", clock=clock) as opened:
        yield opened


class Post(BaseHTTPRequestHandler):
    """Keeps what was posted; answers what the test says."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Post)
    server.posted, server.answer = [], 200  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


class Mailbox(socketserver.StreamRequestHandler):
    """The few words of SMTP that one mail needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 mail\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines).decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def mail() -> Iterator[socketserver.TCPServer]:
    server = socketserver.TCPServer(("127.0.0.1", 0), Mailbox)
    server.mails = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def to_hook(server: HTTPServer, **changes) -> NotifySection:
    url = f"http://127.0.0.1:{server.server_address[1]}/rtnode"
    return NotifySection(**({"webhook": url, "every_s": 0.001} | changes))


def notifier(
    store: Store, clock: FakeClock, settings: NotifySection, troubles: list[str] | None = None
) -> Notifier:
    return Notifier(
        store.ledger,
        settings,
        clock,
        name="RTNODE",
        troubles=lambda: [] if troubles is None else list(troubles),
    )


def hold_a_job(store: Store) -> None:
    seen = complete(store)
    job = new_job(store, seen, held=("a slice is missing", "send it again"))
    store.ledger.record_decision(
        seen, route="thorax", state=DecisionState.HELD, reason="gap", job=job
    )


def test_a_held_job_is_posted_once_with_reason_and_hint(
    store: Store, clock: FakeClock, hook: HTTPServer
) -> None:
    hold_a_job(store)
    teller = notifier(store, clock, to_hook(hook))

    assert teller.look()
    assert not teller.look()

    (message,) = hook.posted  # type: ignore[attr-defined]
    assert message["node"] == "rtnode RTNODE"
    assert message["items"] == [
        {
            "title": "job 1 is held (thorax: autocontour)",
            "reason": "a slice is missing",
            "hint": "send it again",
        }
    ]


def test_a_restart_does_not_tell_it_again(store: Store, clock: FakeClock, hook: HTTPServer) -> None:
    hold_a_job(store)
    assert notifier(store, clock, to_hook(hook)).look()

    assert not notifier(store, clock, to_hook(hook)).look()


def test_a_job_that_is_held_anew_is_told_anew(
    store: Store, clock: FakeClock, hook: HTTPServer
) -> None:
    hold_a_job(store)
    teller = notifier(store, clock, to_hook(hook))
    teller.look()

    store.ledger.release_job(1)
    job = store.ledger.claim_job(owner="test", lease_s=30)
    assert job is not None
    clock.advance(60)
    store.ledger.fail_job(job.id, job.token, transient=False, reason="crashed", hint="look")

    assert teller.look()
    assert hook.posted[-1]["items"][0]["reason"] == "crashed"  # type: ignore[attr-defined]


def test_what_could_not_be_sent_is_told_later(
    store: Store, clock: FakeClock, hook: HTTPServer
) -> None:
    hold_a_job(store)
    teller = notifier(store, clock, to_hook(hook))
    hook.answer = 500  # type: ignore[attr-defined]
    assert not teller.look()

    hook.answer = 200  # type: ignore[attr-defined]
    assert teller.look()


def test_an_ill_node_is_told_once_for_each_illness(
    store: Store, clock: FakeClock, hook: HTTPServer
) -> None:
    troubles = ["engine is dead"]
    teller = notifier(store, clock, to_hook(hook), troubles)
    assert teller.look()
    clock.advance(60)
    assert not teller.look()

    troubles.append("receiver is dead")

    assert teller.look()
    told = [[i["reason"] for i in m["items"]] for m in hook.posted]  # type: ignore[attr-defined]
    assert told == [["engine is dead"], ["receiver is dead"]]


def test_a_destination_that_keeps_results_waiting_is_down(
    store: Store, clock: FakeClock, hook: HTTPServer, tmp_path
) -> None:
    start_job(store)
    assert finish(store, tmp_path)
    assert store.ledger.job_detail(1).deliveries[0].state is DeliveryState.PENDING
    clock.advance(60)

    assert notifier(store, clock, to_hook(hook, destination_down_after_s=30.0)).look()

    (item,) = hook.posted[0]["items"]  # type: ignore[attr-defined]
    assert item["title"] == "destination pacs is down"
    assert "`rtnode echo pacs`" in item["hint"]


def test_messages_keep_their_distance(store: Store, clock: FakeClock, hook: HTTPServer) -> None:
    troubles = ["engine is dead"]
    teller = notifier(store, clock, to_hook(hook, every_s=600.0), troubles)
    assert teller.look()
    troubles.append("receiver is dead")

    assert not teller.look()


def test_a_mail_names_what_is_held(
    store: Store, clock: FakeClock, mail: socketserver.TCPServer
) -> None:
    hold_a_job(store)
    email = EmailSection(
        host="127.0.0.1",
        port=mail.server_address[1],
        security="none",
        sender="rtnode@example.org",
        to=("physics@example.org",),
    )

    assert notifier(store, clock, NotifySection(email=email, every_s=0.001)).look()

    (text,) = mail.mails  # type: ignore[attr-defined]
    assert "Subject: rtnode RTNODE: 1 thing needs a person" in text
    assert "a slice is missing" in text
    assert "hint: send it again" in text


def test_the_password_of_the_mail_server_must_be_ours_alone(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim\n")
    email = EmailSection(
        host="mail", sender="a@b.org", to=("c@b.org",), user="rtnode", password_file=secret
    )
    secret.chmod(0o640)
    (channel,) = channels_of(NotifySection(email=email))
    assert "geheim" not in repr(channel)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="is open to others"):
        channels_of(NotifySection(email=email))


def test_no_message_holds_a_patients_name_or_id(
    store: Store, clock: FakeClock, hook: HTTPServer
) -> None:
    hold_a_job(store)
    notifier(store, clock, to_hook(hook)).look()

    text = json.dumps(hook.posted)  # type: ignore[attr-defined]
    assert "P1" not in text
    assert "CANARY" not in text
