"""Keeping house: retention that deletes nothing undelivered, backup and restore (D9, E4)."""

import sqlite3
import threading

import pytest

from node.config.model import RetentionSection
from node.domain import AETitle, Kept
from node.errors import LedgerError, OutOfResources
from node.housekeeping import Housekeeping, choose
from node.store.backup import backup, restore
from node.store.rebuild import rebuild
from node.store.records import DecisionState
from tests.postgres_kit import sqlite_only
from tests.store_kit import (
    SERIES,
    blobs,
    claim,
    complete,
    ct,
    finish,
    push,
    start_job,
    store,
)

DAY = 86_400
RULES = RetentionSection(keep_days=30)


@pytest.fixture
def opened(tmp_path):
    with store(tmp_path / "data") as one:
        yield one


def keeper(opened, rules=RULES) -> Housekeeping:
    return Housekeeping(opened.ledger, rules, opened.ledger._clock)


def deliver(opened) -> None:
    for delivery in opened.ledger.claim_deliveries("pacs", 10):
        opened.ledger.delivery_sent(delivery.id, status=0)


def later(opened, days: float) -> None:
    opened.ledger._clock.advance(days * DAY)


def test_files_of_delivered_work_go_after_their_time_and_rows_stay(opened, tmp_path):
    start_job(opened)
    finish(opened, tmp_path)
    deliver(opened)
    later(opened, 29)
    assert keeper(opened).tidy() == 0
    later(opened, 2)

    assert keeper(opened).tidy() == 3

    assert blobs(tmp_path / "data") == []
    assert len(opened.ledger.instances(SERIES)) == 2
    assert opened.ledger.verify() == []
    (event, *_) = opened.ledger.explain(opened.ledger.instances(SERIES)[0].sha256)
    assert event.action == "file_purged"
    assert keeper(opened).tidy() == 0


