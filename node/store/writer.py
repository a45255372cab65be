"""One writing connection, used by one thread at a time, and one commit for all that wait.

`Database.write`: a caller hands over a closure and blocks. The committer takes up to 64 waiting
closures, fsyncs the distinct folders of their files once, runs each in a savepoint of one
transaction, commits, and only then wakes them: a batch is what queued up during the previous
sync. A caller that finds nobody committing and nobody waiting commits by itself, which saves two
changes of thread. An error in one closure fails its caller alone; a commit that fails, fails all.

`Database.write_soon`: for what is durable elsewhere already, a received object in its file. Such
closures wait for company, a tenth of a second at most, and share a commit. Nobody in this process
can tell: every other write is done after them, and every read that is not `unhurried`. When the
database refuses, they stay and are tried again, and nothing new is taken meanwhile.

One connection writes *and* checkpoints, because SQLite before 3.51.3 can lose committed pages when
two do (see `node.store.dialect`).
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from node.errors import LedgerError, NodeError
from node.store.dialect import (
    at_driver,
    in_transaction,
    reading_engine,
    surely_rolled_back,
    writing_engine,
)

T = TypeVar("T")
BATCH: Final = 64
"""Most closures of one transaction: bounds the wait of the first one."""
_COMPANY: Final = 48
"""So many closures of `write_soon` do not wait for more."""
_MOST_LATE: Final = 4 * BATCH
"""Closures of `write_soon` that may be uncommitted; the next one waits for its predecessors."""
_PAUSE_S: Final = 0.1
"""Longest wait for company. [s]"""
_RETRY_S: Final = 1.0
"""Pause between two tries while the database refuses. [s]"""
_SAVEPOINT: Final = "one_of_many"

logger = logging.getLogger(__name__)


class CommitUncertain(LedgerError):
    """The commit itself failed: the rows may appear after a restart, so their files must stay."""


class _Work:
    """A closure on its way, and the future that its caller waits for."""

    __slots__ = ("done", "run", "sync")

    def __init__(self, run: Callable[[Connection], Any], sync: Sequence[Path]) -> None:
        self.run = run
        self.sync = sync
        self.done: Future[Any] = Future()

    def tell(self, value: Any, error: Exception | None) -> None:  # noqa: ANN401 - of the closure
        """Hand the outcome to who waits."""
        if error is None:
            self.done.set_result(value)
        else:
            self.done.set_exception(error)


class _Late:
    """A closure that nobody waits for; it stays until it is committed, or is wrong itself."""

    __slots__ = ("run", "sync", "then")

    def __init__(
        self,
        run: Callable[[Connection], Any],
        sync: Sequence[Path],
        then: Callable[[Any, Exception | None], None],
    ) -> None:
        self.run = run
        self.sync = sync
        self.then = then

    def tell(self, value: Any, error: Exception | None) -> None:  # noqa: ANN401 - of the closure
        """Hand the outcome on; what goes wrong with it is no reason to stop committing."""
        try:
            self.then(value, error)
        except Exception:
            logger.exception("event=after_commit_failed")


class Access(Protocol):
    """What the ledger needs of a database."""

    def write(self, run: Callable[[Connection], T], *, sync: Sequence[Path] = ()) -> T:
        """Run a closure in a durable transaction."""
        ...

    def read(self, run: Callable[[Connection], T]) -> T:
        """Run a closure that only looks."""
        ...

    def unhurried(self) -> AbstractContextManager[None]:
        """Let the looks of this thread miss what came a moment ago."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...


class ReadOnlyDatabase:
    """`Access` beside a running node: it can look, and nothing else."""

    def __init__(self, url: str, *, busy_timeout_s: float = 10.0) -> None:
        self._reader = reading_engine(url, busy_timeout_s=busy_timeout_s)

    def write(
        self,
        run: Callable[[Connection], T],  # noqa: ARG002 - the signature of `Access`
        *,
        sync: Sequence[Path] = (),  # noqa: ARG002 - as above
    ) -> T:
        """Refuse.

        Raises
        ------
        LedgerError
            Always.
        """
        raise LedgerError("this command only reads", hint="let the running node do it")

    def read(self, run: Callable[[Connection], T]) -> T:
        """Run a closure that only looks.

        Raises
        ------
        LedgerError
            The database refused.
        """
        return _read(self._reader, run)

    def unhurried(self) -> AbstractContextManager[None]:
        """Change nothing: the looks of another process see what is committed."""
        return nullcontext()

    def close(self) -> None:
        """Let go of all connections."""
        self._reader.dispose()


