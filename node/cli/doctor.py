"""``rtnode doctor``: everything that the node stands on, tried once, each with a fix."""

import json
import os
import resource
import shutil
import socket
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import click

from models.pack import MANIFEST, PACKS, PackManifest, PackRefused, load_pack
from node.audit.exporter import receiver_of
from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.network import peer_ae
from node.clock import SystemClock
from node.config.model import Config
from node.control.channel import NotRunning, request
from node.domain import AETitle
from node.errors import LedgerError, NodeError
from node.scu.association import PeerAE
from node.scu.echo import echo
from node.store.migrate import newest_schema, schemas
from node.store.store import open_reader, refuse_remote
from node.store.volume import GIGABYTE, DiskState, volume_of

_SLICE_BYTES: Final = 512 * 1024
"""A CT slice of 512 x 512, the unit of the disk test."""
_SLICES: Final = 20
_SLOW_SYNC_MS: Final = 30.0
"""A synced slice above this holds a scanner up (`network.md`: scanners send 20-40 slices/s)."""
_EARLIEST: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""This version was written after it: an earlier clock is wrong."""
_READY_WITHIN_S: Final = 120.0
_OPEN_FILES: Final = 1024
_DOCTOR: Final = AETitle("DOCTOR")


class Health(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "WARN"
    BAD = "BAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One thing that was tried."""

    check: str
    health: Health
    found: str
    fix: str = ""


Check = Callable[[Config], Iterator[Result]]


@click.command()
@config_option
@json_option
def doctor(config: Config, *, as_json: bool) -> None:
    """Try everything the node stands on: disk, clock, database, port, peers, models, workers.

    Safe beside a running node: it writes only a scratch file, which it removes. The exit code is
    1 when something is BAD.
    """
    results: list[Result] = []
    for check in CHECKS:
        for result in check(config):
            results.append(result)
            if not as_json:
                _show(result)
    if as_json:
        echo_json(results)
    bad = sum(result.health is Health.BAD for result in results)
    warned = sum(result.health is Health.WARN for result in results)
    if not as_json:
        click.echo(f"\n{len(results)} checks: {bad} bad, {warned} warnings")
    click.get_current_context().exit(Exit.FAILED if bad else Exit.DONE)


def _show(result: Result) -> None:
    click.echo(f"{result.health:<5} {result.check:<12} {result.found}")
    if result.fix:
        click.echo(f"      {'':<12} fix: {result.fix}")


def _folder(config: Config) -> Iterator[Result]:
    folder = config.node.data_dir
    name = "data folder"
    if not folder.is_dir():
        yield Result(
            check=name,
            health=Health.WARN,
            found=f"{folder} is not there yet",
            fix="`rtnode serve` creates it; its parent must be writable for the node's user",
        )
        return
    try:
        refuse_remote(folder.resolve())
    except LedgerError as error:
        yield Result(check=name, health=Health.BAD, found=str(error), fix=error.advice)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Result(
            check=name,
            health=Health.BAD,
            found=f"{folder} is not writable for user {os.geteuid()}",
            fix=f"run as the node's user, or: chown -R rtnode: {folder}",
        )
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o007:
        yield Result(
            check=name,
            health=Health.WARN,
            found=f"{folder} is open to every user of this machine (mode {mode:o})",
            fix=f"chmod o-rwx {folder}: it holds patient data",
        )
    else:
        yield Result(check=name, health=Health.OK, found=f"{folder}, local, mode {mode:o}")


_SPACE: Final = {
    DiskState.OK: (Health.OK, ""),
    DiskState.LOW: (Health.WARN, "free space soon, or set storage.warn_free_gb"),
    DiskState.FULL: (
        Health.BAD,
        "free space or enlarge the volume: the node refuses every object (0xA700)",
    ),
}


def _space(config: Config) -> Iterator[Result]:
    volume = volume_of(_nearest(config.node.data_dir), config.storage)
    health, fix = _SPACE[volume.state]
    free = volume.free_bytes / GIGABYTE
    found = f"{free:.1f} GB free; refuses below {config.storage.min_free_gb:g} GB"
    yield Result(check="disk space", health=health, found=found, fix=fix)


