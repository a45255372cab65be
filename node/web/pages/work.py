"""The worklist: jobs and studies, filtered, searched and paged by the database."""

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from node.lifecycle import JobState, SeriesState
from node.store.worklist import PAGE, JobFilter
from node.web.site import Site
from pipelines.catalog import PIPELINES

_SPANS: Final = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}
"""Word in the address -> how far back."""
_LONGEST_TEXT: Final = 100
_LAST_PAGE: Final = 100_000


def jobs(site: Site, request: Request) -> Response:
    """List jobs, newest first."""
    query = request.query_params
    span = _SPANS.get(query.get("since", ""))
    wanted = JobFilter(
        states=tuple(s for s in JobState if s.value == query.get("state")),
        pipeline=query.get("pipeline", "")[:_LONGEST_TEXT],
        route=query.get("route", "")[:_LONGEST_TEXT],
        text=_text(request),
        since=site.clock.now() - span if span else None,
        page=_page(request),
    )
    found = site.ledger().job_page(wanted)
    return site.renderer.page(
        request,
        "jobs_live.html" if query.get("part") else "jobs.html",
        found=found,
        wanted=wanted,
        since=query.get("since", ""),
        states=list(JobState),
        spans=list(_SPANS),
        pipelines=list(PIPELINES),
        routes=[route.name for route in site.config.routes],
        page=wanted.page,
        pages=_pages(found.total),
    )


def studies(site: Site, request: Request) -> Response:
    """List studies with their series and jobs, last received first."""
    query = request.query_params
    text = _text(request)
    states = [s for s in SeriesState if s.value == query.get("state")]
    found = site.ledger().study_page(text, _page(request), states)
    return site.renderer.page(
        request,
        "studies_live.html" if query.get("part") else "studies.html",
        found=found,
        text=text,
        state=query.get("state", ""),
        states=list(SeriesState),
        page=_page(request),
        pages=_pages(found.total),
    )


def _text(request: Request) -> str:
    """Return what is searched for; PostgreSQL takes no NUL in a text."""
    typed = request.query_params.get("q", "").strip()[:_LONGEST_TEXT]
    return "".join(sign for sign in typed if sign.isprintable())


def _page(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return max(1, min(int(text), _LAST_PAGE)) if text.isdecimal() and len(text) < 7 else 1  # noqa: PLR2004 - digits of the last page


def _pages(total: int) -> int:
    return max(1, -(-total // PAGE))
