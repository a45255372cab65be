"""The delivery worker over real associations, with peers that fail in every way."""

import threading
import time
from datetime import timedelta

import pytest

from node.clock import SystemClock
from node.domain import Delivery, Uid
from node.scu.delivery import DeliveryWorker, RetryPolicy
from node.scu.destinations import PeerDestination
from tests.integration.network.support import (
    EXPLICIT,
    FakePeer,
    data_set_of,
    dead_port,
    outgoing,
    peer_at,
    silent_listener,
    until,
    write_object,
)


class MemoryOutbox:
    """Implements `Outbox` for real time: a dict of states."""

    def __init__(self, deliveries):
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self.waiting = {d.id: (d, None) for d in deliveries}
        self.sending, self.sent, self.held, self.reasons = {}, {}, {}, {}

    def claim_deliveries(self, destination, limit):
        with self._lock:
            now = self._clock.now()
            ready = [d for d, due in self.waiting.values() if due is None or due <= now][:limit]
            for d in ready:
                del self.waiting[d.id]
                self.sending[d.id] = d
            return ready

    def deliveries_sent(self, sent):
        with self._lock:
            for one in sent:
                assert one.delivery_id not in self.sent
                del self.sending[one.delivery_id]
                self.sent[one.delivery_id] = (one.status, one.note)

    def delivery_failed(self, delivery_id, *, transient, status, reason, hint, not_before=None):
        with self._lock:
            d = self.sending.pop(delivery_id)
            self.reasons[delivery_id] = reason
            if transient:
                self.waiting[delivery_id] = (d, not_before)
            else:
                self.held[delivery_id] = (status, hint)

    def return_deliveries(self, ids):
        with self._lock:
            for i in ids:
                self.waiting[i] = (self.sending.pop(i), None)

    def next_delivery_at(self, destination):
        with self._lock:
            return min((due or self._clock.now() for _, due in self.waiting.values()), default=None)


@pytest.fixture
def objects(tmp_path):
    return [outgoing(write_object(tmp_path, n), key=n) for n in range(1, 9)]


@pytest.fixture
def outbox(objects):
    return MemoryOutbox(
        [
            Delivery(
                id=o.key,
                job_id=1,
                destination="pacs",
                sop_class_uid=o.sop_class_uid,
                sop_instance_uid=o.sop_instance_uid,
                transfer_syntax_uid=Uid(EXPLICIT),
                path=o.path,
                attempt=1,
            )
            for o in objects
        ]
    )


@pytest.fixture
def deliver(outbox):
    """Start a worker that delivers to a port, with pauses at 1/100 of the usual scale."""
    workers = []

    def start(port: int, **timeouts) -> DeliveryWorker:
        peer = peer_at(port, called="PACS", **({"connect_timeout_s": 1.0} | timeouts))
        policy = RetryPolicy(first_s=0.05, max_s=0.4, give_up_after=timedelta(days=7))
        worker = DeliveryWorker(PeerDestination("pacs", peer), outbox, policy, SystemClock())
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def test_all_objects_go_over_one_association(outbox, objects, deliver):
    with FakePeer() as peer:
        deliver(peer.port)
        until(lambda: len(outbox.sent) == 8)

        assert [uid for uid, _, _ in peer.received] == [o.sop_instance_uid for o in objects]
        assert [data for _, data, _ in peer.received] == [data_set_of(o.path) for o in objects]
        assert peer.associations == 1


def test_a_peer_that_is_down_gets_everything_once_when_it_is_back(outbox, deliver):
    """Fault D1."""
    port = dead_port()
    worker = deliver(port)
    until(lambda: worker.failures >= 3)
    assert not outbox.sent
    with FakePeer(port=port) as peer:
        until(lambda: len(outbox.sent) == 8)

    uids = [uid for uid, _, _ in peer.received]
    assert len(uids) == len(set(uids)) == 8


def test_a_silent_peer_is_left_and_tried_again(outbox, deliver):
    """Fault D1: hangs after accept."""
    with silent_listener() as port:
        worker = deliver(port, connect_timeout_s=0.2)
        until(lambda: worker.failures >= 2)

    assert not outbox.sent
    assert "no answer" in next(iter(outbox.reasons.values()))


def test_a_peer_that_aborts_in_the_middle_gets_the_rest_afterwards(outbox, deliver):
    with FakePeer(abort_at=3) as peer:
        deliver(peer.port)
        until(lambda: len(outbox.sent) == 8)

        assert len({uid for uid, _, _ in peer.received}) == 8
        assert len(peer.received) == 8  # what was stored before the abort is not sent again
        assert peer.associations >= 2


def test_refusals_are_held_and_the_others_arrive(outbox, deliver):
    """Fault D3."""
    statuses = {1: 0xC000, 3: 0xB000, 5: 0x0122}
    with FakePeer(answer=lambda n: statuses.get(n, 0)) as peer:
        deliver(peer.port)
        until(lambda: len(outbox.sent) + len(outbox.held) == 8)

    assert {i: status for i, (status, _) in outbox.held.items()} == {2: 0xC000, 6: 0x0122}
    assert all(hint for _, hint in outbox.held.values())
    assert outbox.sent[4][0] == 0xB000
    assert "warning" in outbox.sent[4][1]


def test_a_full_peer_is_tried_until_it_has_room(outbox, deliver):
    """Fault D3: 0xA700 is for now."""
    with FakePeer(answer=lambda n: 0xA700 if n < 12 else 0) as peer:
        deliver(peer.port)
        until(lambda: len(outbox.sent) == 8)

    assert not outbox.held


def test_a_response_that_never_comes_does_not_stop_the_queue(outbox, deliver):
    """Faults D1 (hangs in the middle) and D4 (the response is lost)."""
    hung = threading.Event()

    def hang_once(n):
        if n == 2 and not hung.is_set():
            hung.set()
            time.sleep(1.0)
        return 0

    with FakePeer(answer=hang_once) as peer:
        deliver(peer.port, response_timeout_s=0.3)
        until(lambda: len(outbox.sent) == 8)

        contents = {}
        for uid, data, _ in peer.received:
            assert contents.setdefault(uid, data) == data  # sent again, but the same bytes
        assert len(contents) == 8


def test_stopping_between_two_objects_leaves_nothing_claimed(outbox, deliver):
    gate = threading.Event()

    def slow(n):
        if n == 1:
            gate.wait(5)
        return 0

    with FakePeer(answer=slow) as peer:
        worker = deliver(peer.port)
        until(lambda: len(peer.received) == 2)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        gate.set()
        stopping.join(10)

        assert not worker.alive()
        assert set(outbox.sent) == {1, 2}
        assert not outbox.sending
        assert set(outbox.waiting) == set(range(3, 9))
