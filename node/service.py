"""The composition root of receiving, deciding, supervising and delivering: ``rtnode serve``.

Read `Node.start` from top to bottom: that is the order of the start, and `Node.stop` undoes it in
reverse. Nothing here loads an image or learning library; pipelines run in child processes.
"""

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from node.audit.exporter import AuditExporter
from node.clock import SystemClock
from node.config.model import Config
from node.control.channel import ControlServer
from node.control.handlers import operator_handlers
from node.domain import AETitle, Clock
from node.drift.watch import DriftWatch
from node.engine.bell import Bell
from node.engine.engine import Engine
from node.engine.options import WORKER, EngineOptions
from node.errors import ConfigError, LedgerError
from node.housekeeping import Housekeeping
from node.inbox import Inbox
from node.lifecycle import JobState
from node.log import event
from node.notify import Notifier, channels_of
from node.routing.coordinator import Coordinator
from node.routing.door import Door
from node.routing.keywords import SELECTION_KEYWORDS
from node.scp.commitment import commitment_of
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.commitment import committers_of
from node.scu.delivery import DeliveryWorker, Fallback, RetryPolicy
from node.scu.destinations import destinations_of
from node.scu.pull import puller_of
from node.scu.reporter import Reporter, addresses
from node.store.audit import NODE_STARTED, NODE_STOPPED
from node.store.files import Limits
from node.store.ledger import Ledger
from node.store.store import Store, StoreOptions, open_store
from node.store.volume import GIGABYTE, DiskState

_log = logging.getLogger(__name__)

_WORK: Final = "work"
_HEALTH_S: Final = 10.0
"""Time between looks at the node's own health where no watchdog asks for a shorter one."""
_NEWS_PAUSE_S: Final = 0.05
"""Shortest time between two rounds of news."""
_KEPT: Final = frozenset({JobState.COMPLETED, JobState.HELD})
"""States whose last work folder holds a report that a person may want to read."""


