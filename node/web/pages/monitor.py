"""What programs ask: is the page there, is the node well, its numbers; nothing of a patient."""

import ipaddress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from node.metrics import prometheus, snapshot
from node.web.site import Refusal, Site


def health(_site: Site, _request: Request) -> Response:
    """Tell that the page answers; nothing of the node."""
    return PlainTextResponse("ok\n")


def ready(site: Site, _request: Request) -> Response:
    """Tell whether the node runs and all its parts are well: 200 or 503."""
    live = site.remembered("live", site.live)
    if live is None:
        return PlainTextResponse("the node does not run\n", status_code=503)
    if live.troubles:
        return PlainTextResponse("the node is ill\n", status_code=503)
    return PlainTextResponse("ok\n")


def metrics(site: Site, request: Request) -> Response:
    """Return the numbers for Prometheus, to this machine and those under ``web.metrics_from``."""
    client = request.client.host if request.client else ""
    if not may_scrape(site, client):
        raise Refusal(403, "this address may not read the numbers", hint="add it to metrics_from")
    text = site.remembered("metrics", lambda: prometheus(snapshot(site.config, site.ledger())))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def may_scrape(site: Site, address: str) -> bool:
    """Return whether `address` may read the numbers."""
    try:
        client = ipaddress.ip_address(address)
    except ValueError:
        return False
    return client.is_loopback or any(client in network for network in site.web.metrics_from)
