"""At most one content under a UID: what may have arrived is looked up before it is sent again."""

import dataclasses
import threading
from datetime import timedelta
from typing import Self

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from node.domain import Uid
from node.errors import PeerUnreachable
from node.lifecycle import DeliveryState
from node.scu.delivery import DeliveryWorker, Fallback, RetryPolicy
from node.scu.destinations import FolderDestination, PeerDestination
from node.scu.query import FIND, find, held_at
from node.scu.sender import Outcome
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    dead_port,
    outgoing,
    peer_at,
    silent_listener,
    until,
    write_object,
)
from tests.store_kit import FakeClock, finish, start_job, store

POLICY = RetryPolicy(first_s=1, max_s=2, give_up_after=timedelta(days=7))


class QueryPeer:
    """An archive with storage and C-FIND that answers as told."""

    def __init__(self, *, held=(), status=0x0000, extra=0, stall=None):
        self.held = set(held)
        self.status = status
        self.extra = extra
        self.stall = stall
        self.stored: list[str] = []
        self.queries: list[Dataset] = []

    def __enter__(self) -> Self:
        ae = AE(ae_title="PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_supported_context(CT, EXPLICIT)
        ae.add_supported_context("1.2.840.10008.1.1")
        ae.add_supported_context(FIND)
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_C_FIND, self._on_find)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _on_store(self, event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        self.held.add(self.stored[-1])
        if self.stall is not None and len(self.stored) == 1:
            self.stall.wait(5)
        return 0

    def _on_find(self, event):
        asked = event.identifier
        self.queries.append(asked)
        if self.status:
            yield self.status, None
            return
        wanted = asked.get("SOPInstanceUID") or []
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        for uid in [*sorted(self.held & set(names)), *(f"2.25.9.{n}" for n in range(self.extra))]:
            answer = Dataset()
            answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
            answer.SOPInstanceUID = uid
            yield 0xFF00, answer


def doubtful(folder, number: int):
    return dataclasses.replace(outgoing(write_object(folder, number), key=number), doubtful=True)


def deliver(destination, items):
    try:
        return {r.item.key: r for r in destination.deliver(items)}
    finally:
        destination.close()


def test_what_the_peer_holds_is_not_sent_again(tmp_path):
    """Fault D4, and dcm4chee #4754: a second copy at once makes some archives drop the first."""
    first, second = doubtful(tmp_path, 1), doubtful(tmp_path, 2)
    third = outgoing(write_object(tmp_path, 3), key=3)
    with QueryPeer(held=[first.sop_instance_uid]) as peer:
        destination = PeerDestination("pacs", peer_at(peer.port, called="PACS"), query=True)
        results = deliver(destination, [first, second, third])

    assert {k: r.outcome for k, r in results.items()} == dict.fromkeys((1, 2, 3), Outcome.SENT)
    assert results[1].reason == "the peer holds it already"
    assert peer.stored == [second.sop_instance_uid, third.sop_instance_uid]
    (query,) = peer.queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID) == ("IMAGE", "2.25.1")
    assert query.SeriesInstanceUID == "2.25.2"


def test_what_was_never_tried_is_not_looked_up(tmp_path):
    with QueryPeer() as peer:
        destination = PeerDestination("pacs", peer_at(peer.port, called="PACS"), query=True)
        deliver(destination, [outgoing(write_object(tmp_path), key=1)])

    assert not peer.queries


def test_a_peer_that_answers_with_other_objects_is_not_believed(tmp_path):
    item = doubtful(tmp_path, 1)
    with QueryPeer(extra=3) as peer:
        destination = PeerDestination("pacs", peer_at(peer.port, called="PACS"), query=True)
        deliver(destination, [item])

    assert peer.stored == [item.sop_instance_uid]


@pytest.mark.parametrize("status", [0xA700, 0xC001, 0x0122])
def test_a_peer_that_refuses_the_query_gets_the_same_bytes_again(tmp_path, status):
    item = doubtful(tmp_path, 1)
    with QueryPeer(status=status) as peer:
        destination = PeerDestination("pacs", peer_at(peer.port, called="PACS"), query=True)
        results = deliver(destination, [item])

    assert results[1].outcome is Outcome.SENT
    assert peer.stored == [item.sop_instance_uid]


def test_without_a_query_the_commitment_decides(tmp_path):
    item = doubtful(tmp_path, 1)
    destination = PeerDestination("pacs", peer_at(dead_port()), commitment=True)

    (result,) = destination.deliver([item])

    assert (result.outcome, result.status) == (Outcome.UNCONFIRMED, None)


def test_a_query_without_end_is_canceled(tmp_path):
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    with QueryPeer(extra=500) as peer:
        answers = find(peer_at(peer.port, called="PACS"), keys, limit=10)

    assert len(answers) == 10


def test_a_peer_that_does_not_stop_at_a_cancel_is_left(monkeypatch):
    """Each answer comes in time, and there is no last one: the queue behind it must go on."""
    monkeypatch.setattr("node.scu.query._UNHEEDED", 20)
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    with QueryPeer(extra=500) as peer, pytest.raises(PeerUnreachable, match="cancel"):
        find(peer_at(peer.port, called="PACS"), keys, limit=10)


def test_many_uids_are_asked_for_in_parts(tmp_path):
    uids = [Uid(f"2.25.7.{n}") for n in range(120)]
    with QueryPeer(held=uids[:70]) as peer:
        peer_ae = peer_at(peer.port, called="PACS")
        assert held_at(peer_ae, Uid("1.2"), Uid("1.2.3"), uids) == set(uids[:70])

    assert len(peer.queries) == 3


