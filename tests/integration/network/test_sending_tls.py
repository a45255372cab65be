"""DICOM over TLS as requestor: DCMTK as peer, and peers that we do not believe."""

import socket
import subprocess
import time
from contextlib import contextmanager

import pytest
from pynetdicom import AE, evt

from node.config.model import Config
from node.errors import PeerUnreachable
from node.scu.association import Association, Context
from node.scu.destinations import PeerDestination, peer_of
from node.scu.echo import echo
from node.scu.sender import Outcome
from node.tls import acceptor_context, requestor_context
from tests.conftest import program
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    VERIFICATION,
    FakePeer,
    data_set_of,
    dead_port,
    outgoing,
    peer_at,
    silent_listener,
    write_object,
)
from tests.tls_kit import OPENSSL, Authority, authority

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def ca(tmp_path_factory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(ca):
    return ca.issue("rtnode")


@pytest.fixture(scope="module")
def pacs(ca):
    return ca.issue("pacs")


@contextmanager
def tls_peer(credentials):
    """A storage SCP of pynetdicom behind TLS with mutual certificates."""
    received = []
    ae = AE(ae_title="PACS")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    ae.add_supported_context(CT, EXPLICIT)
    ae.add_supported_context(VERIFICATION)

    def store(event) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0

    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=acceptor_context(credentials),
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()


def over_tls(port: int, credentials, **more):
    return peer_at(
        port, called="PACS", tls=requestor_context(credentials), connect_timeout_s=3.0, **more
    )


def test_objects_go_over_tls_with_both_certificates(tmp_path, node, pacs):
    items = [outgoing(write_object(tmp_path, n, pixels=512 * 1024), key=n) for n in (1, 2, 3)]
    with tls_peer(pacs) as (port, received):
        destination = PeerDestination("pacs", over_tls(port, node))
        results = list(destination.deliver(items))
        results += list(destination.deliver(items[:1]))  # over the association that stayed open
        destination.close()

    assert {r.outcome for r in results} == {Outcome.SENT}
    assert received == [data_set_of(i.path) for i in (*items, items[0])]


@pytest.mark.dcmtk
def test_dcmtk_takes_our_objects_over_tls(tmp_path, ca, node, pacs):
    port = dead_port()
    command = [
        program("storescp"), "-aet", "PACS", "-od", str(tmp_path), "+B",
        "+tls", str(pacs.key), str(pacs.certificate), "+cf", str(ca.certificate), "-rc", str(port),
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        item = outgoing(write_object(tmp_path, 1), key=1)
        destination = PeerDestination("pacs", over_tls(port, node))
        (result,) = destination.deliver([item])
        destination.close()
        report = echo(over_tls(port, node), count=2)
    finally:
        server.terminate()
        server.communicate(timeout=10)

    assert result.outcome is Outcome.SENT
    assert report.ok


@pytest.mark.parametrize("kind", ["authority", "host"])
def test_a_peer_that_we_do_not_believe_gets_nothing(tmp_path, tmp_path_factory, ca, node, kind):
    other = authority(tmp_path_factory.mktemp("other")).issue("pacs")
    credentials = other if kind == "authority" else ca.issue("elsewhere")
    name = None if kind == "authority" else "pacs.example.org"
    with tls_peer(credentials) as (port, received):
        begun = time.monotonic()
        with pytest.raises(PeerUnreachable, match="certificate refused"):
            Association.open(over_tls(port, node, tls_name=name), [Context(CT, EXPLICIT)])

    assert time.monotonic() - begun < 1.5
    assert not received


def test_a_peer_that_does_not_believe_us_ends_it(tmp_path_factory, ca, pacs):
    other = authority(tmp_path_factory.mktemp("stranger"))
    ours = other.issue("rtnode")
    mixed = type(ours)(certificate=ours.certificate, key=ours.key, authorities=ca.certificate)
    with tls_peer(pacs) as (port, _), pytest.raises(PeerUnreachable):
        Association.open(over_tls(port, mixed), [Context(CT, EXPLICIT)])


def test_a_peer_without_tls_or_without_a_word_is_left_in_time(node):
    with FakePeer() as plain, pytest.raises(PeerUnreachable):
        Association.open(over_tls(plain.port, node), [Context(CT, EXPLICIT)])
    begun = time.monotonic()
    with silent_listener() as port, pytest.raises(PeerUnreachable):
        Association.open(over_tls(port, node), [Context(CT, EXPLICIT)])
    assert time.monotonic() - begun < 6


def test_the_configuration_says_which_peer_speaks_tls(tmp_path, node):
    config = Config.model_validate(
        {
            "node": {
                "ae_titles": ("RTNODE",),
                "data_dir": tmp_path,
                "tls": {
                    "certificate": node.certificate,
                    "key": node.key,
                    "authorities": node.authorities,
                },
            },
            "peers": {
                "safe": {"ae_title": "A", "host": "a", "port": 2762, "tls": True, "tls_name": "x"},
                "plain": {"ae_title": "B", "host": "b", "port": 104},
            },
        },
        strict=False,
    )

    safe, plain = peer_of(config, "safe"), peer_of(config, "plain")

    assert safe is not None
    assert safe.tls is not None
    assert safe.tls_name == "x"
    assert plain is not None
    assert plain.tls is None


def test_a_peer_with_the_certificate_of_another_gets_nothing(tmp_path, ca, node, pacs):
    """Its authority is ours and its host name fits: still it is not the one that was named."""
    item = outgoing(write_object(tmp_path))
    with tls_peer(pacs) as (port, received):
        with pytest.raises(PeerUnreachable, match="not the one under tls_identity"):
            Association.open(
                over_tls(port, node, tls_identities=frozenset({"CN=another"})),
                [Context(CT, EXPLICIT)],
            )
        assert not received
        right = over_tls(port, node, tls_identities=frozenset({"CN=another", "CN=pacs"}))
        destination = PeerDestination("pacs", right)
        assert [r.outcome for r in destination.deliver([item])] == [Outcome.SENT]
        destination.close()
