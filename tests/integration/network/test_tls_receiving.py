"""DICOM over TLS coming in: who gets in, who does not, and that nobody waits for a silent one."""

import socket
import ssl
import subprocess
import time
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.domain import AETitle
from node.errors import ConfigError
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.tls import Credentials, handshake, identity, requestor_context
from tests.conftest import program
from tests.integration.network.support import FakeDoor, data_set_of, receiving, until, write_object
from tests.tls_kit import OPENSSL, Authority, authority
from tests.wire_kit import (
    RELEASE,
    RawPeer,
    associate_request,
    c_echo,
    c_store,
    p_data,
    pdv,
)

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def node(ours) -> Credentials:
    return ours.issue("node")


@pytest.fixture(scope="module")
def peer(ours) -> Credentials:
    return ours.issue("peer")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Credentials:
    return authority(tmp_path_factory.mktemp("theirs")).issue("stranger")


def over_tls(port: int, credentials: Credentials) -> RawPeer:
    raw = RawPeer(port)
    raw.socket = handshake(
        raw.socket, requestor_context(credentials), seconds=5.0, host="localhost"
    )
    raw.socket.settimeout(10.0)
    return raw


def tls(node: Credentials, **settings):
    return {"tls_port": 0, "credentials": node} | settings


@pytest.mark.dcmtk
def test_storescu_delivers_over_tls_with_mutual_certificates(tmp_path, node, peer):
    path = write_object(tmp_path, pixels=256 * 1024)
    door = FakeDoor()
    with receiving(door, **tls(node)) as receiver:
        run = subprocess.run(
            [
                *(program("storescu"), "+tls", str(peer.key), str(peer.certificate)),
                *("+cf", str(peer.authorities), "-aec", "RTNODE"),
                *("127.0.0.1", str(receiver.tls_port), str(path)),
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )
        until(lambda: door.ended)

    assert run.returncode == 0, run.stderr
    assert [s.dataset for s in door.stored] == [data_set_of(path)]
    assert door.ended[0][1] == "RELEASED"


@pytest.mark.dcmtk
@pytest.mark.parametrize("who", ["anonymous", "stranger"])
def test_storescu_without_a_certificate_that_we_believe_is_refused(
    tmp_path, node, peer, stranger, who
):
    path = write_object(tmp_path)
    identity = {
        "anonymous": ["+tla"],
        "stranger": ["+tls", str(stranger.key), str(stranger.certificate)],
    }
    door = FakeDoor()
    with receiving(door, **tls(node)) as receiver:
        run = subprocess.run(
            [
                *(program("storescu"), *identity[who], "+cf", str(peer.authorities)),
                *("-aec", "RTNODE", "127.0.0.1", str(receiver.tls_port), str(path)),
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )

    assert run.returncode != 0
    assert (door.stored, door.opened) == ([], [])


def test_a_whole_conversation_over_tls_is_the_same_as_without(node, peer):
    door = FakeDoor()
    content = bytes(range(256)) * 3000
    with receiving(door, **tls(node)) as receiver, over_tls(receiver.tls_port, peer) as raw:
        raw.send(associate_request())
        assert raw.read()[0] == 2
        raw.send(p_data(pdv(3, c_store())), p_data(pdv(0, content[:70_000])))
        raw.send(p_data(pdv(2, content[70_000:])))
        assert raw.status() == 0
        raw.send(p_data(pdv(3, c_echo(2), 3)))
        assert raw.status() == 0
        raw.send(RELEASE)
        assert raw.read()[0] == 6
        assert raw.read()[0] == 0  # ended by close_notify, not by a cut
    until(lambda: door.ended)

    assert door.stored[0].dataset == content
    assert door.ended[0][1] == "RELEASED"


def test_a_tls_record_that_arrives_in_two_halves_is_no_silence(node, peer):
    """The socket is readable while TLS has nothing to give yet."""
    incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls_client = requestor_context(peer).wrap_bio(incoming, out, server_hostname="localhost")
    with receiving(FakeDoor(), **tls(node)) as receiver, RawPeer(receiver.tls_port) as raw:

        def pump(act) -> bytes:
            while True:
                try:
                    got = act()
                except ssl.SSLWantReadError:
                    raw.send(out.read())
                    incoming.write(raw.socket.recv(65536))
                else:
                    return got

        pump(tls_client.do_handshake)
        tls_client.write(associate_request())
        raw.send(out.read())
        assert pump(lambda: tls_client.read(1)) == b"\x02"
        pump(lambda: tls_client.read(65536))
        tls_client.write(p_data(pdv(3, c_echo(), 3)))
        record = out.read()
        raw.send(record[:10])
        time.sleep(0.3)
        raw.send(record[10:])

        assert pump(lambda: tls_client.read(1)) == b"\x04"


def test_silent_connections_to_the_tls_port_delay_nobody(node, peer):
    """Fault B3: the handshake is in the connection's own thread."""
    with receiving(FakeDoor(), **tls(node)) as receiver:
        silent = [RawPeer(receiver.tls_port) for _ in range(3)]
        begun = time.monotonic()
        with over_tls(receiver.tls_port, peer) as raw:
            raw.send(associate_request())
            assert raw.read()[0] == 2
        assert time.monotonic() - begun < 2
        for connection in silent:
            connection.socket.close()


def test_silent_connections_to_the_tls_port_make_room_for_the_next(node):
    """Fault B2: a flood of them must not cost a thread each until its handshake is over."""
    settings = tls(node, max_per_address=2, request_timeout_s=600.0)
    with receiving(FakeDoor(), **settings) as receiver:
        silent = [RawPeer(receiver.tls_port) for _ in range(6)]
        assert [raw.read()[0] for raw in silent[:4]] == [0] * 4  # long before that deadline
        for raw in silent:
            raw.socket.close()


def test_a_handshake_that_drips_is_cut_at_its_deadline(node):
    """Fault B2, in the TLS handshake."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400)
    with (
        receiving(FakeDoor(), **tls(node, request_timeout_s=0.5)) as receiver,
        RawPeer(receiver.tls_port) as raw,
    ):
        begun = time.monotonic()
        with suppress(OSError):
            for byte in hello:
                raw.send(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - begun < 3


def test_plain_text_on_the_tls_port_and_tls_on_the_plain_port_are_closed(node, peer):
    """Fault B4."""
    with receiving(FakeDoor(), **tls(node)) as receiver:
        with RawPeer(receiver.tls_port) as raw:
            raw.send(associate_request())
            assert raw.read()[0] != 2
        with pytest.raises(OSError, match=r"."):
            over_tls(receiver.port, peer)
        with RawPeer.associated(receiver.port) as plain:
            plain.send(p_data(pdv(3, c_echo(), 3)))
            assert plain.status() == 0


def test_a_peer_that_is_known_over_tls_only_is_rejected_on_the_plain_port(node, peer):
    allowed = {AETitle("TPS"): (ip_network("127.0.0.0/8"),), AETitle("CT"): (
        ip_network("127.0.0.0/8"),)}  # fmt: skip
    settings = tls(node, accept_unknown=False, allowed=allowed, tls_only=frozenset({"TPS"}))
    with receiving(FakeDoor(), **settings) as receiver:
        with RawPeer(receiver.port) as raw:
            raw.send(associate_request(calling="TPS"))
            assert raw.read() == (3, bytes([0, 1, 1, 3]))
        with over_tls(receiver.tls_port, peer) as raw:
            raw.send(associate_request(calling="TPS"))
            assert raw.read()[0] == 2
        with RawPeer.associated(receiver.port, calling="CT"):
            pass


def test_where_all_peers_speak_tls_the_plain_port_closes_before_a_byte(node):
    allowed = {AETitle("TPS"): (ip_network("127.0.0.0/8"),)}
    settings = tls(node, accept_unknown=False, allowed=allowed, tls_only=frozenset({"TPS"}))
    with (
        receiving(FakeDoor(), **settings) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port), 5) as connection,
    ):
        assert connection.recv(1) == b""


def test_a_key_that_cannot_be_used_stops_the_start(node, tmp_path):
    broken = Credentials(
        certificate=node.certificate, key=tmp_path / "no.key", authorities=node.authorities
    )
    settings = ReceiverSettings(
        ae_titles=(AETitle("RTNODE"),), port=0, tls_port=0, credentials=broken
    )
    with pytest.raises(ConfigError, match=r"node\.tls\.key: cannot read"):
        Receiver(settings, FakeDoor(), SystemClock()).start()


def test_stopping_tells_a_tls_peer_by_an_abort_that_it_can_read(node, peer):
    with receiving(FakeDoor(), **tls(node)) as receiver:
        raw = over_tls(receiver.tls_port, peer)
        raw.send(associate_request())
        assert raw.read()[0] == 2
        receiver.stop(1.0)

        with raw:
            assert isinstance(raw.socket, ssl.SSLSocket)
            assert raw.read()[0] == 7
    assert Path(node.key).exists()


def identity_of(credentials: Credentials) -> str:
    """Return the fingerprint as `openssl x509 -fingerprint -sha256` prints it."""
    shown = subprocess.run(
        [str(OPENSSL), "x509", "-in", credentials.certificate, "-noout", "-fingerprint", "-sha256"],
        capture_output=True, check=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    return identity("sha256:" + shown.strip().partition("=")[2])


@pytest.mark.parametrize("spelling", ["fingerprint", "common name", "issued for"])
def test_a_certificate_that_is_bound_to_an_ae_title_opens_it_and_no_other_does(
    ours, node, peer, spelling
):
    """Both are signed by the authority that we believe; only one is the modality's."""
    thief = ours.issue("thief", host="thief.example.org")
    wanted = {
        "fingerprint": identity_of(peer),
        "common name": identity("CN=peer"),
        "issued for": identity("DNS:LOCALHOST"),
    }[spelling]
    settings = tls(node, tls_identities={AETitle("CT1"): frozenset({identity("CN=x"), wanted})})
    with receiving(FakeDoor(), **settings) as receiver:
        with over_tls(receiver.tls_port, thief) as raw:
            raw.send(associate_request(calling="CT1"))
            assert raw.read() == (3, bytes([0, 1, 1, 3]))
        with over_tls(receiver.tls_port, peer) as raw:
            raw.send(associate_request(calling="CT1"))
            assert raw.read()[0] == 2
        with over_tls(receiver.tls_port, thief) as raw:  # an AE title that is bound to nothing
            raw.send(associate_request(calling="CT2"))
            assert raw.read()[0] == 2


def test_a_bound_ae_title_has_no_way_in_without_a_certificate(node, peer):
    settings = tls(node, tls_identities={AETitle("CT1"): frozenset({identity_of(peer)})})
    with receiving(FakeDoor(), **settings) as receiver, RawPeer(receiver.port) as raw:
        raw.send(associate_request(calling="CT1"))
        assert raw.read() == (3, bytes([0, 1, 1, 3]))
