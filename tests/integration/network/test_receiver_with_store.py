"""The receiver in front of the real store: what is answered 0x0000 is indexed, and nothing else."""

import pytest

from node.clock import SystemClock
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.association import Context
from node.scu.sender import contexts_for, send
from node.store.files import Limits
from node.store.store import StoreOptions, open_store
from tests.integration.network.support import (
    CT,
    IMPLICIT,
    RTSTRUCT,
    VERIFICATION,
    associate,
    data_set_of,
    outgoing,
    until,
    write_object,
)


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