class Node:
    """A node that runs until `stop`; a context manager.

    Parameters
    ----------
    config
        The whole configuration; port 0 takes a free port.
    clock
        Wall and monotonic time of every part.
    worker
        Command of the child processes.
    """

    def __init__(
        self, config: Config, *, clock: Clock | None = None, worker: Sequence[str] = WORKER
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._worker = tuple(worker)
        self._news = _News()
        self._alive: dict[str, Callable[[], bool]] = {}
        self._running = ExitStack()
        self._disk: DiskState | None = None
        self._store: Store | None = None
        self._receiver: Receiver | None = None

    @property
    def store(self) -> Store:
        """Return the open store."""
        if self._store is None:
            raise RuntimeError("the node has not been started")
        return self._store

    @property
    def port(self) -> int:
        """Return the TCP port that is bound."""
        if self._receiver is None:
            raise RuntimeError("the node has not been started")
        return self._receiver.port

    def start(self) -> None:
        """Start everything in order; a part that cannot start ends those before it.

        Raises
        ------
        NodeError
            With what is wrong and what to do.
        """
        with ExitStack() as stack:
            self._start(stack)
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Stop in reverse: no new association, drain, give back, close; safe to call again."""
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def troubles(self) -> list[str]:
        """Return what is wrong with the node itself: dead threads, a database that is away."""
        wrong = [f"{name} is dead" for name, alive in self._alive.items() if not alive()]
        try:
            self.store.ledger.schema_version()
        except LedgerError as error:
            wrong.append(str(error))
        return wrong

    def watch_disk(self) -> None:
        """Log once when the data volume becomes low or full, and once when it is well again."""
        disk = self.store.files.disk()
        if disk.state is self._disk:
            return
        if not (self._disk is None and disk.state is DiskState.OK):
            level = logging.INFO if disk.state is DiskState.OK else logging.ERROR
            free_gb = round(disk.free_bytes / GIGABYTE, 1)
            event(_log, "disk", level=level, state=disk.state.value, free_gb=free_gb,
                  trouble=disk.trouble or None)  # fmt: skip
        self._disk = disk.state

    def _start(self, stack: ExitStack) -> None:
        config, clock = self._config, self._clock
        store = self._store = stack.enter_context(
            open_store(
                config.node.data_dir,
                clock=clock,
                options=_store_options(config),
                extra_keywords=config.matched_keywords() | SELECTION_KEYWORDS,
                on_change=self._news.tell,
            )
        )
        self._alive["committer"] = store.alive
        self._begin(stack, "news", self._news, self._news.alive)
        ledger = store.ledger
        recovered = store.recovered
        event(_log, "store_open", jobs_rescheduled=recovered.jobs_rescheduled,
              jobs_held=recovered.jobs_held, deliveries_pending=recovered.deliveries_pending,
              taken_over=recovered.taken_over, orphans=recovered.orphans,
              missing=len(recovered.missing))  # fmt: skip
        self.watch_disk()
        self._refuse_lost_destinations(store)
        self._begin_trail(stack)
        door = Door(store.intake, clock, ledger.resent_series())

        work_dir = config.node.data_dir / _WORK
        _clear_work(work_dir, store)
        options = replace(EngineOptions.of(config), command=self._worker)
        engine = Engine(ledger, work_dir, options, clock)
        self._begin(stack, "engine", engine, engine.alive, wake=engine.wake)

        policy = RetryPolicy.of(config.delivery)
        for destination in destinations_of(config):
            fallback = Fallback.of(config, destination.name)
            sender = DeliveryWorker(destination, ledger, policy, clock, fallback=fallback)
            name = f"delivery to {sender.name}"
            self._begin(stack, name, sender, sender.alive, wake=sender.wake)
        for committer in committers_of(config, ledger, policy, clock):
            name = f"storage commitment of {committer.name}"
            self._begin(stack, name, committer, committer.alive, wake=committer.wake)
        reporter = Reporter(ledger, addresses(config), clock)
        self._begin(stack, "commitment reports", reporter, reporter.alive, wake=reporter.wake)

        puller = puller_of(config, door, ledger.note, clock)
        coordinator = Coordinator(ledger, config, clock, door.resent_at, priors=puller.ask)
        puller.on_news = coordinator.revisit
        self._begin(stack, "coordinator", coordinator, coordinator.alive, wake=coordinator.wake)
        self._begin(stack, "pull", puller, puller.alive)

        self._keep_house(stack)

        called = AETitle(config.node.ae_titles[0])
        if channels_of(config.notify):
            notifier = Notifier(ledger, config.notify, clock, name=called, troubles=self.troubles)
            self._begin(stack, "notifier", notifier, notifier.alive)
        for number, folder in enumerate(config.hot_folders):
            inbox = Inbox(folder, called, door, clock)
            self._begin(stack, f"hot folder {number}", inbox, inbox.alive)

        services = (commitment_of(config, ledger).service(),)
        receiver = self._receiver = Receiver(ReceiverSettings.of(config), door, clock, services)
        self._begin(stack, "receiver", receiver, lambda: receiver.alive)

        handlers = operator_handlers(ledger, self.troubles, coordinator.revisit)
        control = ControlServer(config.node.data_dir, handlers)
        control.start()
        stack.callback(control.stop)

    def _begin_trail(self, stack: ExitStack) -> None:
        """Write down that the node starts, and hand the audit trail on where that is wanted."""
        ledger, section = self.store.ledger, self._config.audit
        if section is not None:
            exporter = AuditExporter(ledger, self._config, section, self._clock)
            self._begin(stack, "audit", exporter, exporter.alive)
        name = self._config.node.ae_titles[0]
        ledger.note(NODE_STARTED, kind="node", subject=name)
        stack.callback(_note_safely, ledger, NODE_STOPPED, name)

    def _keep_house(self, stack: ExitStack) -> None:
        keeper = Housekeeping(self.store.ledger, self._config.retention, self._clock)
        self._begin(stack, "housekeeping", keeper, keeper.alive)
        limits = self._config.pipelines.limits_for("autocontour")
        drift = DriftWatch(self.store.ledger, self._clock, limits)
        self._begin(stack, "drift", drift, drift.alive)

    def _begin(
        self,
        stack: ExitStack,
        name: str,
        part: "_Part",
        alive: Callable[[], bool],
        *,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """Start a part, and note how it is woken, watched and stopped."""
        part.start()
        stack.callback(part.stop)
        self._alive[name] = alive
        if wake is not None:
            self._news.listeners.append(wake)

    def _refuse_lost_destinations(self, store: Store) -> None:
        """Refuse to start without a destination for which results still wait."""
        known = {destination.name for destination in destinations_of(self._config)}
        lost = {
            name: count
            for name, count in store.ledger.destinations_with_open_deliveries().items()
            if name not in known
        }
        if lost:
            raise ConfigError(
                [
                    f"peers.{name}: {count} results still wait for this destination; put it back"
                    " or cancel their jobs"
                    for name, count in sorted(lost.items())
                ]
            )


def _note_safely(ledger: Ledger, action: str, subject: str) -> None:
    """Write down that the node stops; a database that is away must not stop the stopping."""
    try:
        ledger.note(action, kind="node", subject=subject)
    except LedgerError as error:
        event(_log, "stop_not_noted", level=logging.WARNING, error=error)


class _Part(Protocol):
    """Something that runs in threads of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, and return when it has ended."""
        ...


class _News:
    """Passes changes of the ledger on to whoever waits for them, a few times a second.

    A study makes hundreds of changes a second; each listener would look into the database for
    each of them.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="news", daemon=True)

    def tell(self) -> None:
        """Note a change; cheap, from any thread."""
        self._bell.ring()

    def start(self) -> None:
        """Begin to pass on."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on nothing more."""
        self._bell.close()
        self._thread.join()

    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        seen = self._bell.rings
        while not self._bell.closed:
            self._bell.wait(_HEALTH_S, since=seen)
            seen = self._bell.rings
            for listener in tuple(self.listeners):
                listener()
            self._bell.pause(_NEWS_PAUSE_S)


