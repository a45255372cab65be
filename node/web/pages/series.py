"""The pages of a series and of a study."""

from starlette.requests import Request
from starlette.responses import Response

from node.lifecycle import SERIES_TRANSITIONS, SeriesEvent, sources
from node.web.pictures.subject import subject_of_series
from node.web.site import Refusal, Site


def series(site: Site, request: Request) -> Response:
    """Show a series: how it came, whether it is whole and why, what became of it."""
    uid = request.path_params["uid"]
    ledger = site.ledger()
    found = ledger.series(uid)
    if found is None:
        raise Refusal(404, "there is no such series", hint="look at the studies")
    instances = ledger.instances(uid)
    return site.renderer.page(
        request,
        "series.html",
        series=found,
        bytes=sum(instance.size for instance in instances),
        keywords=_common(instances[0].header.keywords) if instances else [],
        associations=ledger.series_associations(uid),
        conflicts=ledger.conflicts(uid),
        decisions=ledger.decisions_of(uid, found.revision),
        jobs=ledger.jobs_of_series(uid),
        events=[e for e in ledger.explain(uid) if e.kind == "series"],
        may_complete=found.state in sources(SERIES_TRANSITIONS, SeriesEvent.FORCED),
        viewer=subject_of_series(found.modality, uid, instances) is not None,
        done=request.query_params.get("done", ""),
    )


def study(site: Site, request: Request) -> Response:
    """Show a study: its series and the jobs that they started."""
    uid = request.path_params["uid"]
    ledger = site.ledger()
    found = ledger.study_series(uid)
    if not found:
        raise Refusal(404, "there is no such study", hint="look at the studies")
    return site.renderer.page(
        request,
        "study.html",
        uid=uid,
        series=found,
        others=[
            one
            for one in ledger.patient_series(found[0].patient_key)
            if one.study_instance_uid != uid
        ],
        jobs={one.series_instance_uid: ledger.jobs_of_series(one.series_instance_uid)
              for one in found},
    )  # fmt: skip


def _common(keywords: object) -> list[tuple[str, str]]:
    """Return what the ledger keeps of the first object; it holds no patient's identity."""
    items = dict(keywords) if isinstance(keywords, dict) else {}
    return [
        (str(name), ", ".join(str(v) for v in value) if isinstance(value, list) else str(value))
        for name, value in sorted(items.items())
        if value not in (None, "", [])
    ]
