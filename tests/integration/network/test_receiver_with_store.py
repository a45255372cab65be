"""The receiver in front of the real store: what is answered 0x0000 is indexed, and nothing else."""

import hashlib
import struct
import tracemalloc

import pytest

from node.clock import SystemClock
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.association import Context
from node.scu.sender import contexts_for, send
from node.store import part10
from node.store.files import Limits
from node.store.store import StoreOptions, open_store
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    RTSTRUCT,
    VERIFICATION,
    associate,
    data_set_of,
    outgoing,
    until,
    write_object,
)
from tests.store_kit import SERIES, ct, encode
from tests.wire_kit import RawPeer, c_store, p_data, pdv


@pytest.fixture
def node(tmp_path):
    """Start a receiver with a store of its own; returns a function that takes the disk floor."""
    opened = []

    def start(min_free: int = 0):
        data = tmp_path / f"data{len(opened)}"
        data.mkdir()
        limits = Limits(min_free=min_free, warn_free=min_free)
        clock = SystemClock()
        store = open_store(data, clock=clock, options=StoreOptions(limits=limits))
        settings = ReceiverSettings(ae_titles=("RTNODE",), port=0, accept_unknown=True)
        receiver = Receiver(settings, store.intake, clock)
        receiver.start()
        opened.append((receiver, store))
        return receiver, store

    yield start
    for receiver, store in opened:
        receiver.stop(2.0)
        store.close()


def test_an_acknowledged_object_is_indexed_and_its_file_holds_the_bytes(node, tmp_path):
    receiver, store = node()
    item = outgoing(write_object(tmp_path))
    with associate(receiver.port, calling="CTSIM1") as association:
        statuses = [send(association, item).status for _ in range(2)]

    (instance,) = store.ledger.instances("2.25.2")
    assert statuses == [0, 0]  # the second one was durable already
    assert data_set_of(instance.path) == data_set_of(item.path)
    assert instance.source.calling_ae_title == "CTSIM1"
    until(lambda: store.ledger.series_associations("2.25.2")[0].end == "RELEASED")


def test_an_object_of_any_size_takes_no_more_memory_than_a_slice(node):
    """Fault A14 in small: 48 MiB in fragments; the data set goes to the disk as it comes."""
    receiver, store = node()
    frame = bytes(range(256)) * 256
    frames = 768
    head = encode(ct())
    head = head[: head.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))]
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames * len(frame))
    digest = hashlib.sha256(EXPLICIT.encode() + head + pixels)
    tracemalloc.start()
    with RawPeer.associated(receiver.port) as peer:
        peer.send(p_data(pdv(3, c_store(f"{SERIES}.1"))), p_data(pdv(0, head + pixels)))
        for n in range(frames):
            peer.send(p_data(pdv(2 if n == frames - 1 else 0, frame)))
            digest.update(frame)
        status = peer.status()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    (instance,) = store.ledger.instances(SERIES)
    assert status == 0
    assert (instance.sha256, instance.size) == (
        digest.hexdigest(),
        len(head + pixels) + frames * len(frame),
    )
    assert part10.sha256_of_file(instance.path) == instance.sha256
    assert peak < 6 << 20


def test_a_disk_below_its_floor_refuses_objects_and_answers_echoes(node, tmp_path):
    receiver, store = node(min_free=1 << 60)
    item = outgoing(write_object(tmp_path))
    contexts = [*contexts_for([item]), Context(VERIFICATION, IMPLICIT)]
    with associate(receiver.port, *contexts) as association:
        assert send(association, item).status == 0xA700
        assert association.echo().status == 0

    assert store.ledger.instances("2.25.2") == []


def test_an_object_that_is_not_what_the_request_names_is_refused(node, tmp_path):
    receiver, _ = node()
    item = outgoing(write_object(tmp_path, sop_class=RTSTRUCT))
    other = type(item)(
        path=item.path,
        sop_class_uid=CT,
        sop_instance_uid=item.sop_instance_uid,
        transfer_syntax_uid=item.transfer_syntax_uid,
    )
    with associate(receiver.port) as association:
        assert send(association, other).status == 0xA900


def test_bytes_that_are_no_data_set_are_refused_and_the_batch_goes_on(node, tmp_path):
    receiver, store = node()
    good = outgoing(write_object(tmp_path))
    broken = outgoing(write_object(tmp_path, 2))
    content = broken.path.read_bytes()
    start = len(content) - len(data_set_of(broken.path))
    broken.path.write_bytes(content[:start] + b"\xff\xfe" * 500)
    with associate(receiver.port) as association:
        statuses = [send(association, item).status for item in (broken, good)]

    assert statuses == [0xC000, 0]
    assert len(store.ledger.instances("2.25.2")) == 1
