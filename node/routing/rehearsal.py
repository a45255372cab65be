"""What the routes would do with a folder, without a node: the same rules, nothing written."""

from collections import Counter
from dataclasses import dataclass, replace

from node.config.match import Kind
from node.config.model import Config, Route
from node.domain import Uid
from node.routing.completeness import Wholeness
from node.routing.decisions import judge_route
from node.routing.facts import Candidate, Origin
from node.routing.folder import Found, strangers
from node.routing.selection import Ambiguous, Selected, only_case, select
from pipelines.catalog import PIPELINES


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What one route makes of a series."""

    route: str
    pipeline: str
    taken: bool
    """The route matches and its pipeline starts on this kind."""
    runs: bool
    """All inputs are there: a job would start."""
    reason: str
    hint: str = ""
    inputs: tuple[tuple[str, int], ...] = ()
    """Role and number of objects, when it runs."""
    destinations: tuple[str, ...] = ()
    """None for a shadow route: its results are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAnswer:
    """What a series counts as, and what each route makes of it."""

    series_instance_uid: Uid
    patient: int
    """Which patient of the folder, counted from 1; no name leaves the files."""
    kind: Kind
    count: int
    whole: bool
    why_whole: str
    ours: bool
    """A result of rtnode; it starts nothing."""
    routes: tuple[RouteAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What would happen with a folder."""

    series: tuple[SeriesAnswer, ...]
    instances: int
    skipped: int
    """Files that are no DICOM objects."""


def rehearse(config: Config, found: Found, origin: Origin) -> Rehearsal:
    """Return what the enabled routes of `config` would do with `found`, sent by `origin`."""
    enabled = tuple(route for route in config.routes if route.enabled)
    numbers: dict[str, int] = {}
    answers = []
    for candidate in found.candidates:
        verdict = found.verdicts[candidate.series_instance_uid]
        routes = () if candidate.ours else enabled
        answers.append(
            SeriesAnswer(
                series_instance_uid=candidate.series_instance_uid,
                patient=numbers.setdefault(candidate.patient_key, len(numbers) + 1),
                kind=candidate.kind,
                count=len(candidate.instances),
                whole=verdict.wholeness is Wholeness.WHOLE,
                why_whole=verdict.sentence,
                ours=candidate.ours,
                routes=tuple(_answer(route, found, candidate, origin) for route in routes),
            )
        )
    return Rehearsal(series=tuple(answers), instances=found.instances, skipped=found.skipped)


def _answer(route: Route, found: Found, candidate: Candidate, origin: Origin) -> RouteAnswer:
    taken, reason = judge_route(route, candidate, origin)
    answer = RouteAnswer(
        route=route.name, pipeline=route.pipeline, taken=taken, runs=False, reason=reason
    )
    if not taken:
        return answer
    verdict = found.verdicts[candidate.series_instance_uid]
    if verdict.wholeness is not Wholeness.WHOLE:
        return replace(answer, reason=f"{reason}; but the series is not whole: {verdict.sentence}")
    spec = PIPELINES[route.pipeline]
    case = only_case(spec, candidate)
    if isinstance(case, Ambiguous):
        return replace(answer, reason=f"{reason}; but {case.reason}", hint=case.hint)
    others = strangers(found.candidates, candidate.patient_key)
    selection = select(spec, case, found.candidates, strangers=others)
    told = "; ".join(part for part in (reason, selection.reason) if part)
    if not isinstance(selection, Selected):
        return replace(answer, reason=told, hint=selection.hint)
    counts = Counter(i.role for i in selection.inputs)
    return replace(
        answer,
        runs=True,
        reason=told,
        inputs=tuple(sorted(counts.items())),
        destinations=() if route.shadow else route.destinations,
    )
