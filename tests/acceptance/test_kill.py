"""The promise above all: what was acknowledged is there, each result arrives once, whatever dies.

The node is a process of its own and is killed with SIGKILL while it receives and while a job runs;
senders send again what was not acknowledged. Everything is judged from outside: what the senders
were answered, what the archive got, and the ledger of the stopped node.
"""

import json
import os
import random
import socket
import time
from pathlib import Path

import pytest

from node.lifecycle import DeliveryState, JobState
from node.store.part10 import sha256_of_file
from tests.integration.network.support import FakePeer
from tests.node_kit import FAKE_WORKER, settings, until
from tests.served_kit import RTNODE, Modality, Served, series


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


def check_ledger(served: Served, acked: set[str], pacs: FakePeer, studies: int) -> None:
    """Judge the stopped node by invariants L1-L6 of the fault catalogue."""
    ledger = served.ledger
    assert ledger.verify() == []
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
        "NOTIFY_SOCKET": f"@rtnode-test-{os.getpid()}",
    }
    states = listen_like_systemd(f"\0rtnode-test-{os.getpid()}")
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
