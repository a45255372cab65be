"""Nodes that are killed and started again on one data folder, and their common end."""

import json
import os
import signal
import subprocess
import sys
import threading

from node.clock import SystemClock
from node.store.store import open_reader
from tests.faults.kit import judge
from tests.integration.network.support import FakePeer
from tests.node_kit import ROOT, settings, until
from tests.served_kit import READY, Modality


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


def finish(forged: Forged, modalities: list[Modality], pacs: FakePeer) -> None:
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
    assert len(ledger.jobs(limit=100_000)) == len(modalities)
    ledger.close()
