"""The composition root of the web page: ``rtnode web``.

A process of its own beside the node: it reads the ledger through a read-only connection, asks the
running node over its control channel to change something, and lets a child decode images. So no
browser can slow or stop what receives.
"""

import logging
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from typing_extensions import override

from node.clock import SystemClock
from node.config.model import Config, WebSection
from node.domain import Clock
from node.errors import ConfigError, NodeError
from node.log import event
from node.web.app import application
from node.web.pictures.client import Pictures
from node.web.render import Renderer
from node.web.sessions import LoginBrake, Sessions
from node.web.site import LazyLedger, Remembered, Site
from node.web.users import Users, UsersUnusable

_CONNECTIONS: Final = 200
"""At one time; more are told to come again (503)."""
_BACKLOG: Final = 128
_REMEMBERED_S: Final = 2.0
"""Age of the figures on the overview, which asks again every five seconds."""
_STOP_S: Final = 5

_log = logging.getLogger(__name__)


def users_of(config: Config) -> Users:
    """Return the users of a node's page."""
    named = config.web.users_file if config.web else None
    return Users(named or config.node.data_dir / "web-users.json")


def section_of(config: Config) -> WebSection:
    """Return the section of the page.

    Raises
    ------
    ConfigError
        There is none: the page is off.
    """
    if config.web is None:
        raise ConfigError(["web: this section is missing, so the page is off; for example web: {}"])
    return config.web


@contextmanager
def site_of(config: Config, clock: Clock | None = None) -> Iterator[Site]:
    """Yield everything that the pages need; it is let go of at the end.

    Raises
    ------
    ConfigError, UsersUnusable
        The page is off, or nobody may log in.
    """
    web, clock = section_of(config), clock or SystemClock()
    users = users_of(config)
    if not users.all():
        raise UsersUnusable("nobody may log in yet")
    ledger = LazyLedger(config, clock)
    pictures = Pictures(
        memory_mb=web.viewer_memory_mb, timeout_s=web.viewer_timeout_s, monotonic=clock.monotonic
    )
    try:
        yield Site(
            config=config,
            web=web,
            clock=clock,
            ledger=ledger,
            users=users,
            sessions=Sessions(
                users, clock, idle_s=web.idle_minutes * 60, longest_s=web.session_hours * 3600
            ),
            brake=LoginBrake(clock),
            pictures=pictures,
            renderer=Renderer(web.language.value),
            remembered=Remembered(clock, _REMEMBERED_S),
        )
    finally:
        pictures.close()
        ledger.close()


def run(config: Config) -> int:
    """Serve the page until SIGTERM or SIGINT; return the exit code.

    Raises
    ------
    NodeError
        If it cannot start.
    """
    with site_of(config) as site:
        web = site.web
        listener = _listen(web)
        with listener:
            address, port = listener.getsockname()[:2]
            event(_log, "web_ready", address=address, port=port, tls=site.secure)
            server = _server(application(site), web)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, server.handle_exit)
            server.run(sockets=[listener])
        event(_log, "web_stopped")
    return 0


class Served:
    """The page in a thread, for tests; a context manager that yields its address."""

    def __init__(self, site: Site) -> None:
        self._secure = site.secure
        self._listener = _listen(site.web)
        self._server = _server(application(site), site.web)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="web", daemon=True
        )

    def __enter__(self) -> str:
        self._thread.start()
        host, port = self._listener.getsockname()[:2]
        return f"{'https' if self._secure else 'http'}://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=2 * _STOP_S)
        self._listener.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to `run`: its own handling ends the process by the signal."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _server(app: Starlette, web: WebSection) -> uvicorn.Server:
    options = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_STOP_S,
    )
    options.load()
    if web.tls is not None:
        options.ssl = _context(web.tls.certificate, web.tls.key)
    return _Server(options)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what HTTPS is spoken with: TLS 1.2 and newer, forward secrecy (BCP 195)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError([f"web.tls: certificate and key cannot be loaded: {reason}"]) from None
    return context


def _listen(web: WebSection) -> socket.socket:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((web.host, web.port))
        listener.listen(
            _BACKLOG
        )  # who calls before the first answer is ready waits, and is not refused
    except OSError as error:
        listener.close()
        raise NodeError(
            f"cannot listen on {web.listen}: {error.strerror}", hint="change web.listen"
        ) from None
    return listener
