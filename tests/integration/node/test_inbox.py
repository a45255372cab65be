"""Hot folder: complete files enter by the door of C-STORE, unfinished ones do not."""

import threading
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.config.model import AfterIntake, HotFolder
from node.domain import AETitle
from node.inbox import Inbox
from tests.integration.network.support import FakePeer
from tests.node_kit import CONTOURS, node, until
from tests.store_kit import FakeClock, ct, part10, store


@pytest.fixture
def opened(tmp_path):
    with store(tmp_path / "data") as opened:
        yield opened


class Watch:
    """An inbox that is looked through by hand, with a clock that moves when told."""

    def __init__(self, tmp_path: Path, opened, **changes) -> None:
        self.path = tmp_path / "drop"
        self.path.mkdir()
        self.clock = FakeClock()
        self.ledger = opened.ledger
        folder = HotFolder(path=self.path, settle_s=3.0, **changes)
        self.inbox = Inbox(folder, AETitle("RTNODE"), opened.intake, self.clock)

    def put(self, name: str, number: int = 1) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part10(ct(number)))
        return path

    def later(self, seconds: float = 3.1) -> None:
        self.inbox.look()
        self.clock.advance(seconds)
        self.inbox.look()

    @property
    def stored(self) -> int:
        return len(self.ledger.instances("1.2.3.2"))


def test_a_file_is_taken_when_it_stayed_the_same(tmp_path, opened) -> None:
    watch = Watch(tmp_path, opened)
    watch.put("deep/below/a.dcm")

    watch.later(2.0)
    assert watch.stored == 0
    watch.clock.advance(1.1)
    watch.inbox.look()

    assert watch.stored == 1


def test_a_file_that_grows_is_waited_for(tmp_path, opened) -> None:
    watch = Watch(tmp_path, opened)
    path = watch.put("a.dcm")
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    watch.later(2.9)
    path.write_bytes(whole)
    watch.later(2.9)
    assert watch.stored == 0

    watch.clock.advance(0.2)
    watch.inbox.look()

    assert watch.stored == 1


def test_a_file_that_is_open_for_writing_is_waited_for(tmp_path, opened) -> None:
    watch = Watch(tmp_path, opened)
    with watch.put("a.dcm").open("ab"):
        watch.later()
        assert watch.stored == 0

    watch.later()

    assert watch.stored == 1


@pytest.mark.parametrize("name", ["a.dcm.part", "a.TMP", ".a.dcm", ".copying/a.dcm", "~a.dcm"])
def test_unfinished_and_hidden_names_are_passed_over_until_they_are_renamed(
    tmp_path, opened, name
) -> None:
    watch = Watch(tmp_path, opened)
    path = watch.put(name)
    watch.later()
    assert watch.stored == 0

    path.rename(watch.path / "whole.dcm")
    watch.later()

    assert watch.stored == 1


def test_files_are_kept_deleted_or_moved(tmp_path, opened) -> None:
    keep = Watch(tmp_path, opened)
    kept = keep.put("a.dcm", 1)
    keep.later()
    keep.later()
    keep.path.rename(tmp_path / "first")
    delete = Watch(tmp_path, opened, after=AfterIntake.DELETE)
    deleted = delete.put("a.dcm", 2)
    delete.later()
    delete.path.rename(tmp_path / "second")
    done = tmp_path / "drop" / "done"
    move = Watch(tmp_path, opened, after=AfterIntake.MOVE, done_dir=done)
    moved = move.put("sub/a.dcm", 3)
    move.later()
    move.put("sub/a.dcm", 4)
    move.later()

    assert move.stored == 4
    assert (tmp_path / "first" / kept.name).exists()
    assert not (tmp_path / "second" / deleted.name).exists()
    assert not moved.exists()
    assert (done / "sub" / "a.dcm").exists()
    assert len(list((done / "sub").iterdir())) == 2


def test_what_is_no_dicom_is_explained_without_its_name_and_left(tmp_path, opened, caplog) -> None:
    """B12: people put patients' names into file names."""
    caplog.set_level("INFO", logger="node")
    watch = Watch(tmp_path, opened, after=AfterIntake.DELETE)
    path = watch.path / "CANARY_NAME.txt"
    path.write_text("hello")

    watch.later()
    watch.later()

    refused = [r.fields for r in caplog.records if r.msg == "file_refused"]
    assert len(refused) == 1
    assert refused[0]["reason"].startswith("not a DICOM file")
    assert "CANARY" not in str(refused)
    assert path.exists()


def test_objects_that_come_in_one_go_form_one_association_that_ends_in_silence(
    tmp_path, opened
) -> None:
    watch = Watch(tmp_path, opened)
    for number in range(1, 5):
        watch.put(f"{number}.dcm", number)
    watch.later()
    (association,) = watch.ledger.series_associations("1.2.3.2")
    assert association.ended_at is None

    watch.later()

    (association,) = watch.ledger.series_associations("1.2.3.2")
    assert (association.end, association.instances) == ("RELEASED", 4)
    assert association.calling_ae_title == "HOTFOLDER"


def test_a_series_copied_into_a_hot_folder_comes_back_as_a_result(tmp_path) -> None:
    drop = tmp_path / "drop"
    folders = [{"path": str(drop), "settle_s": 0.3}]
    with (
        FakePeer() as pacs,
        node(tmp_path / "data", pacs.port, hot_folders=folders, routes=[CONTOURS]),
    ):
        copier = threading.Thread(target=_copy, args=(drop,))
        copier.start()
        copier.join()
        until(lambda: pacs.received)

    assert len(pacs.received) == 1


def test_an_inbox_starts_with_what_is_there_and_stops(tmp_path, opened) -> None:
    folder = HotFolder(path=tmp_path / "drop", settle_s=0.2)
    folder.path.mkdir()
    (folder.path / "a.dcm").write_bytes(part10(ct(1)))
    inbox = Inbox(folder, AETitle("RTNODE"), opened.intake, SystemClock())

    inbox.start()
    until(lambda: opened.ledger.instances("1.2.3.2"))
    inbox.stop()

    assert not inbox.alive()
    assert not opened.ledger.open_associations()


def _copy(drop: Path) -> None:
    for number in range(1, 9):
        (drop / f"{number}.dcm").write_bytes(part10(ct(number)))


def test_a_file_over_which_the_node_itself_stumbles_does_not_end_the_watch(
    tmp_path, opened, monkeypatch
) -> None:
    """A dead thread would restart the node, which would meet the same file again."""
    watch = Watch(tmp_path, opened)
    poison = watch.put("a.dcm", 1)
    watch.put("b.dcm", 2)
    real = opened.intake.accept_file

    def stumbles(path, source):
        if path == poison:
            raise RecursionError
        return real(path, source)

    monkeypatch.setattr(opened.intake, "accept_file", stumbles)
    watch.later()
    watch.later()

    assert watch.stored == 1
    assert poison.exists()
