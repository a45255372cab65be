"""The migrations build the schema that the code uses, on SQLite and, by its SQL, on PostgreSQL."""

import sqlite3
from datetime import datetime
from types import SimpleNamespace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.schema import CreateIndex, CreateTable

from node.errors import LedgerError
from node.store import dialect, schema
from node.store.dialect import check_integrity, damage, sqlite_is_fixed, writing_engine
from node.store.migrate import MIGRATIONS, migrate, newest_schema, schema_version
from node.store.records import DecisionState
from tests.postgres_kit import database_for, sqlite_only
from tests.store_kit import SERIES, claim, finish, push, start_job, store, structure_set

RELEASED = [f"{number:04}" for number in range(1, int(newest_schema()))]
"""Every schema before the newest; released or not, some data folder may have it."""


@pytest.fixture
def engine(tmp_path):
    url = database_for(tmp_path) or f"sqlite:///{tmp_path / 'x.db'}"
    engine = writing_engine(url, busy_timeout_s=1)
    yield engine
    engine.dispose()


def test_the_migrations_build_exactly_the_schema(engine):
    with engine.begin() as connection:
        migrate(connection)
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)

        assert differences == []
        assert schema_version(connection) == newest_schema()


def test_migrating_twice_changes_nothing_and_down_leaves_nothing(engine):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        migrate(connection)
        migrate(connection)
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

        assert inspect(connection).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize("released", RELEASED)
def test_every_released_schema_with_data_becomes_the_newest(engine, released):
    """E6: rows of every table of the old schema are there afterwards, column by column."""
    with engine.begin() as connection:
        command.upgrade(config_for(connection), released)
        tables = fill_every_table(connection)
        before = {name: rows_of(connection, name) for name in tables}
        migrate(connection)

        assert schema_version(connection) == newest_schema()
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        for name, rows in before.items():
            after = rows_of(connection, name)
            assert [{key: row[key] for key in rows[0]} for row in after] == rows, name
        assert damage(connection) == []


def test_the_newest_schema_is_among_those_that_are_tested():
    assert [*RELEASED, newest_schema()] == sorted({*RELEASED, newest_schema()})
    assert len(list((MIGRATIONS / "versions").glob("0*.py"))) == int(newest_schema())
    assert [int(number) for number in RELEASED] == list(range(1, int(newest_schema())))


