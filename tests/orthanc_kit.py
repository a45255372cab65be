"""A private Orthanc as a peer: storage, query, retrieval, storage commitment and DICOMweb."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from demo.ports import free_ports
from tests.conftest import program

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """One running Orthanc with the AE title ARCHIVE."""

    ae_title = "ARCHIVE"

    def __init__(self, folder: Path, *, plugins: Iterable[Path] = (), **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.http = free_ports(2)
        self.url = f"http://127.0.0.1:{self.http}"
        config = folder / "orthanc.json"
        defaults = {
            "Name": "peer", "DicomAet": self.ae_title, "DicomPort": self.port,
            "HttpPort": self.http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
            "DicomAlwaysAllowStore": True, "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True,
            "DicomModalitiesInDatabase": False, "SynchronousCMove": True,
            "Plugins": [str(p) for p in plugins],
        }  # fmt: skip
        config.write_text(json.dumps(defaults | settings))
        self._log = folder / "orthanc.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program("Orthanc"), "--verbose", str(config)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, "Orthanc does not start"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            self.rest("/system")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def rest(self, path: str, data: object = None, method: str | None = None) -> Any:
        """Call the REST interface; bytes go as they are, anything else as JSON."""
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, data=body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def put(self, objects: Iterable[Dataset]) -> None:
        """Store data sets without DICOM networking."""
        for ds in objects:
            self.rest("/instances", part10(ds), "POST")

    def knows(self, name: str, ae_title: str, port: int) -> None:
        """Enter a modality: whom to move to, and whom to report to."""
        self.rest(f"/modalities/{name}", [ae_title, "127.0.0.1", port], "PUT")

    def instances(self) -> set[str]:
        """Return the SOP Instance UIDs that are here."""
        found = self.rest("/tools/find", {"Level": "Instance", "Query": {}, "Expand": True}, "POST")
        return {i["MainDicomTags"]["SOPInstanceUID"] for i in found}

    def delete(self, sop_instance_uid: str) -> None:
        """Forget an object."""
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}}
        for number in self.rest("/tools/find", query, "POST"):
            self.rest(f"/instances/{number}", method="DELETE")


def part10(ds: Dataset) -> bytes:
    """Return a data set as a file."""
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """Run an Orthanc; skips where it is not installed."""
    running = Orthanc(folder, **settings)
    try:
        yield running
    finally:
        running.stop()
