"""An association that the node opens: one thread, one socket, a deadline for everything.

pynetdicom encodes and decodes the negotiation; the rest is done here. The library's own requestor
runs two threads that poll, and under load one of them takes a response that the other waits for
(measured 9 of 2,611), so a series of 200 would fail every second time. Here one thread sends and
then reads: there is nobody who could lose an answer. Data sets are cut into PDUs straight from
the stored file (PS3.8 9.3, PS3.7 9.1).
"""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context
from typing_extensions import override

from node.domain import AETitle, Uid
from node.errors import AssociationRejected, PeerBusy, PeerUnreachable
from node.scu.dimse import (
    C_ECHO_RQ,
    C_STORE_RQ,
    Elements,
    Fragment,
    MalformedMessage,
    Response,
    c_echo_rq,
    c_store_rq,
    fragment_length,
    fragments,
    has_data_set,
    p_data,
    read_command,
    read_response,
    response_to,
)
from node.sockets import acknowledge_at_once, tune
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.tls import HandshakeFailed, handshake, identities

MAXIMUM_PDU_LENGTH: Final = 131_072
"""Announced, and the most we send in one PDU where the peer has no limit; in bytes."""

MAXIMUM_CONTEXTS: Final = 128
"""Presentation contexts of one association: odd ids up to 255 (PS3.8 9.3.2.2)."""

VERIFICATION: Final = Uid("1.2.840.10008.1.1")

_LONGEST_PDU: Final = 1024 * 1024
_BLOCK: Final = 128 * 1024
"""Bytes read from a file at a time, into memory that stays warm: the peer begins to work on the
first of them while we read the next (measured: 1 MiB at a time is a tenth slower)."""
_READ: Final = 4096
"""Bytes taken off the socket at a time where no more is known to come: a whole response."""
_MOST_FRAGMENTS: Final = 256
"""PDUs per system call; the kernel takes 1024 buffers, two a PDU."""
_LEAST_BROUGHT: Final = 64 * 1024
"""Bytes of a data set that a peer must bring in each response time."""
_RELEASE_S: Final = 5.0

_MIXED: Final = "with a message on two presentation contexts"
_MISPLACED: Final = {
    True: "with data before its command",
    False: "with a command inside a data set",
}
"""Whether a command set was awaited -> what came instead."""

_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 2, 3, 4, 5, 6, 7
_RELEASE_RQ_PDU: Final = struct.pack(">BBLL", _RELEASE_RQ, 0, 4, 0)
_RELEASE_RP_PDU: Final = struct.pack(">BBLL", _RELEASE_RP, 0, 4, 0)
_ABORT_PDU: Final = struct.pack(">BBLBBBB", _ABORT, 0, 4, 0, 0, 0, 0)