def _sync(config: Config) -> Iterator[Result]:
    """Write slices as the node does and sync each: file, then folder."""
    folder = _nearest(config.node.data_dir)
    if not os.access(folder, os.W_OK):
        return
    times = []
    block = os.urandom(_SLICE_BYTES)
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
        directory = os.open(scratch, os.O_RDONLY)
        try:
            for number in range(_SLICES):
                begun = time.perf_counter()
                with Path(scratch, str(number)).open("wb", buffering=0) as stream:
                    stream.write(block)
                    os.fsync(stream.fileno())
                os.fsync(directory)
                times.append((time.perf_counter() - begun) * 1e3)
        finally:
            os.close(directory)
    median = statistics.median(times)
    found = f"a synced slice takes {median:.1f} ms (median of {_SLICES}), worst {max(times):.1f} ms"
    slow = median > _SLOW_SYNC_MS
    yield Result(
        check="disk sync",
        health=Health.WARN if slow else Health.OK,
        found=found,
        fix="put data_dir on an SSD, or on a controller with a battery-backed cache"
        if slow
        else "",
    )


def _clock(_config: Config) -> Iterator[Result]:
    now = SystemClock().now()
    if now < _EARLIEST:
        fix = "set the clock and keep it with NTP (timedatectl set-ntp true)"
        yield Result(check="clock", health=Health.BAD, found=f"{now:%Y-%m-%d %H:%M}Z", fix=fix)
        return
    timedatectl = shutil.which("timedatectl")
    synced = ""
    if timedatectl:
        asked = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
            [timedatectl, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        synced = asked.stdout.strip()
    found = f"{now:%Y-%m-%d %H:%M:%S}Z"
    if synced == "no":
        fix = "timedatectl set-ntp true: studies are matched with times of other machines"
        yield Result(check="clock", health=Health.WARN, found=f"{found}, not synchronized", fix=fix)
    else:
        told = ", synchronized" if synced == "yes" else ""
        yield Result(check="clock", health=Health.OK, found=found + told)


def _database(config: Config) -> Iterator[Result]:
    if not config.node.data_dir.is_dir():
        return
    try:
        ledger = open_reader(
            config.node.data_dir, clock=SystemClock(), url=config.node.database_url
        )
    except LedgerError as error:
        yield Result(check="database", health=Health.WARN, found=str(error), fix=error.advice)
        return
    version, newest = ledger.schema_version(), newest_schema()
    if version != newest:
        older = version in schemas()
        yield Result(
            check="database",
            health=Health.WARN if older else Health.BAD,
            found=f"schema {version}, this release has {newest}",
            fix="the next start brings it up to date: `rtnode backup` before it"
            if older
            else "it was written by a newer rtnode: install that version, or restore a backup",
        )
        return
    counts = ledger.counts()
    found = f"schema {version}, {counts.instances} instances"
    held = len(ledger.held())
    if held:
        fix = "`rtnode status` lists them with reason and hint"
        yield Result(check="database", health=Health.WARN, found=f"{found}; {held} held", fix=fix)
    else:
        yield Result(check="database", health=Health.OK, found=found)


def _port(config: Config) -> Iterator[Result]:
    """Ask the node itself when it runs; else try to take its port."""
    node = config.node
    place = f"{node.host}:{node.port}"
    try:
        request(node.data_dir, "status")
    except NotRunning:
        yield _port_free(config, place)
        return
    host = "127.0.0.1" if node.host in {"0.0.0.0", "::"} else node.host  # noqa: S104 - compared only
    title = node.ae_titles[0]
    try:
        report = echo(
            PeerAE(ae_title=title, host=host, port=node.port, calling_ae_title=_DOCTOR), count=3
        )
    except NodeError as error:
        yield Result(
            check="node",
            health=Health.WARN,
            found=f"it runs, and refuses a C-ECHO from here: {error}",
            fix="fine when unknown peers are rejected; else look at its log",
        )
        return
    yield Result(
        check="node",
        health=Health.OK,
        found=f"runs and answers C-ECHO at {place} in {report.median_ms:.1f} ms",
    )


def _port_free(config: Config, place: str) -> Result:
    family = socket.AF_INET6 if ":" in config.node.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.node.host, config.node.port))
        except OSError as error:
            return Result(
                check="node",
                health=Health.BAD,
                found=f"it does not run, and {place} cannot be taken: {error.strerror}",
                fix=f"find the owner: ss -ltnp 'sport = :{config.node.port}'; below 1024 the unit"
                " needs CAP_NET_BIND_SERVICE",
            )
    return Result(check="node", health=Health.OK, found=f"does not run; {place} is free")


