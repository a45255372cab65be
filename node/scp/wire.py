"""Protocol data units off a socket and onto it: bounded in length, bounded in time, few copies.

One buffer an association is filled with large reads and holds several PDUs at once; a body is
handed out as a view into it. Every length is judged before its body is read, and one deadline
covers a whole PDU, so that a peer that drips gains nothing by each byte (PS3.8 9.3).
"""

import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from node.scp.errors import AbortReason, ProtocolError
from node.sockets import acknowledge_at_once

ASSOCIATE_RQ: Final = 0x01
P_DATA: Final = 0x04
RELEASE_RQ: Final = 0x05
ABORT: Final = 0x07
"""Types of PDU that a requestor sends."""

LENGTH_LIMITS: Final = {
    ASSOCIATE_RQ: 256 * 1024,  # 4 MiB cost the library seconds of CPU
    0x02: 256 * 1024,  # A-ASSOCIATE-AC, which no requestor sends: read to be refused as such
    0x03: 16,  # A-ASSOCIATE-RJ
    P_DATA: 1024 * 1024,  # above the announced maximum: some peers exceed it
    RELEASE_RQ: 16,
    0x06: 16,  # A-RELEASE-RP
    ABORT: 16,
}
"""PDU type -> longest body that is read, in bytes. Other types are not read at all."""

RELEASE_RP: Final = struct.pack(">BBLL", 0x06, 0, 4, 0)

_HEADER: Final = struct.Struct(">BxL")
_CAPACITY: Final = _HEADER.size + max(LENGTH_LIMITS.values())
_WINDOW: Final = 272 * 1024
"""Bytes of the buffer that are used where the PDUs allow it: two of the length that we announce."""
_P_DATA_OVERHEAD: Final = 6
"""Bytes of a P-DATA-TF body beside the one fragment it holds: length, context, control."""
_AT_ONCE_S: Final = 1e-3
_NEAR: Final = 0.9
"""A timeout this near to the wished one is left as it is: setting it costs a system call."""


class StopSignal:
    """Tells every thread at once that it should end: set once, seen by whoever waits for bytes."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._set = threading.Event()

    def set(self) -> None:
        """Wake all who wait, now and later."""
        self._set.set()
        os.eventfd_write(self._descriptor, 1)

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._set.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for it; return whether it was set."""
        return self._set.wait(seconds)

    def fileno(self) -> int:
        """Return a descriptor that is readable from the signal on."""
        return self._descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


class Stopped(Exception):
    """The signal came while a peer was silent."""


class Pdu(NamedTuple):
    """A protocol data unit; `body` is valid until the next one is read."""

    type: int
    body: memoryview


