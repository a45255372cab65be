"""What differs between SQLite and PostgreSQL, in one place.

SQLite: WAL with ``synchronous=FULL`` (durable at commit), foreign keys on, and every write
transaction begins IMMEDIATE. Versions before 3.51.3 (back-ported to 3.44.6 and 3.50.7) can lose
committed pages when one connection checkpoints while another commits; so exactly one connection
writes and checkpoints, and all others are opened ``mode=ro``.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement

from node.errors import LedgerError
from node.secret import read_secret

FIXED_SQLITE: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""First releases of their branches without the WAL-reset bug."""


_CLEAN_FAILURES: Final = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_BUSY)
)


def database_url(data_dir: Path) -> str:
    """Return the URL of the default database of `data_dir`."""
    return f"sqlite:///{data_dir / 'ledger.db'}"


def writing_engine(url: str, *, busy_timeout_s: float) -> Engine:
    """Return an engine that owns the one writing connection."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
    if not _is_sqlite(url):
        return _postgresql_engine(url, busy_timeout_s, options, alone=True)
    options["connect_args"] = {"timeout": busy_timeout_s, "check_same_thread": False}
    engine = create_engine(url, **options)
    _prepare_sqlite(engine, "BEGIN IMMEDIATE", _WRITER_PRAGMAS)
    return engine


def reading_engine(url: str, *, busy_timeout_s: float) -> Engine:
    """Return an engine whose connections cannot write and cannot checkpoint."""
    options: dict[str, Any] = {"pool_size": 4, "max_overflow": 12}
    if _is_sqlite(url):
        options["connect_args"] = {"timeout": busy_timeout_s, "check_same_thread": False}
        path = make_url(url).database
        engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", **options)
        _prepare_sqlite(engine, "BEGIN", _READER_PRAGMAS)
        return engine
    options["execution_options"] = {
        "postgresql_readonly": True,
        "isolation_level": "REPEATABLE READ",  # one snapshot, as SQLite gives it
    }
    return _postgresql_engine(url, busy_timeout_s, options, alone=False)


def _postgresql_engine(
    url: str, busy_timeout_s: float, options: dict[str, Any], *, alone: bool
) -> Engine:
    """Return an engine whose connections give up a lock after `busy_timeout_s`, as SQLite's do.

    `alone`: its connection holds an advisory lock, so that no second node writes here, from
    whatever host; the server frees it when the connection ends.
    """
    engine = create_engine(
        server_url(url),
        pool_pre_ping=True,
        connect_args={"timeout": busy_timeout_s + _SILENCE_S, "application_name": "rtnode"},
        **options,
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:  # noqa: ANN401 - a connection of the driver
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {round(busy_timeout_s * 1000)}")
        cursor.execute("SET TIME ZONE 'UTC'")
        if alone:
            cursor.execute(f"SELECT pg_try_advisory_lock({_ADVISORY}, hashtext(current_schema()))")
            (taken,) = cursor.fetchone()
            if not taken:
                raise LedgerError(
                    "another node uses this database",
                    hint="stop it first, or set node.database_url",
                )
        cursor.close()
        connection.commit()

    return engine


_SILENCE_S: Final = 10.0
"""Beyond the wait for a lock: a server that says nothing for so long is away. [s]"""
_ADVISORY: Final = 0x72746E  # "rtn"
"""First key of the advisory lock of the node that writes."""


def server_url(url: str, environment: Mapping[str, str] = os.environ) -> URL:
    """Return the URL of a PostgreSQL server with driver and password.

    The password never stands in the configuration: it is the content of the file that
    ``?password_file=`` names, which only its owner may read, or `PASSWORD` of the environment.

    Raises
    ------
    ConfigError
        The file cannot be read, or others can read it too.
    """
    made = make_url(url).set(drivername="postgresql+pg8000")
    named = made.query.get("password_file")
    if named is None:
        password = environment.get(PASSWORD)
    else:
        password = read_secret("node.database_url", Path(str(named)))
    return made.difference_update_query(["password_file"]).set(password=password or made.password)


PASSWORD: Final = "RTNODE_DATABASE_PASSWORD"  # noqa: S105 - the name of a variable
"""Variable of the environment that holds the password of a PostgreSQL server."""
_WRITER_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)
_READER_PRAGMAS: Final = ("PRAGMA query_only=ON", "PRAGMA wal_autocheckpoint=0")


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ON CONFLICT, for the database of `connection`.

    Whether a row was inserted is told by RETURNING: ``rowcount`` of such a statement is -1 with
    psycopg.
    """
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """A statement in the words of one kind of database."""

    sql: str
    names: tuple[str, ...]
    """Of the parameters, in their order."""
    positional: bool
    constants: Mapping[str, object]
    converters: Mapping[str, Callable[[Any], Any]]

    def arguments(self, values: Mapping[str, object]) -> Sequence[object] | dict[str, object]:
        """Return the values as the driver takes them."""
        ready: dict[str, object] = {}
        for name in self.names:
            value = values[name] if name in values else self.constants[name]
            convert = self.converters.get(name)
            ready[name] = value if convert is None else convert(value)
        return tuple(ready.values()) if self.positional else ready


