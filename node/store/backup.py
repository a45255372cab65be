"""Backing the database up while the node runs, and putting a backup back.

SQLite's backup API copies a consistent state from a connection that only reads; the copy is
checked and synced before its name is final. The files of the objects are not in it: they never
change once they are written, so any copy tool may take the ``blobs`` folder *after* the database.
PostgreSQL has tools of its own, which know roles and replication: ``pg_dump`` and its kin.
"""

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from node.errors import LedgerError, OutOfResources
from node.store.dialect import database_url
from node.store.files import publish_whole
from node.store.lock import FolderLock
from node.store.marks import forget_marks
from node.store.migrate import newest_schema

_PAGES: Final = 1000
"""Pages copied in one step, about 4 MB: between two steps the node writes."""
_KEPT_ASIDE: Final = "ledger.db.before-restore"


def backup(data_dir: Path, target: Path, *, url: str | None = None) -> int:
    """Copy the database to a new file; return its size in bytes.

    Raises
    ------
    LedgerError
        There is none, it is damaged, or it is a PostgreSQL server's.
    OutOfResources
        `target` exists or cannot be written.
    """
    path = _file_of(data_dir, url)
    if not path.exists():
        raise LedgerError(
            "there is no database in the data folder", hint="check node.data_dir and -c"
        )
    if target.exists():
        raise OutOfResources("the backup file exists already", hint="name a new one")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with (
            sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source,
            sqlite3.connect(part) as copy,
        ):
            source.backup(copy, pages=_PAGES)
        source.close()
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.close()
        check(part)
        publish_whole(part, target)
    except sqlite3.Error as error:
        raise LedgerError(f"the backup failed: {error}") from error
    except OSError as error:
        raise OutOfResources(f"cannot write the backup: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def restore(data_dir: Path, source: Path, *, url: str | None = None) -> Path | None:
    """Put a backup in the place of the database of a stopped node.

    What was received after the backup is in the files: ``rtnode rebuild-index`` takes it in.

    Returns
    -------
    Path or None
        Where the old database was put aside; None if there was none.

    Raises
    ------
    LedgerError
        The backup is damaged or of another schema, or a node runs on the folder.
    OutOfResources
        The folder cannot be written.
    """
    path = _file_of(data_dir, url)
    version = check(source)
    if version > newest_schema():
        raise LedgerError(
            f"the backup has schema {version}, this node knows {newest_schema()}",
            hint="install the rtnode that wrote it",
        )
    lock = FolderLock(data_dir)
    try:
        aside = _put_aside(path)
        part = path.with_name("ledger.db.part")
        part.write_bytes(source.read_bytes())
        publish_whole(part, path)
        forget_marks(data_dir)
        lock.closing()
    except OSError as error:
        raise OutOfResources(f"cannot restore: {error.strerror}") from error
    finally:
        lock.release()
    return aside


def check(path: Path) -> str:
    """Return the schema of a sound backup.

    Raises
    ------
    LedgerError
        It is damaged, or no backup of ours.
    """
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        try:
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise LedgerError(f"the backup cannot be read: {error}", hint="take another one") from error
    if answer != "ok" or version is None:
        raise LedgerError("the backup is damaged", hint="take another one")
    return str(version[0])


def _file_of(data_dir: Path, url: str | None) -> Path:
    made = make_url(url or database_url(data_dir))
    if made.get_backend_name() != "sqlite" or not made.database:
        raise LedgerError(
            "the database is a PostgreSQL server's", hint="use pg_dump and pg_restore on it"
        )
    return Path(made.database)


def _put_aside(path: Path) -> Path | None:
    """Move the database and its log aside, under the first free name."""
    if not path.exists():
        return None
    number = 0
    while (aside := path.with_name(f"{_KEPT_ASIDE}-{number}")).exists():
        number += 1
    for end in ("-wal", "-shm", ""):
        old = path.with_name(path.name + end)
        if old.exists():
            old.replace(aside.with_name(aside.name + end))
    return aside
