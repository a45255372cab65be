"""The table of pages: what address shows what.

Every function is plain and runs in a thread, because all of them read disk, database or the node;
forms are read and checked before, in `node.web.guard`.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.web.guard import Guard, error_page
from node.web.pages import (
    actions,
    data,
    drift,
    job,
    login,
    monitor,
    overview,
    people,
    report,
    series,
    work,
)
from node.web.site import Refusal, Site

Page = Callable[[Site, Request], Response]

PAGES: Final[tuple[tuple[str, str, Page], ...]] = (
    ("GET", "/", overview.overview),
    ("GET", "/health", monitor.health),
    ("GET", "/ready", monitor.ready),
    ("GET", "/metrics", monitor.metrics),
    ("GET", "/login", login.form),
    ("POST", "/login", login.log_in),
    ("POST", "/logout", login.log_out),
    ("GET", "/jobs", work.jobs),
    ("GET", "/studies", work.studies),
    ("GET", "/studies/{uid}", series.study),
    ("GET", "/series/{uid}", series.series),
    ("GET", "/jobs/{job:int}", job.job),
    ("GET", "/jobs/{job:int}/report", report.report),
    ("GET", "/jobs/{job:int}/report/{name}", report.picture),
    ("POST", "/jobs/{job:int}/{action}", actions.on_job),
    ("POST", "/series/{uid}/complete", actions.complete),
    ("GET", "/drift", drift.drift),
    ("GET", "/people", people.people),
    ("GET", "/{subject}/{id}/scene", data.scene),
    ("GET", "/{subject}/{id}/plane/{volume:int}/{axis:int}/{index:int}", data.plane),
    ("GET", "/{subject}/{id}/dose/{dose:int}/{axis:int}/{index:int}", data.dose),
    ("GET", "/{subject}/{id}/lines/{axis:int}/{index:int}", data.lines),
    ("GET", "/{subject}/{id}/histogram", data.histogram),
    ("GET", "/jobs/{job:int}/dvh", data.dvh),
)
"""(method, address, page); the first that fits."""


def application(site: Site) -> Starlette:
    """Return the ASGI application."""
    routes = [Route(path, _bound(site, page), methods=[method]) for method, path, page in PAGES]
    routes.append(Route("/static/{name}", _bound(site, _static)))
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, site=site)],
        exception_handlers={HTTPException: partial(error_page, site)},
    )


def _bound(site: Site, page: Page) -> Callable[[Request], Response]:
    @wraps(page)
    def answer(request: Request) -> Response:
        return page(site, request)

    return answer


def _static(site: Site, request: Request) -> Response:
    found = site.renderer.files.get(request.path_params["name"])
    if found is None:
        raise Refusal(404, "there is no such file")
    current = request.query_params.get("v") == found.version
    kept = "public, max-age=31536000, immutable" if current else "no-cache"
    return Response(found.content, media_type=found.media_type, headers={"cache-control": kept})