class Prepared:
    """A statement that runs for every object that is received: compiled once, run at the driver.

    SQLAlchemy writes the SQL and converts the values, as for any statement; what is left out is
    its work around each execution, which costs several times the statement itself. Answers are
    plain columns: text and numbers. In a transaction that has begun, or alone.

    Parameters
    ----------
    build : callable
        Returns the statement for a name of a dialect; an INSERT takes the columns that the first
        execution names.
    """

    def __init__(self, build: Callable[[str], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, _Compiled] = {}

    def first(self, connection: Connection, values: Mapping[str, object]) -> Sequence[Any] | None:
        """Run it and return its first row, if there is one."""
        rows = self.all(connection, values)
        return rows[0] if rows else None

    def all(self, connection: Connection, values: Mapping[str, object]) -> list[Sequence[Any]]:
        """Run it and return its rows.

        Raises
        ------
        sqlalchemy.exc.DBAPIError
            The database refused.
        """
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(
                self._build(dialect.name), dialect, list(values)
            )
        return at_driver(connection, compiled.sql, compiled.arguments(values))


def at_driver(
    connection: Connection, sql: str, arguments: Sequence[object] | dict[str, object] = ()
) -> list[Sequence[Any]]:
    """Run a statement in the driver's words, in a transaction that has begun; return its rows.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        The database refused.
    """
    try:
        cursor = connection.connection.cursor()
        try:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(None, None, error) from error


def _compile(statement: ClauseElement, dialect: Dialect, keys: list[str]) -> _Compiled:
    compiled: Any = statement.compile(
        dialect=dialect, column_keys=keys if getattr(statement, "is_insert", False) else None
    )
    names = tuple(compiled.positiontup or compiled.params)
    processors = {
        name: compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        for name in names
    }
    return _Compiled(
        sql=str(compiled),
        names=names,
        positional=compiled.positiontup is not None,
        constants=dict(compiled.params),
        converters={name: process for name, process in processors.items() if process is not None},
    )


@cache
def _insert_once(table: Table, keys: tuple[str, ...]) -> Prepared:
    def build(dialect: str) -> ClauseElement:
        kind = sqlite.insert if dialect == "sqlite" else postgresql.insert
        key = next(iter(table.primary_key))
        return kind(table).on_conflict_do_nothing(index_elements=list(keys)).returning(key)

    return Prepared(build)


def insert_once(
    connection: Connection, table: Table, keys: tuple[str, ...], values: Mapping[str, object]
) -> Any:  # noqa: ANN401 - the type of the primary key
    """Insert a row unless one with the same `keys` is there; return its primary key, or None.

    All calls for one table and `keys` name the same columns.
    """
    row = _insert_once(table, keys).first(connection, values)
    return None if row is None else row[0]


def in_transaction(connection: Connection) -> bool:
    """Return whether the transaction is still open in the database itself.

    SQLite rolls back by itself when it meets a full disk or an I/O error; a commit after that
    would succeed and mean nothing.
    """
    if connection.dialect.name != "sqlite":
        return True
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def surely_rolled_back(error: Exception) -> bool:
    """Return whether a commit that failed with `error` left nothing behind.

    SQLite writes the commit frame last, so a full disk or a violated constraint stops before it.
    After an I/O error, above all of fsync, the frame may be there and come true at the next start.
    """
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _CLEAN_FAILURES


def check_integrity(connection: Connection) -> None:
    """Refuse a damaged database, or one that does not sync its commits.

    Raises
    ------
    LedgerError
        With what to do: restore a backup.
    """
    if connection.dialect.name == "sqlite":
        if _quick_check(connection) not in ("ok", None):
            raise LedgerError(
                "the database is damaged (quick_check failed)",
                hint="keep the files, `rtnode restore` the newest backup beside them",
            )
        return
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        if connection.execute(text(f"SHOW {setting}")).scalar_one() in ("off", "local"):
            raise LedgerError(f"PostgreSQL runs with {setting} off", hint=f"set {setting} = on")


def _quick_check(connection: Connection) -> str | None:
    """Return SQLite's verdict; None when the database is so large that it took too long.

    A start must not take minutes after years of work: the whole check is part of housekeeping,
    beside the running node.
    """
    raw: Any = connection.connection.dbapi_connection
    deadline = time.monotonic() + CHECK_S
    raw.set_progress_handler(lambda: int(time.monotonic() > deadline), 20_000)
    try:
        (answer,) = raw.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise LedgerError(f"the database refused: {error}") from error
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        raw.set_progress_handler(None, 0)
    return str(answer)


CHECK_S: Final = 5.0
"""Longest check of a SQLite database at the start. [s]"""


def damage(connection: Connection) -> list[str]:
    """Return what the database finds wrong with itself, in its own words; slow."""
    if connection.dialect.name != "sqlite":
        return []
    lines = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    loose = connection.execute(text("PRAGMA foreign_key_check")).all()
    return [str(line) for line in lines if line != "ok"] + [
        f"{table} row {row} points to a {parent} that is not there"
        for table, row, parent, _ in loose
    ]


def sqlite_is_fixed(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Return whether this SQLite is free of the WAL-reset bug."""
    if version >= FIXED_SQLITE[-1]:
        return True
    return any(version[:2] == fixed[:2] and version >= fixed for fixed in FIXED_SQLITE)


def _is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def _prepare_sqlite(engine: Engine, begin: str, pragmas: tuple[str, ...]) -> None:
    """Take transactions over from the driver and set `pragmas` on each new connection."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver would begin DEFERRED, and late
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
