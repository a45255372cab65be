"""A folder as destination: whole files or none, and never two contents under one name."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.domain import Uid
from node.errors import PeerUnreachable
from node.scu.destinations import FolderDestination
from node.scu.sender import Outcome, Outgoing
from node.store.files import SystemFileOps
from tests.store_kit import RecordingOps

RTSTRUCT = Uid("1.2.840.10008.5.1.4.1.1.481.3")


@pytest.fixture
def item(tmp_path) -> Outgoing:
    path = tmp_path / "blob"
    path.write_bytes(b"content of the object")
    return Outgoing(
        path=path,
        sop_class_uid=RTSTRUCT,
        sop_instance_uid=Uid("2.25.17"),
        transfer_syntax_uid=Uid("1.2.840.10008.1.2.1"),
        key=1,
    )


def deliver(folder: Path, *items: Outgoing, ops=None):
    return list(FolderDestination("results", folder, ops).deliver(items))


def test_an_object_becomes_a_file_named_by_its_kind_and_uid(tmp_path, item):
    folder = tmp_path / "results"

    results = deliver(folder, item)

    assert [(r.outcome, r.status) for r in results] == [(Outcome.SENT, 0)]
    assert [p.name for p in folder.iterdir()] == ["RTSTRUCT-2.25.17.dcm"]
    assert (folder / "RTSTRUCT-2.25.17.dcm").read_bytes() == b"content of the object"


def test_the_same_object_again_is_fine(tmp_path, item):
    folder = tmp_path / "results"

    deliver(folder, item)

    assert deliver(folder, item)[0].outcome is Outcome.SENT


def test_another_content_under_the_name_is_never_overwritten(tmp_path, item):
    folder = tmp_path / "results"
    folder.mkdir()
    target = folder / "RTSTRUCT-2.25.17.dcm"
    target.write_bytes(b"somebody else's")

    result = deliver(folder, item)[0]

    assert result.outcome is Outcome.REFUSED
    assert target.read_bytes() == b"somebody else's"


def test_a_uid_that_is_no_file_name_is_refused(tmp_path, item):
    evil = Outgoing(
        path=item.path,
        sop_class_uid=RTSTRUCT,
        sop_instance_uid=Uid("../../etc/evil"),
        transfer_syntax_uid=item.transfer_syntax_uid,
    )
    folder = tmp_path / "deep" / "results"
    folder.parent.mkdir()

    assert deliver(folder, evil)[0].outcome is Outcome.REFUSED
    assert list(folder.iterdir()) == []


def test_a_remainder_of_a_killed_node_is_replaced(tmp_path, item):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / ".RTSTRUCT-2.25.17.dcm.part").write_bytes(b"half of the cont")

    deliver(folder, item)

    assert [p.name for p in folder.iterdir()] == ["RTSTRUCT-2.25.17.dcm"]


def test_a_folder_that_cannot_be_written_fails_as_a_whole_and_is_tried_again(tmp_path, item):
    with pytest.raises(PeerUnreachable, match="folder results") as caught:
        deliver(tmp_path / "missing" / "parent", item)

    assert caught.value.transient
    assert "writable" in caught.value.advice


def test_a_failed_sync_leaves_no_file_behind(tmp_path, item):
    class FullDisk(SystemFileOps):
        def write_new(self, path, chunks):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    folder = tmp_path / "results"
    with pytest.raises(PeerUnreachable, match="No space left"):
        deliver(folder, item, ops=FullDisk())

    assert not (folder / "RTSTRUCT-2.25.17.dcm").exists()


def test_a_file_that_is_there_is_synced_before_it_counts_as_delivered(tmp_path, item):
    """The node may have died between the rename and the sync of the folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "RTSTRUCT-2.25.17.dcm").write_bytes(b"content of the object")
    ops = RecordingOps()

    assert deliver(folder, item, ops=ops)[0].outcome is Outcome.SENT

    assert ("directory", str(folder)) in ops.log


@pytest.fixture
def report(tmp_path) -> Path:
    folder = tmp_path / "work" / "report"
    folder.mkdir(parents=True)
    (folder / "features.csv").write_text("roi,code,value\n")
    (folder / "report.json").write_text("{}")
    (folder / "index.html").write_text("page")
    return folder


def test_the_tables_of_a_structured_report_lie_beside_it(tmp_path, item, report):
    folder = tmp_path / "results"
    sr = replace(item, sop_class_uid=Uid("1.2.840.10008.5.1.4.1.1.88.33"), report=report)

    results = deliver(folder, sr)

    assert results[0].outcome is Outcome.SENT
    assert sorted(p.name for p in folder.iterdir()) == [
        "SR-2.25.17.dcm",
        "SR-2.25.17.features.csv",
        "SR-2.25.17.report.json",
    ]
    assert (folder / "SR-2.25.17.features.csv").read_text() == "roi,code,value\n"


def test_the_tables_are_whole_before_the_report_has_its_name(tmp_path, item, report):
    ops = RecordingOps()
    sr = replace(item, sop_class_uid=Uid("1.2.840.10008.5.1.4.1.1.88.33"), report=report)

    deliver(tmp_path / "results", sr, ops=ops)

    written = [Path(path).name for step, path in ops.log if step == "file"]
    assert written[-1] == ".SR-2.25.17.dcm.part"


def test_a_report_whose_folder_is_gone_is_delivered_without_tables(tmp_path, item):
    sr = replace(item, sop_class_uid=Uid("1.2.840.10008.5.1.4.1.1.88.33"), report=tmp_path / "gone")

    assert deliver(tmp_path / "results", sr)[0].outcome is Outcome.SENT
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["SR-2.25.17.dcm"]


def test_only_structured_reports_bring_tables(tmp_path, item, report):
    deliver(tmp_path / "results", replace(item, report=report))

    assert [p.name for p in (tmp_path / "results").iterdir()] == ["RTSTRUCT-2.25.17.dcm"]
