"""One connection writes; who waits together commits together; errors stay with their cause."""

import errno
import os
import sqlite3
import threading

import pytest
from sqlalchemy import event, text

from node.errors import LedgerError, OutOfResources
from node.store.writer import CommitUncertain, Database, ReadOnlyDatabase


@pytest.fixture
def url(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("create table t (n integer primary key)")
    connection.close()
    return f"sqlite:///{tmp_path / 'x.db'}"


@pytest.fixture
def synced():
    return []


@pytest.fixture
def database(url, synced):
    database = Database(url, sync_directory=synced.append, busy_timeout_s=0.2)
    yield database
    database.close()


def insert(number):
    def run(connection):
        connection.execute(text(f"insert into t values ({number})"))
        return number

    return run


def numbers(database):
    return database.read(lambda c: c.execute(text("select n from t order by n")).scalars().all())


class Pause:
    """Holds the committer inside a transaction, so that others queue up behind it."""

    def __init__(self, database):
        self.entered, self.go = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: database.write(self.run))
        self.thread.start()
        assert self.entered.wait(5)

    def run(self, connection):
        self.entered.set()
        assert self.go.wait(5)

    def end(self):
        self.go.set()
        self.thread.join()


def together(database, closures, sync=()):
    """Run closures so that they share one transaction; return results and errors in order."""
    pause = Pause(database)
    answers = [None] * len(closures)

    def call(index):
        try:
            answers[index] = database.write(closures[index], sync=sync)
        except Exception as error:
            answers[index] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(closures))]
    for thread in threads:
        thread.start()
    while database._queue.qsize() < len(closures):
        pass
    pause.end()
    for thread in threads:
        thread.join()
    return answers


def test_a_write_returns_its_value_and_is_seen_by_readers(database):
    assert database.write(insert(7)) == 7
    assert numbers(database) == [7]


def test_what_queued_up_is_committed_once_and_each_folder_synced_once(database, synced, tmp_path):
    transactions = []

    def noting(number):
        def run(connection):
            transactions.append(id(connection))
            return insert(number)(connection)

        return run

    answers = together(database, [noting(n) for n in range(30)], sync=(tmp_path, tmp_path / "b"))

    assert answers == list(range(30))
    assert len(set(transactions)) == 1
    assert sorted(synced) == [tmp_path, tmp_path / "b"]


def test_a_caller_that_finds_nobody_there_commits_in_its_own_thread(database):
    """Two changes of thread less for each object of a single sender."""
    seen = []
    database.write(lambda _: seen.append(threading.current_thread().name))
    together(database, [lambda _: seen.append(threading.current_thread().name)] * 3)

    assert seen == [threading.current_thread().name, "committer", "committer", "committer"]


def test_an_error_in_one_closure_fails_its_caller_alone(database):
    def wrong(connection):
        insert(2)(connection)
        raise KeyError("mine")

    answers = together(database, [insert(1), wrong, insert(1), insert(3)])

    assert (answers[0], answers[3]) == (1, 3) or answers[2] == 1
    assert isinstance(answers[1], KeyError)
    refused = [a for a in (answers[0], answers[2]) if isinstance(a, Exception)]
    assert [type(a) for a in refused] == [LedgerError]
    assert "UNIQUE" in str(refused[0])
    assert numbers(database) == [1, 3]


def test_a_folder_that_cannot_be_synced_fails_only_those_who_need_it(url, tmp_path):
    def sync(folder):
        if folder.name == "bad":
            raise OutOfResources(os.strerror(errno.EIO))

    database = Database(url, sync_directory=sync)

    with pytest.raises(OutOfResources):
        database.write(insert(1), sync=(tmp_path / "bad",))
    database.write(insert(2), sync=(tmp_path / "good",))

    assert numbers(database) == [2]
    database.close()


def test_a_transaction_that_the_database_lost_fails_everyone_in_it(database):
    """SQLite rolls back by itself on a full disk; a commit after that would mean nothing."""

    def lose(connection):
        connection.exec_driver_sql("rollback")

    answers = together(database, [insert(1), lose, insert(2)])

    assert all(isinstance(a, LedgerError) for a in answers)
    assert numbers(database) == []
    assert database.write(insert(5)) == 5, "the committer goes on"


def test_a_commit_that_breaks_a_rule_surely_left_nothing(database):
    def break_it(connection):
        connection.exec_driver_sql(
            "create table child (n integer references t (n) deferrable initially deferred)"
        )
        connection.exec_driver_sql("insert into child values (99)")

    with pytest.raises(LedgerError, match="FOREIGN KEY") as caught:
        database.write(break_it)

    assert not isinstance(caught.value, CommitUncertain)
    assert database.write(insert(1)) == 1


def test_a_commit_that_meets_an_io_error_is_uncertain_because_its_rows_may_come_back(database):
    def fail(_):
        raise sqlite3.OperationalError("disk I/O error")

    event.listen(database._writer, "commit", fail)
    with pytest.raises(CommitUncertain):
        database.write(insert(1))
    event.remove(database._writer, "commit", fail)

    assert database.write(insert(1)) == 1