class PduStream:
    """Reads and writes PDUs; not shared between threads.

    Parameters
    ----------
    connection : socket.socket
        Plain or TLS.
    monotonic : callable
        Returns seconds that never jump.
    stop : StopSignal
        Ends the wait between two messages.
    """

    def __init__(
        self, connection: socket.socket, monotonic: Callable[[], float], stop: StopSignal
    ) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._stop = stop
        self._either = select.poll()
        self._either.register(connection, select.POLLIN)
        self._either.register(stop, select.POLLIN)
        self._buffer = bytearray(_CAPACITY)  # pages are touched, and counted, as they are used
        self._view = memoryview(self._buffer)
        self._begin = 0
        self._end = 0
        self._timeout_s: float | None = None

    def read_idle(self, *, idle_s: float, pdu_s: float) -> Pdu | None:
        """As `read`, between two messages, where a stop may come.

        Raises
        ------
        Stopped
            The signal is set, or was set while nothing came.
        """
        silent = self._begin == self._end and not self._decrypted()
        if silent and not self._stop.is_set() and not self._either.poll(idle_s * 1000):
            raise TimeoutError("nothing came")
        if self._stop.is_set():
            raise Stopped
        # what is there may be no more than half a record of TLS, which `read` waits for
        return self.read(idle_s=idle_s, pdu_s=pdu_s)

    def read(self, *, idle_s: float, pdu_s: float) -> Pdu | None:
        """Return the next PDU; None when the peer closed the connection between two.

        Parameters
        ----------
        idle_s : float
            Longest wait for its first byte.
        pdu_s : float
            Longest time from its first byte to its last.

        Raises
        ------
        TimeoutError
            Nothing came within `idle_s`.
        ProtocolError
            The PDU is too long, too slow, or of no known type.
        OSError
            The connection broke, also in the middle of a PDU.
        """
        if self._begin == self._end and not self._fill(idle_s):
            return None
        return self._next(self._monotonic() + pdu_s)

    def read_within(self, seconds: float) -> Pdu | None:
        """Return the next PDU, with one deadline from now on for all of it; as `read` else."""
        deadline = self._monotonic() + seconds
        if self._begin == self._end and not self._fill(seconds):
            return None
        return self._next(deadline)

    def send(self, data: bytes, *, seconds: float) -> None:
        """Write all of `data` in one piece.

        Raises
        ------
        OSError
            The connection broke, or the peer took nothing for so long.
        """
        self._wait_at_most(seconds)
        self._connection.sendall(data)

    def _decrypted(self) -> bool:
        """Whether TLS holds bytes that the socket no longer shows."""
        return isinstance(self._connection, ssl.SSLSocket) and self._connection.pending() > 0

    def _next(self, deadline: float) -> Pdu:
        self._require(_HEADER.size, deadline)
        pdu_type, length = _HEADER.unpack_from(self._buffer, self._begin)
        limit = LENGTH_LIMITS.get(pdu_type)
        if limit is None:
            raise ProtocolError(
                f"a PDU of type {pdu_type}, which does not exist",
                reason=AbortReason.UNRECOGNIZED_PDU,
            )
        if length > limit:
            raise ProtocolError(f"a PDU of type {pdu_type} announces {length} bytes")
        self._require(_HEADER.size + length, deadline)
        start = self._begin + _HEADER.size
        self._begin = start + length
        return Pdu(pdu_type, self._view[start : self._begin])

    def _require(self, count: int, deadline: float) -> None:
        """Read until `count` bytes of the PDU at hand are in the buffer."""
        while self._end - self._begin < count:
            left = deadline - self._monotonic()
            try:
                more = left > 0 and self._fill(left, room=count)
            except TimeoutError:
                left = 0.0
                more = False
            if left <= 0:
                raise ProtocolError("the PDU did not arrive in time")
            if not more:
                raise ConnectionResetError("the connection ended in the middle of a PDU")

    def _fill(self, seconds: float, room: int = _HEADER.size) -> bool:
        """Read what has arrived; False at the end of the stream."""
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin + room > max(room, _WINDOW):
            rest = bytes(self._view[self._begin : self._end])
            self._view[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        self._wait_at_most(seconds)
        acknowledge_at_once(self._connection)
        got = self._connection.recv_into(self._view[self._end : max(self._begin + room, _WINDOW)])
        self._end += got
        return got > 0

    def _wait_at_most(self, seconds: float) -> None:
        now = self._timeout_s
        if now is None or not _NEAR * seconds <= now <= seconds:
            self._timeout_s = max(seconds, _AT_ONCE_S)  # 0 would mean not to wait at all
            self._connection.settimeout(self._timeout_s)


def abort(source: int, reason: int) -> bytes:
    """Return an A-ABORT PDU (PS3.8 9.3.8)."""
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason)


def p_data(context_id: int, fragments: bytes, *, command: bool, maximum: int) -> bytes:
    """Return a command set or a data set as P-DATA-TF PDUs (PS3.8 9.3.5, annex E).

    Parameters
    ----------
    context_id : int
    fragments : bytes
        The whole of it.
    command : bool
    maximum : int
        Longest body that the peer takes, in bytes; 0 for any.
    """
    size = max(maximum - _P_DATA_OVERHEAD, 2) // 2 * 2 if maximum else max(len(fragments), 1)
    parts = []
    for at in range(0, max(len(fragments), 1), size):
        piece = fragments[at : at + size]
        control = int(command) | (at + size >= len(fragments)) << 1
        head = struct.pack(
            ">BxLLBB",
            P_DATA, len(piece) + _P_DATA_OVERHEAD, len(piece) + 2, context_id, control,
        )  # fmt: skip
        parts.append(head + piece)
    return b"".join(parts)
