"""The storage SCP: connections in, durable objects out, one status for each.

This module listens, limits and stops; a connection's own thread (`node.scp.association`) does the
rest. pynetdicom encodes and negotiates associations; the P-DATA of a C-STORE goes from the socket
straight into the intake. Callers see `Receiver` alone.
"""

import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pydicom.config
from pynetdicom import _config

from node.domain import Clock, Door
from node.errors import ConfigError
from node.log import event
from node.scp.admission import Network, Occasionally, WaitingRoom, contains
from node.scp.association import Connection, Reception
from node.scp.negotiation import Negotiation
from node.scp.services import Service
from node.scp.session import Sessions
from node.scp.settings import ReceiverSettings
from node.scp.wire import StopSignal
from node.tls import acceptor_context

_log = logging.getLogger(__name__)

_WAITING_CONNECTIONS: Final = 64
"""TCP connections without an association that are kept beside the associations."""
_BACKLOG: Final = 128
_LOOK_S: Final = 0.2
"""Longest sleep of the accepting thread: a stop and late records are noticed this late."""
_LINE_S: Final = 60.0
"""Equal warnings are written once in so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """A bound port."""

    socket: socket.socket
    port: int
    networks: tuple[Network, ...] | None
    """Where connections may come from; None for anywhere."""
    context: ssl.SSLContext | None


class Receiver:
    """Listens, associates and stores, until `stop`.

    Parameters
    ----------
    settings : ReceiverSettings
    door : Door
        Where objects go; each call may come from another thread.
    clock : Clock
    services : sequence of Service
        DIMSE-N services that are offered beside storage.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        door: Door,
        clock: Clock,
        services: Sequence[Service] = (),
    ) -> None:
        self._settings = settings
        self._sessions = Sessions(door, clock)
        self._seldom = Occasionally(_LINE_S, clock.monotonic)
        self._stopping = StopSignal()
        self._reception = Reception(
            settings=settings,
            door=door,
            clock=clock,
            sessions=self._sessions,
            negotiation=Negotiation(services),
            operations={
                (service.sop_class_uid, field): operation
                for service in services
                for field, operation in service.operations.items()
            },
            waiting=WaitingRoom(
                per_address=settings.max_per_address, in_total=_WAITING_CONNECTIONS
            ),
            seldom=self._seldom,
            stop=self._stopping,
        )
        self._clock = clock
        self._connections: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind the ports and serve in threads.

        Raises
        ------
        ConfigError
            An address cannot be bound, or a certificate or key cannot be used.
        """
        _configure_library()
        settings = self._settings
        try:
            self._listeners = [self._listener(settings.port, None)]
            if settings.tls_port is not None and settings.credentials is not None:
                context = acceptor_context(settings.credentials)
                self._listeners.append(self._listener(settings.tls_port, context))
        except ConfigError:
            self._close_listeners()
            raise
        # here and not in the thread: once listening, nothing may be missing to accept with
        selector = selectors.DefaultSelector()
        for listener in self._listeners:
            selector.register(listener.socket, selectors.EVENT_READ, listener)
        self._thread = threading.Thread(
            target=self._accept, args=(selector,), name="scp-accept", daemon=True
        )
        self._thread.start()
        titles = ",".join(settings.ae_titles)
        event(_log, "listening", host=settings.host, port=self.port, tls_port=self.tls_port,
              ae_titles=titles)  # fmt: skip

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        if not self._listeners:
            raise RuntimeError("the receiver has not been started")
        return self._listeners[0].port

    @property
    def tls_port(self) -> int | None:
        """The TCP port that is bound for TLS, if any."""
        return self._listeners[1].port if len(self._listeners) > 1 else None

    @property
    def alive(self) -> bool:
        """Whether connections are being accepted; for the watchdog."""
        running = self._thread is not None and self._thread.is_alive()
        return running and not self._stopping.is_set()

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
        if self._thread is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        self._close_listeners()
        self._reception.waiting.cut_all()
        open_ones = self._open_connections()
        self._wait_for(open_ones, grace_s)
        for connection in open_ones:
            connection.cut()
        self._wait_for(open_ones, 1.0)
        self._sessions.record_late_ends()
        event(_log, "listener_stopped", port=self.port)

    # -- listening -----------------------------------------------------------------------------

    def _listener(self, port: int, context: ssl.SSLContext | None) -> _Listener:
        settings = self._settings
        try:
            family = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0][0]
            both = settings.host == "::" and socket.has_dualstack_ipv6()
            bound = socket.create_server(
                (settings.host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            key = "node.port" if context is None else "node.tls.port"
            raise ConfigError(
                [f"{key}: cannot listen on {settings.host}:{port}: {reason}"]
            ) from error
        bound.setblocking(False)  # noqa: FBT003 - the name of the library
        networks = [
            network
            for calling, where in settings.allowed.items()
            if context is not None or calling not in settings.tls_only
            for network in where
        ]
        return _Listener(
            socket=bound,
            port=int(bound.getsockname()[1]),
            networks=None if settings.accept_unknown else tuple(networks),
            context=context,
        )

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while not self._stopping.is_set():
                for key, _ in selector.select(_LOOK_S):
                    self._take(key.data)
                self._sessions.record_late_ends()

    def _take(self, listener: _Listener) -> None:
        """Accept one connection and give it a thread; whatever goes wrong, the next is taken."""
        try:
            accepted, (address, *_) = listener.socket.accept()
        except BlockingIOError:
            return  # gone again
        except OSError as error:  # no descriptor left: wait for one, the backlog keeps the peers
            self._tell_seldom("connection_failed", "", error.strerror or type(error).__name__)
            self._stopping.wait(_LOOK_S)
            return
        if listener.networks is not None and not contains(listener.networks, address):
            accepted.close()
            self._tell_seldom("connection_refused", address, "no peer has this address")
            return
        connection = Connection(accepted, address, self._reception, listener.context)
        crowded_out = self._reception.waiting.enter(connection)
        if crowded_out is not None:
            self._tell_seldom("connection_cut", crowded_out.address, "too many wait beside it")
        self._run(connection)

    def _run(self, connection: Connection) -> None:
        def live() -> None:
            try:
                connection.run()
            finally:
                with self._lock:
                    self._connections.pop(connection, None)

        thread = threading.Thread(target=live, name="scp-connection", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # out of threads
            with self._lock:
                self._connections.pop(connection, None)
            self._reception.waiting.leave(connection)
            connection.close()
            self._tell_seldom("connection_failed", connection.address, "no thread for it")

    # -- stopping ------------------------------------------------------------------------------

    def _open_connections(self) -> list[Connection]:
        with self._lock:
            return list(self._connections)

    def _wait_for(self, connections: list[Connection], seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        for connection in connections:
            with self._lock:
                thread = self._connections.get(connection)
            if thread is not None:
                thread.join(max(0.0, deadline - self._clock.monotonic()))

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                listener.socket.close()

    def _tell_seldom(self, action: str, address: str, reason: str) -> None:
        if self._seldom.allows((action, address, reason)):
            event(_log, action, level=logging.WARNING, error=None,
                  address=address or None, reason=reason)  # fmt: skip


def _configure_library() -> None:
    """Set the process-wide options of pynetdicom and pydicom that receiving depends on."""
    # An over-long UID in a request must not end it; what is stored is the intake's decision.
    _config.VALIDATORS["UI"] = lambda _uid: (True, "")
    # pydicom's warnings quote values; the intake judges what it reads.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # Its messages repeat ours, may quote what a peer sent, and have no limit.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
