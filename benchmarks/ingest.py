"""Receiving side by side: our node, stock pynetdicom, storescp, Orthanc; same bytes, same run.

``.venv/bin/python -m benchmarks.ingest [--slices 240] [--repeats 5] [--associations 1 4 16]
[--servers node storescp Orthanc]``; one row of the table with these three takes a minute or two.

A raw sender writes messages that were encoded beforehand over loopback, so that the receiver is
the bottleneck. All servers run as processes of their own, both ends with TCP_NODELAY. Figures:
slices a second; the server's CPU time a slice from ``/proc/<pid>/stat`` (children that ended
included); its peak memory; the round trip of a C-ECHO; an association with a C-ECHO from connecting
to its release. Medians of the repeats, which are
interleaved: each repeat asks every server in turn and begins with another one. Before each run
as many bytes as will be stored are written to the disk and removed again, so that no server pays
for memory that the machine has not touched before.

The node runs its whole acknowledge rule (bytes, name and receipt synced before 0x0000), and the
time ends with the answer to the release, which comes after the last row is committed. Its
database is made beforehand by a process of its own, as by the first start of a node. ``node, no
store`` discards the object and shows the network part alone. storescp never syncs, nor does stock
pynetdicom here (`save_as` of the encoded data set). A program that is missing is named.
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
from pynetdicom import AE, _config, evt
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from node.clock import SystemClock
from node.domain import Accepted, AETitle, Kept, Uid
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.store.files import Limits
from node.store.part10 import prefix
from node.store.store import StoreOptions, open_store

CT = Uid("1.2.840.10008.5.1.4.1.1.2")
EXPLICIT = Uid("1.2.840.10008.1.2.1")
VERIFICATION = Uid("1.2.840.10008.1.1")
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


def command(elements: dict[int, bytes]) -> bytes:
    """Return a command set (PS3.7 6.3.1)."""
    return b"".join(struct.pack("<HHL", 0, n, len(v)) + v for n, v in sorted(elements.items()))


def p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    """Return one P-DATA-TF PDU."""
    size = len(fragment)
    return struct.pack(">BxLLBB", 4, size + 6, size + 2, context_id, control) + fragment


def store_request(data_set: bytes, number: int, maximum: int) -> bytes:
    """Return one C-STORE request as the bytes that go over the wire."""
    uid = sop_uid_of(data_set).encode()
    elements = {
        0x0002: CT.encode() + b"\0" * (len(CT) % 2),
        0x0100: struct.pack("<H", 1),
        0x0110: struct.pack("<H", number),
        0x0700: struct.pack("<H", 0),
        0x0800: struct.pack("<H", 1),
        0x1000: uid + b"\0" * (len(uid) % 2),
    }
    parts = [p_data(1, 3, command(elements))]
    fragment = min(maximum or MAXIMUM_PDU, MAXIMUM_PDU) - 6
    for at in range(0, len(data_set), fragment):
        piece = data_set[at : at + fragment]
        parts.append(p_data(1, 2 if at + fragment >= len(data_set) else 0, piece))
    return b"".join(parts)


ECHO_REQUEST = p_data(
    3,
    3,
    command(
        {
            0x0002: VERIFICATION.encode() + b"\0" * (len(VERIFICATION) % 2),
            0x0100: struct.pack("<H", 0x30),
            0x0110: struct.pack("<H", 1),
            0x0800: struct.pack("<H", 0x0101),
        }
    ),
)


def sop_uid_of(data_set: bytes) -> str:
    """Return (0008,0018) of one of our own data sets (Explicit VR Little Endian)."""
    at = data_set.index(struct.pack("<HH2s", 0x0008, 0x0018, b"UI"))
    (length,) = struct.unpack_from("<H", data_set, at + 6)
    return data_set[at + 8 : at + 8 + length].rstrip(b"\0").decode()


class Sender:
    """An association on a raw socket."""

    def __init__(self, port: int, called: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_associate_request(called))
        kind, body = self._read()
        if kind != 2:
            raise RuntimeError(f"{called} did not accept the association (PDU {kind})")
        accepted = A_ASSOCIATE_AC()
        accepted.decode(struct.pack(">BxL", kind, len(body)) + body)
        self.maximum = int(accepted.user_information.maximum_length or 0)

    def ask(self, request: bytes) -> int:
        """Send an encoded request; return the status of the answer."""
        self._socket.sendall(request)
        kind, body = self._read()
        if kind != 4:
            raise RuntimeError(f"PDU {kind} instead of an answer")
        at = 6  # behind the length, context and control of its only fragment
        while True:
            _, element, length = struct.unpack_from("<HHL", body, at)
            if element == 0x0900:
                return int(struct.unpack_from("<H", body, at + 8)[0])
            at += 8 + length

    def release(self) -> None:
        """Release in order."""
        self._socket.sendall(struct.pack(">BxLL", 5, 4, 0))
        self._read()
        self._socket.close()

    def _read(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            got = self._socket.recv(count - len(data))
            if not got:
                raise RuntimeError("the server closed the connection")
            data += got
        return data


def _associate_request(called: str) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "BENCH", called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAXIMUM_PDU
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation]
    contexts = [build_context(CT, EXPLICIT), build_context(VERIFICATION, EXPLICIT)]
    for context, number in zip(contexts, (1, 3), strict=True):
        context.context_id = number
    primitive.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def blast(port: int, called: str, data_sets: list[bytes], associations: int) -> float:
    """Send all data sets over so many associations; return the seconds until the last release."""
    senders = [Sender(port, called) for _ in range(associations)]
    encoded = [
        [store_request(d, i, s.maximum) for i, d in enumerate(data_sets[n::associations], 1)]
        for n, s in enumerate(senders)
    ]
    failures: list[str] = []

    def run(sender: Sender, requests: list[bytes]) -> None:
        statuses = [sender.ask(request) for request in requests]
        failures.extend(f"0x{status:04X}" for status in statuses if status)
        sender.release()

    threads = [threading.Thread(target=run, args=p) for p in zip(senders, encoded, strict=True)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise RuntimeError(f"{len(failures)} objects were not stored: {sorted(set(failures))}")
    return seconds


def echo_ms(port: int, called: str, times: int = 100) -> float:
    """Return the median round trip of a C-ECHO, in milliseconds."""
    sender = Sender(port, called)
    taken = median_ms(lambda: sender.ask(ECHO_REQUEST), times)
    sender.release()
    return taken


def association_ms(port: int, called: str, times: int = 20) -> float:
    """Return the median time to connect, associate, echo once and release, in milliseconds."""

    def whole() -> None:
        sender = Sender(port, called)
        sender.ask(ECHO_REQUEST)
        sender.release()

    return median_ms(whole, times)


def median_ms(run: Callable[[], object], times: int) -> float:
    """Return how long a call takes, in milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(taken)


