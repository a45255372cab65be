"""Receiving side by side: our node, DCMTK storescp and Orthanc, the same bytes in one run.

``.venv/bin/python -m benchmarks.ingest [--slices 240] [--repeats 3] [--associations 1 4]``

A raw sender writes messages that were encoded beforehand over loopback, so that the receiver is
the bottleneck, with one and with several associations. All servers run as processes of their own
with TCP_NODELAY=1. Figures: slices a second, and the server's CPU time a slice from
``/proc/<pid>/stat`` (children that ended included); medians of the repeats, which are
interleaved. The node runs its whole acknowledge rule (file, folder and row synced before
0x0000); ``node, no store`` discards the object and shows the network part alone. storescp never
syncs. A program that is missing is named with the reason.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.clock import SystemClock
from node.domain import Accepted, AETitle, Kept, Uid
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu import dimse
from node.scu.association import Association, Context, PeerAE
from node.store.files import Limits
from node.store.store import StoreOptions, open_store

CT = Uid("1.2.840.10008.5.1.4.1.1.2")
EXPLICIT = Uid("1.2.840.10008.1.2.1")
CONTEXT = Context(CT, EXPLICIT)
MAXIMUM_PDU = 131_072
TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """A server program is not on this machine."""


def slice_data_sets(count: int) -> list[bytes]:
    """Return the encoded data sets of a synthetic CT series, 512 x 512, 16 bit."""
    rng = np.random.default_rng(1)
    noise = rng.integers(-20, 20, (512, 512), dtype=np.int16)
    encoded = []
    stamp = time.monotonic_ns()
    for number in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.SOPClassUID = CT
        ds.SOPInstanceUID = f"2.25.{stamp}.{number}"
        ds.Modality, ds.PatientName, ds.PatientID = "CT", "Bench^Mark", "BENCH"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"2.25.{stamp}.1", f"2.25.{stamp}.2"
        ds.FrameOfReferenceUID = f"2.25.{stamp}.3"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20261120", "120000", ""
        ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", 1, number + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [-250.0, -250.0, 2.5 * number]
        ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        ds.PixelSpacing, ds.SliceThickness = [0.9765625, 0.9765625], 2.5
        ds.Rows = ds.Columns = 512
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
        ds.add_new("PixelData", "OW", (noise + number).astype("<i2").tobytes())
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, ds)
        encoded.append(bytes(buffer.getvalue()))
    return encoded


def message(data_set: bytes, number: int, fragment: int, stamp: str) -> bytes:
    """Return one C-STORE request as the bytes that go over the wire."""
    uid = Uid(stamp)
    command = dimse.c_store_rq(message_id=number, sop_class_uid=CT, sop_instance_uid=uid)
    parts = dimse.p_data(1, command, command=True, last=True)
    for at in range(0, len(data_set), fragment):
        piece = data_set[at : at + fragment]
        last = at + fragment >= len(data_set)
        parts += dimse.p_data(1, piece, command=False, last=last)
    return b"".join(bytes(part) for part in parts)


def sop_uid_of(data_set: bytes) -> str:
    """Return (0008,0018) of one of our own data sets (Explicit VR Little Endian)."""
    at = data_set.index(struct.pack("<HH2s", 0x0008, 0x0018, b"UI"))
    (length,) = struct.unpack_from("<H", data_set, at + 6)
    return data_set[at + 8 : at + 8 + length].rstrip(b"\0").decode()


def blast(port: int, called: str, data_sets: list[bytes], associations: int) -> float:
    """Send all data sets over so many associations; return the seconds until the last answer."""
    peer = PeerAE(
        ae_title=AETitle(called),
        host="127.0.0.1",
        port=port,
        calling_ae_title=AETitle("BENCH"),
        response_timeout_s=120.0,
    )
    opened = [Association.open(peer, [CONTEXT]) for _ in range(associations)]
    shares = [data_sets[n::associations] for n in range(associations)]
    encoded = [
        [message(d, i + 1, a._fragment, sop_uid_of(d)) for i, d in enumerate(share)]
        for a, share in zip(opened, shares, strict=True)
    ]
    failures: list[str] = []

    def run(association: Association, messages: list[bytes]) -> None:
        for number, encoded_message in enumerate(messages, 1):
            association._send([encoded_message])
            answer = association._read_response(request=dimse.C_STORE_RQ, message_id=number)
            if answer.status != 0:
                failures.append(f"0x{answer.status:04X}")

    threads = [
        threading.Thread(target=run, args=pair) for pair in zip(opened, encoded, strict=True)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    for association in opened:
        association.release()
    if failures:
        raise RuntimeError(f"{len(failures)} objects were not stored: {sorted(set(failures))}")
    return seconds


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its ended children, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(f) for f in fields[11:15]) / TICKS


# -- servers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    port: int
    called: str
    pid: int


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, called: str, folder: Path) -> Iterator[Running]:
    """Run a server until it listens, and end it afterwards."""
    environment = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Running(port, called, server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def node(folder: Path, kind: str = "store") -> Iterator[Running]:
    """Our receiver in its own process, with or without its store."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", kind, str(port)]
    with process([*command, str(folder)], port, "RTNODE", folder) as running:
        yield running


