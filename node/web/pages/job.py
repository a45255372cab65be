"""The page of a job: what happened, why, what came out, and what to do."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from node.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    sources,
)
from node.store.records import DeliveryLine, JobDetail
from node.web.pages.report import report_files
from node.web.pictures.subject import subject_of_job
from node.web.site import Refusal, Site
from node.web.timeline import story
from pipelines.api import Json

_TITLES: Final = {"rois": "Structures", "gates": "Gates and findings"}
"""Key of a table of figures -> its heading."""
_TABLE_LIMIT: Final = 400
"""Rows of a table of figures; the report has all of them."""


def job(site: Site, request: Request) -> Response:
    """Show a job."""
    number = request.path_params["job"]
    ledger = site.ledger()
    detail = ledger.job_detail(number)
    if detail is None:
        raise Refusal(404, f"there is no job {number}", hint="look at the worklist")
    uid = detail.job.series_instance_uid
    series = ledger.series(uid)
    associations = ledger.series_associations(uid)
    events = ledger.explain(uid) if series is not None else []
    return site.renderer.page(
        request,
        "job_live.html" if request.query_params.get("part") else "job.html",
        detail=detail,
        job=detail.job,
        series=series,
        moments=story(detail, series, associations, events),
        inputs=ledger.job_input_series(number),
        outputs=_outputs(detail),
        deliveries=_deliveries(detail.deliveries),
        findings=_findings(detail.findings),
        figures=_figures(detail.figures, detail.findings),
        settings=_settings(detail.job.settings_json),
        report=report_files(site, detail),
        actions=_actions(detail),
        blocked=is_blocked(detail),
        viewer=subject_of_job(detail) is not None,
        dvh=detail.job.pipeline == "dose_radiomics" and detail.job.state is JobState.COMPLETED,
        done=request.query_params.get("done", ""),
    )


def is_blocked(detail: JobDetail) -> bool:
    """Tell whether a gate holds the results back: to send them all the same needs a reason."""
    held = any(d.state is DeliveryState.HELD for d in detail.deliveries)
    return detail.job.state is JobState.COMPLETED and held and bool(detail.job.reason)


def _actions(detail: JobDetail) -> dict[str, bool]:
    """Return which actions the state of the job allows."""
    state = detail.job.state
    held = any(d.state is DeliveryState.HELD for d in detail.deliveries)
    again = sources(DELIVERY_TRANSITIONS, DeliveryEvent.RESENT)
    sent = any(d.state in again for d in detail.deliveries)
    return {
        "retry": state is JobState.HELD or held,
        "cancel": state in sources(JOB_TRANSITIONS, JobEvent.CANCELED),
        "resend": sent and detail.superseded_by is None,
    }


def _outputs(detail: JobDetail) -> list[dict[str, object]]:
    """Return the results by series: modality, UID, objects."""
    found: dict[str, dict[str, object]] = {}
    for result in detail.results:
        line = found.setdefault(
            result.series_instance_uid,
            {"uid": result.series_instance_uid, "modality": result.modality, "count": 0},
        )
        line["count"] = cast("int", line["count"]) + 1
    return list(found.values())


def _deliveries(lines: tuple[DeliveryLine, ...]) -> list[dict[str, object]]:
    """Return the deliveries by destination, state and reason."""
    found: dict[tuple[str, str, str], dict[str, object]] = {}
    for line in lines:
        key = (line.destination, line.state.value, line.reason)
        entry = found.setdefault(
            key,
            {
                "destination": line.destination,
                "state": line.state.value,
                "reason": line.reason,
                "hint": line.hint,
                "status": line.status,
                "attempt": line.attempt,
                "count": 0,
                "changed_at": line.changed_at,
                "not_before": line.not_before,
            },
        )
        entry["count"] = cast("int", entry["count"]) + 1
        entry["changed_at"] = max(cast("datetime", entry["changed_at"]), line.changed_at)
    return list(found.values())


def _findings(findings: Json) -> list[Mapping[str, Json]]:
    """Return the findings, the gravest first."""
    order = {"BLOCK": 0, "WARN": 1, "INFO": 2}
    listed = findings if isinstance(findings, list) else []
    return sorted(
        (f for f in listed if isinstance(f, dict)),
        key=lambda f: order.get(str(f.get("severity")), 3),
    )


def _figures(figures: Json, findings: Json) -> dict[str, object]:
    """Return the key figures as plain pairs, and tables where each row has the same kind.

    A table of gates is left out where the findings tell each of them.
    """
    tree = figures if isinstance(figures, dict) else {}
    told = {str(finding.get("code")) for finding in _findings(findings)}
    plain: list[tuple[str, Json]] = [
        (key, value) for key, value in tree.items() if not isinstance(value, dict | list)
    ]
    tables = []
    for key, value in tree.items():
        if not isinstance(value, dict):
            continue
        rows = {name: row for name, row in value.items() if isinstance(row, dict)}
        if rows and rows.keys() <= told:
            continue
        if rows:
            head = list(dict.fromkeys(column for row in rows.values() for column in row))
            body = [
                (name, [row.get(column) for column in head])
                for name, row in list(rows.items())[:_TABLE_LIMIT]
            ]
            tables.append({"name": _TITLES.get(key, key), "head": head, "rows": body})
        else:
            plain += [(f"{key}.{name}", item) for name, item in value.items()]
    return {"plain": plain, "tables": tables}


def _settings(text: str) -> list[tuple[str, str]]:
    try:
        tree = json.loads(text)
    except ValueError:
        return []
    if not isinstance(tree, dict):
        return []
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in tree.items()]
