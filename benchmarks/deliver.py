"""Sending side by side: our sender, our outbox and DCMTK's storescu, the same files everywhere.

``.venv/bin/python -m benchmarks.deliver [--slices 200] [--repeats 5]``

All read the same 200 CT files (512 x 512, Explicit VR Little Endian) from disk and send
them over one association on loopback; storescu runs with TCP_NODELAY=1. Servers: DCMTK storescp
(bit-preserving) and Orthanc, each once with TCP_NODELAY=1 and once with its defaults, where a
sender that does not acknowledge at once waits 40 ms an object. Repeats are interleaved and each
sends objects with UIDs of their own, because Orthanc does less work for an object that it has.
"Our outbox" is what the node does: claims from the ledger, sends, and records each answer durably.
All are processes of their own. The time is that of the whole association, reading the
files included: ours is measured inside the process; from that of storescu the time of an
``echoscu`` to the same server, run just before, is taken off: its start is not held against it.
Rates move with the load of the machine; the CPU time a slice hardly does. On a busy machine run it
as ``chrt --rr 5 .venv/bin/python -m benchmarks.deliver``: senders and servers alike then go before
all other work.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import ingest
from node.clock import SystemClock
from node.domain import AETitle, ResultFile
from node.lifecycle import DeliveryState
from node.scu.association import PeerAE
from node.scu.delivery import DeliveryWorker, RetryPolicy
from node.scu.destinations import PeerDestination
from node.scu.sender import Outgoing, Result, send_batch
from node.store.files import Limits
from node.store.header import read_header
from node.store.part10 import prefix
from node.store.store import StoreOptions, open_store
from tests.store_kit import claim, finish, start_job


class Missing(Exception):
    """A program is not on this machine."""


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    port: int
    called: str


class Run(NamedTuple):
    """What one sender took for all objects."""

    seconds: float
    cpu: float
    """CPU seconds of the sender."""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def program(name: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def files(folder: Path, count: int) -> list[Path]:
    """Write a synthetic CT series with fresh UIDs as DICOM files."""
    folder.mkdir()
    written = []
    for number, data in enumerate(ingest.slice_data_sets(count)):
        path = folder / f"{number:04d}.dcm"
        head = prefix(
            sop_class_uid=ingest.CT,
            sop_instance_uid=sop_uid_of(data),
            transfer_syntax_uid=ingest.EXPLICIT,
        )
        path.write_bytes(head + data)
        written.append(path)
    return written


def sop_uid_of(data: bytes) -> str:
    """Return (0008,0018) of one of our own data sets (Explicit VR Little Endian)."""
    at = data.index(struct.pack("<HH2s", 0x0008, 0x0018, b"UI"))
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[at + 8 : at + 8 + length].rstrip(b"\0").decode()


def ours(server: Running, paths: list[Path], what: str = "--send") -> Run:
    """Send with our sender in a process of its own, which measures itself."""
    command = [sys.executable, "-m", "benchmarks.deliver", what, str(server.port)]
    done = subprocess.run(
        [*command, server.called, str(paths[0].parent)], check=True, stdout=subprocess.PIPE
    )
    seconds, cpu = done.stdout.split()
    return Run(float(seconds), float(cpu))


def send(port: int, called: str, folder: Path) -> None:
    """Be our sender: send a folder; print the seconds that it took, and those of the CPU."""
    peer = peer_at(port, called)
    results: list[Result] = []
    # the node's ledger knows UIDs and syntaxes of what it delivers; the files are read all the same
    items = [Outgoing.read(path) for path in sorted(folder.iterdir())]
    begun, before = time.perf_counter(), time.process_time()
    send_batch(peer, items, results.append)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - before
    if [r.status for r in results] != [0] * len(items):
        raise RuntimeError("not every object was stored")
    print(seconds, cpu)


def peer_at(port: int, called: str) -> PeerAE:
    """Return a server as the peer that it is."""
    return PeerAE(
        ae_title=AETitle(called),
        host="127.0.0.1",
        port=port,
        calling_ae_title=AETitle("BENCH"),
    )


def deliver(port: int, called: str, folder: Path) -> None:
    """Be our node: deliver a folder of results from a ledger; print as `send` does."""
    data = Path(tempfile.mkdtemp(prefix="deliver-ledger-"))
    options = StoreOptions(limits=Limits(min_free=0, warn_free=0))
    store = open_store(data, clock=SystemClock(), options=options)
    try:
        to = PeerDestination("pacs", peer_at(port, called))
        worker = DeliveryWorker(to, store.ledger, RetryPolicy(), SystemClock())
        start_job(store, series="1.2.3.4")
        finish(store, data)
        while worker.run_once() == 0.0:  # a node that runs has done this before
            pass
        start_job(store)
        job = claim(store)
        results = [result(path) for path in sorted(folder.iterdir())]
        store.ledger.finish_job(job.id, job.token, results, findings=[], figures={})
        begun, before = time.perf_counter(), time.process_time()
        while worker.run_once() == 0.0:
            pass
        seconds, cpu = time.perf_counter() - begun, time.process_time() - before
        detail = store.ledger.job_detail(job.id)
        states = [] if detail is None else [delivery.state for delivery in detail.deliveries]
        if states != [DeliveryState.SENT] * len(results):
            raise RuntimeError("not every object was delivered")
    finally:
        store.close()
        shutil.rmtree(data)
    print(seconds, cpu)


def result(path: Path) -> ResultFile:
    """Describe one of our files as a result."""
    header = read_header(path)
    return ResultFile(
        path=path,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        modality=header.modality,
    )


def storescu(server: Running, paths: list[Path]) -> Run:
    """Send with DCMTK; less what a process takes that only asks C-ECHO."""
    address = ["-aec", server.called, "127.0.0.1", str(server.port)]
    start = timed(["echoscu", *address])
    whole = timed(["storescu", "--max-pdu", "131072", *address, *map(str, paths)])
    return Run(max(1e-3, whole.seconds - start.seconds), whole.cpu - start.cpu)


def timed(command: list[str]) -> Run:
    """Run a program of DCMTK with TCP_NODELAY=1."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(time.perf_counter() - begun, cpu)