def run(config: Config, *, worker: Sequence[str] = WORKER) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit code.

    Parameters
    ----------
    config
        The whole configuration.
    worker
        Command of the child processes.

    Raises
    ------
    NodeError
        If it cannot start.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    node = Node(config, worker=worker)
    node.start()
    try:
        event(_log, "ready", port=node.port, ae_titles=",".join(config.node.ae_titles))
        tell_systemd("READY=1")
        pause = min(_HEALTH_S, watchdog_s() / 3)
        ill = False
        while not stopping.wait(pause):
            troubles = node.troubles()
            node.watch_disk()
            if not troubles:
                tell_systemd("WATCHDOG=1")
            elif not ill:
                event(_log, "node_ill", level=logging.ERROR, troubles="; ".join(troubles))
            ill = bool(troubles)
        event(_log, "stopping")
        tell_systemd("STOPPING=1")
    finally:
        node.stop()
    event(_log, "stopped")
    return 0


def tell_systemd(state: str) -> None:
    """Send a state to the service manager (sd_notify(3)); nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_UNIX, kind) as notify, suppress(OSError):
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(state.encode())


def watchdog_s() -> float:
    """Return the time within which systemd expects a sign of life; endless without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else float("inf")


def _store_options(config: Config) -> StoreOptions:
    return StoreOptions(
        limits=Limits(
            min_free=int(config.storage.min_free_gb * GIGABYTE),
            warn_free=int(config.storage.warn_free_gb * GIGABYTE),
        ),
        max_object_bytes=config.receive.max_object_mb * 1024 * 1024,
        database_url=config.node.database_url,
    )


def _clear_work(work_dir: Path, store: Store) -> None:
    """Remove what attempts of a dead node left; reports of jobs that ended stay."""
    if not work_dir.is_dir():
        return
    for folder in work_dir.iterdir():
        number, _, token = folder.name.partition("-")
        job = store.ledger.job(int(number)) if number.isdigit() else None
        if job is None or job.state not in _KEPT or str(job.token) != token:
            shutil.rmtree(folder, ignore_errors=True)
