"""Data sets on their way in: in memory while small, in a file of the blob folder beyond."""

import errno
import hashlib
import os

import pytest

from node.errors import CannotUnderstand, InstanceMismatch, OutOfResources
from node.store import spool as module
from node.store.files import PART
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, split
from tests.store_kit import (
    CT,
    SERIES,
    FailingOps,
    RecordingOps,
    blobs,
    ct,
    encode,
    source,
    store,
    structure_set,
)

LIMIT = 200
"""Bytes in memory in these tests, so that the smallest slice goes to a file."""


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", LIMIT)


def arrive(opened, ds, *, size: int = 64, uid: str | None = None):
    """Hand a data set over in fragments, as the network does."""
    arrival = opened.intake.receive(
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=uid or str(ds.SOPInstanceUID),
        source=source(),
    )
    data = encode(ds)
    for at in range(0, len(data), size):
        arrival.write(memoryview(data)[at : at + size])
    return arrival


def parts(folder) -> list[str]:
    return [p.name for p in (folder / "blobs").rglob(f"*{PART}")]


def test_a_large_object_is_in_a_file_while_it_arrives_and_named_by_its_content_after(tmp_path):
    ds = ct()
    with store(tmp_path) as opened:
        arrival = arrive(opened, ds)
        (part,) = parts(tmp_path)
        accepted = arrival.accept()

        (path,) = blobs(tmp_path)
        identity = hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ds)).hexdigest()
        assert accepted.sha256 == identity == path.stem
        assert str(ds.SOPInstanceUID) not in part
        assert bytes(split(path.read_bytes()).data) == encode(ds)
        assert opened.ledger.instances(SERIES)[0].size == len(encode(ds))


def test_a_large_object_is_the_same_as_one_that_fits_into_memory(tmp_path, monkeypatch):
    ds = ct()
    with store(tmp_path / "large") as large:
        arrive(large, ds).accept()
    monkeypatch.setattr(module, "IN_MEMORY", 1 << 20)
    with store(tmp_path / "small") as small:
        arrive(small, ds).accept()

    (one,), (other,) = blobs(tmp_path / "large"), blobs(tmp_path / "small")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("size", [1, 7, 64, 199, 200, 201, 5000])
def test_fragments_of_any_size_make_the_same_object(tmp_path, size):
    with store(tmp_path) as opened:
        accepted = arrive(opened, ct(), size=size).accept()

    identity = hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ct())).hexdigest()
    assert accepted.sha256 == identity


def test_a_large_structure_set_keeps_its_references(tmp_path):
    with store(tmp_path) as opened:
        arrive(opened, structure_set([f"{SERIES}.{n}" for n in range(40)])).accept()

        (instance,) = opened.ledger.instances("1.2.4")
        images = [r for r in instance.header.references if r.kind == "IMAGE"]
        assert len(images) == 40


def test_what_is_discarded_leaves_nothing(tmp_path):
    with store(tmp_path) as opened:
        arrival = arrive(opened, ct())
        arrival.discard()
        arrival.discard()

        assert (parts(tmp_path), blobs(tmp_path)) == ([], [])


def test_a_node_that_died_while_a_large_object_arrived_leaves_nothing_after_the_next_start(
    tmp_path,
):
    with store(tmp_path) as opened:
        arrival = arrive(opened, ct())
        assert parts(tmp_path)
        os.close(arrival._spool._part.descriptor)
        arrival._spool._part.descriptor = -1

    with store(tmp_path) as again:
        assert parts(tmp_path) == []
        assert again.recovered.orphans == 0


def test_the_same_large_object_twice_is_one_file(tmp_path):
    with store(tmp_path) as opened:
        kept = [arrive(opened, ct()).accept().kept.value for _ in range(2)]

        assert kept == ["STORED", "DUPLICATE"]
        assert len(blobs(tmp_path)) == 1