def warm(folder: Path, size: int) -> None:
    """Write and remove so many bytes: memory that was never touched is slow to get."""
    path = folder / "warm"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    path.unlink()


def peak_mib(pid: int) -> float:
    """Return the peak resident memory of a process, its children left out, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


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
    me = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    if kind == "store":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*me, "prepare", "0", str(folder)], check=True, env=environment)
    with process([*me, kind, str(port), str(folder)], port, "RTNODE", folder) as running:
        yield running


@contextmanager
def storescp(folder: Path) -> Iterator[Running]:
    """DCMTK's storescp, bit-preserving, a process for each association."""
    # not the one of pynetdicom, which may stand first in a virtual environment
    elsewhere = (f for f in os.get_exec_path() if not f.startswith(sys.prefix))
    program = shutil.which("storescp", path=os.pathsep.join(elsewhere))
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

    def receive(self, **_: object) -> "Discard":
        """Begin to forget an object."""
        return self

    def write(self, fragment: memoryview) -> None:
        """Drop the bytes."""

    def discard(self) -> None:
        """Nothing to forget."""

    def accept(self) -> Accepted:
        """Say that it was stored."""
        nobody = Uid("1.2")
        return Accepted(
            kept=Kept.STORED, sha256="", sop_instance_uid=nobody, series_instance_uid=nobody
        )

    def association_opened(self, source: object) -> None:
        """Record nothing."""

    def association_ended(self, association_id: str, **_: object) -> None:
        """Record nothing."""


def serve(kind: str, port: int, folder: Path) -> None:
    """Be the receiver: with the real store, with a door that discards, or stock pynetdicom.

    `prepare` makes the data folder and ends.
    """
    if kind == "pynetdicom":
        serve_pynetdicom(port, folder)
        return
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
        if kind == "prepare":
            return
        receiver = Receiver(settings, store.intake, clock)
        receiver.start()
        stop.wait()
        receiver.stop(1.0)


