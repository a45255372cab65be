"""The control channel: what a running node answers on its socket, and to whom."""

import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from node.control.channel import SOCKET_NAME, ControlServer, NotRunning, Refused, request
from node.errors import LedgerError


def failing(_arguments: Mapping[str, JsonValue]) -> JsonValue:
    raise LedgerError("the database is away")


def mistaken(_arguments: Mapping[str, JsonValue]) -> JsonValue:
    raise KeyError("CANARY^GRETA")


HANDLERS = {"echo": dict, "failing": failing, "mistaken": mistaken}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a folder whose path is longer than a socket path may be (107 bytes)."""
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def server(data_dir: Path) -> Iterator[ControlServer]:
    with ControlServer(data_dir, HANDLERS) as running:
        yield running


def test_a_request_is_answered_with_the_result_of_its_handler(
    server: ControlServer, data_dir: Path
) -> None:
    assert request(data_dir, "echo", job=7, why="x") == {"job": 7, "why": "x"}


def test_the_socket_belongs_to_its_user_alone(server: ControlServer, data_dir: Path) -> None:
    mode = (data_dir / SOCKET_NAME).stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_an_error_of_the_node_comes_with_its_hint(server: ControlServer, data_dir: Path) -> None:
    with pytest.raises(Refused, match="the database is away") as caught:
        request(data_dir, "failing")

    assert caught.value.advice == LedgerError.hint


def test_a_foreign_error_is_told_without_its_text(server: ControlServer, data_dir: Path) -> None:
    with pytest.raises(Refused) as caught:
        request(data_dir, "mistaken")

    assert str(caught.value) == "KeyError"


def test_an_unknown_command_names_the_known_ones(server: ControlServer, data_dir: Path) -> None:
    with pytest.raises(Refused, match="unknown command 'stop'") as caught:
        request(data_dir, "stop")

    assert caught.value.advice == "one of echo, failing, mistaken"


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"[]\n", b"3\n", b'{"command": 3, "arguments": 4}\n', b"\xff\n"]
)
def test_nonsense_is_refused_and_the_channel_lives_on(
    server: ControlServer, data_dir: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(SOCKET_NAME)
        client.sendall(line)
        assert b'"ok": false' in client.recv(1000)

    assert request(data_dir, "echo", n=1) == {"n": 1}


def test_a_client_that_says_nothing_blocks_nobody(
    server: ControlServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(SOCKET_NAME)

        assert request(data_dir, "echo", n=1) == {"n": 1}


def test_without_a_node_the_caller_is_told_so(data_dir: Path) -> None:
    with pytest.raises(NotRunning, match="No node runs on this data folder"):
        request(data_dir, "echo")


def test_without_a_data_folder_the_caller_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        request(tmp_path / "none", "echo")


def test_a_leftover_of_a_killed_node_is_no_node_and_is_replaced(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(SOCKET_NAME)
    with pytest.raises(NotRunning):
        request(data_dir, "echo")

    with ControlServer(data_dir, HANDLERS):
        assert request(data_dir, "echo") == {}


def test_a_stopped_channel_leaves_nothing_behind(data_dir: Path) -> None:
    with ControlServer(data_dir, HANDLERS):
        pass

    assert list(data_dir.iterdir()) == []
    with pytest.raises(NotRunning):
        request(data_dir, "echo")
