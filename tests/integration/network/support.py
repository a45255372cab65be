"""Objects, a fake intake and a programmable peer for the network tests."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from pynetdicom import AE, evt

from node.clock import SystemClock
from node.domain import Accepted, AETitle, Kept, Source, Uid
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.association import Association, Context, PeerAE
from node.scu.sender import Outgoing
from node.store import part10

CT = Uid("1.2.840.10008.5.1.4.1.1.2")
RTSTRUCT = Uid("1.2.840.10008.5.1.4.1.1.481.3")
EXPLICIT = Uid("1.2.840.10008.1.2.1")
IMPLICIT = Uid("1.2.840.10008.1.2")
VERIFICATION = Uid("1.2.840.10008.1.1")


def write_object(
    folder: Path,
    number: int = 1,
    *,
    syntax: str = EXPLICIT,
    sop_class: str = CT,
    pixels: int = 16 * 16 * 2,
) -> Path:
    """Write a small CT image; compressed syntaxes get one fragment of arbitrary bytes."""
    uid = UID(syntax)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = f"2.25.1234567890.{number}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientName = "Canary^Name"
    ds.PatientID = "CANARY-ID"
    ds.StudyInstanceUID = "2.25.1"
    ds.SeriesInstanceUID = "2.25.2"
    ds.Modality = "CT"
    ds.InstanceNumber = number
    ds.Rows, ds.Columns = 16, pixels // 32
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    content = bytes(range(256)) * (pixels // 256)
    ds.PixelData = encapsulate([content]) if uid.is_encapsulated else content
    ds["PixelData"].VR = "OB" if uid.is_encapsulated else "OW"
    path = folder / f"{number}-{syntax}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def data_set_of(path: Path) -> bytes:
    return bytes(part10.split(path.read_bytes()).data)


@dataclass
class Stored:
    dataset: bytes
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    source: Source


class FakeArrival:
    """An object on its way to a `FakeDoor`."""

    def __init__(self, door: "FakeDoor", **names) -> None:
        self.door, self.names, self.data = door, names, bytearray()

    def write(self, fragment: memoryview) -> None:
        self.data += fragment

    def accept(self) -> Accepted:
        return self.door.accept(bytes(self.data), **self.names)

    def discard(self) -> None:
        self.door.discarded += 1


@dataclass
class FakeDoor:
    """Implements `node.scp.server.Door`: keeps what comes, or raises what it is told to."""

    stored: list[Stored] = field(default_factory=list)
    opened: list[Source] = field(default_factory=list)
    ended: list[tuple[str, str, int, int]] = field(default_factory=list)
    error: Exception | None = None
    ledger_error: Exception | None = None
    before: Callable[[], None] = lambda: None
    discarded: int = 0

    def receive(self, **names) -> FakeArrival:
        return FakeArrival(self, **names)

    def accept(
        self, dataset, *, transfer_syntax_uid, sop_class_uid, sop_instance_uid, source
    ) -> Accepted:
        self.before()
        if self.error is not None:
            raise self.error
        self.stored.append(
            Stored(bytes(dataset), transfer_syntax_uid, sop_class_uid, sop_instance_uid, source)
        )
        return Accepted(
            kept=Kept.STORED,
            sha256="0" * 64,
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=Uid("2.25.2"),
        )

    def association_opened(self, source: Source) -> None:
        if self.ledger_error is not None:
            raise self.ledger_error
        self.opened.append(source)

    def association_ended(self, association_id, *, end, received, refused) -> None:
        if self.ledger_error is not None:
            raise self.ledger_error
        self.ended.append((association_id, end, received, refused))


@contextmanager
def receiving(door: FakeDoor, *, services=(), **settings) -> Iterator[Receiver]:
    """Run a receiver on a free port of the loopback interface."""
    defaults = {"ae_titles": (AETitle("RTNODE"),), "port": 0, "accept_unknown": True}
    receiver = Receiver(ReceiverSettings(**(defaults | settings)), door, SystemClock(), services)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop(grace_s=2.0)


def peer_at(port: int, *, called: str = "RTNODE", calling: str = "TESTER", **timeouts) -> PeerAE:
    return PeerAE(
        ae_title=AETitle(called),
        host="127.0.0.1",
        port=port,
        calling_ae_title=AETitle(calling),
        **timeouts,
    )


def associate(port: int, *contexts: Context, **peer) -> Association:
    return Association.open(peer_at(port, **peer), contexts or [Context(CT, EXPLICIT)])


def outgoing(path: Path, key: int = 0) -> Outgoing:
    item = Outgoing.read(path)
    return Outgoing(
        path=path,
        sop_class_uid=item.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        transfer_syntax_uid=item.transfer_syntax_uid,
        key=key,
    )


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Poll until `condition` holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@dataclass
class FakePeer:
    """A storage SCP that answers as told: `answers` maps nth object (from 0) to a status."""

    answer: Callable[[int], int] = lambda n: 0
    abort_at: int | None = None
    classes: tuple[str, ...] = (CT, RTSTRUCT)
    syntaxes: tuple[str, ...] = (EXPLICIT,)
    maximum_pdu: int = 16382
    port: int = 0
    verification: bool = True
    received: list[tuple[str, bytes, str]] = field(default_factory=list)
    associations: int = 0

    def __post_init__(self) -> None:
        self._server = None

    def __enter__(self) -> Self:
        ae = AE(ae_title="PACS")
        ae.maximum_pdu_size = self.maximum_pdu
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.require_called_aet = True
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, list(self.syntaxes))
        if self.verification:
            ae.add_supported_context(VERIFICATION)
        self._server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_ESTABLISHED, self._on_established),
                (evt.EVT_CONN_OPEN, _no_delay),
            ],
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _on_established(self, event) -> None:
        self.associations += 1

    def _on_store(self, event) -> int:
        number = len(self.received)
        if self.abort_at is not None and number == self.abort_at:
            self.abort_at = None
            event.assoc.abort()
            return 0
        self.received.append(
            (
                str(event.request.AffectedSOPInstanceUID),
                event.request.DataSet.getvalue(),
                str(event.context.transfer_syntax),
            )
        )
        return self.answer(number)


def _no_delay(event) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def silent_listener() -> Iterator[int]:
    """Accept connections and never say a word."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    kept.append(listener.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()
            for connection in kept:
                connection.close()


def dead_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
