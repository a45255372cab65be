"""Run the node as a user would: a config file, ``rtnode serve``, and other commands beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.archive import LOOPBACK, Archive
from demo.ports import free_ports
from demo.push import Peer, echo

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
MODALITY, TPS, CALLED = "LINAC1", "TPS1", "RTNODE"

CONFIG: Final = """\
# Written by the demo: one modality and one TPS send, the archive receives.
node:
  ae_titles: ["{called}"]
  host: 127.0.0.1
  port: {port}
  data_dir: {data}
storage:
  warn_free_gb: 1.0
  min_free_gb: 0.5
receive:
  hold_after_s: {hold_after_s}
peers:
  modality:
    ae_title: "{modality}"
    receive: true
    addresses: [127.0.0.1]
  tps:
    ae_title: "{tps}"
    receive: true
    addresses: [127.0.0.1]
  archive:
    ae_title: "{archive}"
    host: 127.0.0.1
    port: {archive_port}
routes:
  - name: contours
    match: {{kind: [CT]}}
    pipeline: autocontour
    priority: 60
    destinations: [archive]
  - name: synthetic-ct
    match: {{kind: [CBCT]}}
    pipeline: synthetic_ct
    destinations: [archive]
  - name: dose
    match: {{kind: [RTDOSE]}}
    pipeline: dose_radiomics
    destinations: [archive]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the node says of its work."""

    counts: Mapping[str, Any]
    jobs: list[dict[str, Any]]
    held: list[dict[str, Any]]

    def busy(self) -> bool:
        """Tell whether anything is still on its way."""
        series = self.counts["series"].get("RECEIVING", 0)
        jobs = sum(self.counts["jobs"].get(s, 0) for s in ("SCHEDULED", "IN PROGRESS"))
        return bool(series or jobs or self.deliveries("PENDING", "SENDING"))

    def deliveries(self, *states: str) -> int:
        """Return the number of deliveries in any of these states."""
        return sum(d.get(s, 0) for d in self.counts["deliveries"].values() for s in states)

    def line(self) -> str:
        """Return one line for a person who waits."""
        newest = {j["pipeline"]: j["state"] for j in reversed(self.jobs)}
        jobs = ", ".join(f"{name} {state}" for name, state in newest.items()) or "no job yet"
        return f"{self.counts['instances']} received; {jobs}; {self.deliveries('SENT')} delivered"


class Node:
    """A node in a process of its own."""

    def __init__(self, folder: Path, archive: Archive, *, hold_after_s: float = 600.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)[0]
        self.config = folder / "config.yaml"
        self.log = folder / "node.log"
        self.config.write_text(
            CONFIG.format(
                called=CALLED, port=self.port, data=json.dumps(str(folder / "node-data")),
                hold_after_s=hold_after_s, modality=MODALITY, tps=TPS, archive=archive.ae_title,
                archive_port=archive.port,
            ),
            encoding="utf-8",
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers a C-ECHO.

        Raises
        ------
        RuntimeError
            With the end of the node's log when it does not come up.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "node", "serve", "-c", str(self.config)],
                stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if echo(self.peer(MODALITY)):
                return
            time.sleep(0.2)
        self.stop()
        end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"the node did not start; the end of {self.log}:\n{end}")

    def peer(self, calling: str) -> Peer:
        """Return the node as seen by a device with this AE title."""
        return Peer(host=LOOPBACK, port=self.port, called=CALLED, calling=calling)

    def running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def progress(self) -> Progress:
        """Ask ``rtnode status`` and ``rtnode jobs``."""
        status = self.ask("status")
        jobs = self.ask("jobs", "--limit", "1000")
        return Progress(counts=status["counts"], jobs=jobs, held=status["held"])

    def ask(self, command: str, *arguments: str) -> Any:  # noqa: ANN401 (JSON of the command)
        """Return what ``rtnode <command> --json`` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "node", command, *arguments, "-c", str(self.config), "--json"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if not done.stdout.strip():
            raise RuntimeError(f"rtnode {command} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def stop(self) -> None:
        """Ask it to drain and stop; kill it when it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