def config_for(connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def fill_every_table(connection) -> list[str]:
    """Put one row into each table, in the order of their foreign keys; return their names."""
    found = MetaData()
    found.reflect(connection)
    names = [t.name for t in found.sorted_tables if t.name != "alembic_version"]
    for name in names:
        table = found.tables[name]
        connection.execute(table.insert().values({c.name: _value(c) for c in table.columns}))
    return names


def _value(column):
    """Return a value that fits the column and every reference to it."""
    kind = str(column.type)
    if kind.startswith("BOOLEAN"):
        return True
    if kind.startswith(("BIGINT", "INTEGER", "DOUBLE")):
        return 1
    if kind.startswith(("DATETIME", "TIMESTAMP")):
        return datetime(2026, 11, 20, 12)  # noqa: DTZ001 - as SQLite keeps it
    return {"a": 1} if kind == "JSON" else "same text"


def rows_of(connection, name) -> list[dict]:
    rows = connection.execute(text(f"select * from {name}")).mappings()
    return [dict(row) for row in rows]


def test_a_migration_that_fails_leaves_the_old_schema(engine):
    with engine.begin() as connection:
        connection.execute(text("create table delivery (n integer)"))

    with pytest.raises(Exception, match="already exists"), engine.begin() as connection:
        migrate(connection)

    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["delivery"]


def test_a_database_of_a_newer_node_is_refused_with_what_to_do(engine):
    with engine.begin() as connection:
        migrate(connection)
        connection.execute(text("update alembic_version set version_num = '9999'"))

    with pytest.raises(LedgerError, match="schema 9999") as caught, engine.begin() as connection:
        migrate(connection)
    assert "newer rtnode" in caught.value.advice


def test_a_sound_database_passes_the_check_at_start(engine):
    with engine.begin() as connection:
        migrate(connection)
        check_integrity(connection)


def test_no_column_could_hold_a_patient_in_the_clear():
    names = {column.name for table in schema.metadata.sorted_tables for column in table.columns}

    assert not {name for name in names if "name" in name or "birth" in name or "patient_id" in name}


@pytest.mark.parametrize("table", schema.metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_compiles_for_postgresql(table):
    ddl = [CreateTable(table), *(CreateIndex(index) for index in table.indexes)]

    texts = [str(statement.compile(dialect=postgresql.dialect())) for statement in ddl]

    assert all(len(name) <= 63 for name in names_of(table))
    if "id" in table.c:
        assert "id BIGSERIAL" in texts[0]


def names_of(table):
    return [str(c.name) for c in (*table.constraints, *table.indexes) if c.name]


@sqlite_only("runs on SQLite what it compiles for PostgreSQL")
def test_every_statement_of_a_whole_case_compiles_for_postgresql(tmp_path, monkeypatch):
    """Each is compiled when SQLite runs it; ON CONFLICT comes from the one dialect place."""
    seen = set()
    # the one attribute that PostgreSQL's clause has beyond SQLite's
    monkeypatch.setattr(sqlite.dml.OnConflictClause, "constraint_target", None, raising=False)

    def compile_it(_connection, statement, _many, _parameters, _options):
        seen.add(str(statement.compile(dialect=postgresql.dialect())))

    run = dialect.Prepared.all

    def compile_prepared(self, connection, values):
        other = dialect._compile(self._build("postgresql"), psycopg2.dialect(), list(values))
        assert set(other.names) >= set(values)
        assert not other.positional
        seen.add(other.sql)
        return run(self, connection, values)

    monkeypatch.setattr(dialect.Prepared, "all", compile_prepared)

    with store(tmp_path) as opened:
        for engine in (opened._database._writer, opened._database._reader):
            event.listen(engine, "before_execute", compile_it)
        ledger = opened.ledger
        push(opened, structure_set([f"{SERIES}.1"]))
        job_id = start_job(opened)
        assert finish(opened, tmp_path, results=2)
        sent, failed, returned = (*ledger.claim_deliveries("pacs", 9), None)[:3]
        ledger.delivery_sent(sent.id, status=0)
        ledger.delivery_failed(failed.id, transient=False, status=0xA900, reason="r", hint="h")
        ledger.release_deliveries("pacs")
        ledger.next_delivery_at("pacs")
        ledger.destinations_with_open_deliveries()
        ledger.return_deliveries([d.id for d in ledger.claim_deliveries("pacs", 9)])
        ledger.reprocess_job(job_id)
        claim(opened)
        ledger.expire_leases()
        ledger.recover_at_start()
        ledger.supersede(SERIES, 5)
        for look in (
            ledger.counts,
            ledger.queue,
            ledger.held,
            ledger.quarantined,
            ledger.recent_series,
            ledger.recent_associations,
            ledger.undecided_series,
            ledger.open_associations,
        ):
            look()
        ledger.jobs()
        ledger.job_detail(job_id)
        ledger.decisions([DecisionState.JOB])
        ledger.explain(SERIES)
        ledger.conflicts(SERIES)
        ledger.referenced_images(SERIES)
        ledger.referencing("SERIES", SERIES)
        ledger.result_uids(["1.2"])
        ledger.series_associations(SERIES)
        ledger.patient_series("x")
        ledger.study_series("x")
        ledger.instances_by_sop_uid(["x"])

    assert returned is None
    assert any("FOR UPDATE SKIP LOCKED" in statement for statement in seen)
    assert any("ON CONFLICT (dedupe) DO NOTHING RETURNING" in statement for statement in seen)


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_inserts_with_on_conflict_are_those_of_the_database_in_use(name):
    connection = SimpleNamespace(dialect=SimpleNamespace(name=name))
    kinds = {"sqlite": sqlite.Insert, "postgresql": postgresql.Insert}

    assert isinstance(dialect.insert(connection, schema.blob), kinds[name])
    assert isinstance(dialect._insert_once(schema.blob, ("sha256",))._build(name), kinds[name])


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version, fixed):
    assert sqlite_is_fixed(version) is fixed


def test_this_python_has_a_sqlite_with_returning_and_upsert():
    assert sqlite3.sqlite_version_info >= (3, 35, 0)