UNFINISHED = {
    "scheduled": lambda opened, folder: start_job(opened),
    "running": lambda opened, folder: (start_job(opened), claim(opened)),
    "held": lambda opened, folder: start_job(opened, held=("why", "what to do")),
    "not sent": lambda opened, folder: (start_job(opened), finish(opened, folder)),
    "sent without an answer": lambda opened, folder: (
        start_job(opened),
        finish(opened, folder),
        [
            opened.ledger.delivery_sent(delivery.id, status=None)
            for delivery in opened.ledger.claim_deliveries("pacs", 10)
        ],
    ),
    "delivery held": lambda opened, folder: (
        start_job(opened),
        finish(opened, folder, hold=("why", "what to do")),
    ),
    "receiving": lambda opened, folder: push(opened, ct(1)),
    "undecided": lambda opened, folder: complete(opened),
    "waiting": lambda opened, folder: opened.ledger.record_decision(
        complete(opened), route="dose", state=DecisionState.WAITING, reason="no structures"
    ),
    "not judged": lambda opened, folder: opened.ledger.record_decision(
        complete(opened), route="", state=DecisionState.UNJUDGED, reason="a mistake"
    ),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_d9_what_is_not_delivered_is_never_purged_however_old(opened, tmp_path, name):
    UNFINISHED[name](opened, tmp_path)
    before = blobs(tmp_path / "data")
    later(opened, 3650)

    assert keeper(opened).tidy() == 0
    assert keeper(opened, RetentionSection(keep_days=1, keep_gb=1e-9)).tidy() == 0
    assert blobs(tmp_path / "data") == before


def test_another_patients_unfinished_work_holds_nobody_else_up(opened, tmp_path):
    start_job(opened)
    finish(opened, tmp_path)
    deliver(opened)
    push(opened, ct(1, series="1.2.3.8", patient="P2"))
    later(opened, 31)

    assert keeper(opened).tidy() == 3
    assert len(blobs(tmp_path / "data")) == 1


def test_a_series_that_nothing_is_to_be_done_with_goes_too(opened, tmp_path):
    seen = complete(opened)
    opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
    later(opened, 31)

    assert keeper(opened).tidy() == 2


def test_above_the_size_limit_the_oldest_go_first(opened, tmp_path):
    for number in range(4):
        seen = complete(opened, 1, f"1.2.3.{number}")
        opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
        later(opened, 1)
    size = opened.ledger.kept_bytes() // 4
    rules = RetentionSection(keep_gb=2.5 * size / 1e9)
    wanted = [c.file.sha256 for c in choose(opened.ledger, rules, opened.ledger._clock)]

    assert keeper(opened, rules).tidy() == 2
    gone = [opened.ledger.instances(f"1.2.3.{n}")[0].sha256 for n in range(2)]
    assert wanted == gone


def test_without_a_rule_nothing_goes(opened):
    seen = complete(opened)
    opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
    later(opened, 10_000)

    assert keeper(opened, RetentionSection()).tidy() == 0


def test_what_became_needed_since_it_was_chosen_stays(opened, tmp_path):
    seen = complete(opened)
    opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
    later(opened, 31)
    chosen = [choice.file for choice in choose(opened.ledger, RULES, opened.ledger._clock)]
    assert len(chosen) == 2
    push(opened, ct(3))

    assert opened.ledger.purge(chosen, reason="old") == 0
    assert len(blobs(tmp_path / "data")) == 3


def test_a_purge_that_was_killed_is_finished_by_the_next_round(opened, tmp_path, monkeypatch):
    seen = complete(opened)
    opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
    later(opened, 31)
    with monkeypatch.context() as dying:
        dying.setattr(opened.files, "remove", lambda name: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keeper(opened).tidy()
    assert {p.kind for p in opened.ledger.verify()} == {"not purged"}

    keeper(opened).tidy()

    assert opened.ledger.verify() == []
    assert blobs(tmp_path / "data") == []


def test_a_purged_object_that_comes_again_is_kept_again(opened, tmp_path):
    """0x0000 means durable: the row alone is no object."""
    seen = complete(opened)
    opened.ledger.record_decision(seen, route="", state=DecisionState.NONE, reason="no route")
    later(opened, 31)
    keeper(opened).tidy()
    assert opened.ledger.is_purged(SERIES)

    assert push(opened, ct(1)).kept is Kept.DUPLICATE

    assert len(blobs(tmp_path / "data")) == 1
    assert opened.ledger.verify() == []
    assert push(opened, ct(2)).kept is Kept.DUPLICATE
    assert not opened.ledger.is_purged(SERIES)
    assert opened.ledger.series(SERIES).revision == seen.revision


def test_the_thread_does_a_round_at_once_and_ends(opened):
    one = keeper(opened)
    one.start()
    assert one.alive()
    one.stop()
    assert not one.alive()


@sqlite_only("its online backup; PostgreSQL has pg_dump")
def test_e4_a_backup_made_while_receiving_restores_and_takes_a_resend_as_known(tmp_path):
    """Nothing acknowledged before the backup is missing; what came later is found in the files."""
    data, copy = tmp_path / "data", tmp_path / "backup.db"
    sent = threading.Event()
    with store(data) as opened:
        for number in range(1, 11):
            push(opened, ct(number))
        opened.ledger.counts()  # a row is written a tenth of a second after the answer at most

        def go_on() -> None:
            for number in range(11, 41):
                push(opened, ct(number))
            sent.set()

        receiving = threading.Thread(target=go_on)
        receiving.start()
        assert backup(data, copy) > 0
        receiving.join(60)
        assert sent.is_set()
        with pytest.raises(LedgerError, match="another node"):
            restore(data, copy)

    aside = restore(data, copy)
    assert aside is not None
    assert aside.exists()
    with store(data, rebuilding=True) as opened:
        before = {i.header.sop_instance_uid for i in opened.ledger.instances(SERIES)}
        assert {f"{SERIES}.{n}" for n in range(1, 11)} <= before
        assert rebuild(opened, AETitle("RTNODE")).restored == 40 - len(before)
        assert {push(opened, ct(n)).kept for n in range(1, 41)} == {Kept.DUPLICATE}
        assert opened.ledger.verify() == []


@sqlite_only("its online backup; PostgreSQL has pg_dump")
def test_a_backup_is_refused_where_it_would_overwrite_or_is_damaged(tmp_path):
    data, copy = tmp_path / "data", tmp_path / "backup.db"
    with pytest.raises(LedgerError, match="no database"):
        backup(data, copy)
    with store(data) as opened:
        push(opened, ct(1))
        backup(data, copy)
        with pytest.raises(OutOfResources, match="exists already"):
            backup(data, copy)
    content = bytearray(copy.read_bytes())
    content[4096:8192] = bytes(4096)
    copy.write_bytes(content)

    with pytest.raises(LedgerError):
        restore(data, copy)
    with pytest.raises(LedgerError, match="PostgreSQL"):
        backup(data, tmp_path / "x", url="postgresql://rtnode@db/rtnode")
    with store(data) as opened:
        assert opened.ledger.verify() == []


def test_a_backup_of_a_newer_node_is_refused(tmp_path):
    data, copy = tmp_path / "data", tmp_path / "backup.db"
    data.mkdir()
    connection = sqlite3.connect(copy)
    connection.executescript(
        "create table alembic_version (version_num text); insert into alembic_version values"
        " ('9999')"
    )
    connection.close()

    with pytest.raises(LedgerError, match="schema 9999"):
        restore(data, copy)


def test_a_job_whose_inputs_were_purged_is_not_repeated_before_they_are_back(opened, tmp_path):
    job = start_job(opened)
    finish(opened, tmp_path)
    deliver(opened)
    later(opened, 31)
    keeper(opened).tidy()

    with pytest.raises(LedgerError, match="retention removed inputs"):
        opened.ledger.reprocess_job(job)
    push(opened, ct(1))
    push(opened, ct(2))
    assert opened.ledger.reprocess_job(job).revision == 1
