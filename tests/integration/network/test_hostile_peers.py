"""Peers that speak no DICOM, lie about lengths, or stall: each is cut, all others are served."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from node.domain import Uid
from node.scu.association import Context
from node.scu.dimse import c_store_rq
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    FakeDoor,
    associate,
    receiving,
    until,
)
from tests.wire_kit import associate_request


def _closed_within(connection: socket.socket, seconds: float) -> float:
    """Read until the peer closes; return how long that took."""
    begun = time.monotonic()
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begun


def _alive(port: int) -> bool:
    with associate(port, Context(VERIFICATION, IMPLICIT)) as association:
        return association.echo().status == 0


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "tls-hello": bytes.fromhex("1603010200010001fc0303") + bytes(512),
    "zeros": bytes(4096),
    "random": os.urandom(4096),
    "pdu-of-4-gib": struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(65536),
    "p-data-of-4-gib": struct.pack(">BBL", 4, 0, 0xFFFFFFFF) + bytes(65536),
    "request-of-4-mib": struct.pack(">BBL", 1, 0, 4 << 20) + bytes(65536),
    "p-data-before-association": struct.pack(">BBLLBB", 4, 0, 6, 2, 1, 3),
    "truncated-request": struct.pack(">BBL", 1, 0, 100) + bytes(100),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_cut_and_others_are_served(name):
    """Faults B1 (a PDU length that lies) and B6 (no DICOM at all)."""
    with receiving(FakeDoor(), request_timeout_s=1.0) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port), 5) as connection:
            with suppress(ConnectionError):
                connection.sendall(GARBAGE[name])
            assert _closed_within(connection, 5) < 4
        assert _alive(receiver.port)


def test_a_request_that_drips_is_cut_at_its_deadline():
    """Fault B2: one deadline for a whole PDU, not one for each read."""
    request = associate_request()

    def drip(connection):
        for byte in request:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    with (
        receiving(FakeDoor(), request_timeout_s=0.6) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port), 5) as connection,
    ):
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            drip(connection)
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("head", [b"", b"\x01\x00\x00"], ids=["nothing", "half-a-header"])
def test_silence_frees_its_slot(head):
    """Fault B2: an idle connection is no association."""
    with receiving(FakeDoor(), request_timeout_s=0.5, max_per_address=2) as receiver:
        idle = [socket.create_connection(("127.0.0.1", receiver.port), 5) for _ in range(2)]
        for connection in idle:
            connection.sendall(head)
            assert _closed_within(connection, 5) < 3
            connection.close()
        until(lambda: _served(receiver.port))


def _served(port: int) -> bool:
    try:
        return _alive(port)
    except Exception:
        return False


def _p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    return (
        struct.pack(">BBLLBB", 4, 0, len(fragment) + 6, len(fragment) + 2, context_id, control)
        + fragment
    )


def test_p_data_that_drips_is_cut_at_its_deadline():
    """Fault B2, inside an association."""
    with receiving(FakeDoor(), pdu_timeout_s=0.5) as receiver:
        association = associate(receiver.port)
        association._connection.sendall(_p_data(1, 3, b"x" * 64)[:20])
        assert _closed_within(association._connection, 5) < 3
        association._connection.close()
        assert _alive(receiver.port)


@pytest.mark.parametrize("byte", [b"", b"x"])
def test_a_message_in_whole_pdus_that_hold_next_to_nothing_is_cut(byte):
    """Fault B2: each PDU is in time, and the message would take for ever."""
    door = FakeDoor()
    with receiving(door, pdu_timeout_s=5.0, idle_timeout_s=0.5) as receiver:
        association = associate(receiver.port)
        command = c_store_rq(message_id=1, sop_class_uid=CT, sop_instance_uid=Uid("1.2"))
        association._connection.sendall(_p_data(1, 3, command))
        with pytest.raises(OSError, match=r"."):  # noqa: PT012 - one of many meets the end
            for _ in range(400):
                association._connection.sendall(_p_data(1, 0, byte))
                time.sleep(0.025)
        association._connection.close()
        assert _alive(receiver.port)

    assert door.discarded == 1


MALFORMED = {
    "fragment-past-the-end-of-its-pdu": struct.pack(">BBLLBB", 4, 0, 8, 500, 1, 0) + b"ab",
    "data-set-without-a-command": _p_data(1, 2, b"xxxx"),
    "fragment-shorter-than-its-header": struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 3),
    "command-that-is-none": _p_data(1, 3, b"\xff" * 32),
    "unknown-context": _p_data(9, 3, b"\x00" * 8),
    "command-of-100-kib": b"".join(_p_data(1, 1, b"\x00" * 50_000) for _ in range(2)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_p_data_ends_its_association_only(name):
    """PS3.8 annex E; a fragment cut short would be stored short with 0x0000."""
    door = FakeDoor()
    with receiving(door, request_timeout_s=1.0) as receiver:
        association = associate(receiver.port)
        with suppress(ConnectionError):
            association._connection.sendall(MALFORMED[name])
        assert _closed_within(association._connection, 6) < 5
        association._connection.close()
        assert _alive(receiver.port)
        until(lambda: receiver.associations == 0)
        until(lambda: len(door.ended) == len(door.opened) > 0)

    assert door.stored == []


def test_fragments_without_end_are_cut_at_the_object_limit():
    """The library would keep them all in memory."""
    door = FakeDoor()
    with receiving(door, max_object_bytes=1 << 20) as receiver:
        association = associate(receiver.port)
        command = c_store_rq(message_id=1, sop_class_uid=CT, sop_instance_uid=Uid("2.25.1"))
        association._connection.sendall(_p_data(1, 3, command))
        fragment = _p_data(1, 0, bytes(60_000))
        with pytest.raises(ConnectionError):
            association._connection.sendall(fragment * 500)  # 30 MB
        association._connection.close()
        assert _alive(receiver.port)

    assert door.stored == []


@pytest.mark.parametrize(
    "contexts",
    [[(1, True), (1, True)], [(2, True)], [(1, False)], []],
    ids=["same-id-twice", "even-id", "no-transfer-syntax", "none"],
)
def test_contexts_that_cannot_be_negotiated_end_the_connection(contexts):
    """A context without a transfer syntax makes the library raise inside its thread."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    body = struct.pack(">HH", 1, 0) + b"RTNODE".ljust(16) + b"TESTER".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, with_syntax in contexts:
        syntax = item(0x40, EXPLICIT.encode()) if with_syntax else b""
        body += item(0x20, bytes([number, 0, 0, 0]) + item(0x30, CT.encode()) + syntax)
    body += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    with receiving(FakeDoor(), request_timeout_s=1.0) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port), 5) as connection:
            connection.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
            assert _closed_within(connection, 6) < 5
        assert _alive(receiver.port)


def test_connections_leave_no_threads_and_no_sessions_behind():
    with receiving(FakeDoor(), request_timeout_s=0.5, max_per_address=64) as receiver:
        assert _alive(receiver.port)
        until(lambda: not receiver._connections)
        before = threading.active_count()
        connections = [socket.create_connection(("127.0.0.1", receiver.port), 5) for _ in range(20)]
        for n, connection in enumerate(connections):
            connection.sendall(b"\x01\x00" if n % 2 else b"GET / HTTP/1.1\r\n\r\n")
        for connection in connections:
            _closed_within(connection, 5)
            connection.close()
        until(lambda: not receiver._connections)
        until(lambda: threading.active_count() <= before)
