"""The report that a pipeline left: its page, pictures and tables, as files.

A report is made by our own pipelines, but it shows words that came in DICOM objects. So its page
is served in a sandbox: no script runs in it and it reaches nothing.
"""

import csv
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from node.store.records import JobDetail
from node.web.site import Refusal, Site
from node.web.trail import viewed

_TYPES: Final = {
    ".png": "image/png",
    ".html": "text/html; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
}
_PAGES: Final = ("index.html", "report.html")
_SANDBOX: Final = (
    "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline';"
    " frame-ancestors 'none'"
)
_LARGEST: Final = 64_000_000
"""Bytes of a file of a report."""


def report_files(site: Site, detail: JobDetail) -> dict[str, list[str]]:
    """Return the names of the report's pages, pictures and tables."""
    folder = report_folder(site, detail)
    names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder else []
    return {
        "pages": [name for name in names if name in _PAGES],
        "pictures": [name for name in names if name.endswith(".png")],
        "tables": [name for name in names if name.endswith((".csv", ".json"))],
    }


def report(site: Site, request: Request) -> Response:
    """Show the report's page."""
    detail = _detail(site, request)
    viewed(site, request, "job", str(detail.job.id))
    pages = report_files(site, detail)["pages"]
    if not pages:
        raise Refusal(404, "this job has left no report")
    return _file(site, detail, pages[0])


def picture(site: Site, request: Request) -> Response:
    """Return a file of the report."""
    detail = _detail(site, request)
    viewed(site, request, "job", str(detail.job.id))
    return _file(site, detail, request.path_params["name"])


def report_folder(site: Site, detail: JobDetail) -> Path | None:
    """Return the folder of the report, which must lie in the work folder of the node."""
    if not detail.report:
        return None
    folder = Path(detail.report).resolve()
    work = (site.config.node.data_dir / "work").resolve()
    return folder if folder.is_relative_to(work) and folder.is_dir() else None


def dvh_curves(folder: Path) -> list[dict[str, object]]:
    """Return the curves of ``dvh.csv``: name, dose [Gy], volume [%]; none without the file."""
    path = folder / "dvh.csv"
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return []
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                dose, volume = curves.setdefault(row["region"], ([], []))
                dose.append(float(row["dose_gy"]))
                volume.append(float(row["volume_percent"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise Refusal(500, "the DVH of the report cannot be read") from None
    return [{"name": name, "x": dose, "y": volume} for name, (dose, volume) in curves.items()]


def _detail(site: Site, request: Request) -> JobDetail:
    detail = site.ledger().job_detail(request.path_params["job"])
    if detail is None:
        raise Refusal(404, "there is no such job")
    return detail


def _file(site: Site, detail: JobDetail, name: str) -> Response:
    folder = report_folder(site, detail)
    known = {p.name: p for p in folder.iterdir() if p.is_file()} if folder else {}
    path = known.get(name)
    kind = _TYPES.get(path.suffix) if path else None
    if path is None or kind is None or path.stat().st_size > _LARGEST:
        raise Refusal(404, "there is no such file in the report")
    headers = {"content-security-policy": _SANDBOX} if path.suffix == ".html" else {}
    return Response(path.read_bytes(), media_type=kind, headers=headers)
