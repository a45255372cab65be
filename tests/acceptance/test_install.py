"""``systemd/install`` in a scratch root: install, upgrade, go back, uninstall; the data stay.

The wheelhouse holds rtnode alone; its dependencies come from the environment of the suite.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT, program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, str(ROOT), "-w", str(folder)], check=True, timeout=240)
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


class Machine:
    """A scratch root."""

    def __init__(self, root: Path, wheelhouse: Path) -> None:
        self.root = root
        self.wheelhouse = wheelhouse
        self.current = root / "opt/rtnode/current"
        self.config = root / "etc/rtnode/config.yaml"
        self.environment = {
            **os.environ,
            "DESTDIR": str(root),
            "PYTHON": sys.executable,
            "WHEELHOUSE": str(wheelhouse),
            "PIP_ARGS": "--no-deps --ignore-installed",
            "PYTHONPATH": sysconfig.get_paths()["purelib"],
        }

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "systemd/install", command],
            check=False,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def rtnode(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.current / "bin/rtnode", *arguments],
            check=False,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def machine(tmp_path: Path, wheelhouse: Path) -> Machine:
    copy = tmp_path / "wheelhouse"
    copy.mkdir()
    for path in wheelhouse.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    root = tmp_path / "root"
    root.mkdir()
    return Machine(root, copy)


def test_a_machine_is_installed_upgraded_taken_back_and_left_with_its_data(
    machine: Machine,
) -> None:
    first = machine.run("install")
    assert first.returncode == 0, first.stderr
    assert machine.rtnode("--version").stdout.startswith("rtnode ")
    written = machine.config.read_text()
    assert '\n  host: "0.0.0.0"\n' in written, "a scanner must reach the service"
    assert "\n  data_dir: /var/lib/rtnode\n" in written
    assert '\n    path: "/var/lib/rtnode/results"\n' in written, "the unit may write nowhere else"
    assert (machine.current / "docs/operator/web.md").exists()
    command = machine.root / "usr/local/bin/rtnode"
    assert "/etc/rtnode/config.yaml" in command.read_text(), "not the sample of the clone"
    assert command.stat().st_mode & 0o777 == 0o755
    assert machine.config.stat().st_mode & 0o777 == 0o640
    unit = (machine.root / "etc/systemd/system/rtnode.service").read_text()
    assert "ExecStart=/opt/rtnode/current/bin/rtnode serve" in unit
    old = machine.current.readlink()

    again = machine.run("install")
    assert "is already installed" in again.stdout

    machine.config.write_text(machine.config.read_text().replace("port: 11112", "port: 10104"))
    (machine.wheelhouse / "note.txt").write_text("the next release")
    seal(machine.wheelhouse)
    upgraded = machine.run("install")
    assert upgraded.returncode == 0, upgraded.stderr
    assert machine.current.readlink() != old
    assert "port: 10104" in machine.config.read_text()

    assert machine.run("rollback").returncode == 0
    assert machine.current.readlink() == old
    assert machine.run("rollback").returncode == 0
    assert machine.current.readlink() != old
    old_release = machine.root / "opt/rtnode" / old
    for release, code in ((old_release, 1), (machine.current, 0)):
        (release / "bin/rtnode").write_text(f"#!/bin/sh\nexit {code}\n")  # `verify` of the database
    refused = machine.run("rollback")
    assert refused.returncode != 0
    assert "cannot read the database" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert machine.current.readlink() != old

    data = machine.root / "var/lib/rtnode/blob"
    data.write_text("received")
    assert machine.run("uninstall").returncode == 0
    assert not (machine.root / "opt/rtnode").exists()
    assert list((machine.root / "etc/systemd/system").glob("rtnode*")) == []
    assert not command.exists()
    assert data.read_text() == "received"
    assert machine.config.exists()


def test_damaged_wheels_are_refused_before_anything_is_made(machine: Machine) -> None:
    wheel = next(machine.wheelhouse.glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")

    refused = machine.run("install")

    assert refused.returncode != 0
    assert "are damaged" in refused.stderr
    assert list(machine.root.iterdir()) == []


def test_an_upgrade_that_refuses_the_configuration_changes_nothing(machine: Machine) -> None:
    assert machine.run("install").returncode == 0
    before = machine.current.readlink()
    machine.config.write_text(machine.config.read_text() + "\nnonsense: true\n")
    (machine.wheelhouse / "note.txt").write_text("the next release")
    seal(machine.wheelhouse)

    refused = machine.run("install")

    assert refused.returncode != 0
    assert "nothing was changed" in refused.stderr
    assert machine.current.readlink() == before


def test_a_page_that_a_unit_names_is_installed() -> None:
    for unit in (ROOT / "systemd").glob("*.service"):
        (page,) = re.findall(
            r"^Documentation=file:/opt/rtnode/current/(\S+)$", unit.read_text(), re.M
        )
        assert (ROOT / page).exists()


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    """In a root of their own, with the targets of this machine and a command to start."""
    analyze = program("systemd-analyze")
    command = tmp_path / "opt/rtnode/current/bin/rtnode"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    shutil.copytree("/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    units = sorted((ROOT / "systemd").glob("*.service"))
    for unit in units:
        shutil.copy(unit, tmp_path / "usr/lib/systemd/system")

    found = subprocess.run(
        [analyze, "verify", f"--root={tmp_path}", "--man=no", *(unit.name for unit in units)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert [line for line in found.stderr.splitlines() if "rtnode" in line] == []


def test_every_unit_is_hardened() -> None:
    for unit in (ROOT / "systemd").glob("*.service"):
        shown = subprocess.run(
            [program("systemd-analyze"), "security", "--offline=true", unit],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
        assert exposure is not None, shown.stderr
        assert float(exposure[1]) <= 2.5, unit.name
