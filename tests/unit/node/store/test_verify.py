"""The oracle's own tests: a ledger that was broken on purpose must be caught, and named."""

import threading
import time

import pytest
from sqlalchemy import text

from node.store.invariants import QUESTIONS, violations
from tests.store_kit import SERIES, blobs, ct, finish, push, start_job, store

BROKEN = [
    ("unexplained", f"update series set count = count + 1 where series_instance_uid = '{SERIES}'"),
    ("unexplained", "update series set reason = ''"),
    ("two result sets", "update job set superseded_by = null, revision = 0, series_revision = 0"),
    ("no result", "update decision set job_id = null"),
    ("no result", "delete from delivery; delete from result"),
    ("not queued", "delete from delivery"),
    ("no next action", "update job set state = 'HELD', reason = ''"),
    ("no next action", "update job set state = 'IN PROGRESS', lease_until = null"),
    ("no next action", "update delivery set state = 'HELD', reason = ''"),
    ("two contents", "update delivery set sop_instance_uid = '1.2.3'"),
    ("not fenced", "update job set attempt = 7"),
    ("not fenced", "update attempt set outcome = 'FAILED'"),
    ("not fenced", "update job set token = token + 1"),
    ("input gone", "update job_input set sop_instance_uid = '1.2.3' || sop_instance_uid"),
    ("purged too early", "update blob set purged_at = created_at"),
    ("illegal step", "update job set state = 'CANCELED'"),
    ("illegal step", "update event set action = 'job_released' where action = 'job_finished'"),
    ("database", "update alembic_version set version_num = '0001'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Keep a ledger with a delivered-to-be result and a forced second job open."""
    folder = tmp_path_factory.mktemp("verify")
    with store(folder / "data") as opened:
        settled(opened, folder)
        yield opened


def settled(opened, folder):
    job = start_job(opened)
    finish(opened, folder)
    opened.ledger.reprocess_job(job)
    assert opened.ledger.verify() == []


class Undo(Exception):
    """Ends a transaction that must leave nothing behind."""


def violations_after(opened, sql):
    found = []

    def break_and_look(connection):
        for statement in sql.split(";"):
            connection.execute(text(statement))
        found.extend(violations(connection))
        raise Undo

    with pytest.raises(Undo):
        opened._database.write(break_and_look)
    return found


@pytest.mark.parametrize(("kind", "sql"), BROKEN)
def test_a_broken_ledger_is_caught_by_the_question_that_is_named_for_it(whole, kind, sql):
    found = violations_after(whole, sql)

    assert kind in {problem.kind for problem in found}, found
    assert all(problem.subject and problem.detail for problem in found)
    assert whole.ledger.verify(contents=False) == []


def test_every_question_is_proven_to_catch_something():
    assert {kind for kind, _ in QUESTIONS} <= {kind for kind, _ in BROKEN}


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "changed"),
        (lambda path: path.write_bytes(b"no DICOM"), "changed"),
        (lambda path: path.with_name("stray.dcm").write_bytes(b"x"), "unknown"),
    ],
    ids=["removed", "cut", "overwritten", "stray"],
)
def test_a_file_that_is_not_its_row_is_caught(tmp_path, damage, kind):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        damage(blobs(tmp_path)[0])

        assert [problem.kind for problem in opened.ledger.verify()] == [kind]


def test_without_reading_contents_a_missing_file_is_still_found(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        blobs(tmp_path)[0].unlink()

        (problem,) = opened.ledger.verify(contents=False)

    assert problem.kind == "missing"


def test_a_purged_file_that_is_still_there_is_told(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        opened._database.write(lambda c: c.execute(text("update blob set purged_at = created_at")))

        assert [problem.kind for problem in opened.ledger.verify()] == ["not purged"]


def test_a_file_on_its_way_to_its_row_is_no_problem_within_the_grace(tmp_path):
    """Beside a running node a look may fall between the file and its commit."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
        late = blobs(tmp_path)[0].with_name("late.dcm")
        late.write_bytes(b"x")
        arrives = threading.Timer(0.3, late.unlink)
        arrives.start()
        began = time.monotonic()

        assert opened.ledger.verify(grace_s=10) == []
        assert time.monotonic() - began < 5
        arrives.join(5)


def test_what_is_under_way_is_counted(tmp_path):
    with store(tmp_path / "data") as opened:
        push(opened, ct(9, series="1.2.3.7"))
        start_job(opened)
        finish(opened, tmp_path)

        work = opened.ledger.verdict().open_work

    assert work == {"series": 1, "decisions": 0, "jobs": 0, "deliveries": 1}
