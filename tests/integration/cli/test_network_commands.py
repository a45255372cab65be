"""``rtnode echo`` and ``rtnode send`` against a real peer on the loopback."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from node.cli.exits import Exit
from node.cli.main import main
from tests.factories import ct_series, save


@dataclass
class Archive:
    """A peer that keeps the UIDs it was sent, and answers what the test says."""

    port: int = 0
    status: int = 0x0000
    received: list[str] = field(default_factory=list)

    def store(self, event: evt.Event) -> int:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return self.status


@pytest.fixture
def archive() -> Iterator[Archive]:
    peer = Archive()
    ae = AE("PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    handlers = [(evt.EVT_C_STORE, peer.store)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    peer.port = server.socket.getsockname()[1]
    yield peer
    server.shutdown()


def configured(folder: Path, port: int) -> str:
    path = folder / "config.yaml"
    path.write_text(
        'node: {ae_titles: ["RTNODE"], data_dir: data}\n'
        "peers:\n"
        f'  pacs: {{ae_title: "PACS", host: 127.0.0.1, port: {port}}}\n'
        '  ctsim: {ae_title: "CTSIM", receive: true, addresses: [127.0.0.1]}\n'
    )
    return str(path)


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_peer_that_answers_is_reported_with_its_speed(archive: Archive, tmp_path: Path) -> None:
    code, out, _ = invoke("echo", "pacs", "--count", "2", "-c", configured(tmp_path, archive.port))

    assert code == Exit.DONE
    assert f"pacs: PACS at 127.0.0.1:{archive.port} answers" in out


def test_an_echo_is_json_for_scripts(archive: Archive, tmp_path: Path) -> None:
    code, out, _ = invoke("echo", "pacs", "--json", "-c", configured(tmp_path, archive.port))

    assert code == Exit.DONE
    assert json.loads(out)["ok"] is True
    assert len(json.loads(out)["report"]["round_trips_ms"]) == 5


def test_a_peer_that_is_away_is_unreachable_with_a_hint(tmp_path: Path) -> None:
    code, _, err = invoke("echo", "pacs", "-c", configured(tmp_path, 1))

    assert code == Exit.UNREACHABLE
    assert "no connection to PACS at 127.0.0.1:1" in err
    assert "hint: " in err


@pytest.mark.parametrize("name", ["nobody", "ctsim"], ids=["unknown", "only-sends"])
def test_a_peer_that_cannot_be_called_is_a_usage_error(tmp_path: Path, name: str) -> None:
    code, _, err = invoke("echo", name, "-c", configured(tmp_path, 1))

    assert code == Exit.USAGE
    assert f"'{name}' is no peer with host and port; there is: pacs" in err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three slices in a subfolder, and a file that is no DICOM."""
    target = tmp_path / "study" / "ct"
    save(ct_series()[:3], target)
    (target / "notes.txt").write_text("not DICOM")
    return target.parent


def test_a_folder_is_sent_whole_and_what_is_not_dicom_is_counted(
    archive: Archive, tmp_path: Path, folder: Path
) -> None:
    config = configured(tmp_path, archive.port)

    code, out, err = invoke("send", "pacs", str(folder), "-c", config, "--json")

    told = json.loads(out)
    assert (code, err) == (Exit.DONE, "")
    assert (told["sent"], told["failed"], told["not_dicom"]) == (3, 0, 1)
    assert sorted(archive.received) == sorted(o["sop_instance_uid"] for o in told["objects"])


def test_an_object_that_the_peer_refuses_fails_the_command_and_is_named(
    archive: Archive, tmp_path: Path, folder: Path
) -> None:
    archive.status = 0xC000

    code, out, _ = invoke("send", "pacs", str(folder), "-c", configured(tmp_path, archive.port))

    assert code == Exit.FAILED
    assert "0 of 3 objects sent" in out
    assert ".dcm: the peer cannot understand the object (0xC000); " in out


def test_nothing_to_send_is_no_success(archive: Archive, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    code, out, _ = invoke("send", "pacs", str(empty), "-c", configured(tmp_path, archive.port))

    assert code == Exit.FAILED
    assert "0 of 0 objects sent" in out


def test_sending_to_a_peer_that_is_away_is_unreachable(tmp_path: Path, folder: Path) -> None:
    code, _, err = invoke("send", "pacs", str(folder), "-c", configured(tmp_path, 1))

    assert code == Exit.UNREACHABLE
    assert "no connection to PACS" in err
