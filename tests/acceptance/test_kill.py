"""The promise above all: what was acknowledged is there, each result arrives once, whatever dies.

The node is a process of its own and is killed with SIGKILL while it receives and while a job runs;
senders send again what was not acknowledged. Everything is judged from outside: what the senders
were answered, what the archive got, and the ledger of the stopped node.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from node.clock import SystemClock
from node.lifecycle import DeliveryState, JobState
from node.store.part10 import sha256_of_file
from node.store.store import open_reader
from tests.integration.network.support import FakePeer
from tests.node_kit import FAKE_WORKER, ROOT, settings, until
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
    starts: list[float] = field(default_factory=list)
    port: int = 0

    def start(self) -> None:
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(self.tree))  # JSON is YAML
        arguments = [*self.command, str(path)]
        if self.command == RTNODE:
            arguments = [*self.command, "serve", "-c", str(path)]
        self.log = (self.folder / "log").open("ab")
        begin = self.log.tell()
        began = time.monotonic()
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
        self.starts.append(time.monotonic() - began)

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


@pytest.fixture
def pacs():
    with FakePeer() as peer:
        yield peer


@pytest.fixture
def served(tmp_path, pacs):
    one = Served(folder=tmp_path, tree=settings(tmp_path / "data", pacs.port))
    yield one
    if one.process.poll() is None:
        one.kill()


class Modality(threading.Thread):
    """Sends its objects, and sends again what was not acknowledged, until all are.

    Like a console, it counts a transfer as done only when the association was released: one that
    broke after the last answer is taken up once more, with the last object.
    """

    def __init__(self, served: Served, objects: list[Dataset]) -> None:
        super().__init__()
        self.served = served
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
            assoc = ae.associate("127.0.0.1", self.served.port, ae_title="RTNODE")
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


def check_ledger(served: Served, acked: set[str], pacs: FakePeer, studies: int) -> None:
    """Judge the stopped node by invariants L1-L6 of the fault catalogue."""
    ledger = served.ledger
    stored = {i.header.sop_instance_uid: i for i in ledger.instances_by_sop_uid(acked)}
    assert set(stored) == acked
    for instance in stored.values():
        assert sha256_of_file(instance.path) == instance.sha256
    jobs = ledger.jobs(limit=1000)
    done = [job for job in jobs if job.state is JobState.COMPLETED]
    current = [j for j in done if ledger.job_detail(j.id).superseded_by is None]
    assert len(current) == studies, jobs
    for job in current:
        deliveries = ledger.job_detail(job.id).deliveries
        assert [d.state for d in deliveries] == [DeliveryState.SENT]
    contents: dict[str, set[bytes]] = {}
    for uid, content, _ in pacs.received:
        contents.setdefault(uid, set()).add(content)
    assert all(len(different) == 1 for different in contents.values())
    wanted = {r.sop_instance_uid for job in current for r in ledger.job_detail(job.id).results}
    assert wanted <= set(contents)
    assert set(contents) <= {
        r.sop_instance_uid for j in done for r in ledger.job_detail(j.id).results
    }


@pytest.mark.slow
def test_a1_a_receiver_that_is_killed_again_and_again_loses_nothing_it_acknowledged(
    served, pacs
) -> None:
    served.start()
    chance = random.Random(20261120)
    modalities = [Modality(served, series(k)) for k in range(1, 4)]
    for modality in modalities:
        modality.start()
    for _ in range(4):
        time.sleep(chance.uniform(0.2, 0.9))
        served.kill()
        served.start()
    for modality in modalities:
        modality.join()
    assert all(modality.released for modality in modalities)
    until(lambda: len({uid for uid, _, _ in pacs.received}) >= 3, seconds=40)
    until(lambda: not served.ledger.destinations_with_open_deliveries(), seconds=20)
    assert served.end() == 0

    acked = set().union(*(modality.acked for modality in modalities))
    assert len(acked) == 180
    assert max(served.starts) < 5.0
    check_ledger(served, acked, pacs, studies=3)
    assert not list((served.folder / "data").rglob("*.part"))


@pytest.mark.slow
def test_c2_a_node_that_is_killed_while_a_job_runs_delivers_its_result_once(
    served, pacs, tmp_path
) -> None:
    served.environment = {
        "FAKE": json.dumps({"sleep_s": 60, "once": str(tmp_path / "once")}),
    }
    served.start()
    modality = Modality(served, series(1, count=12))
    modality.run()
    until(lambda: list((tmp_path / "data" / "work").glob("*/began")))
    child = children_of(served.process.pid)
    assert child
    served.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in child), seconds=5)
    assert not pacs.received

    served.start()
    until(lambda: pacs.received)
    until(lambda: not served.ledger.destinations_with_open_deliveries())
    assert served.end() == 0

    (job,) = served.ledger.jobs()
    assert job.attempt == 2
    assert len(pacs.received) == 1
    check_ledger(served, modality.acked, pacs, studies=1)


@pytest.mark.slow
def test_c7_a_node_that_is_asked_to_stop_gives_a_long_job_back(served, pacs, tmp_path) -> None:
    served.environment = {
        "FAKE": json.dumps({"sleep_s": 3, "once": str(tmp_path / "once")}),
        "NOTIFY_SOCKET": "@rtnode-test",
    }
    states = listen_like_systemd("\0rtnode-test")
    served.start()
    modality = Modality(served, series(1, count=12))
    modality.run()
    until(lambda: list((tmp_path / "data" / "work").glob("*/began")))
    assert served.end() == 0

    (job,) = served.ledger.jobs()
    assert job.state is JobState.COMPLETED
    assert states() == ["READY=1", "STOPPING=1"]

    served.start()
    until(lambda: pacs.received)
    until(lambda: not served.ledger.destinations_with_open_deliveries())
    assert served.end() == 0
    check_ledger(served, modality.acked, pacs, studies=1)


def test_the_command_serves_and_stops(served) -> None:
    served.command = RTNODE
    served.tree["routes"] = []
    served.start()
    modality = Modality(served, series(1, count=3))
    modality.run()

    assert served.end() == 0
    assert len(served.ledger.instances("1.2.3.1")) == 3
    assert b"event=" not in served.said()
    assert b"CANARY" not in served.said()


def children_of(pid: int) -> list[int]:
    """Return the process ids of the workers of a node."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if FAKE_WORKER[1].encode() in words and str(pid).encode() in words:
            found.append(int(entry.name))
    return found


def listen_like_systemd(address: str):
    """Receive what a service tells its manager; call the answer to get it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.settimeout(0.2)

    def states() -> list[str]:
        said = []
        with listener:
            try:
                while True:
                    said.append(listener.recv(1024).decode())
            except TimeoutError:
                return [state for state in said if state != "WATCHDOG=1"]

    return states