@contextmanager
def storescp(folder: Path) -> Iterator[Running]:
    """DCMTK's storescp, bit-preserving, a process for each association."""
    program = shutil.which("storescp")
    if program is None:
        raise Missing("storescp is not installed (package dcmtk)")
    port = free_port()
    options = ["--fork", "+B", "-aet", "SCP", "--max-pdu", str(MAXIMUM_PDU), "-od", str(folder)]
    with process([program, *options, str(port)], port, "SCP", folder) as running:
        yield running


@contextmanager
def orthanc(folder: Path) -> Iterator[Running]:
    """Orthanc with its defaults (it syncs what it stores), in a folder of its own."""
    program = shutil.which("Orthanc")
    if program is None:
        raise Missing("Orthanc is not installed (package orthanc)")
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "DicomAlwaysAllowStore": True,
        "ConcurrentJobs": 1,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with process([program, str(folder / "orthanc.json")], port, "ORTHANC", folder) as running:
        yield running


class Discard:
    """A door that keeps nothing: what is left is the cost of the network part."""

    def accept(self, _dataset: memoryview, *, sop_instance_uid: Uid, **_: object) -> Accepted:
        """Forget the object."""
        return Accepted(
            kept=Kept.STORED,
            sha256="",
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=sop_instance_uid,
        )

    def association_opened(self, source: object) -> None:
        """Record nothing."""

    def association_ended(self, association_id: str, **_: object) -> None:
        """Record nothing."""


def serve(kind: str, port: int, folder: Path) -> None:
    """Be the receiver: with the real store, or with a door that discards."""
    clock = SystemClock()
    settings = ReceiverSettings(ae_titles=(AETitle("RTNODE"),), port=port, accept_unknown=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if kind == "discard":
        receiver = Receiver(settings, Discard(), clock)
        receiver.start()
        stop.wait()
        receiver.stop(1.0)
        return
    data = folder / "data"
    data.mkdir(exist_ok=True)
    options = StoreOptions(limits=Limits(min_free=0, warn_free=0))
    with open_store(data, clock=clock, options=options) as store:
        receiver = Receiver(settings, store.intake, clock)
        receiver.start()
        stop.wait()
        receiver.stop(1.0)


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Running]]] = {
    "node, whole acknowledge rule": node,
    "node, no store": lambda folder: node(folder, "discard"),
    "storescp (never syncs)": storescp,
    "Orthanc (syncs)": orthanc,
}


def measure(count: int, associations: int, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Return server -> (slices/s, CPU ms/slice) of each repeat; the servers take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
    missing: set[str] = set()
    for _ in range(repeats):
        for name, server in SERVERS.items():
            if name in missing:
                continue
            folder = Path(tempfile.mkdtemp(prefix="ingest-"))
            try:
                with server(folder) as running:
                    data_sets = slice_data_sets(count)
                    warm, timed = data_sets[:8], data_sets[8:]
                    blast(running.port, running.called, warm, 1)
                    before = cpu_seconds(running.pid)
                    seconds = blast(running.port, running.called, timed, associations)
                    time.sleep(0.3)  # forked children are counted once they have ended
                    cpu = cpu_seconds(running.pid) - before
                found[name].append((len(timed) / seconds, 1e3 * cpu / len(timed)))
            except Missing as reason:
                missing.add(name)
                print(f"{name}: skipped, {reason}")
            finally:
                shutil.rmtree(folder)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "PORT", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.serve:
        kind, port, folder = arguments.serve
        serve(kind, int(port), Path(folder))
        return
    print(f"{arguments.slices} slices of 512 x 512, medians of {arguments.repeats};", end=" ")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, both ends TCP_NODELAY=1")
    print(f"{'server':32} {'associations':>12} {'slices/s':>10} {'CPU ms/slice':>13}")
    for associations in arguments.associations:
        figures = measure(arguments.slices, associations, arguments.repeats)
        for name, runs in figures.items():
            if runs:
                rate = statistics.median(run[0] for run in runs)
                cpu = statistics.median(run[1] for run in runs)
                print(f"{name:32} {associations:12d} {rate:10.0f} {cpu:13.2f}")


if __name__ == "__main__":
    main()
