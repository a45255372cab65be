"""Limits on what a peer can make the receiver do before and while it speaks DICOM.

pynetdicom reads a PDU of any announced length, waits for ever for its rest, and keeps a message
of any size in memory. `PduReader` replaces the reading half of an association's socket: it caps
every length before it reads, gives each PDU one deadline, checks how the fragments of a message
follow each other (PS3.8 9.3.5, annex E), and reads with few, large system calls. `Admission`
counts connections, because an idle TCP connection must not use up an association.
"""

import contextlib
import ipaddress
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from pynetdicom.pdu import A_ASSOCIATE_RQ

from node.sockets import acknowledge_at_once

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

ASSOCIATE_RQ: Final = 0x01
P_DATA: Final = 0x04
RELEASE_RQ: Final = 0x05
ABORT: Final = 0x07
"""PDU types (PS3.8 9.3)."""

LENGTH_LIMITS: Final = {
    ASSOCIATE_RQ: 256 * 1024,  # 4 MiB cost seconds of CPU
    0x02: 256 * 1024,  # A-ASSOCIATE-AC
    0x03: 16,  # A-ASSOCIATE-RJ
    P_DATA: 1024 * 1024,  # above the announced maximum: some peers exceed it
    RELEASE_RQ: 16,
    0x06: 16,  # A-RELEASE-RP
    ABORT: 16,
}
"""PDU type -> longest PDU that is read, in bytes. Other types are not read at all."""

COMMAND_LIMIT: Final = 64 * 1024
"""Longest command set of one message, in bytes."""

_HEADER_LENGTH: Final = 6
_PDV_OVERHEAD: Final = 2  # context id and control header count as part of a PDV
_COMMAND_FIELD: Final = 0x0100
_DATA_SET_TYPE: Final = 0x0800
_US_LENGTH: Final = 2
_REQUESTS: Final = (0x001, 0x010, 0x020, 0x021, 0x030, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150)
_COMMAND_FIELDS: Final = frozenset(
    [*_REQUESTS, *(request | 0x8000 for request in _REQUESTS), 0x0FFF]
)
"""C- and N- requests, their responses, and C-CANCEL (PS3.7 E.1)."""
_COMMAND: Final = 0x01
_LAST: Final = 0x02


class GuardError(OSError):
    """A peer broke a limit; the connection is closed. An OSError, so that callers need no other."""


@dataclass(slots=True)
class MessageProgress:
    """Where the message that is being received stands: fed with P-DATA bodies, in order."""

    object_limit: int
    """Longest data set of one message, in bytes."""
    accepted: frozenset[int] = frozenset()
    """Presentation context ids that were accepted."""
    context_id: int | None = None
    in_data_set: bool = False
    command: bytearray = field(default_factory=bytearray)
    data_bytes: int = 0

    def feed(self, body: memoryview) -> None:
        """Check the presentation data values of one P-DATA-TF PDU.

        Raises
        ------
        GuardError
            If a length points outside the PDU, contexts or kinds of fragments are mixed, the
            command set is none, or the message outgrows its limit.
        """
        at = 0
        while at < len(body):
            if at + 6 > len(body):
                raise GuardError("a presentation data value is cut off")
            length, context_id, control = struct.unpack_from(">LBB", body, at)
            if length < _PDV_OVERHEAD or at + 4 + length > len(body):
                raise GuardError("a presentation data value does not fit its PDU")
            self._fragment(context_id, control, body[at + 6 : at + 4 + length])
            at += 4 + length

    @property
    def under_way(self) -> bool:
        """Whether a message has begun whose end has not been seen."""
        return self.data_bytes > 0 or (bool(self.command) and not self.in_data_set)

    def _fragment(self, context_id: int, control: int, fragment: memoryview) -> None:
        last = bool(control & _LAST)
        if control & _COMMAND:
            if self.data_bytes:
                raise GuardError("a command set inside a data set")
            if self.in_data_set:
                self._reset()  # the last command announced no data set
            self._require_context(context_id)
            self.command += fragment
            if len(self.command) > COMMAND_LIMIT:
                raise GuardError("the command set is too long")
            if last:
                require_command(self.command)
            self.in_data_set = last
        else:
            if not self.in_data_set:
                raise GuardError("a data set before its command set")
            self._require_context(context_id)
            self.data_bytes += len(fragment)
            if self.data_bytes > self.object_limit:
                raise GuardError("the data set is longer than the configured limit")
            if last:
                self._reset()

    def _require_context(self, context_id: int) -> None:
        if context_id not in self.accepted:
            raise GuardError("a presentation context that was not accepted")
        if self.context_id is None:
            self.context_id = context_id
        elif self.context_id != context_id:
            raise GuardError("one message on two presentation contexts")

    def _reset(self) -> None:
        self.context_id = None
        self.in_data_set = False
        self.command.clear()
        self.data_bytes = 0


def require_association_request(body: bytes) -> None:
    """Check that pynetdicom can decode and negotiate a request; else its threads would die.

    Raises
    ------
    GuardError
        If it cannot be decoded, or a context has a bad id or lacks a syntax (PS3.8 9.3.2).
    """
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(struct.pack(">BBL", ASSOCIATE_RQ, 0, len(body)) + body)
        contexts = pdu.to_primitive().presentation_context_definition_list
        ids = [context.context_id for context in contexts]
        sound = len(set(ids)) == len(ids) > 0 and all(
            context.abstract_syntax and context.transfer_syntax for context in contexts
        )
    except Exception as error:
        raise GuardError("the association request cannot be decoded") from error
    if not sound:
        raise GuardError("the association request has unusable presentation contexts")


