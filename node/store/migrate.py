"""Brings a database to the newest schema, or refuses one from a newer node."""

from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from node.errors import LedgerError

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"


def migrate(connection: Connection) -> None:
    """Upgrade in the transaction of `connection`: all of it, or nothing.

    Raises
    ------
    LedgerError
        The schema is of a version that this node does not know.
    """
    if schema_version(connection) == newest_schema():
        return
    # alembic takes 12 MiB, and nearly every start has nothing to do for it
    from alembic import command  # noqa: PLC0415 - as above
    from alembic.config import Config  # noqa: PLC0415 - as above
    from alembic.util import CommandError  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"the database has schema {schema_version(connection)}, which this node does not know",
            hint="it was written by a newer rtnode: install that version, or restore a backup",
        ) from error


def schema_version(connection: Connection) -> str:
    """Return the revision of the schema, empty for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


@cache
def schemas() -> frozenset[str]:
    """Return the revisions that this node can bring up to date: the files' numbers."""
    return frozenset(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def newest_schema() -> str:
    """Return the revision that this node brings a database to."""
    return max(schemas())
