"""One connection from its first byte to its last: handshake, association, messages, end.

The acceptor's half of the state machine of PS3.8 9.2, read top to bottom in one thread: a request
within its deadline (Sta2), our decision (Sta3), messages (Sta6), and after a release or an abort
the wait for the peer to close (Sta13). What a peer may not do ends its own connection with an
A-ABORT, and nothing else.
"""

import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from node.domain import Clock, Door, Source, Uid
from node.errors import NodeError
from node.log import event
from node.scp import negotiation, wire
from node.scp.admission import Occasionally, WaitingRoom, contains
from node.scp.commands import (
    AFFECTED_SOP_INSTANCE,
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    N_REQUESTS,
    response_to,
)
from node.scp.errors import AbortReason, ProtocolError
from node.scp.messages import Begun, Reassembly
from node.scp.negotiation import Context, Negotiation, Rejection, Request
from node.scp.services import Answered, Exchange, Message, Reply, Small
from node.scp.session import Session, Sessions
from node.scp.settings import ReceiverSettings
from node.scp.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION, answer
from node.scp.storing import begin_store
from node.sockets import tune
from node.tls import HandshakeFailed, identities, shake_hands, wrapped

_log = logging.getLogger(__name__)

_USER: Final = 0
_PROVIDER: Final = 2
"""Sources of an A-ABORT (PS3.8 table 9-26): we as an application, or a rule that was broken."""

_CLOSE_S: Final = 1.0
"""Longest wait for the peer to close after our last PDU (ARTIM timer of PS3.8 9.1.5)."""
_LEAST_BROUGHT: Final = 16 * 1024
"""Bytes of a message that a peer must bring while we wait for it as long as an idle peer may be
silent: at 60 s a line of 2 kbit/s would do."""
_MOST_DRAINED: Final = 4 * 1024 * 1024
"""Bytes that are read and dropped meanwhile: closing on unread bytes would destroy that PDU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What all connections of a receiver share."""

    settings: ReceiverSettings
    door: Door
    clock: Clock
    sessions: Sessions
    negotiation: Negotiation
    operations: Mapping[tuple[Uid, int], Callable[[Message], Reply]]
    """(SOP class, command field) -> operation of a DIMSE-N service."""
    waiting: WaitingRoom
    seldom: Occasionally
    stop: wire.StopSignal