def require_command(command: bytes | bytearray) -> None:
    """Check that pynetdicom can read a command set; on what this refuses, its thread would die.

    Raises
    ------
    GuardError
        If it is not Implicit VR Little Endian of group 0000, or lacks field or data set type.
    """
    numbers: dict[int, int] = {}
    at = 0
    while at < len(command):
        if at + 8 > len(command):
            raise GuardError("the command set is cut off")
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8
        if group != 0 or at + length > len(command):
            raise GuardError("an element does not fit the command set")
        if element in (_COMMAND_FIELD, _DATA_SET_TYPE) and length == _US_LENGTH:
            numbers[element] = int.from_bytes(command[at : at + length], "little")
        at += length
    if _DATA_SET_TYPE not in numbers or numbers.get(_COMMAND_FIELD) not in _COMMAND_FIELDS:
        raise GuardError("the command set names no command")


@dataclass(slots=True)
class PduReader:
    """Reads PDUs for pynetdicom: bounded in length, bounded in time, checked.

    pynetdicom asks for the 6 bytes of a header and then for the body; `recv` keeps that contract
    and knows from the header which of the two comes next.
    """

    connection: socket.socket
    progress: MessageProgress
    deadline_s: float
    """Seconds for one whole PDU, from its first byte on."""
    monotonic: Callable[[], float]
    last_type: int | None = field(default=None, init=False)
    """Type of the newest PDU: how the peer ended, when the connection is gone."""
    _body_type: int | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)

    def recv(self, count: int) -> bytearray:
        """Return exactly `count` bytes, or fewer where the peer closed the connection.

        Raises
        ------
        GuardError
            If the PDU is too long, too slow or malformed.
        """
        if self._body_type is None:
            self._deadline = self.monotonic() + self.deadline_s
            header = self._read(_HEADER_LENGTH)
            if len(header) == _HEADER_LENGTH:
                self._expect(header)
            return header
        body_type, self._body_type = self._body_type, None
        body = self._read(count)
        if len(body) < count:
            return body
        if body_type == ASSOCIATE_RQ:
            require_association_request(bytes(body))
        if body_type == P_DATA:
            with memoryview(body) as view:
                self.progress.feed(view)
        return body

    def cut(self) -> None:
        """Close the connection in both directions; harmless when it is closed."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _expect(self, header: bytearray) -> None:
        pdu_type, _, length = struct.unpack(">BBL", header)
        limit = LENGTH_LIMITS.get(pdu_type)
        if limit is None:
            return  # pynetdicom answers an unknown type with A-ABORT and reads no body
        if length > limit:
            raise GuardError(f"a PDU of type {pdu_type} announces {length} bytes")
        self._body_type = self.last_type = pdu_type

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        got = 0
        while got < count:
            remaining = self._deadline - self.monotonic()
            if remaining <= 0 or not select.select([self.connection], [], [], remaining)[0]:
                raise GuardError("the PDU did not arrive in time")
            acknowledge_at_once(self.connection)
            read = self.connection.recv_into(view[got:])
            if read == 0:
                break
            got += read
        view.release()
        del data[got:]
        return data


class Verdict(StrEnum):
    """Whether a connection may stay."""

    ADMITTED = "ADMITTED"
    ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"
    TOO_MANY_FROM_ADDRESS = "TOO_MANY_FROM_ADDRESS"
    TOO_MANY = "TOO_MANY"


class Admission:
    """Decides on a TCP connection before any byte of it is read, and counts those that wait.

    Connections that have not become an association yet are counted per address and in total;
    an established association leaves this count and falls under `max_associations`.
    """

    def __init__(self, networks: Iterable[Network], *, per_address: int, in_total: int) -> None:
        self._networks = tuple(networks)
        self._per_address = per_address
        self._in_total = in_total
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, address: str) -> Verdict:
        """Judge a new connection, and count it when it may stay."""
        if not contains(self._networks, address):
            return Verdict.ADDRESS_NOT_ALLOWED
        with self._lock:
            if self._waiting[address] >= self._per_address:
                return Verdict.TOO_MANY_FROM_ADDRESS
            if self._waiting.total() >= self._in_total:
                return Verdict.TOO_MANY
            self._waiting[address] += 1
        return Verdict.ADMITTED

    def leave(self, address: str) -> None:
        """Take a connection off the count: it is established, or gone."""
        with self._lock:
            self._waiting[address] -= 1
            if self._waiting[address] <= 0:
                del self._waiting[address]


class Occasionally:
    """Lets one of many equal log lines through: a hostile peer must not fill the disk."""

    _MOST_KEYS: Final = 4096

    def __init__(self, period_s: float, monotonic: Callable[[], float]) -> None:
        self._period_s = period_s
        self._monotonic = monotonic
        self._last: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def allows(self, key: Hashable) -> bool:
        """Tell whether a line with this key may be written now."""
        now = self._monotonic()
        with self._lock:
            last = self._last.get(key)
            if last is not None and now - last < self._period_s:
                return False
            if len(self._last) >= self._MOST_KEYS:
                self._last.clear()
            self._last[key] = now
        return True


def contains(networks: tuple[Network, ...], address: str) -> bool:
    """Tell whether `address` lies in one of `networks`; no network at all means any address."""
    if not networks:
        return True
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    return any(ip in network for network in networks if network.version == ip.version)
