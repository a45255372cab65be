"""The composition root: a start that fails leaves nothing behind, a stop can be repeated."""

import logging
import socket
import threading

import pytest

from node.errors import ConfigError, LedgerError
from node.service import tell_systemd, watchdog_s
from node.store.volume import Disk, DiskState
from tests.node_kit import node, send
from tests.store_kit import ct


def test_a_node_starts_is_well_and_stops_without_leaving_threads(tmp_path) -> None:
    before = set(threading.enumerate())
    running = node(tmp_path, 104)
    with running:
        assert running.troubles() == []
        assert send(running.port, [ct(1)]) == [0]
    running.stop()

    assert {t for t in threading.enumerate() if not t.daemon} <= before


def test_a_second_node_on_the_same_folder_is_refused(tmp_path) -> None:
    with node(tmp_path, 104), pytest.raises(LedgerError, match="another node uses this"):
        node(tmp_path, 104).start()


def test_a_start_that_fails_gives_everything_back(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        section = {
            "ae_titles": ["RTNODE"],
            "host": "127.0.0.1",
            "port": taken.getsockname()[1],
            "data_dir": str(tmp_path),
        }
        with pytest.raises(ConfigError, match="cannot listen"):
            node(tmp_path, 104, node=section).start()

    with node(tmp_path, 104) as running:
        assert running.troubles() == []


def test_a_dead_part_is_told(tmp_path) -> None:
    with node(tmp_path, 104) as running:
        running._alive["engine"] = lambda: False

        assert running.troubles() == ["engine is dead"]


def test_low_disk_is_told_once_and_its_end_too(tmp_path, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO, logger="node.service")
    with node(tmp_path, 104) as running:
        for state in (DiskState.LOW, DiskState.LOW, DiskState.FULL, DiskState.OK, DiskState.OK):
            disk = Disk(free_bytes=1_000_000_000, state=state, trouble="")
            monkeypatch.setattr(running.store.files, "disk", lambda disk=disk: disk)
            running.watch_disk()

    told = [(r.fields["state"], r.levelname) for r in caplog.records if r.msg == "disk"]
    assert told == [("LOW", "ERROR"), ("FULL", "ERROR"), ("OK", "INFO")]


def test_work_folders_of_a_dead_node_are_removed(tmp_path) -> None:
    left = tmp_path / "work" / "7-1"
    left.mkdir(parents=True)
    (left / "half.dcm").write_bytes(b"")

    with node(tmp_path, 104):
        assert not left.exists()


def test_the_service_manager_is_told_over_its_socket(tmp_path, monkeypatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        tell_systemd("READY=1")

        assert manager.recv(64) == b"READY=1"

    tell_systemd("WATCHDOG=1")  # the manager is gone: nothing happens
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_systemd("WATCHDOG=1")


@pytest.mark.parametrize(("value", "seconds"), [("60000000", 60.0), ("", float("inf"))])
def test_the_watchdog_time_comes_from_the_service_manager(monkeypatch, value, seconds) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)

    assert watchdog_s() == seconds