class Connection:
    """A TCP connection that was accepted; `run` is the whole life of its thread.

    Parameters
    ----------
    connection : socket.socket
    address : str
        IP address of the peer.
    reception : Reception
    context : ssl.SSLContext, optional
        For a connection to the TLS port.
    """

    def __init__(
        self,
        connection: socket.socket,
        address: str,
        reception: Reception,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self._connection = connection
        self._shared = reception
        self._context = context
        self._id = secrets.token_hex(4)
        self._was_cut = False

    def run(self) -> None:
        """Serve the peer until it goes, or has to."""
        try:
            self._talk()
        except Exception as error:  # noqa: BLE001 - the edge of the thread
            event(_log, "connection_failed", level=logging.ERROR, error=error,
                  assoc=self._id, address=self.address)  # fmt: skip
        finally:
            self._shared.waiting.leave(self)
            self.close()

    def close(self) -> None:
        """Give the connection back to the system."""
        self._connection.close()

    def cut(self) -> None:
        """Close the connection in both directions, from any thread; harmless when it is closed."""
        self._was_cut = True
        with suppress(OSError):
            # not the method of an SSLSocket, which would forget the encryption under its thread
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    # -- before the association --------------------------------------------------------------

    def _talk(self) -> None:
        try:
            if self._context is not None:
                self._secure(self._context)
            tune(self._connection)
        except HandshakeFailed as error:
            self._tell_seldom("tls_refused", str(error))
            return
        except OSError:
            return  # reset by the peer meanwhile
        stream = wire.PduStream(self._connection, self._shared.clock.monotonic, self._shared.stop)
        session: Session | None = None
        end = "LOST"
        try:
            request = self._requested(stream)
            session = None if request is None else self._judged(stream, request)
            if request is not None and session is not None:
                end = self._associated(stream, request, session)
        except ProtocolError as error:
            self._tell_seldom("connection_cut", str(error))
            end = self._aborted(stream, _PROVIDER, error.reason)
        except TimeoutError:
            if session is not None:
                end = self._aborted(stream, _PROVIDER, AbortReason.NOT_SPECIFIED)
        except OSError:
            pass  # LOST: there is nobody left to tell
        finally:
            if session is not None:
                self._shared.sessions.end(session, end)
        self._end_stream()

    def _secure(self, context: ssl.SSLContext) -> None:
        """Do the TLS handshake on a socket that `cut` can reach from its first byte on."""
        self._connection = secure = wrapped(self._connection, context)
        if self._was_cut:  # perhaps only the empty shell that the TCP socket is now
            self.cut()
        shake_hands(secure, seconds=self._shared.settings.request_timeout_s)

    def _requested(self, stream: wire.PduStream) -> Request | None:
        """Return the request that a connection begins with, None when there is none to answer."""
        pdu = stream.read_within(self._shared.settings.request_timeout_s)
        if pdu is None or pdu.type == wire.ABORT:
            return None
        if pdu.type != wire.ASSOCIATE_RQ:
            raise ProtocolError("a PDU before the association", reason=AbortReason.UNEXPECTED_PDU)
        body = bytes(pdu.body)
        request = negotiation.read_request(body)
        flaw = negotiation.flaw(request, body)
        if flaw is not None:
            self._rejected(stream, request, flaw)
            return None
        return request

    def _judged(self, stream: wire.PduStream, request: Request) -> Session | None:
        """Return the session of an association that may be, None when it was rejected."""
        settings = self._shared.settings
        rejection = self._rejection(request)
        if rejection is None:
            session = self._shared.sessions.begin(
                Source(
                    calling_ae_title=request.calling_ae_title,
                    called_ae_title=request.called_ae_title,
                    address=self.address,
                    association_id=self._id,
                ),
                in_total=settings.max_associations,
                per_address=settings.max_per_address,
            )
            if session is not None:
                return session
            rejection = negotiation.LOCAL_LIMIT_EXCEEDED
        self._rejected(stream, request, rejection)
        return None

    def _rejection(self, request: Request) -> Rejection | None:
        settings, calling = self._shared.settings, request.calling_ae_title
        if request.called_ae_title not in settings.ae_titles:
            return negotiation.CALLED_NOT_RECOGNIZED
        if self._context is None and calling in settings.tls_only:
            return negotiation.CALLING_NOT_RECOGNIZED
        if not settings.accept_unknown and not contains(
            settings.allowed.get(calling, ()), self.address
        ):
            return negotiation.CALLING_NOT_RECOGNIZED
        wanted = settings.tls_identities.get(calling)
        if wanted and not wanted & self._identities():
            return negotiation.CERTIFICATE_OF_ANOTHER
        return None

    def _identities(self) -> frozenset[str]:
        """Return what the certificate of the peer says that it is; nothing without TLS."""
        secure = self._connection
        return identities(secure) if isinstance(secure, ssl.SSLSocket) else frozenset()

    def _rejected(self, stream: wire.PduStream, request: Request, rejection: Rejection) -> None:
        calling, called = request.calling_ae_title, request.called_ae_title
        if self._shared.seldom.allows((self.address, calling, called, rejection)):
            _warn(
                "association_rejected",
                assoc=self._id,
                calling=calling,
                called=called,
                address=self.address,
                reason=rejection.why,
            )
        stream.send(negotiation.reject(rejection), seconds=self._shared.settings.pdu_timeout_s)

    # -- the association -----------------------------------------------------------------------

    def _associated(self, stream: wire.PduStream, request: Request, session: Session) -> str:
        """Serve an association; return how it ended."""
        acceptance, contexts = self._shared.negotiation.accept(request)
        stream.send(acceptance, seconds=self._shared.settings.pdu_timeout_s)
        self._shared.waiting.leave(self)
        try:
            self._shared.sessions.record_opening(session)
        except NodeError as error:  # C-ECHO goes on; a C-STORE tries again and is answered 0xA700
            _warn("association_not_recorded", assoc=self._id, reason=str(error))
        dialog = _Dialog(self._shared, session, contexts, stream, request.maximum_length)
        try:
            return self._served(stream, dialog)
        finally:
            dialog.discard()

    def _served(self, stream: wire.PduStream, dialog: "_Dialog") -> str:
        settings = self._shared.settings
        while True:
            pdu_s = settings.pdu_timeout_s
            try:
                if dialog.under_way:
                    begun = self._shared.clock.monotonic()
                    pdu = stream.read(idle_s=pdu_s, pdu_s=pdu_s)
                    dialog.waited(self._shared.clock.monotonic() - begun)
                else:
                    pdu = stream.read_idle(idle_s=settings.idle_timeout_s, pdu_s=pdu_s)
            except wire.Stopped:
                return self._aborted(stream, _USER, AbortReason.NOT_SPECIFIED)
            if pdu is None:
                return "LOST"
            if pdu.type == wire.P_DATA:
                dialog.take(pdu.body)
            elif pdu.type == wire.RELEASE_RQ:
                end = "ABORTED" if dialog.under_way else "RELEASED"  # an object got lost with it
                # durable before the answer: a peer that was answered never comes back, so a node
                # that dies in between must still know that this association ended in order
                self._shared.sessions.end(dialog.session, end)
                stream.send(wire.RELEASE_RP, seconds=settings.pdu_timeout_s)
                return end
            elif pdu.type == wire.ABORT:
                return "ABORTED"
            else:
                raise ProtocolError(
                    f"a PDU of type {pdu.type} in an association",
                    reason=AbortReason.UNEXPECTED_PDU,
                )

    # -- the end -------------------------------------------------------------------------------

    def _aborted(self, stream: wire.PduStream, source: int, reason: AbortReason) -> str:
        with suppress(OSError):
            stream.send(wire.abort(source, reason), seconds=_CLOSE_S)
        return "ABORTED"

    def _end_stream(self) -> None:
        """Let the peer read our last PDU: close our half, and wait a moment for the other."""
        deadline = time.monotonic() + _CLOSE_S
        drained = 0
        if isinstance(self._connection, ssl.SSLSocket):
            self._connection.settimeout(_CLOSE_S)
            with suppress(OSError, ValueError):
                self._connection.unwrap()  # tells the peer that nothing was cut off
        with suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_WR)
            while drained < _MOST_DRAINED and (left := deadline - time.monotonic()) > 0:
                self._connection.settimeout(left)
                got = len(socket.socket.recv(self._connection, 65536))
                if not got:
                    return
                drained += got

    def _tell_seldom(self, action: str, reason: str) -> None:
        if self._shared.seldom.allows((self.address, action, reason)):
            _warn(action, assoc=self._id, address=self.address, reason=reason)


