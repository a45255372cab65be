"""Contexts after BCP 195 and handshakes: who gets in, who does not, and when it is given up."""

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.errors import ConfigError
from node.tls import (
    Credentials,
    HandshakeFailed,
    acceptor_context,
    handshake,
    problems,
    requestor_context,
    valid_until,
)
from tests.tls_kit import OPENSSL, Authority, authority

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def node(ours) -> Credentials:
    return ours.issue("node")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Credentials:
    return authority(tmp_path_factory.mktemp("theirs")).issue("stranger")


def meet(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"
) -> tuple[object, object]:
    """Shake hands over a socket pair; return what became of both sides: version or error."""
    a, b = socket.socketpair()

    def side(connection: socket.socket, context: ssl.SSLContext, name: str | None) -> object:
        try:
            secure = handshake(connection, context, seconds=5.0, host=name)
        except HandshakeFailed as error:
            return error
        with secure, suppress(OSError):  # in TLS 1.3 a client learns only now that it is refused
            secure.settimeout(5.0)
            secure.sendall(b"x")
            secure.recv(1)
            return secure.version()
        return "cut"

    with ThreadPoolExecutor(2) as pool:
        futures = pool.submit(side, a, server, None), pool.submit(side, b, client, host)
        one, other = (future.result(timeout=20) for future in futures)
    return one, other


def test_two_peers_of_one_authority_speak_tls_1_3(node, ours):
    both = meet(acceptor_context(node), requestor_context(ours.issue("peer")))

    assert both == ("TLSv1.3", "TLSv1.3")


def test_a_peer_with_tls_1_2_and_forward_secrecy_is_let_in_unless_1_3_is_asked_for(node):
    old = requestor_context(node)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    assert meet(acceptor_context(node), old)[0] == "TLSv1.2"
    strict = acceptor_context(replace(node, only_tls_1_3=True))
    assert isinstance(meet(strict, old)[0], HandshakeFailed)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_peer_that_knows_tls_1_1_or_no_forward_secrecy_is_refused(node):
    older = requestor_context(node)
    older.set_ciphers("ALL:@SECLEVEL=0")
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
    static = requestor_context(node)
    static.maximum_version = ssl.TLSVersion.TLSv1_2
    static.set_ciphers("AES256-GCM-SHA384")

    for context in (older, static):
        assert isinstance(meet(acceptor_context(node), context)[0], HandshakeFailed)


def test_a_peer_without_a_certificate_or_of_another_authority_is_refused(node, stranger):
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(node.authorities)
    foreign = requestor_context(replace(stranger, authorities=node.authorities))

    for context in (bare, foreign):
        refused, _ = meet(acceptor_context(node), context)
        assert isinstance(refused, HandshakeFailed)


def test_an_expired_certificate_is_refused_from_a_peer_and_named_when_it_is_ours(node, ours):
    expired = ours.issue("expired", days=0)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_cert_chain(expired.certificate, expired.key)
    client.load_verify_locations(expired.authorities)

    refused, _ = meet(acceptor_context(node), client)

    assert isinstance(refused, HandshakeFailed)
    assert "expired" in str(refused)
    assert any("has expired" in problem for problem in problems(expired))


def test_as_requestor_we_refuse_a_peer_that_is_not_the_host_we_called(node):
    _, refused = meet(acceptor_context(node), requestor_context(node), host="pacs.example.org")

    assert isinstance(refused, HandshakeFailed)
    assert "ostname mismatch" in str(refused)


def test_plain_text_and_a_closed_connection_end_the_handshake(node):
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00" + bytes(200), b""):
        a, b = socket.socketpair()
        b.sendall(said)
        b.shutdown(socket.SHUT_WR)
        with b, pytest.raises(HandshakeFailed):
            handshake(a, acceptor_context(node), seconds=5.0)


def test_a_peer_that_drips_is_given_up_at_the_one_deadline(node):
    """A time-out for each read would be renewed by every byte."""
    a, b = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100):
            if stop.wait(0.05):
                return
            with suppress(OSError):
                b.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(HandshakeFailed):
        handshake(a, acceptor_context(node), seconds=0.5)
    taken = time.monotonic() - begun
    stop.set()
    thread.join(5)
    b.close()

    assert 0.4 < taken < 2.0


def test_our_certificate_says_until_when_it_is_valid(node):
    left = valid_until(node) - datetime.now(UTC)

    assert timedelta(days=29) < left < timedelta(days=31)


def test_a_key_that_others_can_read_is_refused(ours):
    open_key = ours.issue("open")
    for mode, fine in ((0o600, True), (0o640, True), (0o644, False), (0o660, False)):
        open_key.key.chmod(mode)
        assert (not problems(open_key)) is fine, oct(mode)
    with pytest.raises(ConfigError, match=r"node\.tls\.key: .* is open to others \(mode 0660\)"):
        acceptor_context(open_key)


def test_everything_that_is_wrong_with_the_files_is_told_at_once(node, stranger, tmp_path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    nowhere = tmp_path / "nowhere.pem"

    gone = problems(Credentials(certificate=nowhere, key=nowhere, authorities=rubbish))
    mixed = problems(replace(node, key=stranger.key, authorities=rubbish))

    assert [p.split(":")[0] for p in gone] == ["certificate", "key"]
    assert [p.split(":")[0] for p in mixed] == ["certificate", "authorities"]
    assert "mismatch" in mixed[0]


def test_a_key_with_a_passphrase_is_refused_without_asking_at_the_terminal(node, tmp_path):
    import subprocess  # noqa: PLC0415 - this test alone needs it

    locked = tmp_path / "locked.key"
    subprocess.run(
        [str(OPENSSL), "ec", "-in", str(node.key), "-aes256", "-passout", "pass:secret",
         "-out", str(locked)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    locked.chmod(0o600)

    assert len(problems(replace(node, key=locked))) == 1


def test_no_name_of_a_certificate_holder_is_in_a_message(node, stranger):
    foreign = requestor_context(replace(stranger, authorities=node.authorities))

    refused, _ = meet(acceptor_context(node), foreign)

    assert "stranger" not in str(refused)
    assert str(Path(stranger.certificate)) not in str(refused)
