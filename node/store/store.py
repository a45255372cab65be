"""Opening the store: lock, check, migrate, sweep, recover; then receive.

The order is that of `reliability.md` section 11. One node owns a data folder: an exclusive lock
keeps a second one out, and network file systems, on which neither locks nor fsync can be trusted,
are refused.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from node.domain import Clock
from node.errors import LedgerError, OutOfResources
from node.store.dialect import check_integrity, database_url
from node.store.files import BlobFiles, FileOps, Limits
from node.store.intake import Intake
from node.store.ledger import Ledger
from node.store.lock import FolderLock
from node.store.migrate import migrate, schema_version
from node.store.records import Recovered
from node.store.writer import Database, ReadOnlyDatabase

REMOTE_FILE_SYSTEMS: Final = frozenset(
    (
        "9p",
        "afs",
        "ceph",
        "cifs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    )
)
"""Types, as in /proc/self/mountinfo, on which the promises do not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How the store behaves; all sizes in bytes."""

    limits: Limits = field(default_factory=Limits)
    busy_timeout_s: float = 10.0
    """Wait for a locked database, below the 30 s DIMSE time-out of senders. [s]"""
    max_object_bytes: int = 4 << 30
    database_url: str | None = None
    """Instead of ``ledger.db`` in the data folder."""


class Store:
    """A data folder in use; a context manager."""

    def __init__(
        self,
        *,
        database: Database,
        files: BlobFiles,
        ledger: Ledger,
        intake: Intake,
        recovered: Recovered,
        lock: FolderLock,
    ) -> None:
        self.files = files
        self.ledger = ledger
        self.intake = intake
        self.recovered = recovered
        """What the start found and put right."""
        self._database = database
        self._lock = lock

    def alive(self) -> bool:
        """Return whether anything can still become durable; for the watchdog."""
        return self._database.alive

    def close(self) -> None:
        """Finish the writes that wait, close the database and give the data folder back."""
        _close(self._database, self._lock)
        self.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_store(
    data_dir: Path,
    *,
    clock: Clock,
    options: StoreOptions | None = None,
    extra_keywords: Collection[str] = (),
    on_change: Callable[[], None] = lambda: None,
    ops: FileOps | None = None,
    rebuilding: bool = False,
) -> Store:
    """Open a data folder for the one node that owns it.

    Parameters
    ----------
    extra_keywords : collection of str
        DICOM keywords that the configuration matches against.
    on_change : callable
        Called after each commit that somebody may be waiting for; must not block.
    ops : FileOps, optional
        System calls; tests hand in doubles.
    rebuilding : bool
        Accept a database that is gone or lost its log: `node.store.rebuild` follows.

    Raises
    ------
    LedgerError
        The folder is in use or on a network, or the database is damaged, lost or too new.
    OutOfResources
        The folder cannot be written to.
    ValueError
        A keyword cannot be read.
    """
    options = options or StoreOptions()
    data_dir = data_dir.resolve()
    _make(data_dir)
    refuse_remote(data_dir)
    lock = FolderLock(data_dir)
    database: Database | None = None
    opened = False
    try:
        files = BlobFiles(
            data_dir,
            limits=options.limits,
            bucket_prefix=lambda: clock.now().strftime("%Y%m%d"),
            ops=ops,
        )
        files.prepare()
        if not rebuilding:
            _refuse_lost_database(data_dir, files, options)
            _refuse_lost_log(data_dir, options, died=lock.died)
        database = Database(
            options.database_url or database_url(data_dir),
            sync_directory=files.sync_directory,
            busy_timeout_s=options.busy_timeout_s,
        )
        _open_database(database, None if rebuilding else files)
        lock.running()
        opened = True
        ledger = Ledger(database, files, clock, on_change)
        recovered = ledger.recover_at_start()
        orphans, missing = ledger.sweep()
        intake = Intake(
            database,
            files,
            clock,
            extra_keywords=extra_keywords,
            max_object_bytes=options.max_object_bytes,
            on_change=on_change,
        )
        taken_over = intake.take_over()
        return Store(
            database=database,
            files=files,
            ledger=ledger,
            intake=intake,
            recovered=replace(recovered, taken_over=taken_over, orphans=orphans, missing=missing),
            lock=lock,
        )
    except BaseException:
        if database is not None and opened:
            _close(database, lock)
        elif database is not None:
            database.close()
        lock.release()
        raise


def open_reader(data_dir: Path, *, clock: Clock, url: str | None = None) -> Ledger:
    """Open the ledger for looking, beside a running node or without one.

    Raises
    ------
    LedgerError
        There is no database.
    """
    data_dir = data_dir.resolve()
    if url is None and not _default_database(data_dir).exists():
        raise LedgerError(
            "there is no ledger in the data folder",
            hint="check node.data_dir; `rtnode serve` makes it",
        )
    files = BlobFiles(data_dir, limits=Limits(), bucket_prefix=str)
    database = ReadOnlyDatabase(url or database_url(data_dir))
    return Ledger(database, files, clock, lambda: None)


def refuse_remote(path: Path, mounts: str | None = None) -> None:
    """Refuse a data folder on a network file system.

    Parameters
    ----------
    mounts : str, optional
        Text of /proc/self/mountinfo, for tests.

    Raises
    ------
    LedgerError
        Locks and fsync cannot be trusted there.
    """
    if mounts is None:
        table = Path("/proc/self/mountinfo")
        mounts = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    if kind in REMOTE_FILE_SYSTEMS:
        raise LedgerError(
            f"the data folder is on {kind}, where nothing can be promised to be durable",
            hint="set node.data_dir to a folder on a local disk",
        )


def _close(database: Database, lock: FolderLock) -> None:
    """Close a database that was open; a kill in between must not look like a lost log."""
    with suppress(OutOfResources):  # then the next start finds the log, which is as good
        lock.closing()
    database.close()
    lock.release()


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise OutOfResources(f"cannot make the data folder: {error.strerror}") from error


def _default_database(data_dir: Path) -> Path:
    return data_dir / "ledger.db"


def _refuse_lost_database(data_dir: Path, files: BlobFiles, options: StoreOptions) -> None:
    """Refuse to begin anew beside objects that an older database knew: never silently empty."""
    if options.database_url is None and not _default_database(data_dir).exists():
        _refuse_objects(files)


def _refuse_objects(files: BlobFiles) -> None:
    if any(names for _, names in files.names()):
        raise LedgerError(
            "the data folder holds objects, but its database is gone",
            hint="`rtnode restore` the newest backup; without one, `rtnode rebuild-index`",
        )


def _refuse_lost_log(data_dir: Path, options: StoreOptions, *, died: bool) -> None:
    """Refuse a database whose log was removed after a crash: it held the last commits."""
    log = data_dir / "ledger.db-wal"
    if died and options.database_url is None and not log.exists():
        raise LedgerError(
            "the last node did not end in order, and the write-ahead log of its database is gone",
            hint="put ledger.db-wal back if it was moved; else `rtnode rebuild-index` finds what"
            " the database forgot in the files",
        )


def _open_database(database: Database, files: BlobFiles | None) -> None:
    """Check a database and bring it to our schema; `files` are those that it must know."""
    try:
        database.write(check_integrity)
    except LedgerError as error:
        if error.advice != LedgerError.hint:
            raise
        raise LedgerError(
            str(error), hint="keep the files; `rtnode restore` the newest backup; start again"
        ) from error
    if files is not None and not database.write(schema_version):
        _refuse_objects(files)  # there, but empty: a server's that was made anew, a cut file
    database.write(migrate)
