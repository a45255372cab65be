"""``rtnode status``: one screen on how the node is, and what needs a person."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import JsonValue

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import at, duration, table, tallied
from node.clock import SystemClock
from node.config.model import Config
from node.control.live import ask_node
from node.store.ledger import Ledger
from node.store.records import AssociationLine, Counts, HeldItem, QueueLine
from node.store.store import open_reader
from node.store.volume import GIGABYTE, DiskState, volume_of

_LAST_ASSOCIATIONS = 5
_FACTS = ("version", "pid", "started_at")
_HELD_SHOWN = 20
_WORDS = {
    DiskState.OK: "OK",
    DiskState.LOW: "LOW: below warn_free_gb",
    DiskState.FULL: "FULL: refuses to receive",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the node is, by its configuration."""

    host: str
    port: int
    ae_titles: tuple[str, ...]
    data_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Free space on the data volume."""

    free_gb: float | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the screen and the JSON show; each part as the ledger or the node tells it."""

    running: bool
    live: Mapping[str, JsonValue]
    """Facts of the running process; empty when it is down."""
    troubles: tuple[str, ...]
    """What is wrong with the running process."""
    node: Place
    disk: Disk
    counts: Counts | None
    """None while there is no database."""
    queues: tuple[QueueLine, ...]
    held: tuple[HeldItem, ...]
    associations: tuple[AssociationLine, ...]


@click.command()
@config_option
@json_option
def status(config: Config, *, as_json: bool) -> None:
    """Show the node, its disk, queues, held jobs and last associations on one screen.

    The exit code is 3 when the node does not run, 1 when it runs and says that something is wrong
    with it; what the database holds is shown all the same.
    """
    overview = _overview(config)
    if as_json:
        echo_json(overview)
    else:
        for line in _screen(overview):
            click.echo(line)
    click.get_current_context().exit(_exit_code(overview))


def _exit_code(overview: Overview) -> Exit:
    if not overview.running:
        return Exit.UNREACHABLE
    return Exit.FAILED if overview.troubles else Exit.DONE


def _overview(config: Config) -> Overview:
    live = ask_node(config.node.data_dir)
    ledger = _ledger(config)
    return Overview(
        running=live is not None,
        live=live.facts if live else {},
        troubles=live.troubles if live else (),
        node=Place(
            host=config.node.host,
            port=config.node.port,
            ae_titles=config.node.ae_titles,
            data_dir=config.node.data_dir,
        ),
        disk=_disk(config),
        counts=ledger.counts() if ledger else None,
        queues=tuple(ledger.queue()) if ledger else (),
        held=tuple(ledger.held()) if ledger else (),
        associations=tuple(ledger.recent_associations(_LAST_ASSOCIATIONS)) if ledger else (),
    )


def _ledger(config: Config) -> Ledger | None:
    if not config.node.data_dir.is_dir():
        return None
    return open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)


def _disk(config: Config) -> Disk:
    folder = config.node.data_dir
    if not folder.is_dir():
        return Disk(free_gb=None, state="no data folder yet")
    volume = volume_of(folder, config.storage)
    return Disk(free_gb=round(volume.free_bytes / GIGABYTE, 1), state=_WORDS[volume.state])


def _screen(view: Overview) -> Iterator[str]:
    facts = "   ".join(f"{key} {view.live[key]}" for key in _FACTS if key in view.live)
    yield f"node          {'UP' if view.running else 'DOWN'}   {facts}".rstrip()
    yield from (f"TROUBLE       {trouble}" for trouble in view.troubles)
    yield f"listens on    {view.node.host}:{view.node.port} as {', '.join(view.node.ae_titles)}"
    yield f"data          {view.node.data_dir}"
    free = "-" if view.disk.free_gb is None else f"{view.disk.free_gb} GB free"
    yield f"disk          {free}   {view.disk.state}"
    if view.counts is None:
        yield "database      none yet: the node has not run here"
        return
    counts = view.counts
    yield (
        f"received      {counts.instances} instances, {counts.conflicts} conflicts,"
        f" {counts.quarantined} in quarantine"
    )
    yield f"series        {tallied(counts.series)}"
    yield f"jobs          {tallied(counts.jobs)}"
    for destination, states in counts.deliveries.items():
        yield f"to {destination:<10} {tallied(states)}"
    yield from _queues(view)
    yield from _held(view)
    yield from _associations(view)


def _queues(view: Overview) -> Iterator[str]:
    waiting = [(q.kind, q.name, q.waiting, duration(q.oldest_s)) for q in view.queues if q.waiting]
    if waiting:
        yield ""
        yield from table(("waiting", "for", "count", "oldest"), waiting)


def _held(view: Overview) -> Iterator[str]:
    if not view.held:
        return
    yield ""
    yield f"HELD: {len(view.held)} need a person (then `rtnode retry <job>`)"
    for item in view.held[:_HELD_SHOWN]:
        yield f"  {item.kind} {item.id}   since {at(item.since)}   {item.subject}"
        yield f"      {item.reason}"
        if item.hint:
            yield f"      hint: {item.hint}"
    if len(view.held) > _HELD_SHOWN:
        yield f"  and {len(view.held) - _HELD_SHOWN} more: `rtnode jobs --state HELD`"


def _associations(view: Overview) -> Iterator[str]:
    if not view.associations:
        return
    yield ""
    rows = [
        (
            a.association_id,
            a.calling_ae_title,
            a.called_ae_title,
            a.address,
            at(a.opened_at),
            a.end or "open",
            a.received,
            a.refused,
        )
        for a in view.associations
    ]
    head = ("association", "from", "to", "address", "opened", "end", "received", "refused")
    yield from table(head, rows)