class _Dialog:
    """The messages of one association: each request becomes an exchange, each end a response."""

    def __init__(
        self,
        reception: Reception,
        session: Session,
        contexts: Mapping[int, Context],
        stream: wire.PduStream,
        peer_maximum: int,
    ) -> None:
        self._shared = reception
        self.session = session
        self._contexts = contexts
        self._stream = stream
        self._peer_maximum = peer_maximum
        self._reassembly = Reassembly(contexts, reception.settings.max_object_bytes)
        self._begun: Begun | None = None
        self._exchange: Exchange | None = None
        self._waited_s = 0.0
        self._brought = 0

    @property
    def under_way(self) -> bool:
        """Whether a message has begun that is not answered."""
        return self._reassembly.under_way

    def take(self, body: memoryview) -> None:
        """Take the body of a P-DATA PDU, and answer what it completes.

        Raises
        ------
        ProtocolError
            See `Reassembly.feed`; a response that nobody asked for; a request without an id.
        OSError
            The answer could not be sent.
        """
        self._brought += len(body)
        for part in self._reassembly.feed(body):
            if isinstance(part, Begun):
                self._begin(part)
                complete = not part.command.has_data_set
            else:
                if self._exchange is not None:
                    self._exchange.write(part.data)
                complete = part.last
            if complete:
                self._answer()

    def waited(self, seconds: float) -> None:
        """Note how long the peer let us wait within a message; our own slowness does not count.

        Raises
        ------
        ProtocolError
            It holds the association with PDUs that bring next to nothing.
        """
        self._waited_s += seconds
        if self._waited_s < self._shared.settings.idle_timeout_s:
            return
        if self._brought < _LEAST_BROUGHT:
            raise ProtocolError("the message comes too slowly", reason=AbortReason.NOT_SPECIFIED)
        self._waited_s, self._brought = 0.0, 0

    def discard(self) -> None:
        """Forget the request that is under way."""
        if self._exchange is not None:
            self._exchange.discard()
            self._exchange = None

    def _begin(self, begun: Begun) -> None:
        command = begun.command
        if command.field == C_CANCEL_RQ:
            return  # nothing runs that could be canceled (PS3.7 9.3.2.3)
        if not command.is_request:
            raise ProtocolError("a response to nothing", reason=AbortReason.UNEXPECTED_PDU)
        if command.message_id is None:
            raise ProtocolError("a request without a message id")
        self._begun = begun
        self._exchange = self._opened(begun)

    def _opened(self, begun: Begun) -> Exchange:
        command, context = begun.command, self._contexts[begun.context_id]
        if command.field == C_ECHO_RQ:
            return Answered(Reply(status=SUCCESS))
        if command.field == C_STORE_RQ:
            return begin_store(
                self._shared.door, self._shared.sessions, self.session, context, command
            )
        operation = self._shared.operations.get((context.abstract_syntax, command.field))
        if operation is not None:
            return Small(operation, command, context.transfer_syntax, self.session.source)
        dimse_n = command.field in N_REQUESTS
        return Answered(
            Reply(status=UNRECOGNIZED_OPERATION if dimse_n else SOP_CLASS_NOT_SUPPORTED)
        )

    def _answer(self) -> None:
        begun, exchange = self._begun, self._exchange
        self._begun = self._exchange = None
        self._waited_s, self._brought = 0.0, 0
        if begun is None or exchange is None:
            return
        reply = self._finished(exchange)
        if begun.command.field == C_STORE_RQ:
            self.session.judged(begun.command.uid(AFFECTED_SOP_INSTANCE), reply.status == SUCCESS)
        if reply.status != SUCCESS and isinstance(exchange, Answered):  # the others told why
            _warn(
                "request_refused",
                assoc=self.session.source.association_id,
                command=f"0x{begun.command.field:04X}",
                status=f"0x{reply.status:04X}",
            )
        answer_pdus = wire.p_data(
            begun.context_id,
            response_to(
                begun.command,
                status=reply.status,
                comment=reply.comment,
                data_set=bool(reply.data),
            ),
            command=True,
            maximum=self._peer_maximum,
        )
        if reply.data:
            answer_pdus += wire.p_data(
                begun.context_id, reply.data, command=False, maximum=self._peer_maximum
            )
        self._stream.send(answer_pdus, seconds=self._shared.settings.pdu_timeout_s)

    def _finished(self, exchange: Exchange) -> Reply:
        try:
            return exchange.finish()
        except Exception as error:  # noqa: BLE001 - the edge: every error becomes a status
            expected = isinstance(error, NodeError)
            event(_log, "request_failed", level=logging.WARNING if expected else logging.ERROR,
                  error=None if expected else error, kind=type(error).__name__,
                  assoc=self.session.source.association_id)  # fmt: skip
            told = answer(error)
            return Reply(status=told.status, comment=told.comment)


def _warn(action: str, **fields: str) -> None:
    event(_log, action, level=logging.WARNING, error=None, **fields)
