"""Races over a study and broken links to a destination: C3, C6, C10, D2."""

import socket
import threading
import time
from contextlib import suppress

from node.store.records import DecisionState
from tests.faults.kit import judge, settle
from tests.integration.network.support import FakePeer
from tests.node_kit import node, send, until
from tests.store_kit import claim, complete, ct, finish, new_job, start_job, store


def test_c3_schedulers_that_race_on_one_study_start_one_job(tmp_path):
    """Two schedulers and four triggers, twenty studies."""
    with store(tmp_path) as opened:
        seen = [complete(opened, series=f"1.2.3.{n}") for n in range(20)]
        created = []
        gate = threading.Barrier(6)

        def trigger() -> None:
            gate.wait(10)
            for series in seen:
                decision = opened.ledger.record_decision(
                    series, route="thorax", state=DecisionState.JOB, reason="matches",
                    job=new_job(opened, series),
                )  # fmt: skip
                created.append(decision.created)

        threads = [threading.Thread(target=trigger) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(opened.ledger.jobs(limit=100)) == 20
        assert sum(created) == 20
        assert opened.ledger.verify() == []


def test_c6_an_urgent_job_starts_before_a_hundred_normal_ones(tmp_path):
    with store(tmp_path) as opened:
        for number in range(100):
            start_job(opened, slices=1, series=f"1.2.3.{number}")
        urgent = start_job(opened, slices=1, series="1.2.3.777", priority=100)

        assert claim(opened).id == urgent
        assert opened.ledger.verify() == []


def test_c10_a_worker_that_slept_beyond_its_lease_records_nothing(tmp_path):
    """SIGSTOP, take-over, SIGCONT: the late finish is fenced out and leaves no file."""
    with store(tmp_path / "data") as opened:
        start_job(opened)
        late = claim(opened, "stopped")
        opened.ledger._clock.advance(60)
        assert opened.ledger.expire_leases() == [late.id]
        finish(opened, tmp_path)

        assert not opened.ledger.finish_job(late.id, late.token, [], findings=[], figures={})
        assert opened.ledger.verify() == []


class CutLink:
    """A link to a peer that carries so many bytes, then breaks; again and again."""

    def __init__(self, port: int, budget: int) -> None:
        self.target, self.budget, self.cuts = port, budget, 0
        self.whole = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target), 5)
                left = [self.budget]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(a, b, left), daemon=True).start()

    def _pump(self, source, sink, left) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if not self.whole.is_set():
                    left[0] -= len(data)
                    if left[0] < 0:
                        self.cuts += 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_d2_a_link_that_is_cut_while_results_are_sent_delivers_each_content_once(tmp_path):
    """Byte budgets cut in the association, in an object, and in a response."""
    with FakePeer() as pacs:
        link = CutLink(pacs.port, 0)
        with node(tmp_path, link.port, delivery={"first_s": 0.05, "max_s": 0.1}) as running:
            sent = []
            for number, budget in enumerate((100, 700, 1000, 1400, 3000)):
                link.budget = budget
                link.whole.clear()
                uid, patient = f"1.2.3.{number}", f"P{number}"
                slices = [ct(n, series=uid, patient=patient) for n in range(1, 6)]
                assert set(send(running.port, slices)) == {0}
                sent += slices
                cuts = link.cuts
                deadline = time.monotonic() + 6
                while link.cuts < cuts + 2 and time.monotonic() < deadline:
                    time.sleep(0.02)
                link.whole.set()
                until(lambda number=number: len({u for u, _, _ in pacs.received}) == number + 1)
            settle(running)
            judge(running.store.ledger, sent, pacs)
        assert link.cuts >= 5
        link.close()
