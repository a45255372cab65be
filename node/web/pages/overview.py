"""The first page: is the node well, what waits, what needs a person."""

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from node.config.model import SENDER
from node.store.ledger import Ledger
from node.store.records import Counts, HeldItem
from node.store.volume import GIGABYTE
from node.web.packs import packs
from node.web.site import Site

_HELD_SHOWN: Final = 12
_ASSOCIATIONS: Final = 8


def overview(site: Site, request: Request) -> Response:
    """Show node, disk, queues, workers, packs and the last day."""
    ledger = site.ledger()
    live = site.live()
    disk = site.disk()
    held = site.remembered("held", lambda: _held(ledger))
    counts = site.remembered("counts", ledger.counts)
    since = site.clock.now() - timedelta(days=1)
    day = site.remembered("day", lambda: ledger.activity(since))
    part = "overview_live.html" if request.query_params.get("part") else "overview.html"
    return site.renderer.page(
        request,
        part,
        node=site.config.node,
        live=live,
        troubles=live.troubles if live else (),
        free_gb=disk.free_bytes / GIGABYTE,
        total_gb=disk.total_bytes / GIGABYTE,
        disk_state=disk.state.value,
        counts=counts,
        destinations=_destinations(site, counts),
        queues={(line.kind, line.name): line for line in ledger.queue()},
        running=ledger.running(),
        workers=site.config.pipelines.workers,
        held=held[:_HELD_SHOWN],
        held_count=len(held),
        day=day,
        day_jobs=sum(sum(states.values()) for states in day.jobs.values()),
        packs=packs(),
        associations=ledger.recent_associations(_ASSOCIATIONS),
    )


def _held(ledger: Ledger) -> list[tuple[str, HeldItem]]:
    """Return what needs a person, oldest first: the address of its page, and what it is about."""
    items = [
        (f"/jobs/{item.id}" if item.kind == "job" else f"/series/{item.id}", item)
        for item in ledger.held()
        if item.kind != "delivery"
    ]
    items += [
        (
            f"/jobs/{held.job_id}",
            HeldItem(
                kind="delivery",
                id=str(held.job_id),
                subject=f"{held.destination}: {held.count}",
                reason=held.reason,
                hint=held.hint,
                since=held.since,
            ),
        )
        for held in ledger.held_results()
    ]
    return sorted(items, key=lambda item: item[1].since)


def _destinations(site: Site, counts: Counts) -> list[str]:
    """Return every destination that a route or a delivery names, in the order of the routes."""
    named = [name for route in site.config.routes for name in route.destinations]
    return list(dict.fromkeys([*(n for n in named if n != SENDER), *counts.deliveries]))