class Database:
    """The writing thread and a pool of connections that can only read.

    Parameters
    ----------
    url : str
        SQLAlchemy URL.
    sync_directory : callable
        Makes the entries of a folder durable or raises.
    busy_timeout_s : float
        How long a write waits for a database that another process has locked; below the usual
        30 s DIMSE time-out of senders. [s]
    """

    def __init__(
        self,
        url: str,
        *,
        sync_directory: Callable[[Path], None],
        busy_timeout_s: float = 10.0,
    ) -> None:
        self._writer = writing_engine(url, busy_timeout_s=busy_timeout_s)
        self._reader = reading_engine(url, busy_timeout_s=busy_timeout_s)
        self._sync_directory = sync_directory
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._late: deque[_Late] = deque()
        self._taken = 0
        """Closures of `write_soon` so far."""
        self._settled = 0
        """Those of them that are committed, or wrong."""
        self._refused: Exception | None = None
        """Why the last of them could not be committed; None since the next that could."""
        self._gate = threading.Lock()
        self._turn = threading.Lock()
        self._waiting = threading.Event()
        self._urgent = threading.Event()
        self._here = threading.local()
        self._glancing = threading.Lock()
        self._glancer: Connection | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="committer", daemon=True)
        self._thread.start()

    def write(self, run: Callable[[Connection], T], *, sync: Sequence[Path] = ()) -> T:
        """Run a closure in the next transaction; its result is durable on return.

        Parameters
        ----------
        run : callable
            Gets the connection; must not keep it, commit, or catch database errors.
        sync : sequence of Path
            Folders whose entries must be durable before the commit.

        Raises
        ------
        LedgerError
            The database refused; nothing of this closure is stored.
        OutOfResources
            A folder could not be synced; nothing of this closure is stored.
        """
        work = _Work(run, sync)
        with self._gate:
            if self._closed:
                raise LedgerError("the ledger is closed", hint="start the node")
            alone = self._queue.empty() and self._turn.acquire(blocking=False)
            if not alone:
                self._enqueue(work)
        if alone:  # nobody commits and nobody waits: two changes of thread less
            try:
                self._serve_batch([work])
            finally:
                self._turn.release()
        result: T = work.done.result()
        return result

    def write_soon(
        self,
        run: Callable[[Connection], T],
        *,
        sync: Sequence[Path],
        then: Callable[[T | None, Exception | None], None],
    ) -> None:
        """Run a closure in one of the next transactions, in order.

        Parameters
        ----------
        run, sync
            As for `write`.
        then : callable
            Called once, by who commits: with the result after the commit, or with None and the
            error of this very closure. Must not write, read, block, or raise.

        Raises
        ------
        LedgerError
            The database refuses, or is closed: the closure is not taken.
        OutOfResources
            A folder cannot be synced: the closure is not taken.
        """
        if self._refused is not None or self._taken - self._settled >= _MOST_LATE:
            self.settle()
        work = _Late(run, sync, then)
        with self._gate:
            if self._closed:
                raise LedgerError("the ledger is closed", hint="start the node")
            self._late.append(work)
            self._taken += 1
            if self._taken - self._settled >= _COMPANY:
                self._urgent.set()
            self._waiting.set()

    def settle(self) -> None:
        """Commit what `write_soon` took.

        Raises
        ------
        LedgerError, OutOfResources
            It could not be; it stays and is tried again.
        """
        goal = self._taken
        while self._settled < goal:
            self.write(_nothing)
            if self._refused is not None:
                raise self._refused

    def glance(self, run: Callable[[Connection], T]) -> T:
        """As `read` of one statement, but what `write_soon` took may not be there yet.

        For the question that is asked about every object: it keeps its connection.
        """
        with self._glancing:
            try:
                if self._glancer is None:
                    self._glancer = self._reader.connect()
                answer = run(self._glancer)
                self._glancer.connection.rollback()  # the next one sees what came since
            except SQLAlchemyError:  # the server may have been restarted: a fresh one tells
                self._forget_glancer()
                return _read(self._reader, run)
        return answer

    def _forget_glancer(self) -> None:
        if self._glancer is not None:
            self._glancer.invalidate()
            self._glancer.close()
            self._glancer = None

    def read(self, run: Callable[[Connection], T]) -> T:
        """Run a closure on a connection that cannot write, in one snapshot.

        Raises
        ------
        LedgerError
            The database refused.
        """
        if self._refused is None and not getattr(self._here, "unhurried", False):
            with suppress(NodeError):  # what is there can be read all the same
                self.settle()
        return _read(self._reader, run)

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Let the looks of this thread miss what came within the last tenth of a second.

        For one that looks all the time: each of its looks would end the wait for company.
        """
        self._here.unhurried = True
        try:
            yield
        finally:
            self._here.unhurried = False

    @property
    def alive(self) -> bool:
        """Whether the writing thread runs; without it every write would wait for ever."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what waits, then close; readers first, so that the writer checkpoints."""
        with suppress(NodeError):  # the next start finds it where it is durable already
            self.settle()
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._enqueue(None)
        self._thread.join()
        with self._turn, self._glancing:
            self._forget_glancer()
            self._reader.dispose()
            self._writer.dispose()

    def _serve(self) -> None:
        """Take what waits, commit it, and go on until told to stop."""
        running = True
        while running or (self._late and self._refused is None):
            batch: list[_Work] = []
            self._waiting.wait(None if self._refused is None else _RETRY_S)
            if self._queue.empty():  # nobody is blocked: more may come to share the commit
                self._urgent.wait(_PAUSE_S)
            with self._turn:  # what queued up while another committed is one batch
                self._waiting.clear()
                self._urgent.clear()
                while running and len(batch) < BATCH and not self._queue.empty():
                    work = self._queue.get()
                    running = work is not None
                    if work is not None:
                        batch.append(work)
                self._serve_batch(batch)
                if not self._queue.empty() or (self._late and self._refused is None):
                    self._waiting.set()

    def _enqueue(self, work: _Work | None) -> None:
        self._queue.put(work)
        self._waiting.set()
        self._urgent.set()

    def _serve_batch(self, batch: list[_Work]) -> None:
        """Make a batch durable and wake its callers; only by who has the turn.

        What was to be written soon comes first, so that the batch sees it.
        """
        late = [self._late.popleft() for _ in range(min(BATCH, len(self._late)))]
        if ready := self._synced([*late, *batch]):
            self._commit(ready)

    def _synced(self, batch: list[_Work | _Late]) -> list[_Work | _Late]:
        """Sync each folder once; return the work whose folders are durable."""
        failed: dict[Path, Exception] = {}
        for folder in {folder for work in batch for folder in work.sync}:
            try:
                self._sync_directory(folder)
            except Exception as error:  # noqa: BLE001 - the committer must outlive any fault
                failed[folder] = error
        if not failed:
            return batch
        for work in reversed(batch):
            errors = [failed[folder] for folder in work.sync if folder in failed]
            if errors:
                self._refuse([work], errors[0])
        return [work for work in batch if failed.keys().isdisjoint(work.sync)]

    def _commit(self, batch: list[_Work | _Late]) -> None:
        """Run all in one transaction and wake their callers after it is durable."""
        outcomes: list[tuple[_Work | _Late, Any, Exception | None]] = []
        committing = False
        connection: Connection | None = None
        try:
            connection = self._writer.connect()
            connection.begin()
            outcomes.extend((work, *_run(connection, work)) for work in batch)
            _require_transaction(connection)
            committing = True
            connection.commit()
        except Exception as error:  # noqa: BLE001 - the committer must outlive any fault
            if connection is not None:
                connection.invalidate()  # after a failure nobody knows what is still open in it
            uncertain = committing and not surely_rolled_back(error)
            refused = _refusal(error, CommitUncertain if uncertain else LedgerError)
            logger.error("event=commit_failed waiting=%d cause=%s", len(batch), refused)  # noqa: TRY400 - no SQL in the log
            self._refuse(batch, refused)
            self._refuse_waiting(refused)
            return
        finally:
            if connection is not None:
                connection.close()
        late = 0
        for work, value, error_of_one in outcomes:
            late += isinstance(work, _Late)
            work.tell(value, error_of_one)
        if late:
            self._refused = None
            self._settled += late

    def _refuse(self, batch: Sequence[_Work | _Late], error: Exception) -> None:
        """Tell those who wait; the others go back to where they stood."""
        late = [work for work in batch if isinstance(work, _Late)]
        self._late.extendleft(reversed(late))
        if late:
            self._refused = error
        for work in batch:
            if not isinstance(work, _Late):
                work.tell(None, error)

    def _refuse_waiting(self, refused: LedgerError) -> None:
        """Refuse what queued up behind a failed commit.

        It waited as long already; a second time-out would outlast its sender.
        """
        for _ in range(self._queue.qsize()):
            work = self._queue.get()
            if work is None:
                self._enqueue(None)
                return
            work.tell(None, refused)


