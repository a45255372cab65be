"""What every page works with: configuration, ledger, users, sessions, pictures, words."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from pydantic import JsonValue

from node.config.model import Config, WebSection
from node.control.channel import NotRunning, Refused, request
from node.control.live import Live, ask_node
from node.domain import Clock
from node.errors import NodeError
from node.store.ledger import Ledger
from node.store.store import open_reader
from node.store.volume import Disk, volume_of
from node.web.pictures.client import Pictures
from node.web.render import Renderer
from node.web.sessions import LoginBrake, Sessions
from node.web.users import Users

T = TypeVar("T")


class Refusal(NodeError):
    """A page that says no: status code, words and what to do."""

    hint = "go back and look again"

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Remembered:
    """What was looked up a moment ago, for all viewers: ten open pages cost what one does."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, object]] = {}
        self._versions: dict[str, tuple[object, object]] = {}

    def __call__(self, name: str, look: Callable[[], T]) -> T:
        """Return what `look` returned when it was last asked under `name`, if that is recent."""
        with self._lock:  # others wait for the one look instead of making their own
            at, value = self._kept.get(name, (float("-inf"), None))
            if self._clock.monotonic() - at > self._seconds:
                value = look()
                self._kept[name] = (self._clock.monotonic(), value)
            return cast("T", value)

    def same(self, name: str, version: object, look: Callable[[], T]) -> T:
        """Return what `look` returned when `name` was last asked for with this version."""
        with self._lock:
            kept = self._versions.get(name)
            if kept is None or kept[0] != version:
                kept = self._versions[name] = (version, look())
            return cast("T", kept[1])


class LazyLedger:
    """The ledger, opened when it is first asked for: the page may start before the node did."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None

    def __call__(self) -> Ledger:
        """Return the open ledger.

        Raises
        ------
        LedgerError
            There is no database yet.
        """
        with self._lock:
            if self._ledger is None:
                node = self._config.node
                self._ledger = open_reader(node.data_dir, clock=self._clock, url=node.database_url)
            return self._ledger

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that a page needs; made once by `node.web.server`."""

    config: Config
    web: WebSection
    clock: Clock
    ledger: Callable[[], Ledger]
    users: Users
    sessions: Sessions
    brake: LoginBrake
    pictures: Pictures
    renderer: Renderer
    remembered: Remembered
    """For what is dear to look up and may be a few seconds old."""
    ask: Callable[..., JsonValue] = field(default=request)
    """`node.control.channel.request`, or a double."""

    @property
    def secure(self) -> bool:
        """Return whether the page is reached by HTTPS."""
        return self.web.tls is not None

    def command(self, command: str, **arguments: JsonValue) -> JsonValue:
        """Ask the running node to do something; see `node.control.handlers`.

        Raises
        ------
        Refusal
            With the node's own words and hint.
        """
        try:
            return self.ask(self.config.node.data_dir, command, **arguments)
        except NotRunning as error:
            raise Refusal(503, str(error), hint=error.advice) from None
        except Refused as error:
            raise Refusal(409, str(error), hint=error.advice) from None
        except OSError as error:
            raise Refusal(503, f"the node cannot be asked: {error.strerror}") from None

    def live(self) -> Live | None:
        """Return what the running node says of itself; None when it is down."""
        return ask_node(self.config.node.data_dir, self.ask)

    def disk(self) -> Disk:
        """Return the state of the data volume."""
        return volume_of(self.config.node.data_dir, self.config.storage)
