"""What the viewer's script asks for: facts as JSON, planes as bytes."""

import gzip
import json
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from node.web.pages.report import dvh_curves, report_folder
from node.web.pictures.client import Picture
from node.web.pictures.subject import Subject, subject_of_job, subject_of_series
from node.web.site import Refusal, Site
from node.web.trail import viewed

_LEVEL: Final = 1
"""Compression of planes: fast, and half the size."""


def scene(site: Site, request: Request) -> Response:
    """Return what there is to see; that somebody looks is part of the audit trail."""
    head = _ask(site, request, "scene").head
    kind = {"jobs": "job"}.get(request.path_params["subject"], request.path_params["subject"])
    viewed(site, request, kind, request.path_params["id"])
    return JSONResponse(head)


def plane(site: Site, request: Request) -> Response:
    """Return a plane of an image: int16 HU."""
    return _bytes(_ask(site, request, "plane", "volume", "axis", "index"))


def dose(site: Site, request: Request) -> Response:
    """Return a plane of a dose: uint16 parts of the maximum, with its size in the headers."""
    return _bytes(_ask(site, request, "dose", "dose", "axis", "index"))


def lines(site: Site, request: Request) -> Response:
    """Return the contours in a plane."""
    return _json(_ask(site, request, "lines", "axis", "index"))


def histogram(site: Site, request: Request) -> Response:
    """Return histograms of the images."""
    return JSONResponse(_ask(site, request, "histogram").head)


def dvh(site: Site, request: Request) -> Response:
    """Return the dose-volume histograms of the report."""
    detail = site.ledger().job_detail(request.path_params["job"])
    folder = report_folder(site, detail) if detail else None
    curves = dvh_curves(folder) if folder else []
    return JSONResponse({"curves": curves, "unit": "Gy"})


def _ask(site: Site, request: Request, what: str, *names: str) -> Picture:
    subject = _subject(site, request.path_params["subject"], request.path_params["id"])
    return site.pictures.ask(subject, what, **{name: request.path_params[name] for name in names})


def _subject(site: Site, kind: str, name: str) -> Subject:
    ledger = site.ledger()
    found: Subject | None = None
    if kind == "jobs" and name.isdecimal() and len(name) < 10:  # noqa: PLR2004 - digits of a job
        detail = ledger.job_detail(int(name))
        found = subject_of_job(detail) if detail else None
    elif kind == "series":
        series = ledger.series(name)
        if series is not None:
            found = subject_of_series(series.modality, name, ledger.instances(name))
    if found is None:
        raise Refusal(404, "there is no image to show")
    return found


def _bytes(picture: Picture) -> Response:
    """Return the bytes of a plane, packed; what it measures stands in the headers."""
    headers = {f"x-{name}": str(value) for name, value in picture.head.items()}
    return Response(
        gzip.compress(picture.body, _LEVEL, mtime=0),
        media_type="application/octet-stream",
        headers={"content-encoding": "gzip", "cache-control": "private, max-age=600", **headers},
    )


def _json(picture: Picture) -> Response:
    return Response(
        gzip.compress(json.dumps(picture.head, separators=(",", ":")).encode(), _LEVEL, mtime=0),
        media_type="application/json",
        headers={"content-encoding": "gzip", "cache-control": "private, max-age=600"},
    )
