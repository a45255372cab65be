"""The short way of a start that has nothing to migrate agrees with the long one."""

import subprocess
import sys

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from node.store.migrate import MIGRATIONS, newest_schema, schema_version
from tests.store_kit import store


def test_the_newest_schema_is_the_head_of_the_migrations():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert newest_schema() == ScriptDirectory.from_config(config).get_current_head()


def test_the_version_is_the_one_that_the_migrations_left(tmp_path):
    with store(tmp_path) as opened:
        told, ours = opened._database.read(
            lambda c: (MigrationContext.configure(c).get_current_revision(), schema_version(c))
        )

    assert told == ours == newest_schema()


def test_the_node_does_not_load_the_migrations_to_find_out():
    code = "import sys, node.service; sys.exit('alembic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