def _peers(config: Config) -> Iterator[Result]:
    for name, peer in config.peers.items():
        if peer.host is None or peer.port is None:
            continue
        remote = peer_ae(config, name)
        try:
            report = echo(remote, count=3)
        except NodeError as error:
            yield Result(
                check=f"peer {name}", health=Health.BAD, found=str(error), fix=error.advice
            )
            continue
        health = Health.OK if report.ok and not report.hint else Health.WARN
        found = f"{remote} answers C-ECHO in {report.median_ms:.1f} ms"
        yield Result(check=f"peer {name}", health=health, found=found, fix=report.hint)


def _audit(config: Config) -> Iterator[Result]:
    section = config.audit
    if section is None:
        return
    place = f"{section.host}:{section.port}"
    try:
        receiver_of(section).deliver([])
    except NodeError as error:
        yield Result(check="audit", health=Health.BAD, found=str(error), fix=error.advice)
    except OSError as error:
        yield Result(
            check="audit", health=Health.BAD,
            found=f"{place} takes no audit messages: {error.strerror or error}",
            fix="is it up, does it believe our certificate? Messages wait in the database",
        )  # fmt: skip
    else:
        yield Result(check="audit", health=Health.OK, found=f"{place} takes audit messages")


def _folders(config: Config) -> Iterator[Result]:
    places = [(f"folder {name}", folder.path) for name, folder in config.folders.items()]
    places += [("hot folder", folder.path) for folder in config.hot_folders]
    for name, path in places:
        if not path.is_dir():
            found, fix = f"{path} is not there", f"mkdir -p {path}, owned by the node's user"
            yield Result(check=name, health=Health.BAD, found=found, fix=fix)
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            found = f"{path} is not readable and writable for user {os.geteuid()}"
            yield Result(check=name, health=Health.BAD, found=found, fix="chown or chmod it")
        else:
            yield Result(check=name, health=Health.OK, found=str(path))


def _models(_config: Config) -> Iterator[Result]:
    for manifest in sorted(PACKS.glob(f"*/{MANIFEST}")):
        try:
            pack = load_pack(manifest.parent, PackManifest)
        except PackRefused as error:
            fix = "install the pack again: its bytes are not those of its manifest"
            yield Result(check="model pack", health=Health.BAD, found=str(error), fix=fix)
            continue
        yield Result(
            check="model pack", health=Health.OK, found=f"{pack.label}, sha256 {pack.sha256[:12]}"
        )


def _worker(config: Config) -> Iterator[Result]:
    """Start one worker process with the pipelines of the routes, as the engine does."""
    pipelines = sorted({route.pipeline for route in config.routes if route.enabled})
    begun = time.perf_counter()
    try:
        started = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "node.worker", str(os.getpid()), *pipelines],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_READY_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Result(
            check="worker",
            health=Health.BAD,
            found=f"a worker was not ready within {_READY_WITHIN_S:g} s",
            fix="look at memory and disk of this machine",
        )
        return
    took = time.perf_counter() - begun
    unloadable = _unloadable(started.stderr)
    if '"ready": true' in started.stdout and not unloadable:
        found = f"starts in {took:.1f} s with {', '.join(pipelines) or 'no pipeline'}"
        yield Result(check="worker", health=Health.OK, found=found)
    else:
        yield Result(
            check="worker",
            health=Health.BAD,
            found=f"a worker cannot load {', '.join(unloadable) or 'itself'}",
            fix="`make setup` again; `rtnode --version` shows which library is missing",
        )


def _unloadable(log: str) -> list[str]:
    """Return the pipelines that a worker's JSON log says it could not load."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [str(line["pipeline"]) for line in lines if line.get("event") == "pipeline_unloadable"]


def _limits(_config: Config) -> Iterator[Result]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < _OPEN_FILES
    yield Result(
        check="limits",
        health=Health.WARN if few else Health.OK,
        found=f"{soft} open files",
        fix="LimitNOFILE=65536 in the unit, or `ulimit -n 65536`" if few else "",
    )


def _nearest(folder: Path) -> Path:
    """Return `folder`, or the nearest folder above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


CHECKS: Final[tuple[Check, ...]] = (
    _folder,
    _space,
    _sync,
    _clock,
    _limits,
    _database,
    _folders,
    _port,
    _peers,
    _audit,
    _models,
    _worker,
)
"""In the order in which a person would mend things."""
