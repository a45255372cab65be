"""A start looks only at what changed since the last one, and never misses what did."""

import pytest

from node.errors import LedgerError
from node.store import dialect
from node.store.marks import Marks, forget_marks, read_marks, write_marks
from node.store.store import Store
from tests.postgres_kit import sqlite_only
from tests.store_kit import blobs, ct, push, store


def looked_at(opened: Store, monkeypatch) -> list[str]:
    """Return the folders that a sweep of now lists."""
    listed = []
    real = opened.files.names_in
    monkeypatch.setattr(opened.files, "names_in", lambda b: listed.append(b) or real(b))
    opened.ledger.sweep()
    return listed


def filled(folder) -> None:
    """Leave three folders of files: each start begins a new one."""
    for number in range(3):
        with store(folder) as opened:
            push(opened, ct(number))


def test_folders_that_did_not_change_are_not_listed(tmp_path, monkeypatch):
    filled(tmp_path)
    with store(tmp_path) as opened:
        assert len(opened.files.buckets()) == 3
        assert looked_at(opened, monkeypatch) == []
        push(opened, ct(9))
        assert looked_at(opened, monkeypatch) == [opened.files.buckets()[-1]]


def test_a_file_that_comes_or_goes_in_an_old_folder_is_noticed(tmp_path):
    filled(tmp_path)
    store(tmp_path).close()
    first, second, _ = blobs(tmp_path)
    first.with_name("stray.dcm").write_bytes(b"x")
    second.unlink()

    with store(tmp_path) as opened:
        assert opened.recovered.orphans == 1
        assert opened.recovered.missing == (str(second.relative_to(tmp_path)),)
    with store(tmp_path) as again:
        assert again.recovered.orphans == 0
        assert len(again.recovered.missing) == 1, "an alarm does not end by being told once"


def test_a_whole_folder_that_is_gone_is_noticed(tmp_path):
    filled(tmp_path)
    store(tmp_path).close()
    first = blobs(tmp_path)[0]
    first.unlink()
    first.parent.rmdir()

    with store(tmp_path) as opened:
        assert opened.recovered.missing == (str(first.relative_to(tmp_path)),)


def test_what_a_dead_node_was_writing_is_removed(tmp_path):
    filled(tmp_path)
    part = blobs(tmp_path)[0].with_name("half.part")
    part.write_bytes(b"x")

    with store(tmp_path) as opened:
        assert not part.exists()
        assert opened.recovered.orphans == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"event": 1}', '{"event": "x"}', "\xff"])
def test_damaged_marks_are_no_marks(tmp_path, content):
    (tmp_path / "swept.json").write_text(content, encoding="latin-1")

    assert read_marks(tmp_path, 99) == Marks()


def test_marks_of_a_newer_ledger_than_this_one_are_no_marks(tmp_path):
    """The database was replaced by an older one."""
    write_marks(tmp_path, Marks(event=10, changed_at={"blobs/a": 1}))

    assert read_marks(tmp_path, 10).changed_at == {"blobs/a": 1}
    assert read_marks(tmp_path, 9) == Marks()
    forget_marks(tmp_path)
    assert read_marks(tmp_path, 10) == Marks()


@sqlite_only("quick_check, cut short")
def test_the_check_of_a_huge_database_is_cut_short_and_made_whole_later(tmp_path, monkeypatch):
    monkeypatch.setattr(dialect, "CHECK_S", -1.0)
    with store(tmp_path) as opened:
        for number in range(40):
            push(opened, ct(number))
    with store(tmp_path) as again:
        assert again.ledger.counts().instances == 40
        assert again.ledger.database_damage() == []


@sqlite_only("quick_check, and damage in its file")
def test_damage_that_the_short_check_meets_stops_the_start(tmp_path):
    with store(tmp_path) as opened:
        for number in range(40):
            push(opened, ct(number))
    path = tmp_path / "ledger.db"
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 20 * 4096] = bytes(12 * 4096)
    path.write_bytes(content)

    with pytest.raises(LedgerError) as refused:
        store(tmp_path)
    assert "restore" in refused.value.advice
