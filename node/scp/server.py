"""The storage SCP: associations in, durable objects out, one status for each.

pynetdicom negotiates and speaks DIMSE; this module decides who may associate, hands the encoded
data set to the intake exactly as it arrived, and answers with what the intake said. Success is
written in one place, after `Door.accept` has returned. The library is used through seams that
contract tests pin, so that another acceptor can take its place: callers see `Receiver` alone.
"""

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socketserver import BaseServer
from typing import Any, Final, TypeAlias

import pydicom.config
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT
from pynetdicom.transport import ThreadedAssociationServer

from node.domain import AETitle, Clock, Source, Uid
from node.errors import ConfigError, NodeError
from node.log import bound, event
from node.scp.contexts import (
    STORAGE_CLASSES,
    STORAGE_SYNTAXES,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
)
from node.scp.guards import (
    Admission,
    GuardError,
    MessageProgress,
    Occasionally,
    PduReader,
    Verdict,
    contains,
)
from node.scp.session import Association, Session, Sessions
from node.scp.settings import Door, ReceiverSettings
from node.scp.status import (
    CANNOT_UNDERSTAND,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    answer,
)
from node.scp.waiting import sleep_until_needed, wait_for_message
from node.sockets import tune
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_log = logging.getLogger(__name__)

Happening: TypeAlias = Any
"""A `pynetdicom.evt.Event`: what a handler is called with; the library is not typed."""
Message: TypeAlias = Any
"""A DIMSE primitive of pynetdicom, or None."""

MAXIMUM_PDU_LENGTH: Final = 131_072
"""Announced to peers, in bytes; larger brings nothing, 0 (unlimited) costs a fifth of the CPU."""

CALLING_NOT_RECOGNIZED: Final = (1, 1, 3)
CALLED_NOT_RECOGNIZED: Final = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED: Final = (2, 3, 2)
"""A-ASSOCIATE-RJ (result, source, reason), PS3.8 table 9-21."""

_ACCEPTED: Final = 0x00
"""Result of an A-ASSOCIATE response (PS3.8 7.1.1.7)."""

REJECTIONS: Final = {
    CALLING_NOT_RECOGNIZED: "calling AE title not known from this address",
    CALLED_NOT_RECOGNIZED: "called AE title is not ours",
    LOCAL_LIMIT_EXCEEDED: "limit of associations reached",
}
"""Every rejection that the receiver sends -> why."""

_WAITING_CONNECTIONS: Final = 64
"""TCP connections without an association that are kept beside the associations."""