def serve_pynetdicom(port: int, folder: Path) -> None:
    """Be pynetdicom as its documentation shows it, without logging; it syncs nothing."""
    _config.LOG_HANDLER_LEVEL = "none"

    def store(happening: evt.Event) -> int:
        uid = happening.request.AffectedSOPInstanceUID
        with (folder / f"{uid}.dcm").open("wb") as file:
            file.write(
                prefix(sop_class_uid=CT, sop_instance_uid=str(uid), transfer_syntax_uid=EXPLICIT)
            )
            file.write(happening.request.DataSet.getvalue())
        return 0

    def no_delay(happening: evt.Event) -> None:
        connection = happening.assoc.dul.socket.socket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    ae = AE("STOCK")
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.maximum_associations = 64
    ae.add_supported_context(CT, EXPLICIT)
    ae.add_supported_context(VERIFICATION, EXPLICIT)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_CONN_OPEN, no_delay)]
    ae.start_server(("127.0.0.1", port), evt_handlers=handlers)


@contextmanager
def pynetdicom(folder: Path) -> Iterator[Running]:
    """Stock pynetdicom in its own process."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "pynetdicom", str(port)]
    with process([*command, str(folder)], port, "STOCK", folder) as running:
        yield running


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Running]]] = {
    "node, whole acknowledge rule": node,
    "node, no store": lambda folder: node(folder, "discard"),
    "pynetdicom, stock (never syncs)": pynetdicom,
    "storescp (never syncs)": storescp,
    "Orthanc (syncs the file)": orthanc,
}
"""The last one is what the others are compared with."""


@dataclass(frozen=True)
class Figures:
    """One run of one server."""

    rate: float
    """Slices a second."""
    cpu: float
    """Of the server. [ms/slice]"""
    memory: float
    """[MiB]"""
    echo: float
    """[ms]"""
    association: float
    """[ms]"""


def once(
    server: Callable[[Path], AbstractContextManager[Running]], count: int, associations: int
) -> Figures:
    """Start a server, send, and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-"))
    try:
        with server(folder) as running:
            data_sets = slice_data_sets(count)
            first, timed = data_sets[:8], data_sets[8:]
            blast(running.port, running.called, first, 1)
            warm(folder, sum(map(len, timed)))
            before = cpu_seconds(running.pid)
            seconds = blast(running.port, running.called, timed, associations)
            time.sleep(0.3)  # forked children are counted once they have ended
            cpu = cpu_seconds(running.pid) - before
            return Figures(
                rate=len(timed) / seconds,
                cpu=1e3 * cpu / len(timed),
                memory=peak_mib(running.pid),
                echo=echo_ms(running.port, running.called),
                association=association_ms(running.port, running.called),
            )
    finally:
        shutil.rmtree(folder)


def measure(
    count: int, associations: int, repeats: int, names: list[str]
) -> dict[str, list[Figures]]:
    """Return server -> figures of each repeat; the servers take turns."""
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            try:
                found[name].append(once(SERVERS[name], count, associations))
            except Missing as reason:
                print(f"{name}: skipped, {reason}")
    return found


def table(found: dict[str, list[Figures]], associations: int) -> None:
    """Print the medians, and the node beside the last server."""
    middle = {
        name: [
            statistics.median(getattr(run, field) for run in runs)
            for field in ("rate", "cpu", "memory", "echo", "association")
        ]
        for name, runs in found.items()
        if runs
    }
    for name, (rate, cpu, memory, echo, association) in middle.items():
        times = f"{echo:10.2f}{association:10.2f}"
        print(f"{name:32}{associations:6d}{rate:10.0f}{cpu:12.2f}{memory:10.0f}{times}")
    ours, theirs = middle.get(next(iter(SERVERS))), middle.get(list(SERVERS)[-1])
    if ours is not None and theirs is not None:
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        shown = "".join(
            f"{ratio:{width}.2f}x" for ratio, width in zip(ratios, (9, 11, 9, 9, 9), strict=True)
        )
        print(f"{'node / Orthanc':32}{associations:6d}{shown}")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--servers", nargs="+", default=list(SERVERS), help="beginnings of names in the table"
    )
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "PORT", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.serve:
        kind, port, folder = arguments.serve
        serve(kind, int(port), Path(folder))
        return
    print(f"{arguments.slices} slices of 512 x 512, medians of {arguments.repeats};", end=" ")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, both ends TCP_NODELAY=1")
    print(f"{'server':32}{'assoc.':>6}{'slices/s':>10}{'CPU ms/sl':>12}{'MiB':>10}", end="")
    print(f"{'echo ms':>10}{'assoc. ms':>10}")
    names = [name for name in SERVERS if name.startswith(tuple(arguments.servers))]
    for associations in arguments.associations:
        found = measure(arguments.slices, associations, arguments.repeats, names)
        table(found, associations)


if __name__ == "__main__":
    main()