def test_a_lost_answer_leads_to_one_copy(tmp_path):
    """Fault D4 through ledger and worker: stored at the peer, the answer lost, then looked up."""
    stall = threading.Event()
    clock = FakeClock()
    with (
        store(tmp_path / "data", clock=clock) as opened,
        QueryPeer(stall=stall) as peer,
    ):
        job = start_job(opened, slices=1)
        finish(opened, tmp_path, 1)
        address = peer_at(peer.port, called="PACS", response_timeout_s=0.3)
        destination = PeerDestination("pacs", address, query=True)
        worker = DeliveryWorker(destination, opened.ledger, POLICY, clock, jitter=lambda: 0.0)
        worker.run_once()
        assert worker.failures == 1
        stall.set()
        clock.advance(10)
        worker.run_once()
        destination.close()

        (line,) = opened.ledger.job_detail(job).deliveries
        assert line.state is DeliveryState.SENT
        assert len(peer.stored) == 1
        assert len(peer.queries) == 1


def test_a_node_that_died_while_sending_looks_up_before_it_sends_again(tmp_path):
    """Fault D6."""
    clock = FakeClock()
    with store(tmp_path / "data", clock=clock) as opened:
        start_job(opened, slices=1)
        finish(opened, tmp_path, 1)
        (claimed,) = opened.ledger.claim_deliveries("pacs", 1)
        assert not claimed.doubtful
    with store(tmp_path / "data", clock=clock) as again:
        (claimed,) = again.ledger.claim_deliveries("pacs", 1)

        assert claimed.doubtful


def test_a_clear_answer_leaves_no_doubt(tmp_path):
    with store(tmp_path / "data") as opened:
        start_job(opened, slices=1)
        finish(opened, tmp_path, 1)
        (claimed,) = opened.ledger.claim_deliveries("pacs", 1)
        opened.ledger.delivery_failed(
            claimed.id, transient=True, status=0xA700, reason="full", hint="", not_before=None
        )
        (claimed,) = opened.ledger.claim_deliveries("pacs", 1)

        assert not claimed.doubtful


def test_a_fallback_gets_what_a_dead_destination_does_not_take_and_both_get_it_once(tmp_path):
    clock = FakeClock()
    after = Fallback(name="shelf", after=timedelta(seconds=60))
    with store(tmp_path / "data", clock=clock) as opened:
        start_job(opened, slices=1)
        finish(opened, tmp_path, 2)
        dead = PeerDestination("pacs", peer_at(dead_port(), connect_timeout_s=0.5))
        first = DeliveryWorker(dead, opened.ledger, POLICY, clock, fallback=after)
        shelf = FolderDestination("shelf", tmp_path / "shelf")
        second = DeliveryWorker(shelf, opened.ledger, POLICY, clock)
        first.run_once()
        second.run_once()
        assert not (tmp_path / "shelf").exists()  # it may still come back

        clock.advance(61)
        for _ in range(3):
            first.run_once()
            second.run_once()
        assert len(list((tmp_path / "shelf").iterdir())) == 2
        assert opened.ledger.counts().deliveries == {"pacs": {"PENDING": 2}, "shelf": {"SENT": 2}}

        with QueryPeer() as peer:  # the first destination is back
            living = PeerDestination("pacs", peer_at(peer.port, called="PACS"))
            third = DeliveryWorker(living, opened.ledger, POLICY, clock, fallback=after)
            clock.advance(10)
            third.run_once()
            living.close()
        assert opened.ledger.counts().deliveries == {"pacs": {"SENT": 2}, "shelf": {"SENT": 2}}


def test_a_dead_destination_never_delays_another(tmp_path):
    """One hangs after accepting the connection, the other works: two threads, two queues."""
    with store(tmp_path / "data") as opened, silent_listener() as silent, QueryPeer() as peer:
        start_job(opened, slices=1, destinations=("dead", "pacs"))
        finish(opened, tmp_path, 8)
        workers = [
            DeliveryWorker(
                PeerDestination(name, peer_at(port, called="PACS", connect_timeout_s=5.0)),
                opened.ledger, POLICY, FakeClock(),
            )
            for name, port in (("dead", silent), ("pacs", peer.port))
        ]  # fmt: skip
        for worker in workers:
            worker.start()
        until(lambda: opened.ledger.counts().deliveries["pacs"].get("SENT") == 8, 4.0)
        assert "SENT" not in opened.ledger.counts().deliveries["dead"]
        for worker in workers:
            worker.stop()


def test_results_of_a_superseded_revision_leave_every_queue(tmp_path):
    """Those of the fallback too."""
    clock = FakeClock()
    with store(tmp_path / "data", clock=clock) as opened:
        start_job(opened, slices=1)
        finish(opened, tmp_path, 1)
        clock.advance(61)
        opened.ledger.queue_fallback("pacs", "shelf", after=timedelta(seconds=60))
        (claimed,) = opened.ledger.claim_deliveries("shelf", 1)
        opened.ledger.supersede("1.2.3.2", 1)
        assert not opened.ledger.claim_deliveries("pacs", 1)
        opened.ledger.return_deliveries([claimed.id])

        assert opened.ledger.counts().deliveries == {
            "pacs": {"CANCELED": 1},
            "shelf": {"CANCELED": 1},
        }