def _nothing(_: Connection) -> None:
    """Write nothing, after everything that came before."""


def _run(connection: Connection, work: _Work | _Late) -> tuple[Any, Exception | None]:
    """Run one closure in its savepoint; its error is its own, a lost transaction is everyone's."""
    at_driver(connection, f"SAVEPOINT {_SAVEPOINT}")
    try:
        value = work.run(connection)
        _require_transaction(connection)
        at_driver(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
    except Exception as error:  # noqa: BLE001 - handed to the caller
        _require_transaction(connection)
        at_driver(connection, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        return None, _refusal(error) if isinstance(error, SQLAlchemyError) else error
    return value, None


def _require_transaction(connection: Connection) -> None:
    """Stop when the database has rolled back by itself, as SQLite does on a full disk.

    The next savepoint would begin and commit a transaction of its own.
    """
    if not in_transaction(connection):
        raise LedgerError("the database rolled back by itself; the disk may be full")


def _read(engine: Engine, run: Callable[[Connection], T]) -> T:
    """Run a closure on a reading engine.

    Raises
    ------
    LedgerError
        The database refused.
    """
    try:
        with engine.connect() as connection:
            return run(connection)
    except SQLAlchemyError as error:
        raise _refusal(error) from error


def _refusal(error: Exception, kind: type[LedgerError] = LedgerError) -> LedgerError:
    """Return the database's words without the statement and its parameters."""
    if isinstance(error, LedgerError):
        return error
    words = str(getattr(error, "orig", None) or type(error).__name__)
    return kind(f"the database refused: {words}")
