"""Brings a database to the newest schema, or refuses one from a newer node."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from node.errors import LedgerError

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"


def migrate(connection: Connection) -> None:
    """Upgrade in the transaction of `connection`: all of it, or nothing.

    Raises
    ------
    LedgerError
        The schema is of a version that this node does not know.
    """
    config = _config()
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
    return MigrationContext.configure(connection).get_current_revision() or ""


def newest_schema() -> str:
    """Return the revision that this node brings a database to."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