_REJECTIONS: Final[Mapping[tuple[int, int], tuple[str, str]]] = {
    (1, 1): ("no reason given", "look at the log of the peer"),
    (1, 2): ("application context not supported", "the peer does not speak DICOM as we do"),
    (1, 3): ("our AE title is not recognized", "the peer must know our AE title, host and port"),
    (1, 7): ("called AE title is not recognized", "correct the peer's ae_title in config.yaml"),
    (2, 1): ("no reason given", "look at the log of the peer"),
    (2, 2): ("protocol version not supported", "the peer speaks another protocol version"),
    (3, 1): ("temporary congestion", "the peer is busy; it is tried again"),
    (3, 2): ("its limit of associations is reached", "the peer is busy; it is tried again"),
}
"""(source, reason) of an A-ASSOCIATE-RJ -> meaning, hint (PS3.8 table 9-21)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAE:
    """A remote application entity and how long it may take."""

    ae_title: AETitle
    host: str
    port: int
    calling_ae_title: AETitle
    """Ours, as the peer knows it."""
    connect_timeout_s: float = 10.0
    """For the connection, and again for the answer to the association request."""
    response_timeout_s: float = 60.0
    """For one response, and for any progress while sending."""
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """Where given, the peer must show a certificate that names its host."""
    tls_name: str | None = None
    """Name in that certificate, where it is not the host."""
    tls_identities: frozenset[str] = frozenset()
    """What that certificate must be, one of these (`node.tls.identity`); empty for any."""

    @override
    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class Context(NamedTuple):
    """A presentation context: one SOP class in one syntax, so that no acceptor chooses for us."""

    sop_class_uid: Uid
    transfer_syntax_uid: Uid


class Roles(NamedTuple):
    """What we propose to be for a SOP class, where it is not the default of a requestor (SCU)."""

    scu: bool
    scp: bool


class Message(NamedTuple):
    """A DIMSE message of the peer."""

    context_id: int
    command: Elements
    data: bytes
    """The encoded data set; empty where there is none."""


class Association:
    """An established association; a context manager that releases, or aborts after an error."""

    def __init__(
        self,
        connection: socket.socket,
        peer: PeerAE,
        *,
        proposed: Collection[Context],
        acknowledge: bool,
    ) -> None:
        self.peer = peer
        self.proposed = frozenset(proposed)
        self.accepted: Mapping[Context, int] = {}
        """Context -> its id."""
        self._connection = connection
        self._acknowledge = acknowledge
        self._fragment = fragment_length(0, ours=MAXIMUM_PDU_LENGTH)
        self._message_id = 0
        self._read_ahead = bytearray()
        self._block = bytearray()
        self._unread: deque[Fragment] = deque()
        """Fragments of the last PDU behind the end of the last message."""

    @classmethod
    def open(
        cls,
        peer: PeerAE,
        contexts: Sequence[Context],
        *,
        roles: Mapping[Uid, Roles] | None = None,
        acknowledge: bool = True,
    ) -> "Association":
        """Connect and negotiate.

        Parameters
        ----------
        peer : PeerAE
        contexts : sequence of Context, at most `MAXIMUM_CONTEXTS`
        roles : mapping, optional
            SOP Class UID -> roles to propose (PS3.7 D.3.3.4).
        acknowledge : bool
            False leaves delayed acknowledgments on, to measure what a peer makes of them.

        Raises
        ------
        PeerUnreachable
            No connection, no answer in time, an abort, an answer that is not DICOM, or no TLS.
        AssociationRejected, PeerBusy
            The peer rejected the association, for good or for now.
        """
        request = _associate_rq(peer, contexts, roles or {})
        connection = _connect(peer)
        association = cls(connection, peer, proposed=contexts, acknowledge=acknowledge)
        try:
            association._send([request])
            association._read_answer(contexts)
        except BaseException:
            association.abort()
            raise
        return association

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    def echo(self) -> Response:
        """Send a C-ECHO and return the answer.

        Raises
        ------
        PeerUnreachable
            The association is gone, or the answer did not come in time.
        KeyError
            The peer did not accept Verification.
        """
        context_id = next(i for c, i in self.accepted.items() if c.sop_class_uid == VERIFICATION)
        message_id = self._next_message()
        command = c_echo_rq(message_id=message_id, sop_class_uid=VERIFICATION)
        self._send(p_data(context_id, command, command=True, last=True))
        return self._read_response(request=C_ECHO_RQ, message_id=message_id)

    def begin_store(
        self, context: Context, sop_instance_uid: Uid, data: BinaryIO, length: int
    ) -> None:
        """Send one object; `end_store` reads the answer, and nothing may come in between.

        Parameters
        ----------
        context : Context
            An accepted one; `data` is encoded in its transfer syntax.
        sop_instance_uid : Uid
        data : BinaryIO
            Positioned at the first byte of the data set.
        length : int
            Bytes of the data set.

        Raises
        ------
        PeerUnreachable
            The association is gone; whether the peer keeps the object is unknown.
        OSError
            `data` could not be read; the association is unusable and must be aborted.
        """
        context_id = self.accepted[context]
        message_id = self._next_message()
        command = c_store_rq(
            message_id=message_id,
            sop_class_uid=context.sop_class_uid,
            sop_instance_uid=sop_instance_uid,
        )
        buffers = p_data(context_id, command, command=True, last=True)
        per_block = max(1, min(_MOST_FRAGMENTS, _BLOCK // self._fragment)) * self._fragment
        if len(self._block) < per_block:
            self._block = bytearray(per_block)
        sent = 0
        while sent < length:
            block = memoryview(self._block)[: min(per_block, length - sent)]
            _fill(block, data)
            for at in range(0, len(block), self._fragment):
                fragment = block[at : at + self._fragment]
                sent += len(fragment)
                buffers += p_data(context_id, fragment, command=False, last=sent == length)
            self._send(buffers)
            buffers = []

    def end_store(self) -> Response:
        """Return the answer to the object that was sent.

        Raises
        ------
        PeerUnreachable
            The association is gone; whether the peer keeps the object is unknown.
        """
        return self._read_response(request=C_STORE_RQ, message_id=self._message_id)

    def send(self, context_id: int, command: bytes, data: bytes = b"") -> None:
        """Send a message whose data set fits in memory, as few PDUs as the peer allows.

        Raises
        ------
        PeerUnreachable
            The association is gone.
        """
        buffers = p_data(context_id, command, command=True, last=True)
        for at in range(0, len(data), self._fragment):
            part = memoryview(data)[at : at + self._fragment]
            last = at + self._fragment >= len(data)
            buffers += p_data(context_id, part, command=False, last=last)
        self._send(buffers)

    def receive(self, timeout_s: float, *, limit: int) -> Message:
        """Return the next message of the peer.

        Parameters
        ----------
        timeout_s : float
            For the whole message.
        limit : int
            Most bytes of its data set.

        Raises
        ------
        PeerUnreachable
            The association is gone, the time is over, or what came is no message.
        """
        try:
            return self._read_message(time.monotonic() + timeout_s, limit)
        except MalformedMessage as error:
            raise PeerUnreachable(f"{self.peer} answered {error}") from error

    def receive_command(self, timeout_s: float) -> Message:
        """Return the next message without its data set, which `data_set` yields.

        Raises
        ------
        PeerUnreachable
            As `receive`.
        """
        try:
            deadline = time.monotonic() + timeout_s
            context_id, raw = self._read_set(deadline, command=True, limit=_LONGEST_PDU)
            return Message(context_id, read_command(raw), b"")
        except MalformedMessage as error:
            raise PeerUnreachable(f"{self.peer} answered {error}") from error

    def data_set(self, message: Message, *, limit: int) -> Iterator[memoryview]:
        """Yield the data set of a message as it comes; a piece is valid until the next one.

        An object of gigabytes takes no more memory than one PDU. The peer may take its time for
        it, but has to bring something: `_LEAST_BROUGHT` in each response time.

        Raises
        ------
        PeerUnreachable
            As `receive`; also beyond `limit` bytes.
        """
        total = brought = 0
        deadline = time.monotonic() + self.peer.response_timeout_s
        try:
            while True:
                fragment = next(self._fragments(deadline))
                total, brought = total + len(fragment.data), brought + len(fragment.data)
                _belongs(fragment, message, total=total, limit=limit)
                if brought >= _LEAST_BROUGHT:
                    brought, deadline = 0, time.monotonic() + self.peer.response_timeout_s
                yield fragment.data
                if fragment.last:
                    return
        except MalformedMessage as error:
            raise PeerUnreachable(f"{self.peer} answered {error}") from error

    def answer(self, request: Message, status: int) -> None:
        """Answer a request of the peer.

        Raises
        ------
        PeerUnreachable
            The association is gone, or the request cannot be answered.
        """
        try:
            self.send(request.context_id, response_to(request.command, status))
        except MalformedMessage as error:
            raise PeerUnreachable(f"{self.peer} sent {error}") from error

    def next_message_id(self) -> int:
        """Return the id of the next request, if the association still stands.

        Raises
        ------
        PeerUnreachable
            The peer has ended it.
        """
        return self._next_message()

    def context_id(self, sop_class_uid: Uid) -> int | None:
        """Return the id of an accepted context of a SOP class, if there is one."""
        found = (i for c, i in self.accepted.items() if c.sop_class_uid == sop_class_uid)
        return next(found, None)

    def context_of(self, context_id: int) -> Context:
        """Return the accepted context of an id.

        Raises
        ------
        PeerUnreachable
            The peer spoke in a context that was not accepted.
        """
        for context, accepted in self.accepted.items():
            if accepted == context_id:
                return context
        raise PeerUnreachable(f"{self.peer} used a presentation context that it did not accept")

    def check(self) -> None:
        """Look, without waiting, whether the peer has ended the association meanwhile.

        Raises
        ------
        PeerUnreachable
            It has: by A-ABORT, by A-RELEASE-RQ, or by closing the connection.
        """
        if self._unread or self._has_spoken():
            if not self._unread:
                self._read_pdu(self.peer.connect_timeout_s)
            raise PeerUnreachable(f"{self.peer} spoke out of turn")

    def release(self) -> None:
        """Release in order; a peer that does not answer is left alone."""
        with contextlib.suppress(PeerUnreachable):
            self._send([_RELEASE_RQ_PDU])
            self._read_pdu(_RELEASE_S)
        self._connection.close()

    def abort(self) -> None:
        """Tell the peer, if it still listens, and close."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(0)
            self._connection.send(_ABORT_PDU)
        self._connection.close()

    # -- negotiation -------------------------------------------------------------------------

    def _read_answer(self, contexts: Sequence[Context]) -> None:
        pdu_type, body = self._read_pdu(self.peer.connect_timeout_s)
        if pdu_type == _ASSOCIATE_RJ:
            raise _rejection(self.peer, body)
        if pdu_type != _ASSOCIATE_AC:
            raise PeerUnreachable(f"{self.peer} answered the association request with nonsense")
        try:
            answer = A_ASSOCIATE_AC()
            answer.decode(struct.pack(">BBL", pdu_type, 0, len(body)) + body)
            self.accepted = {
                contexts[item.presentation_context_id // 2]: item.presentation_context_id
                for item in answer.presentation_context
                if item.result_reason == 0
                and item.transfer_syntax
                == contexts[item.presentation_context_id // 2].transfer_syntax_uid
            }
            self._fragment = fragment_length(
                answer.user_information.maximum_length or 0, ours=MAXIMUM_PDU_LENGTH
            )
        except Exception as error:
            raise PeerUnreachable(f"{self.peer} sent a malformed A-ASSOCIATE-AC") from error

    # -- messages ----------------------------------------------------------------------------

    def _next_message(self) -> int:
        self.check()
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _read_response(self, *, request: int, message_id: int) -> Response:
        try:
            command = self._read_command(time.monotonic() + self.peer.response_timeout_s)
            return read_response(command, request=request, message_id=message_id)
        except MalformedMessage as error:
            raise PeerUnreachable(f"{self.peer} answered {error}") from error

    def _read_command(self, deadline: float) -> Elements:
        return self._read_message(deadline, 0).command

    def _read_message(self, deadline: float, limit: int) -> Message:
        context_id, raw = self._read_set(deadline, command=True, limit=_LONGEST_PDU)
        command = read_command(raw)
        if not has_data_set(command):
            return Message(context_id, command, b"")
        if not limit:
            raise MalformedMessage("with a data set nobody asked for")
        another, data = self._read_set(deadline, command=False, limit=limit)
        if another != context_id:
            raise MalformedMessage(_MIXED)
        return Message(context_id, command, data)

    def _read_set(self, deadline: float, *, command: bool, limit: int) -> tuple[int, bytes]:
        """Return the presentation context and the bytes of a command set or a data set."""
        data = bytearray()
        contexts: set[int] = set()
        for fragment in self._fragments(deadline):
            if fragment.command != command:
                raise MalformedMessage(_MISPLACED[command])
            contexts.add(fragment.context_id)
            data += fragment.data
            if len(contexts) > 1:
                raise MalformedMessage(_MIXED)
            if len(data) > limit:
                raise MalformedMessage("with a message beyond all measure")
            if fragment.last:
                break
        return contexts.pop(), bytes(data)

    def _fragments(self, deadline: float) -> Iterator[Fragment]:
        while True:
            while self._unread:
                yield self._unread.popleft()
            pdu_type, body = self._read_pdu(deadline - time.monotonic())
            if pdu_type != _P_DATA:
                raise MalformedMessage("with another PDU than P-DATA")
            self._unread.extend(fragments(body))

    # -- bytes -------------------------------------------------------------------------------

    def _send(self, buffers: Sequence[bytes | memoryview]) -> None:
        pending = list(buffers)
        try:
            self._connection.settimeout(self.peer.response_timeout_s)
            if isinstance(self._connection, ssl.SSLSocket):  # knows no `sendmsg`
                self._connection.sendall(b"".join(pending))
                return
            while pending:
                sent = self._connection.sendmsg(pending)
                while pending and sent >= len(pending[0]):
                    sent -= len(pending.pop(0))
                if sent:
                    pending[0] = memoryview(pending[0])[sent:]
        except OSError as error:
            raise PeerUnreachable(f"lost {self.peer} while sending: {_cause(error)}") from error

    def _read_pdu(self, timeout_s: float) -> tuple[int, bytes]:
        """Return type and body of the next PDU; an end of the association raises."""
        deadline = time.monotonic() + timeout_s
        pdu_type, _, length = struct.unpack(">BBL", self._read(6, deadline))
        if length > _LONGEST_PDU:
            raise PeerUnreachable(f"{self.peer} announced a PDU of {length} bytes")
        body = self._read(length, deadline)
        if pdu_type == _ABORT:
            raise PeerUnreachable(f"{self.peer} aborted the association")
        if pdu_type == _RELEASE_RQ:
            with contextlib.suppress(PeerUnreachable):
                self._send([_RELEASE_RP_PDU])
            raise PeerUnreachable(f"{self.peer} released the association")
        return pdu_type, body

    def _has_spoken(self) -> bool:
        """Tell whether bytes of the peer, or the end of the connection, wait to be read."""
        if self._read_ahead:
            return True
        if not select.select([self._connection], [], [], 0)[0]:
            return isinstance(self._connection, ssl.SSLSocket) and self._connection.pending() > 0
        if not isinstance(self._connection, ssl.SSLSocket):
            return True
        # TLS 1.3 sends session tickets after the handshake: readable, and yet nothing was said
        try:
            self._connection.settimeout(0)
            self._read_ahead += self._connection.recv(_READ)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        return True

    def _read(self, count: int, deadline: float) -> bytes:
        try:
            while len(self._read_ahead) < count:
                # 0 would switch to non-blocking; a deadline that has passed means "at once"
                self._connection.settimeout(max(1e-3, deadline - time.monotonic()))
                if self._acknowledge:
                    acknowledge_at_once(self._connection)
                read = self._connection.recv(max(_READ, count - len(self._read_ahead)))
                if not read:
                    raise PeerUnreachable(f"{self.peer} closed the connection")
                self._read_ahead += read
        except TimeoutError as error:
            raise PeerUnreachable(f"no answer from {self.peer} in time") from error
        except OSError as error:
            raise PeerUnreachable(f"lost {self.peer}: {_cause(error)}") from error
        data = bytes(self._read_ahead[:count])
        del self._read_ahead[:count]
        return data


def _fill(block: memoryview, data: BinaryIO) -> None:
    """Read exactly as many bytes as `block` has room for.

    Raises
    ------
    OSError
        There are fewer.
    """
    got = 0
    while got < len(block):
        read = data.readinto(block[got:])  # type: ignore[attr-defined]  # every file of ours has it
        if not read:
            raise OSError("the file is shorter than it was")
        got += read


def _belongs(fragment: Fragment, message: Message, *, total: int, limit: int) -> None:
    """Refuse a fragment that is no part of the data set of `message`."""
    if fragment.command:
        raise MalformedMessage(_MISPLACED[False])
    if fragment.context_id != message.context_id:
        raise MalformedMessage(_MIXED)
    if total > limit:
        raise MalformedMessage("with a message beyond all measure")


def _connect(peer: PeerAE) -> socket.socket:
    """Return a connection with our socket options, secured where the peer asks for it."""
    try:
        connection = socket.create_connection((peer.host, peer.port), peer.connect_timeout_s)
        tune(connection)
        if peer.tls is not None:
            connection = secure = handshake(
                connection,
                peer.tls,
                seconds=peer.connect_timeout_s,
                host=peer.tls_name or peer.host,
            )
            if peer.tls_identities and not peer.tls_identities & identities(secure):
                secure.close()
                raise HandshakeFailed("its certificate is not the one under tls_identity")
    except OSError as error:
        raise PeerUnreachable(f"no connection to {peer}: {_cause(error)}") from error
    return connection


def _associate_rq(peer: PeerAE, contexts: Sequence[Context], roles: Mapping[Uid, Roles]) -> bytes:
    if not 0 < len(contexts) <= MAXIMUM_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts; 1 to {MAXIMUM_CONTEXTS} fit")
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = peer.calling_ae_title
    primitive.called_ae_title = peer.ae_title
    length, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = MAXIMUM_PDU_LENGTH
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [length, implementation, version, *map(_role, roles.items())]
    proposed = []
    for index, context in enumerate(contexts):
        item = build_context(context.sop_class_uid, context.transfer_syntax_uid)
        item.context_id = 2 * index + 1
        proposed.append(item)
    primitive.presentation_context_definition_list = proposed
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _role(proposed: tuple[Uid, Roles]) -> SCP_SCU_RoleSelectionNegotiation:
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid, (item.scu_role, item.scp_role) = proposed
    return item


def _rejection(peer: PeerAE, body: bytes) -> AssociationRejected | PeerUnreachable:
    if len(body) < 4:  # noqa: PLR2004 - reserved, result, source, reason
        return PeerUnreachable(f"{peer} sent a malformed A-ASSOCIATE-RJ")
    _, result, source, reason = body[:4]
    meaning, hint = _REJECTIONS.get(
        (source, reason), (f"source {source}, reason {reason}", "look at the log of the peer")
    )
    kind = AssociationRejected if result == 1 else PeerBusy
    return kind(f"{peer} rejected the association: {meaning}", hint=hint)


def _cause(error: OSError) -> str:
    """Return the system's words for an error."""
    return error.strerror or str(error) or type(error).__name__