class Receiver:
    """Listens, associates and stores, until `stop`.

    Parameters
    ----------
    settings : ReceiverSettings
    door : Door
        Where objects go; each call may come from another thread.
    clock : Clock
    """

    def __init__(self, settings: ReceiverSettings, door: Door, clock: Clock) -> None:
        self._settings = settings
        self._door = door
        self._clock = clock
        known = {network for networks in settings.allowed.values() for network in networks}
        self._nobody = not settings.accept_unknown and not known
        self._admission = Admission(
            () if settings.accept_unknown else known,
            per_address=settings.max_per_address,
            in_total=settings.max_associations + _WAITING_CONNECTIONS,
        )
        self._sessions = Sessions(door, clock)
        self._seldom = Occasionally(60.0, clock.monotonic)
        self._stop_at: float | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind the port and serve in a thread.

        Raises
        ------
        ConfigError
            If the address cannot be bound.
        """
        _configure_library()
        settings = self._settings
        try:
            self._server = self._application_entity().make_server(
                (settings.host, settings.port),
                ae_title=settings.ae_titles[0],
                server_class=_Server,
                evt_handlers=self._handlers(),
                receiver=self,
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                [f"node.port: cannot listen on {settings.host}:{settings.port}: {reason}"]
            ) from error
        self._thread = threading.Thread(
            target=partial(self._server.serve_forever, poll_interval=0.2),
            name="scp-accept",
            daemon=True,
        )
        self._thread.start()
        titles = ",".join(settings.ae_titles)
        event(_log, "listening", host=settings.host, port=self.port, ae_titles=titles)

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        if self._server is None:
            raise RuntimeError("the receiver has not been started")
        return int(self._server.server_address[1])

    @property
    def alive(self) -> bool:
        """Whether connections are being accepted; for the watchdog."""
        return self._thread is not None and self._thread.is_alive() and self._stop_at is None

    @property
    def associations(self) -> int:
        """Number of established associations."""
        return self._sessions.established

    def stop(self, grace_s: float = 10.0) -> None:
        """Accept nothing new, answer the messages that are under way, then abort what is open.

        Parameters
        ----------
        grace_s : float
            Longest wait for messages under way, in seconds.
        """
        if self._server is None or self._stop_at is not None:
            return
        self._stop_at = self._clock.monotonic() + grace_s
        self._server.close()
        for association in self._sessions.open_associations():
            if association.ident is not None:
                association.join(max(0.1, self._stop_at + 1.0 - self._clock.monotonic()))
            if association.is_alive():
                association.abort()
        self.sweep()
        event(_log, "listener_stopped", port=self.port)

    def _application_entity(self) -> AE:
        settings = self._settings
        ae = AE(ae_title=settings.ae_titles[0])
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = MAXIMUM_PDU_LENGTH
        ae.maximum_associations = 1_000_000  # counted here: an idle connection is none
        ae.acse_timeout = settings.request_timeout_s
        ae.dimse_timeout = settings.idle_timeout_s
        ae.network_timeout = settings.idle_timeout_s
        ae.connection_timeout = settings.request_timeout_s
        ae.add_supported_context(VERIFICATION, list(VERIFICATION_SYNTAXES))
        for sop_class in STORAGE_CLASSES:
            ae.add_supported_context(sop_class, list(STORAGE_SYNTAXES))
        return ae

    def _handlers(self) -> list[tuple[object, Callable[[Happening], object]]]:
        return [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACSE_SENT, self._on_acse_sent),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_RELEASED, partial(self._on_end, end="RELEASED")),
            (evt.EVT_ABORTED, partial(self._on_end, end="ABORTED")),
            (evt.EVT_CONN_CLOSE, self._on_end),
        ]

    # -- connections -----------------------------------------------------------------------

    def admit(self, address: str) -> bool:
        """Judge a TCP connection before a byte of it is read; counts it when admitted."""
        if self._nobody or self._stop_at is not None:
            verdict = Verdict.ADDRESS_NOT_ALLOWED
        else:
            verdict = self._admission.enter(address)
        if verdict is not Verdict.ADMITTED and self._seldom.allows((address, verdict)):
            _warn("connection_refused", address=address, reason=str(verdict))
        return verdict is Verdict.ADMITTED

    def connection_failed(self, address: str) -> None:
        """Forget a connection that no association could be made for (out of threads)."""
        self._admission.leave(address)
        error = sys.exc_info()[1]
        event(_log, "connection_failed", level=logging.ERROR, error=error, address=address)

    def sweep(self) -> None:
        """End connections whose thread died without a word; called every moment."""
        for session in self._sessions.sweep():
            self._admission.leave(session.address)

    def _on_connection(self, happening: Happening) -> None:
        association = happening.assoc
        connection = association.dul.socket.socket
        reader = PduReader(
            connection=connection,
            progress=MessageProgress(object_limit=self._settings.max_object_bytes),
            deadline_s=self._settings.request_timeout_s,
            monotonic=self._clock.monotonic,
        )
        session = self._sessions.begin(association, happening.address[0], reader)
        association.dul.socket.recv = partial(self._receive, session)
        sleep_until_needed(association.dul)
        association.dimse.get_msg = partial(
            self._next_message, association, session, association.dimse.get_msg
        )
        with suppress(OSError):  # reset by the peer meanwhile: the next read will tell
            tune(connection)

    def _receive(self, session: Session, count: int) -> bytearray:
        try:
            return session.reader.recv(count)
        except GuardError as error:
            if self._seldom.allows((session.address, str(error))):
                _warn(
                    "connection_cut",
                    assoc=session.association_id,
                    address=session.address,
                    reason=str(error),
                )
            session.reader.cut()
            raise

    def _on_end(self, happening: Happening, *, end: str = "") -> None:
        session = self._sessions.end(happening.assoc, end)
        if session is not None:
            self._admission.leave(session.address)

    # -- associations ----------------------------------------------------------------------

    def _on_requested(self, happening: Happening) -> None:
        """Reject who may not associate; without a clear decision nobody may."""
        association = happening.assoc
        try:
            self._judge(association)
        except Exception as error:  # noqa: BLE001 - the library would swallow it and negotiate
            event(_log, "association_check_failed", level=logging.ERROR, error=error)
            association.is_aborted = True
            association.abort(block=False)
            association.kill()

    def _judge(self, association: Association) -> None:
        session = self._sessions.of(association)
        request = association.requestor.primitive
        calling, called = _title(request.calling_ae_title), _title(request.called_ae_title)
        rejection = self._rejection(calling, called, session.address)
        if rejection is None:
            return
        if self._seldom.allows((session.address, calling, called, rejection)):
            _warn(
                "association_rejected",
                assoc=session.association_id,
                calling=calling,
                called=called,
                address=session.address,
                reason=REJECTIONS[rejection],
            )
        association.is_rejected = True
        association.acse.send_reject(*rejection)
        association.kill()

    def _rejection(
        self, calling: AETitle, called: AETitle, address: str
    ) -> tuple[int, int, int] | None:
        settings = self._settings
        if called not in settings.ae_titles:
            return CALLED_NOT_RECOGNIZED
        if not settings.accept_unknown:
            networks = settings.allowed.get(calling)
            if networks is None or not contains(networks, address):
                return CALLING_NOT_RECOGNIZED
        if self.associations >= settings.max_associations:
            return LOCAL_LIMIT_EXCEEDED
        return None

    def _on_acse_sent(self, happening: Happening) -> None:
        """Note what is about to be sent, before the peer can react to it.

        After an acceptance its first message may come at once, and after our abort the connection
        may be closed before this thread goes on.
        """
        association, primitive = happening.assoc, happening.primitive
        session = self._sessions.of(association)
        if isinstance(primitive, A_ASSOCIATE) and primitive.result == _ACCEPTED:
            self._prepare(session, association)
        elif isinstance(primitive, A_ABORT | A_P_ABORT):
            session.aborted_by_us = True

    def _prepare(self, session: Session, association: Association) -> None:
        request = association.requestor.primitive
        session.reader.deadline_s = self._settings.pdu_timeout_s
        session.contexts = {
            cx.context_id: str(cx.abstract_syntax) for cx in association.accepted_contexts
        }
        session.reader.progress.accepted = frozenset(session.contexts)
        session.source = Source(
            calling_ae_title=_title(request.calling_ae_title),
            called_ae_title=_title(request.called_ae_title),
            address=session.address,
            association_id=session.association_id,
        )

    def _on_established(self, happening: Happening) -> None:
        session = self._sessions.find(happening.assoc)
        if session is None:
            return  # ended meanwhile, before anything was recorded of it
        try:
            self._sessions.record_opening(session)
        except NodeError as error:  # C-ECHO goes on; a C-STORE tries again and is answered 0xA700
            _warn("association_not_recorded", assoc=session.association_id, reason=str(error))

    # -- messages --------------------------------------------------------------------------

    def _next_message(
        self,
        association: Association,
        session: Session,
        get_msg: Callable[..., tuple[int | None, Message]],
        block: bool = False,  # noqa: FBT001, FBT002 - the signature of the wrapped method
    ) -> tuple[int | None, Message]:
        """Stand before pynetdicom's dispatch: one bad request is answered, not an abort.

        The library drops a request without UIDs (its sender waits for ever) and aborts over a
        request that does not fit its context, which would end the whole batch.
        """
        if self._stop_at is not None and self._may_stop(session, self._stop_at):
            association.abort(block=False)
            return None, None
        wait_for_message(association.dimse.msg_queue)
        context_id, message = get_msg(block=block)
        if context_id is None:
            return None, None
        status = _refusal(message, session.contexts[context_id])
        if status is None:
            return context_id, message
        if message.MessageID is None:
            association.abort(block=False)
            return None, None
        session.refused += 1
        _warn(
            "request_refused",
            assoc=session.association_id,
            request=type(message).__name__,
            status=f"0x{status:04X}",
        )
        response = type(message)()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.Status = status
        association.dimse.send_msg(response, context_id)
        return None, None

    def _may_stop(self, session: Session, stop_at: float) -> bool:
        """Tell whether a stopping node may abort: a message under way is answered first."""
        over = self._clock.monotonic() >= stop_at
        return over or session.answered_since_stop > 0 or not session.reader.progress.under_way

    def _on_store(self, happening: Happening) -> int | Dataset:
        """Answer a C-STORE: 0x0000 after the intake returned, and in no other case."""
        session = self._sessions.of(happening.assoc)
        sop_instance_uid = Uid(str(happening.request.AffectedSOPInstanceUID))
        try:
            with bound(assoc=session.association_id):
                size = self._store(session, happening, sop_instance_uid)
        except Exception as error:  # noqa: BLE001 - the edge: every error becomes a failure status
            return self._failure(session, sop_instance_uid, error)
        finally:
            session.answered_since_stop += self._stop_at is not None
        session.received += 1
        session.bytes += size
        return SUCCESS

    def _store(self, session: Session, happening: Happening, sop_instance_uid: Uid) -> int:
        source: Source = self._sessions.record_opening(session)
        dataset: memoryview = happening.request.DataSet.getbuffer()
        self._door.accept(
            dataset,
            transfer_syntax_uid=Uid(str(happening.context.transfer_syntax)),
            sop_class_uid=Uid(str(happening.request.AffectedSOPClassUID)),
            sop_instance_uid=sop_instance_uid,
            source=source,
        )
        return len(dataset)

    def _failure(self, session: Session, sop_instance_uid: Uid, error: Exception) -> Dataset:
        reply = answer(error)
        session.refused += 1
        expected = isinstance(error, NodeError)
        event(
            _log,
            "store_refused",
            level=logging.WARNING if expected else logging.ERROR,
            error=None if expected else error,
            assoc=session.association_id,
            sop=sop_instance_uid[:80],
            status=f"0x{reply.status:04X}",
            kind=type(error).__name__,
            # the text of an unexpected error may quote the data set: its traceback says enough
            reason=str(error) if expected else reply.comment,
        )
        response = Dataset()
        response.Status = reply.status
        response.ErrorComment = reply.comment
        return response


class _Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom is not typed
    """Accepts connections for a `Receiver`; asks it before a byte is read."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: object, receiver: Receiver, **kwargs: object) -> None:
        self._receiver = receiver
        super().__init__(*args, **kwargs)

    def verify_request(self, _request: object, client_address: tuple[str, int]) -> bool:
        return self._receiver.admit(client_address[0])

    def handle_error(self, _request: object, client_address: tuple[str, int]) -> None:
        self._receiver.connection_failed(client_address[0])

    def service_actions(self) -> None:
        super().service_actions()
        self._receiver.sweep()

    def close(self) -> None:
        """End `serve_forever` and close the listening socket."""
        BaseServer.shutdown(self)  # the library's own needs AE.start_server
        self.server_close()


def _refusal(message: Message, abstract_syntax: str) -> int | None:
    """Return the status that answers a request the node does not serve, or None to serve it."""
    if isinstance(message, C_ECHO):
        return None
    if isinstance(message, C_STORE):
        if not message.is_valid_request or not message.DataSet.getbuffer().nbytes:
            return CANNOT_UNDERSTAND
        return None if message.AffectedSOPClassUID == abstract_syntax else SOP_CLASS_NOT_SUPPORTED
    is_dimse_n = type(message).__name__.startswith("N_")
    return UNRECOGNIZED_OPERATION if is_dimse_n else SOP_CLASS_NOT_SUPPORTED


def _configure_library() -> None:
    """Set the process-wide options of pynetdicom and pydicom that receiving depends on."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # An over-long UID is one object's fault; the library's check would abort the batch.
    _config.VALIDATORS["UI"] = lambda _uid: (True, "")
    # pydicom's warnings quote values; the intake judges what it reads.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # Its messages repeat ours, may quote what a peer sent, and have no limit.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def _title(text: str) -> AETitle:
    return AETitle(text.strip(" \0"))


def _warn(action: str, **fields: str) -> None:
    event(_log, action, level=logging.WARNING, error=None, **fields)
