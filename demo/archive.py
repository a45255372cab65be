"""Where the results go: Orthanc where it is installed, else a storage SCP that writes files.

Both listen on loopback only, keep their data under the folder they are given, and say when an
object arrived and how that was measured.
"""

import contextlib
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pynetdicom import AE, AllStoragePresentationContexts, evt
from typing_extensions import override

from demo.ports import free_ports

LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1


class Archive(ABC):
    """A PACS, seen from the node and from a person who fetches results."""

    ae_title: str = "ARCHIVE"
    title: str
    """What it is, for the report."""
    clock: str
    """How `arrivals` was measured, for the report."""
    port: int

    @abstractmethod
    def arrivals(self) -> Mapping[str, float]:
        """Return SOP Instance UID -> when it arrived, in seconds of `time.monotonic`."""

    @abstractmethod
    def fetch(self, folder: Path) -> list[Path]:
        """Bring every object into `folder` and return the files."""

    @abstractmethod
    def stop(self) -> None:
        """Stop listening; the data stays."""


def start_archive(folder: Path, *, embedded: bool = False) -> Archive:
    """Start Orthanc, or the embedded archive where Orthanc is missing or `embedded` is set."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if embedded or program is None:
        return EmbeddedArchive(folder)
    return OrthancArchive(program, folder)


class EmbeddedArchive(Archive):
    """A storage SCP of pynetdicom; one file an object."""

    def __init__(self, folder: Path) -> None:
        self.title = "embedded storage SCP (pynetdicom)"
        self.clock = "first data fragment of the object at the archive"
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._arrived: dict[str, float] = {}
        self._first: dict[int, float] = {}
        self._files: list[Path] = []
        self._lock = threading.Lock()
        self._ae = AE(ae_title=self.ae_title)
        self._ae.supported_contexts = AllStoragePresentationContexts
        self._ae.add_supported_context("1.2.840.10008.1.1")
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_PDU_RECV, self._pdu)]
        self._server = self._ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.port = self._server.socket.getsockname()[1]

    @override
    def arrivals(self) -> Mapping[str, float]:
        with self._lock:
            return dict(self._arrived)

    @override
    def fetch(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            files = list(self._files)
        return [Path(shutil.copy(f, folder)) for f in files]

    @override
    def stop(self) -> None:
        self._ae.shutdown()

    def _pdu(self, event: evt.Event) -> None:
        if type(event.pdu).__name__ == "P_DATA_TF":
            self._first.setdefault(id(event.assoc), time.monotonic())

    def _store(self, event: evt.Event) -> int:
        began = self._first.pop(id(event.assoc), time.monotonic())
        with self._lock:
            path = self._folder / f"{len(self._files):05d}.dcm"
            path.write_bytes(event.encoded_dataset())
            self._files.append(path)
            self._arrived.setdefault(str(event.request.AffectedSOPInstanceUID), began)
        return 0x0000


class OrthancArchive(Archive):
    """A private Orthanc with default settings, its storage under our folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self.clock = f"first seen in Orthanc's change log, read every {POLL_S:g} s: an upper bound"
        folder.mkdir(parents=True, exist_ok=True)
        self.port, http = free_ports(2)
        self._url = f"http://{LOOPBACK}:{http}"
        config = folder / "orthanc.json"
        config.write_text(json.dumps({
            "Name": "rtnode demo archive", "DicomAet": self.ae_title, "DicomPort": self.port,
            "HttpPort": http, "HttpServerEnabled": True, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"), "DicomAlwaysAllowStore": True,
            "DicomServerEnabled": True, "Plugins": [],
        }))  # fmt: skip
        log = (folder / "orthanc.log").open("wb")
        self._process = subprocess.Popen([program, str(config)], stdout=log, stderr=log)
        log.close()
        self.title = f"Orthanc {self._wait()}"
        self._arrived: dict[str, float] = {}
        self._ids: list[str] = []
        self._since = 0
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @override
    def arrivals(self) -> Mapping[str, float]:
        return dict(self._arrived)

    @override
    def fetch(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, name in enumerate(self._json("/instances")):
            path = folder / f"{number:05d}.dcm"
            path.write_bytes(self.get(f"/instances/{name}/file"))
            paths.append(path)
        return paths

    @override
    def stop(self) -> None:
        self._stopping.set()
        self._watcher.join(timeout=5)
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def get(self, path: str) -> bytes:
        """Return the body of a GET on the REST interface."""
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:  # noqa: S310 (own loopback URL)
            body: bytes = answer.read()
        return body

    def _json(self, path: str) -> Any:  # noqa: ANN401 (Orthanc's JSON)
        return json.loads(self.get(path))

    def _wait(self) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return str(self._json("/system")["Version"])
            time.sleep(POLL_S)
        self._process.kill()
        raise RuntimeError("Orthanc did not start; see orthanc.log in the archive folder")

    def _watch(self) -> None:
        """Follow the change log and note when each instance is first seen."""
        while not self._stopping.wait(POLL_S):
            with contextlib.suppress(OSError, ValueError, KeyError):
                changes = self._json(f"/changes?since={self._since}&limit=500")
                now = time.monotonic()
                for change in changes["Changes"]:
                    if change["ChangeType"] == "NewInstance":
                        tags = self._json(f"/instances/{change['ID']}/simplified-tags")
                        self._arrived.setdefault(tags["SOPInstanceUID"], now)
                self._since = changes["Last"]