@contextmanager
def listening(
    command: list[str], running: Running, folder: Path, *, nodelay: bool
) -> Iterator[Running]:
    """Run a server until it listens, and end it afterwards."""
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    if nodelay:
        environment["TCP_NODELAY"] = "1"
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", running.port)) == 0:
                    break
            time.sleep(0.05)
        yield running
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def storescp(folder: Path, *, nodelay: bool) -> AbstractContextManager[Running]:
    """DCMTK's storescp, bit-preserving; it syncs nothing."""
    running = Running(free_port(), "SCP")
    options = ["--fork", "+B", "-aet", "SCP", "--max-pdu", "131072", "-od", str(folder)]
    command = [program("storescp"), *options, str(running.port)]
    return listening(command, running, folder, nodelay=nodelay)


def orthanc(folder: Path, *, nodelay: bool) -> AbstractContextManager[Running]:
    """Orthanc with its defaults: it syncs what it stores."""
    running = Running(free_port(), "ORTHANC")
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC", "DicomPort": running.port, "HttpServerEnabled": False,
        "DicomAlwaysAllowStore": True, "Plugins": [],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [program("Orthanc"), str(folder / "orthanc.json")]
    return listening(command, running, folder, nodelay=nodelay)


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Running]]] = {
    "storescp, NODELAY": partial(storescp, nodelay=True),
    "storescp, default": partial(storescp, nodelay=False),
    "Orthanc, NODELAY": partial(orthanc, nodelay=True),
    "Orthanc, default": partial(orthanc, nodelay=False),
}
SENDERS: dict[str, Callable[[Running, list[Path]], Run]] = {
    "our sender": ours,
    "our outbox": partial(ours, what="--deliver"),
    "storescu": storescu,
}


def measure(count: int, repeats: int) -> dict[tuple[str, str], list[Run]]:
    """Return (server, sender) -> each repeat; the senders take turns on one server."""
    found: dict[tuple[str, str], list[Run]] = {}
    for name, server in SERVERS.items():
        for repeat in range(repeats):
            folder = Path(tempfile.mkdtemp(prefix="deliver-"))
            try:
                with server(folder) as running:
                    order = list(SENDERS.items())
                    for sender, sending in order[repeat % 3 :] + order[: repeat % 3]:
                        paths = files(folder / sender.replace(" ", "-"), count)
                        found.setdefault((name, sender), []).append(sending(running, paths))
            except Missing as reason:
                print(f"{name}: skipped, {reason}")
                break
            finally:
                shutil.rmtree(folder)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--send", nargs=3, metavar=("PORT", "CALLED", "FOLDER"))
    parser.add_argument("--deliver", nargs=3, metavar=("PORT", "CALLED", "FOLDER"))
    arguments = parser.parse_args()
    for asked, act in ((arguments.send, send), (arguments.deliver, deliver)):
        if asked:
            port, called, folder = asked
            act(int(port), called, Path(folder))
            return
    count = arguments.slices
    print(f"{count} slices of 512 x 512, medians of {arguments.repeats} (range);", end="")
    print(f" load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    found = measure(count, arguments.repeats)
    print(f"{'server':18} {'sender':12} {'slices/s':>18} {'CPU ms/slice':>13} {'rate ratio':>11}")
    for name in SERVERS:
        if (name, "storescu") not in found:
            continue
        for sender in SENDERS:
            runs = found[name, sender]
            pairs = zip(runs, found[name, "storescu"], strict=True)
            ratio = statistics.median(theirs.seconds / mine.seconds for mine, theirs in pairs)
            rates = [count / run.seconds for run in runs]
            rate = f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"
            cpu = 1e3 * statistics.median(run.cpu for run in runs) / count
            shown = "" if sender == "storescu" else f"{ratio:.2f}"
            print(f"{name:18} {sender:12} {rate:>18} {cpu:13.2f} {shown:>11}")


if __name__ == "__main__":
    main()