def test_a_locked_database_is_refused_in_time_for_all_who_wait(database, url, tmp_path):
    """A6: never an answer without a row; the service stays alive."""
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("begin exclusive")

    answers = together_while_locked(database, 5)

    assert all(isinstance(a, LedgerError) for a in answers)
    assert all("locked" in str(a) for a in answers)
    other.execute("rollback")
    other.close()
    assert database.write(insert(1)) == 1
    assert numbers(database) == [1]


def together_while_locked(database, many):
    answers = []

    def call():
        try:
            database.write(insert(1))
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=call) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    return answers


def test_readers_cannot_write_and_never_checkpoint(database, url):
    """Two writers that checkpoint can lose committed pages in SQLite before 3.51.3."""
    with pytest.raises(LedgerError, match="readonly"):
        database.read(insert(1))

    assert database.read(lambda c: c.execute(text("pragma wal_autocheckpoint")).scalar_one()) == 0
    assert database.read(lambda c: c.execute(text("pragma query_only")).scalar_one()) == 1
    looking = ReadOnlyDatabase(url)
    with pytest.raises(LedgerError, match="only reads"):
        looking.write(insert(1))
    looking.close()


def test_the_writer_is_durable_at_commit(database):
    def look(connection):
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"pragma {n}")).scalar_one() for n in names]

    assert database.write(look) == ["wal", 2, 1]


def test_closing_finishes_what_waits_and_refuses_what_comes_later(url):
    database = Database(url, sync_directory=lambda _: None)
    pause = Pause(database)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(database.write(insert(1))))
    thread.start()
    while database._queue.qsize() < 1:
        pass
    closing = threading.Thread(target=database.close)
    closing.start()
    pause.end()
    thread.join()
    closing.join()

    assert answers == [1]
    with pytest.raises(LedgerError, match="closed"):
        database.write(insert(2))
    database.close()


def soon(database, number, told=None):
    """Hand over an insert that nobody waits for."""
    told = [] if told is None else told
    database.write_soon(insert(number), sync=(), then=lambda *outcome: told.append(outcome))


def test_what_is_to_be_written_soon_is_there_at_the_next_look_and_before_the_next_write(database):
    soon(database, 1)
    assert numbers(database) == [1]
    soon(database, 2)
    count = database.write(lambda c: c.execute(text("select count(*) from t")).scalar_one())
    assert count == 2


def test_an_unhurried_look_does_not_end_the_wait(database):
    """The next commit brings it all the same."""
    commits = []
    event.listen(database._writer, "commit", lambda _: commits.append(1))
    with database.unhurried():
        soon(database, 1)
        seen = [numbers(database) for _ in range(3)]
    early = len(commits)

    assert seen == [[], [], []] or early == 1, "the pause ended on a slow machine"
    assert numbers(database) == [1]


def test_it_shares_its_commit_with_others(database):
    commits = []
    event.listen(database._writer, "commit", lambda _: commits.append(1))
    told = []
    for number in range(20):
        soon(database, number, told)
    database.settle()

    assert len(commits) < 10
    assert told == [(number, None) for number in range(20)]


def test_it_is_written_without_anybody_asking(database):
    told = []
    written = threading.Event()
    database.write_soon(insert(1), sync=(), then=lambda *done: (told.append(done), written.set()))

    assert written.wait(5)
    assert told == [(1, None)]


def test_while_the_database_refuses_it_stays_and_nothing_new_is_taken(database, tmp_path):
    """Fault A6: it is durable elsewhere, so it waits, in its order."""
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("begin immediate")
    told = []
    soon(database, 1, told)
    with pytest.raises(LedgerError, match="locked"):
        database.settle()
    with pytest.raises(LedgerError, match="locked"):
        soon(database, 2, told)
    assert numbers(database) == [], "a look does not wait for a lock that is known"
    assert told == []

    other.execute("rollback")
    other.close()
    soon(database, 3, told)

    assert numbers(database) == [1, 3]
    assert told == [(1, None), (3, None)]


def test_its_own_error_is_told_and_does_not_hold_the_others_up(database):
    told = []
    for number in (1, 1, 2):
        soon(database, number, told)

    assert numbers(database) == [1, 2]
    assert [error is None for _, error in told] == [True, False, True]
    assert isinstance(told[1][1], LedgerError)


def test_an_outcome_that_cannot_be_handed_on_stops_nobody(database):
    def fail(*_):
        raise RuntimeError("a mistake of ours")

    database.write_soon(insert(1), sync=(), then=fail)
    soon(database, 2)

    assert numbers(database) == [1, 2]
    assert database.alive


def test_a_folder_that_cannot_be_synced_keeps_it_waiting(url, tmp_path):
    broken = [True]

    def sync(_folder):
        if broken[0]:
            raise OutOfResources(os.strerror(errno.EIO))

    database = Database(url, sync_directory=sync)
    database.write_soon(insert(1), sync=(tmp_path,), then=lambda *_: None)
    with pytest.raises(OutOfResources):
        database.settle()
    assert database.write(insert(2)) == 2, "those who need no folder go on"
    broken[0] = False
    database.settle()

    assert numbers(database) == [1, 2]
    database.close()


def test_closing_writes_what_was_to_be_written_soon(url):
    database = Database(url, sync_directory=lambda _: None)
    for number in range(100):
        soon(database, number)
    database.close()

    with pytest.raises(LedgerError, match="closed"):
        soon(database, 100)
    looking = ReadOnlyDatabase(url)
    assert len(numbers(looking)) == 100
    looking.close()
