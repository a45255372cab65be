"""Data sets on their way in: in a file whose name is durable, from the first byte on."""

import errno
import hashlib
import os

import pytest

from node.domain import Kept
from node.errors import CannotUnderstand, InstanceMismatch, OutOfResources
from node.store import header as header_module
from node.store import spool as module
from node.store.files import ARRIVALS
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, received, split
from tests.store_kit import (
    CT,
    SERIES,
    FailingOps,
    RecordingOps,
    arrivals,
    blobs,
    ct,
    encode,
    source,
    store,
    structure_set,
)

HEAD = 200
"""Bytes in memory in these tests, less than the smallest slice has."""


@pytest.fixture(params=["a head of 200 bytes", "all of it in the head"])
def _small_head(request, monkeypatch):
    if "200" in request.param:
        monkeypatch.setattr(module, "HEAD", HEAD)
        monkeypatch.setattr(header_module, "HEAD", HEAD)


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


def test_an_object_is_in_a_file_while_it_arrives_and_named_by_its_content_after(tmp_path):
    ds = ct()
    with store(tmp_path) as opened:
        arrival = arrive(opened, ds)
        (part,) = (path.read_bytes() for path in arrivals(tmp_path))
        accepted = arrival.accept()

        (path,) = blobs(tmp_path)
        identity = hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ds)).hexdigest()
        assert accepted.sha256 == identity == path.stem
        assert part.endswith(encode(ds))
        assert bytes(split(path.read_bytes()).data) == encode(ds)
        assert opened.ledger.instances(SERIES)[0].size == len(encode(ds))
        assert arrivals(tmp_path) == []


def test_the_file_says_who_sent_it_and_when_and_what_it_is(tmp_path):
    with store(tmp_path) as opened:
        accepted = arrive(opened, ct()).accept()
        (path,) = blobs(tmp_path)
        (instance,) = opened.ledger.instances(SERIES)

        receipt, syntax, begin = received(path.read_bytes())
        assert (receipt.source, receipt.received_at) == (source(), instance.received_at)
        assert (receipt.sha256, receipt.size) == (accepted.sha256, len(encode(ct())))
        assert syntax == EXPLICIT_VR_LITTLE_ENDIAN
        assert path.read_bytes()[begin:] == encode(ct())


@pytest.mark.parametrize("size", [1, 7, 64, 199, 200, 201, 5000])
@pytest.mark.usefixtures("_small_head")
def test_fragments_of_any_size_make_the_same_object(tmp_path, size):
    with store(tmp_path) as opened:
        accepted = arrive(opened, ct(), size=size).accept()

    identity = hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ct())).hexdigest()
    assert accepted.sha256 == identity


@pytest.mark.usefixtures("_small_head")
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

        assert (arrivals(tmp_path), blobs(tmp_path)) == ([], [])


def test_a_node_that_died_while_a_large_object_arrived_leaves_nothing_after_the_next_start(
    tmp_path,
):
    with store(tmp_path) as opened:
        arrival = arrive(opened, ct())
        assert arrivals(tmp_path)
        arrival._spool._part.close()

    with store(tmp_path) as again:
        assert arrivals(tmp_path) == []
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
        intake._standing = lambda *_: (Kept.STORED, False)  # both looked before either was there
        one.accept()
        (file,) = blobs(tmp_path)
        before = file.stat().st_ino
        other.accept()

        assert opened.ledger.counts().instances == 1
        (path,) = blobs(tmp_path)
        assert path.stat().st_ino == before
        assert arrivals(tmp_path) == []


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

    def open_prepared(self, path):
        self._fail("open_prepared")
        return super().open_prepared(path)

    def write_at(self, descriptor, data, position):
        self._fail("write_at")
        super().write_at(descriptor, data, position)

    def link(self, old, new):
        self._fail("link")
        super().link(old, new)

    def sync_data(self, descriptor):
        self._fail("sync_data")
        super().sync_data(descriptor)


@pytest.mark.parametrize("call", ["create", "open_prepared", "write_at", "link", "sync_data"])
def test_a_disk_that_fails_at_any_step_refuses_the_object_and_keeps_nothing(tmp_path, call):
    """Fault A4; a failed sync is final."""
    ops = SpoolOps()
    with store(tmp_path, ops=ops) as opened:
        ops.call = call
        arrival = arrive(opened, ct())  # no fragment is refused: the sender must get its answer
        with pytest.raises(OutOfResources):
            arrival.accept()
        assert (arrivals(tmp_path), blobs(tmp_path)) == ([], [])

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
        arrival.write(memoryview(bytes(200)))
        ops.free = -1
        arrival.write(memoryview(bytes(300)))
        with pytest.raises(OutOfResources, match="floor"):
            arrival.accept()
        assert arrivals(tmp_path) == []


def test_names_bytes_folder_and_row_are_synced_in_this_order(tmp_path):
    """Fault A2 for one object."""
    ops = RecordingOps()
    with store(tmp_path, ops=ops) as opened:
        ops.log.clear()
        arrive(opened, ct()).accept()
        answered = len(ops.log)
        opened.ledger.counts()

        steps = [(kind, f"/{ARRIVALS}" in name) for kind, name in ops.log]
        arrived = [kind for kind, there in dict.fromkeys(steps[:answered]) if there]
        assert arrived == ["name", "directory", "data", "link"]
        assert steps[answered:] == [("directory", False), ("removed", True)]


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
        assert arrivals(tmp_path) == []


def test_a_large_object_that_is_another_than_the_one_requested_is_refused(tmp_path):
    with store(tmp_path) as opened:
        with pytest.raises(InstanceMismatch):
            arrive(opened, ct(), uid="1.9").accept()

        assert (arrivals(tmp_path), blobs(tmp_path)) == ([], [])
