"""What only PostgreSQL does: a server that dies (C8), locks, settings that do not sync, passwords.

The suite of the store itself runs on it too: `make test-postgresql`.
"""

import threading
import time

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from node.errors import ConfigError, LedgerError
from node.store.dialect import PASSWORD, server_url
from node.store.files import Limits
from node.store.store import StoreOptions, open_reader
from tests.postgres_kit import database_for, server
from tests.store_kit import (
    SERIES,
    FakeClock,
    claim,
    ct,
    finish,
    push,
    result_file,
    start_job,
    store,
)

pytestmark = pytest.mark.postgresql


@pytest.fixture(scope="module")
def postgresql():
    with server() as one:
        yield one


def options(folder, postgresql, busy_timeout_s=2.0) -> StoreOptions:
    return StoreOptions(
        limits=Limits(min_free=0, warn_free=0),
        busy_timeout_s=busy_timeout_s,
        database_url=database_for(folder, postgresql.url),
    )


def test_what_was_acknowledged_is_there_after_a_restart_and_for_a_reader(postgresql, tmp_path):
    chosen = options(tmp_path, postgresql)
    with store(tmp_path, options=chosen) as opened:
        for number in range(1, 6):
            push(opened, ct(number))
        reader = open_reader(tmp_path, clock=FakeClock(), url=chosen.database_url)
        assert reader.verify() == []
        with pytest.raises(LedgerError):
            reader.note("x", kind="node", subject="y")
        reader.close()

    with store(tmp_path, options=chosen) as again:
        assert len(again.ledger.instances(SERIES)) == 5
    assert not (tmp_path / "ledger.db").exists()


def test_two_nodes_never_share_a_database(postgresql, tmp_path):
    """Not even with data folders of their own, on two hosts: the server holds the lock."""
    chosen = options(tmp_path, postgresql)
    with store(tmp_path / "one", options=chosen):
        with pytest.raises(LedgerError, match="another node uses this database") as caught:
            store(tmp_path / "two", options=chosen)
        assert "stop it first" in caught.value.advice
    store(tmp_path / "two", options=chosen).close()


def test_c8_a_server_that_dies_while_a_job_runs_costs_no_attempt(postgresql, tmp_path):
    """Nothing is acknowledged while it is down; the finish is repeated and recorded once."""
    with store(tmp_path / "data", options=options(tmp_path, postgresql)) as opened:
        start_job(opened)
        job = claim(opened)
        postgresql.stop()
        with pytest.raises(LedgerError):
            push(opened, ct(1, series="1.2.3.7"))
        results = [result_file(tmp_path)]
        with pytest.raises(LedgerError):
            opened.ledger.finish_job(job.id, job.token, results, findings=[], figures={})
        postgresql.start()

        assert opened.ledger.finish_job(job.id, job.token, results, findings=[], figures={})
        push(opened, ct(1, series="1.2.3.7"))
        assert opened.ledger.job(job.id).attempt == 1
        assert opened.ledger.verify() == []


def test_a6_a_table_that_is_locked_refuses_in_time(postgresql, tmp_path):
    chosen = options(tmp_path, postgresql, busy_timeout_s=0.5)
    with store(tmp_path, options=chosen) as opened:
        push(opened, ct(1))
        release = lock_table(chosen.database_url)
        began = time.monotonic()
        with pytest.raises(LedgerError):
            push(opened, ct(2))
        assert time.monotonic() - began < 5
        release()
        push(opened, ct(2))
        assert opened.ledger.verify() == []


def lock_table(url):
    """Lock the instances from another connection; call the answer to let go."""
    engine = create_engine(server_url(url))
    connection = engine.connect()
    connection.execute(text("lock table instance in access exclusive mode"))

    def release() -> None:
        connection.rollback()
        connection.close()
        engine.dispose()

    return release


def test_a_server_that_does_not_sync_is_refused(postgresql, tmp_path):
    url = options(tmp_path, postgresql).database_url
    run_sql(postgresql.url, f"alter role {make_url(url).username} set synchronous_commit = off")

    with pytest.raises(LedgerError, match="synchronous_commit off") as caught:
        store(tmp_path, options=options(tmp_path, postgresql))
    assert "= on" in caught.value.advice


def run_sql(url, sql):
    engine = create_engine(server_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(sql))
    engine.dispose()


def test_the_password_comes_from_a_file_of_our_own_or_the_environment(tmp_path):
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    url = f"postgresql://rtnode@db/rtnode?password_file={path}"

    assert server_url(url).password == "s3cret"
    assert "password_file" not in str(server_url(url))
    assert "s3cret" not in str(server_url(url))
    assert server_url("postgresql://rtnode@db/x", {PASSWORD: "other"}).password == "other"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="is open to others"):
        server_url(url)
    with pytest.raises(ConfigError, match="cannot read"):
        server_url("postgresql://rtnode@db/x?password_file=/nowhere")


def test_four_receivers_at_once_lose_and_double_nothing(postgresql, tmp_path):
    with store(tmp_path / "data", options=options(tmp_path, postgresql)) as opened:
        threads = [
            threading.Thread(target=lambda: [push(opened, ct(number)) for number in range(1, 11)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert opened.ledger.series(SERIES).count == 10
        start_job(opened, series="1.2.3.9")
        finish(opened, tmp_path)
        assert opened.ledger.verify() == []
