"""A whole connection with bytes from a file: the receiver's own thread, run here to its end."""

import socket
import struct

from typing_extensions import override

from node.clock import SystemClock
from node.domain import Accepted, AETitle
from node.scp.admission import Occasionally, WaitingRoom
from node.scp.association import Connection, Reception
from node.scp.commands import read_command
from node.scp.errors import ProtocolError
from node.scp.negotiation import Negotiation
from node.scp.session import Sessions
from node.scp.settings import ReceiverSettings
from node.scp.wire import StopSignal
from node.store.header import parse_header
from tests.integration.network.support import FakeDoor
from tests.wire_kit import RELEASE, associate_request, c_echo, c_store, p_data, pdv

LONGEST = 64 * 1024
"""What the buffer of a local socket holds for sure, so that one thread can be both ends."""
STORED = 0x8001
SETTINGS = ReceiverSettings(
    ae_titles=(AETitle("RTNODE"),), accept_unknown=True, max_object_bytes=1 << 20, pdu_timeout_s=2.0
)


class _Loop(socket.socket):
    """One end of a local pair that takes the options of TCP without a word."""

    @override
    def setsockopt(self, *_: object) -> None:
        pass


class _ReadingDoor(FakeDoor):
    """Takes what the header parser of the intake understands."""

    def accept(self, dataset: bytes, **names) -> Accepted:
        parse_header(dataset, names["transfer_syntax_uid"])
        return super().accept(dataset, **names)


def _reception(door: FakeDoor) -> Reception:
    clock = SystemClock()
    return Reception(
        settings=SETTINGS,
        door=door,
        clock=clock,
        sessions=Sessions(door, clock),
        negotiation=NEGOTIATION,
        operations={},
        waiting=WaitingRoom(per_address=4, in_total=4),
        seldom=Occasionally(60.0, clock.monotonic),
        stop=STOP,
    )


NEGOTIATION = Negotiation()
STOP = StopSignal()


def begun() -> bytes:
    """Return an association and two echoes."""
    echo = p_data(pdv(3, c_echo(), context=3))
    return associate_request() + echo + echo + RELEASE


def exchange(data_set: bytes) -> bytes:
    """Return a C-STORE in three fragments, an echo and a release, to follow an association."""
    half = len(data_set) // 2
    return (
        p_data(pdv(3, c_store("1.2.3.2.1")), pdv(0, data_set[:half]))
        + p_data(pdv(2, data_set[half:]))
        + p_data(pdv(3, c_echo(2), context=3))
        + RELEASE
    )


def converse(data: bytes) -> None:
    """Serve a peer that says `data` and hangs up; nothing may escape the thread's own handling.

    Raises
    ------
    AssertionError
        Success was answered for something that the door did not take.
    """
    door = _ReadingDoor()
    near, far = socket.socketpair()
    with near, _Loop(fileno=far.detach()) as connected:
        near.settimeout(5)
        near.sendall(data[:LONGEST])
        near.shutdown(socket.SHUT_WR)
        Connection(connected, "127.0.0.1", _reception(door))._talk()
        connected.close()
        answers = b"".join(iter(lambda: near.recv(65536), b""))
    assert successes(answers) <= len(door.stored), "success for an object that nobody holds"


def successes(stream: bytes) -> int:
    """Count the C-STORE responses with status 0x0000."""
    found = at = 0
    while at + 12 <= len(stream):
        kind, length = struct.unpack_from(">BxL", stream, at)
        if kind == 4:
            command = _command(stream[at + 12 : at + 6 + length])
            found += command == (STORED, 0)
        at += 6 + length
    return found


def _command(body: bytes) -> tuple[int, int]:
    try:
        command = read_command(body)
    except ProtocolError:
        return 0, -1
    status = command.elements.get(0x0900, b"\xff\xff")
    return command.field, int.from_bytes(status, "little")
