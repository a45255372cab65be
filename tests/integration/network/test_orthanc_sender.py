"""Orthanc as a sender: it proposes what Orthanc proposes and cuts as Orthanc cuts."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import program
from tests.integration.network.support import FakeDoor, dead_port, receiving, until, write_object


def ask(url: str, data: bytes | None = None) -> object:
    request = urllib.request.Request(url, data=data)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run Orthanc; yields its URL and its settings file, to which a modality can be added."""
    http = dead_port()
    settings = {
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "DicomServerEnabled": False,
        "DicomAet": "ORTHANC",
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": True,
        "Plugins": [],
    }
    path = tmp_path / "orthanc.json"
    path.write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("wb") as log:
        server = subprocess.Popen([program("Orthanc"), str(path)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http}"
    deadline = time.monotonic() + 60
    while True:
        try:
            ask(f"{url}/system")
            break
        except OSError:
            assert server.poll() is None, (tmp_path / "orthanc.log").read_text()[-1000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield url, tmp_path
    server.terminate()
    server.wait(30)


@pytest.mark.orthanc
def test_orthanc_delivers_what_it_holds(orthanc):
    url, folder = orthanc
    instances = [
        ask(f"{url}/instances", write_object(folder, n, pixels=64 * 1024).read_bytes())["ID"]
        for n in range(1, 6)
    ]
    door = FakeDoor()
    with receiving(door) as receiver:
        modality = {"AET": "RTNODE", "Host": "127.0.0.1", "Port": receiver.port}
        put = urllib.request.Request(
            f"{url}/modalities/node", data=json.dumps(modality).encode(), method="PUT"
        )
        urllib.request.urlopen(put, timeout=30).close()
        ask(f"{url}/modalities/node/store", json.dumps(instances).encode())
        until(lambda: door.ended, 20)

    assert sorted(s.sop_instance_uid for s in door.stored) == [
        f"2.25.1234567890.{n}" for n in range(1, 6)
    ]
    assert all(s.dataset.endswith(bytes(range(256))) for s in door.stored)