def test_twins_that_arrive_together_never_replace_each_others_file(tmp_path):
    """Fault A8: one of them may be durable already."""
    with store(tmp_path) as opened:
        one, other = arrive(opened, ct()), arrive(opened, ct())
        intake = opened.intake
        intake._is_durable = lambda *_: False  # both looked before either was committed
        first = one.accept()
        (file,) = (path for path in blobs(tmp_path) if path.suffix == ".dcm")
        before = file.stat().st_ino
        second = other.accept()

        assert (first.kept.value, second.kept.value) == ("STORED", "DUPLICATE")
        (path,) = blobs(tmp_path)
        assert path.stat().st_ino == before


class SpoolOps(FailingOps):
    """Fails one call of a growing file."""

    def __init__(self, call: str = "") -> None:
        super().__init__()
        self.call = call

    def _fail(self, call: str) -> None:
        if call == self.call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, path):
        self._fail("create")
        return super().create(path)

    def append(self, descriptor, data):
        self._fail("append")
        super().append(descriptor, data)

    def link(self, old, new):
        self._fail("link")
        super().link(old, new)

    def sync_file(self, descriptor):
        self._fail("sync_file")
        super().sync_file(descriptor)


@pytest.mark.parametrize("call", ["create", "append", "link", "sync_file"])
def test_a_disk_that_fails_at_any_step_refuses_the_object_and_keeps_nothing(tmp_path, call):
    """Fault A4 for what is too large for memory; a failed fsync is final."""
    ops = SpoolOps()
    with store(tmp_path, ops=ops) as opened:
        ops.call = call
        arrival = arrive(opened, ct())  # no fragment is refused: the sender must get its answer
        with pytest.raises(OutOfResources):
            arrival.accept()
        assert (parts(tmp_path), blobs(tmp_path)) == ([], [])

        ops.call = ""
        arrive(opened, ct()).accept()
        assert len(blobs(tmp_path)) == 1


def test_a_volume_that_falls_below_its_floor_while_an_object_grows_refuses_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("node.store.files._SPACE_STEP", 256)
    ops = FailingOps()
    with store(tmp_path, ops=ops) as opened:
        arrival = opened.intake.receive(
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=CT,
            sop_instance_uid=f"{SERIES}.1",
            source=source(),
        )
        arrival.write(memoryview(bytes(LIMIT + 1)))
        ops.free = -1
        arrival.write(memoryview(bytes(300)))
        with pytest.raises(OutOfResources, match="floor"):
            arrival.accept()
        assert parts(tmp_path) == []


def test_file_folder_and_row_are_synced_in_this_order(tmp_path):
    """Fault A2 for what is too large for memory."""

    class Ops(RecordingOps):
        def sync_file(self, descriptor):
            super().sync_file(descriptor)
            self.log.append(("file", str(descriptor)))

    ops = Ops()
    with store(tmp_path, ops=ops) as opened:
        ops.log.clear()
        arrive(opened, ct()).accept()

        assert [kind for kind, _ in ops.log][-2:] == ["file", "directory"]


def test_large_rubbish_is_kept_in_quarantine_byte_for_byte(tmp_path):
    rubbish = b"\xff\xfe" * 400
    with store(tmp_path) as opened:
        arrival = opened.intake.receive(
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=CT,
            sop_instance_uid="1.2",
            source=source(),
        )
        arrival.write(memoryview(rubbish))
        with pytest.raises(CannotUnderstand):
            arrival.accept()

        (kept,) = opened.ledger.quarantined()
        assert kept.path.read_bytes() == rubbish
        assert parts(tmp_path) == []


def test_a_large_object_that_is_another_than_the_one_requested_is_refused(tmp_path):
    with store(tmp_path) as opened:
        with pytest.raises(InstanceMismatch):
            arrive(opened, ct(), uid="1.9").accept()

        assert (parts(tmp_path), blobs(tmp_path)) == ([], [])
