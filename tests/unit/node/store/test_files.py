"""Files are published whole or not at all."""

import errno
import os
import threading
from pathlib import Path

import pytest

from node.errors import OutOfResources
from node.store import files
from node.store.files import BlobFiles, Limits
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, Encoded
from node.store.volume import DiskState
from tests.store_kit import CT, FailingOps, RecordingOps, blobs, ct, encode, part10

ROOM = Limits(min_free=0, warn_free=0)


def make(folder: Path, ops=None, limits=ROOM) -> BlobFiles:
    made = BlobFiles(folder, limits=limits, bucket_prefix=lambda: "20261120", ops=ops)
    made.prepare()
    return made


def publish(into: BlobFiles, number: int = 1):
    content = Encoded(transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, data=encode(ct(number)))
    return into.publish(
        content,
        sha256=content.sha256(),
        sop_class_uid=CT,
        sop_instance_uid=f"1.2.3.2.{number}",
    )


def test_a_published_file_is_a_dicom_file_named_by_its_content(tmp_path):
    published = publish(make(tmp_path))

    assert published.path.read_bytes() == part10(ct())
    assert published.path.stem == published.sha256
    assert published.name == f"blobs/20261120-0000/{published.sha256}.dcm"
    assert published.size == len(encode(ct()))


def test_a_twin_gets_a_file_of_its_own_because_only_a_row_makes_a_file_valid(tmp_path):
    made = make(tmp_path)

    first, second = publish(made), publish(made)

    assert first.path != second.path
    assert first.path.read_bytes() == second.path.read_bytes()
    made.discard(second)
    assert blobs(tmp_path) == [first.path]


def test_a_new_bucket_is_durable_before_a_file_enters_it(tmp_path):
    ops = RecordingOps()
    made = make(tmp_path, ops)

    publish(made)

    assert [line for line in ops.log if line[0] != "name"][-2:] == [
        ("directory", str(tmp_path / "blobs")),
        ("file", str(blobs(tmp_path)[0])),
    ]


def test_a_bucket_takes_so_many_files_and_a_restart_begins_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FILES_PER_BUCKET", 2)
    made = make(tmp_path)

    for number in range(5):
        publish(made, number)
    publish(make(tmp_path), 9)

    counts = [len(names) for _, names in made.names()]
    assert counts == [2, 2, 1, 1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
def test_a_failed_write_leaves_nothing_and_says_why_without_a_path(tmp_path, code):
    ops = FailingOps()
    made = make(tmp_path, ops)
    publish(made)
    ops.write_error = code

    with pytest.raises(OutOfResources) as caught:
        publish(made, 2)

    assert len(blobs(tmp_path)) == 1
    assert os.strerror(code) in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert made.disk().state is DiskState.FULL
    assert made.disk().trouble == os.strerror(code)


def test_the_alarm_clears_by_itself_with_the_next_write_that_works(tmp_path):
    ops = FailingOps()
    made = make(tmp_path, ops)
    ops.write_error = errno.ENOSPC
    with pytest.raises(OutOfResources):
        publish(made)
    ops.write_error = 0

    publish(made)

    assert made.disk().state is DiskState.OK
    assert made.disk().trouble == ""


def test_below_the_floor_nothing_is_written(tmp_path):
    """A5: 0xA700 without writing the data set."""
    ops = FailingOps()
    made = make(tmp_path, ops, Limits(min_free=1 << 30, warn_free=2 << 30))
    ops.free = (1 << 30) + 10

    with pytest.raises(OutOfResources, match="its floor is 1024 MiB"):
        publish(made)

    assert blobs(tmp_path) == []
    made.require_space(10)
    assert made.disk().state is DiskState.LOW
    ops.free = (1 << 30) - 1
    assert made.disk().state is DiskState.FULL


def test_a_folder_that_cannot_be_synced_is_told(tmp_path):
    ops = FailingOps()
    made = make(tmp_path, ops)
    ops.directory_error = errno.EIO

    with pytest.raises(OutOfResources, match="Input/output error"):
        made.sync_directory(tmp_path / "blobs")


def test_the_quarantine_keeps_each_content_once_and_is_bounded(tmp_path):
    made = make(tmp_path, limits=Limits(min_free=0, warn_free=0, quarantine=10))

    first = made.keep_in_quarantine("aa", (b"123456",), 6)

    assert first == "quarantine/aa.bin"
    assert made.keep_in_quarantine("aa", (b"123456",), 6) == first
    assert made.keep_in_quarantine("bb", (b"123456",), 6) == ""
    assert (tmp_path / first).read_bytes() == b"123456"
    assert (
        make(tmp_path, limits=Limits(min_free=0, warn_free=0, quarantine=10)).keep_in_quarantine(
            "bb", (b"123456",), 6
        )
        == ""
    ), "what is there counts after a restart too"


def test_what_a_kill_left_half_written_in_the_quarantine_is_written_anew(tmp_path):
    torn = tmp_path / "quarantine" / "aa.bin"
    make(tmp_path)
    torn.write_bytes(b"123")

    made = make(tmp_path, limits=Limits(min_free=0, warn_free=0, quarantine=10))

    assert made.keep_in_quarantine("aa", (b"123456",), 6) == "quarantine/aa.bin"
    assert torn.read_bytes() == b"123456"
    assert made.keep_in_quarantine("bb", (b"4444",), 4) != "", "what was torn no longer counts"


def test_a_large_object_on_its_way_to_the_quarantine_delays_no_other(tmp_path):
    class Slow(RecordingOps):
        """While the quarantine is written, another object is published."""

        def write_new(self, path, chunks) -> None:
            super().write_new(path, chunks)
            if path.parent.name == "quarantine":
                other = threading.Thread(target=publish, args=(made,))
                other.start()
                other.join(5)
                assert not other.is_alive()

    made = make(tmp_path, Slow())

    assert made.keep_in_quarantine("aa", (b"123456",), 6)
    assert len(blobs(tmp_path)) == 1


def test_a_file_without_a_row_is_set_aside_not_deleted(tmp_path):
    made = make(tmp_path)
    published = publish(made)

    made.set_aside(published.name)

    assert blobs(tmp_path) == []
    assert (tmp_path / "orphans" / published.path.name).exists()


def test_a_result_file_that_is_gone_is_out_of_resources_without_a_disk_alarm(tmp_path):
    made = make(tmp_path)

    with pytest.raises(OutOfResources, match="cannot read"):
        made.read(tmp_path / "nothing")

    assert made.disk().state is DiskState.OK
