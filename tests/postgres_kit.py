"""A PostgreSQL server of the tests' own: Debian's, as an unprivileged user, in a temporary folder.

``pytest --database=postgresql`` starts one for the run, and `tests.store_kit.store` then keeps each
data folder's ledger in a schema of its own there: the suite of the store runs on either database
(`make test-postgresql`). ``RTNODE_TEST_DATABASE=<URL of a server>`` names one that runs already.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

ENVIRONMENT = "RTNODE_TEST_DATABASE"
USER = "postgres"
"""Who runs the server when the tests run as root, which PostgreSQL refuses."""


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, or skip the test."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("missing tool: postgresql is not installed")
    return found[-1].parent if found else Path(on_path or "").parent


@contextmanager
def server() -> Iterator["Server"]:
    """Run a server in a folder in memory: its fsync is real, and costs next to nothing."""
    programs()
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="rtnode-pg-", dir=memory if memory.is_dir() else None)
    try:
        one = Server(Path(folder))
        try:
            one.start()
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """One cluster on a free port of the loopback interface, durable as it must be."""

    def __init__(self, folder: Path) -> None:
        self.bin = programs()
        self.data = folder / "cluster"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.as_user = {"user": USER} if os.geteuid() == 0 else {}
        if self.as_user:
            shutil.chown(folder, USER)
        self.folder = folder
        how = ("-U", "rtnode", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "-D", self.data, *how)

    @property
    def url(self) -> str:
        return f"postgresql://rtnode@127.0.0.1:{self.port}/postgres"

    def start(self, **settings: str) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder}"
        options += "".join(f" -c {name}={value}" for name, value in settings.items())
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.data, "-l", log, "-w", "-t", "200", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; immediate is what a kill -9 of the server amounts to."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop", check=False)

    def _run(self, name: str, *arguments: object, check: bool = True) -> None:
        done = subprocess.run(
            [str(self.bin / name), *map(str, arguments)],
            check=False, cwd="/tmp", timeout=240, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **self.as_user,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr.decode()


def database_for(folder: Path, server_url: str | None = None) -> str | None:
    """Return the URL of the ledger of a data folder, made if needed; None for SQLite.

    Each folder has a schema and a role of its own, which is much cheaper than a database.
    """
    given = server_url or os.environ.get(ENVIRONMENT)
    if not given:
        return None
    name = "t" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    url = make_url(given)
    engine = create_engine(
        url.set(drivername="postgresql+pg8000"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with engine.connect() as connection:
        there = text("select 1 from pg_roles where rolname = :name")
        if connection.execute(there, {"name": name}).first() is None:
            connection.execute(text(f"create role {name} login"))
            connection.execute(text(f"create schema {name} authorization {name}"))
            connection.execute(text(f"alter role {name} set search_path = {name}"))
    engine.dispose()
    return url.set(username=name).render_as_string(hide_password=False)


def lose_the_database(folder: Path) -> None:
    """Take the ledger of a data folder away, as a lost disk or a careless hand does."""
    if (url := database_for(folder)) is None:
        for path in folder.glob("ledger.db*"):
            path.unlink()
        return
    engine = create_engine(
        make_url(url).set(drivername="postgresql+pg8000", username="rtnode"), poolclass=NullPool
    )
    name = make_url(url).username
    with engine.begin() as connection:
        connection.execute(text(f"drop schema {name} cascade"))
        connection.execute(text(f"create schema {name} authorization {name}"))
    engine.dispose()


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Mark a test of a mechanism that only SQLite has; `reason` says which."""
    return pytest.mark.skipif(ENVIRONMENT in os.environ, reason=f"SQLite only: {reason}")
