"""What a dead node left in the folder of arrivals: taken over when it is whole, else removed."""

import os
import shutil
from dataclasses import replace

import pytest

from node.domain import Kept
from node.errors import LedgerError
from node.store import intake
from node.store.arrivals import insert_instance
from node.store.files import ARRIVALS, Published
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from tests.postgres_kit import sqlite_only
from tests.store_kit import SERIES, arrivals, blobs, ct, encode, push, source, store


@pytest.fixture
def left(tmp_path):
    """Return a data folder whose node was killed when it had answered and committed nothing."""
    with store(tmp_path / "first") as opened:
        opened._database._serve_batch = lambda _: None
        opened._database._refused = RuntimeError("held up by the test")
        opened._database.settle = lambda: None
        push(opened, ct(1))
        shutil.copytree(tmp_path / "first", tmp_path / "data", ignore=lambda *_: ["lock"])
        for path in blobs(tmp_path / "data"):
            path.unlink()  # a copy does not keep two names of one file
        del opened._database._serve_batch, opened._database.settle
        opened._database._refused = None
    return tmp_path / "data"


def test_it_gets_its_row_with_sender_and_time(left):
    with store(left) as opened:
        (instance,) = opened.ledger.instances(SERIES)

        assert opened.recovered.taken_over == 1
        assert instance.source == source()
        assert bytes(instance.path.read_bytes()).endswith(encode(ct(1)))
        assert arrivals(left) == []
        assert push(opened, ct(1)).kept is Kept.DUPLICATE
        assert opened.ledger.verify() == []


@pytest.mark.parametrize("place", [0, 300, -1])
def test_what_is_not_whole_is_removed(left, place):
    (path,) = arrivals(left)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:place] if place else b"no receipt")

    with store(left) as opened:
        assert opened.recovered.taken_over == 0
        assert opened.ledger.counts().instances == 0
        assert list((left / "blobs" / ARRIVALS).iterdir()) == []
        assert opened.ledger.verify() == []


def test_what_has_its_row_only_loses_its_first_name(tmp_path):
    """Killed between the commit and the tidying."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
    (path,) = blobs(tmp_path)
    os.link(path, tmp_path / "blobs" / ARRIVALS / "first")

    with store(tmp_path) as opened:
        assert (opened.recovered.taken_over, opened.recovered.orphans) == (0, 0)
        assert arrivals(tmp_path) == []
        assert blobs(tmp_path) == [path]
        assert opened.ledger.verify() == []


@sqlite_only("copies the data folder with its database in it")
def test_a_file_that_was_linked_and_has_no_row_keeps_only_its_first_name(left):
    """Killed between the link and the commit: the sweep sets nothing aside."""
    (path,) = arrivals(left)
    bucket = next(p for p in (left / "blobs").iterdir() if p.name != ARRIVALS)
    os.link(path, bucket / "linked.dcm")

    with store(left) as opened:
        assert (opened.recovered.taken_over, opened.recovered.orphans) == (1, 0)
        assert opened.ledger.verify() == []


def test_what_cannot_be_understood_any_more_is_set_aside(left, monkeypatch):
    monkeypatch.setattr("node.store.header._ELEMENTS", 3)

    with store(left) as opened:
        assert opened.recovered.taken_over == 0
        assert len(opened.files.orphans()) == 1
        assert arrivals(left) == []


def test_a_database_that_refuses_stops_the_start_and_costs_nothing(left, monkeypatch):
    """It was answered: it must outlive any number of starts that fail."""
    refusing = LedgerError("the database refused: disk is full")

    def refuse(*_, **__):
        raise refusing

    real = intake.insert_instance
    monkeypatch.setattr(intake, "insert_instance", refuse)
    monkeypatch.setattr(intake, "record_event", refuse)
    for _ in range(2):
        with pytest.raises(LedgerError, match="disk is full"):
            store(left)
        assert len(arrivals(left)) == 1
    monkeypatch.undo()
    assert intake.insert_instance is real

    with store(left) as opened:
        assert opened.recovered.taken_over == 1
        assert opened.ledger.verify() == []


def test_an_object_that_alone_is_refused_is_set_aside_and_told(left, monkeypatch):
    """One object must not keep the node from starting."""

    def refuse(*_):
        raise LedgerError("the database refused: this text")

    monkeypatch.setattr(intake, "insert_instance", refuse)

    with store(left) as opened:
        assert opened.recovered.taken_over == 0
        assert len(opened.files.orphans()) == 1
        assert arrivals(left) == []
        (told,) = opened.ledger.explain(f"{SERIES}.1")
        assert told.action == "instance_refused"
        assert "this text" in told.detail["reason"]


def test_a_row_whose_commit_was_not_told_keeps_its_file(tmp_path):
    """The same file once more: its content is known, and the file is in use all the same."""
    with store(tmp_path) as opened:
        accepted = push(opened, ct(1))
        (instance,) = opened.ledger.instances(SERIES)
        own = Published(
            sha256=accepted.sha256,
            path=instance.path,
            name=str(instance.path.relative_to(tmp_path)),
            size=instance.size,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        )

        def again(file: Published) -> tuple[Kept, bool]:
            now = instance.received_at
            return opened._database.write(
                lambda c: insert_instance(c, now, instance.header, file, source())
            )

        assert again(own) == (Kept.DUPLICATE, True)
        assert again(replace(own, name="blobs/x/twin.dcm")) == (Kept.DUPLICATE, False)
