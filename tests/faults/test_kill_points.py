"""SIGKILL at every step boundary, and at random moments: A1, A8, C2, D6 and E8 in small.

``RTNODE_FAULT_RUNS=200`` makes the random part as long as a night allows.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from node.clock import SystemClock
from node.store.store import open_reader
from tests.faults.kit import judge
from tests.integration.network.support import FakePeer
from tests.node_kit import ROOT, settings, until
from tests.served_kit import READY, Modality, series

RUNS = int(os.environ.get("RTNODE_FAULT_RUNS", "3"))

FILES, WRITER = "node.store.files", "node.store.writer"
LEDGER = "node.store.ledger"
BOUNDARIES = [
    ("receive: before the file", (FILES, "SystemFileOps.write_new", "before", 3)),
    ("receive: file synced, folder not", (FILES, "SystemFileOps.write_new", "after", 3)),
    ("receive: folder synced, no row", (WRITER, "Database._commit", "before", 4)),
    ("receive: row committed, no answer", (WRITER, "Database._commit", "after", 5)),
    ("complete: series declared whole", (LEDGER, "Ledger.advance_series", "after", 1)),
    ("complete: before the job", (LEDGER, "Ledger.record_decision", "before", 1)),
    ("complete: job inserted", (LEDGER, "Ledger.record_decision", "after", 1)),
    ("run: claimed", (LEDGER, "Ledger.claim_job", "after, with an answer", 1)),
    ("run: result made, not published", (LEDGER, "Ledger.finish_job", "before", 1)),
    ("run: result published, no row", ("node.store.results", "_publish", "after", 1)),
    ("run: finished", (LEDGER, "Ledger.finish_job", "after", 1)),
    ("deliver: claimed", (LEDGER, "Ledger.claim_deliveries", "after, with an answer", 1)),
    ("deliver: stored, not recorded", (LEDGER, "Ledger.delivery_sent", "before", 1)),
    ("deliver: recorded", (LEDGER, "Ledger.delivery_sent", "after", 1)),
]  # fmt: skip


class Forged:
    """Nodes one after the other on one data folder, forked from one loaded process."""

    def __init__(self, folder, pacs_port: int) -> None:
        self.folder, self.port = folder, 0
        self.config = folder / "config.yaml"
        self.config.write_text(json.dumps(settings(folder / "data", pacs_port)))
        self.log = folder / "log"
        self.forge = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forge"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = 0

    def start(self, die_at=None) -> None:
        begin = self.log.stat().st_size if self.log.exists() else 0
        order = {"config": str(self.config), "log": str(self.log), "die_at": die_at}
        self.forge.stdin.write(json.dumps(order) + "\n")
        self.forge.stdin.flush()
        self.pid = int(self.forge.stdout.readline())
        self.gone = threading.Event()
        self.code: int | None = None
        threading.Thread(target=self._wait, daemon=True).start()

        def ready() -> bool:
            found = READY.search(self.log.read_bytes()[begin:]) if self.log.exists() else None
            if found:
                self.port = int(found.group(1))
            return bool(found) or self.gone.is_set()

        until(ready, 30, what="the node did not start")

    def _wait(self) -> None:
        line = self.forge.stdout.readline()
        self.code = int(line) if line.strip() else None
        self.gone.set()

    def send_signal(self, number: int) -> None:
        if not self.gone.is_set():
            os.kill(self.pid, number)
        assert self.gone.wait(30), "the node did not end"

    def close(self) -> None:
        if self.pid and not self.gone.is_set():
            self.send_signal(signal.SIGKILL)
        self.forge.stdin.close()
        self.forge.wait(10)
        self.forge.stdout.close()

    @property
    def ledger(self):
        return open_reader(self.folder / "data", clock=SystemClock())


@pytest.fixture
def pacs():
    with FakePeer() as peer:
        yield peer


@pytest.fixture
def forged(tmp_path, pacs):
    one = Forged(tmp_path, pacs.port)
    yield one
    one.close()


def finish(forged, modalities, pacs) -> None:
    """Start once more without a fault, let everything settle, stop, and judge."""
    forged.start()
    for modality in modalities:
        modality.join(90)
    assert all(modality.released for modality in modalities)
    ledger = forged.ledger
    until(lambda: not any(ledger.open_work().values()), 60,
          what="the node did not settle")  # fmt: skip
    ledger.close()
    forged.send_signal(signal.SIGTERM)
    assert forged.code == 0
    ledger = forged.ledger
    judge(ledger, [ds for m in modalities for ds in m.sent], pacs)
    assert len(ledger.jobs(limit=1000)) == len(modalities)
    ledger.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_at_each_step_boundary_loses_and_doubles_nothing(forged, pacs) -> None:
    """One node after the other dies one step further on; each heals what the last one left."""
    modalities = []
    for number, (name, point) in enumerate(BOUNDARIES):
        forged.start(point)
        modality = Modality(forged, series(number + 1, count=8))
        modality.start()
        modalities.append(modality)
        assert forged.gone.wait(40), f"the step was not reached: {name}"
        assert forged.code == -signal.SIGKILL, name

    finish(forged, modalities, pacs)


@pytest.mark.slow
@pytest.mark.timeout(0 if RUNS > 50 else 600)
def test_kills_at_random_moments_lose_and_double_nothing(forged, pacs) -> None:
    seed = int(os.environ.get("RTNODE_FAULT_SEED", "20261120"))
    print("seed", seed)
    chance = random.Random(seed)
    modalities = []
    for number in range(RUNS):
        forged.start()
        modality = Modality(forged, series(number + 1, count=12))
        modality.start()
        modalities.append(modality)
        time.sleep(chance.uniform(0.05, 2.5))
        forged.send_signal(signal.SIGKILL)

    finish(forged, modalities, pacs)
