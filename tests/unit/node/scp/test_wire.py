"""PDUs off a socket: whole, bounded in length, bounded in time."""

import socket
import struct

import pytest

from node.scp.errors import AbortReason, ProtocolError
from node.scp.wire import (
    LENGTH_LIMITS,
    P_DATA,
    PduStream,
    Stopped,
    StopSignal,
    abort,
    p_data,
)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


def stream(connection: socket.socket, now=lambda: 0.0, stop: StopSignal | None = None) -> PduStream:
    return PduStream(connection, now, stop or StopSignal())


def read(pdus: PduStream, idle_s: float = 5.0, pdu_s: float = 5.0):
    return pdus.read(idle_s=idle_s, pdu_s=pdu_s)


def test_pdus_that_arrive_together_are_read_one_after_the_other(pair):
    client, server = pair
    client.sendall(pdu(4, b"first") + pdu(4, b"") + pdu(5, bytes(4)))
    pdus = stream(server)
    got = []
    for _ in range(3):
        kind, body = read(pdus)
        got.append((kind, bytes(body)))

    assert got == [(4, b"first"), (4, b""), (5, bytes(4))]


def test_a_pdu_that_arrives_byte_by_byte_is_whole(pair):
    client, server = pair
    for byte in pdu(4, b"content"):
        client.sendall(bytes([byte]))

    assert bytes(read(stream(server)).body) == b"content"


def test_pdus_of_any_size_pass_through_the_one_buffer(pair):
    """Their sum is several times the buffer, and none lies where the last one lay."""
    import threading  # noqa: PLC0415 - this test alone needs it

    client, server = pair
    sizes = [1, 400_000, 1024 * 1024, 2, 700_001, 699_999, 1024 * 1024, 3, 300_000] * 2
    bodies = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    writer = threading.Thread(
        target=lambda: client.sendall(b"".join(pdu(4, body) for body in bodies)), daemon=True
    )
    writer.start()
    pdus = stream(server)

    for body in bodies:
        assert read(pdus).body == body
    writer.join(10)


@pytest.mark.parametrize(
    ("kind", "length"), [(kind, limit + 1) for kind, limit in LENGTH_LIMITS.items()]
)
def test_a_length_over_its_limit_is_refused_before_the_body_is_there(pair, kind, length):
    client, server = pair
    client.sendall(struct.pack(">BBL", kind, 0, length))

    with pytest.raises(ProtocolError, match="announces"):
        read(stream(server))


def test_an_unknown_type_is_refused_before_its_body_is_there(pair):
    client, server = pair
    client.sendall(struct.pack(">BBL", 0x47, 0, 10))

    with pytest.raises(ProtocolError) as refused:
        read(stream(server))
    assert refused.value.reason is AbortReason.UNRECOGNIZED_PDU


def test_one_deadline_covers_a_whole_pdu_however_it_drips(pair):
    client, server = pair
    times = iter([0.0, 1.0, 4.0, 11.0])
    client.sendall(struct.pack(">BBL", 4, 0, 50) + b"part")

    with pytest.raises(ProtocolError, match="in time"):
        read(stream(server, lambda: next(times)), idle_s=5.0, pdu_s=10.0)


def test_silence_in_the_middle_of_a_pdu_is_cut_at_its_deadline(pair):
    import time  # noqa: PLC0415 - the real clock, for this test alone

    client, server = pair
    client.sendall(b"\x04\x00")
    begun = time.monotonic()

    with pytest.raises(ProtocolError, match="in time"):
        read(stream(server, time.monotonic), idle_s=9.0, pdu_s=0.2)
    assert time.monotonic() - begun < 2


def test_a_stop_ends_the_wait_between_two_messages_and_no_other(pair):
    import threading  # noqa: PLC0415 - this test alone needs it

    client, server = pair
    stop = StopSignal()
    pdus = stream(server, stop=stop)
    later = threading.Timer(0.1, stop.set)
    later.start()

    with pytest.raises(Stopped):
        pdus.read_idle(idle_s=10.0, pdu_s=1.0)
    client.sendall(pdu(4, b"rest"))
    assert bytes(read(pdus).body) == b"rest"
    with pytest.raises(Stopped):
        pdus.read_idle(idle_s=10.0, pdu_s=1.0)


def test_silence_between_two_pdus_is_a_timeout_and_no_fault(pair):
    _, server = pair

    with pytest.raises(TimeoutError):
        read(stream(server), idle_s=0.05)


def test_the_end_between_two_pdus_is_none_and_in_the_middle_a_broken_connection(pair):
    client, server = pair
    client.sendall(pdu(4, b"x") + b"\x04\x00")
    client.close()
    pdus = stream(server)
    read(pdus)

    with pytest.raises(ConnectionResetError):
        read(pdus)
    assert read(stream(server)) is None


def test_the_request_has_one_deadline_from_the_connection_on(pair):
    _, server = pair
    with pytest.raises(TimeoutError):
        stream(server).read_within(0.05)


@pytest.mark.parametrize("maximum", [0, 7, 8, 16, 64, 1000])
def test_an_answer_is_cut_into_fragments_that_the_peer_takes(maximum):
    content = bytes(range(200))
    sent = p_data(5, content, command=True, maximum=maximum)

    got, controls, at = b"", [], 0
    while at < len(sent):
        kind, length, value, context, control = struct.unpack_from(">BxLLBB", sent, at)
        assert kind == P_DATA
        assert length == value + 4
        assert not maximum or length <= max(maximum, 8)
        assert context == 5
        got += sent[at + 12 : at + 6 + length]
        controls.append(control)
        at += 6 + length
    assert got == content
    assert controls == [1] * (len(controls) - 1) + [3]


def test_an_abort_names_its_source_and_reason():
    assert abort(2, AbortReason.UNEXPECTED_PDU) == bytes.fromhex("07000000000400000202")
