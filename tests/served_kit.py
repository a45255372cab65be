"""A node in a process of its own, and a modality that does not give up: for tests that kill."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from node.clock import SystemClock
from node.store.store import open_reader
from tests.node_kit import KEEP_RESPONSES, ROOT, until
from tests.store_kit import CT, ct

SERVE = (sys.executable, str(ROOT / "tests" / "acceptance" / "serve.py"))
RTNODE = (sys.executable, "-m", "node")
READY = re.compile(rb"INFO ready port=(\d+)")


@dataclass
class Served:
    """A running ``serve`` process."""

    folder: Path
    tree: dict
    command: tuple[str, ...] = SERVE
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def start(self) -> None:
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(self.tree))  # JSON is YAML
        arguments = [*self.command, str(path)]
        if self.command == RTNODE:
            arguments = [*self.command, "serve", "-c", str(path)]
        self.log = (self.folder / "log").open("ab")
        begin = self.log.tell()
        self.process = subprocess.Popen(
            arguments,
            stdout=self.log,
            stderr=self.log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
        )
        until(lambda: READY.search(self.said(begin)) or self.process.poll() is not None)
        found = READY.search(self.said(begin))
        assert found, self.said(begin).decode()
        self.port = int(found.group(1))

    def said(self, begin: int = 0) -> bytes:
        return (self.folder / "log").read_bytes()[begin:]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    @property
    def ledger(self):
        return open_reader(self.folder / "data", clock=SystemClock())


class Modality(threading.Thread):
    """Sends its objects, and sends again what was not acknowledged, until all are.

    Like a console, it counts a transfer as done only when the association was released: one that
    broke after the last answer is taken up once more, with the last object.
    """

    def __init__(self, served, objects: list[Dataset]) -> None:
        super().__init__(daemon=True)
        self.served = served
        self.sent = objects
        self.open = {str(ds.SOPInstanceUID): ds for ds in objects}
        self.last = objects[-1]
        self.acked: set[str] = set()
        self.again = 0
        self.released = False

    def run(self) -> None:
        deadline = time.monotonic() + 60
        while not (self.released or time.monotonic() > deadline):
            ae = AE(ae_title="CTSIM1")
            ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
            ae.add_requested_context(CT, ExplicitVRLittleEndian)
            assoc = ae.associate(
                "127.0.0.1", self.served.port, ae_title="RTNODE", evt_handlers=KEEP_RESPONSES
            )
            if assoc.is_established:
                self._send(assoc)
                if assoc.is_established:
                    assoc.release()
                self.released = assoc.is_released and not self.open
            time.sleep(0.05)

    def _send(self, assoc) -> None:
        last = {str(self.last.SOPInstanceUID): self.last}
        for uid, ds in list((self.open or last).items()):
            try:
                answer = assoc.send_c_store(ds)
            except (RuntimeError, ValueError):  # the association is gone
                return
            if "Status" not in answer:
                self.again += 1
                return
            assert answer.Status == 0
            self.acked.add(uid)
            self.open.pop(uid, None)


def series(number: int, count: int = 60) -> list[Dataset]:
    slices = [ct(n, series=f"1.2.3.{number}", patient=f"P{number}") for n in range(1, count + 1)]
    for ds in slices:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return slices
