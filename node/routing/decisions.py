"""What becomes of a series: one decision a route, made from the ledger and written to it.

Everything here may be repeated at any time: a decision that is made stays made, a job exists once
by its inputs, and a crash between two decisions leaves a mark that asks for the rest.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from node.config.model import SENDER, Config, Route
from node.domain import NewJob, Series
from node.lifecycle import JobState, SeriesState
from node.log import event
from node.routing.evidence import Patient
from node.routing.facts import Candidate, Origin
from node.routing.match import Judgement, judge
from node.routing.selection import (
    Ambiguous,
    Missing,
    Selected,
    Selection,
    inputs_of,
    only_case,
    select,
)
from node.routing.wants import Want, wanted
from node.store.arrivals import FIRST_REVISION
from node.store.ledger import Ledger
from node.store.records import Decision, DecisionState
from pipelines.api import PipelineSpec, canonical_json
from pipelines.catalog import PIPELINES

_log = logging.getLogger(__name__)

NO_ROUTE: Final = ""
"""Route of a decision that concerns the series as a whole."""
_UNFINISHED: Final = "the routes are being judged"
_JUDGED: Final = "all routes are judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A series on which routes are judged."""

    series: Series
    candidate: Candidate
    origin: Origin
    correlation: str


def judge_route(route: Route, candidate: Candidate, origin: Origin) -> Judgement:
    """Return whether `route` takes the series, and why or why not.

    What the route matches must also be what its pipeline starts on.
    """
    taken, reason = judge(route.match, candidate.kind, origin, candidate.instances)
    kinds = [role.value for role in PIPELINES[route.pipeline].starts_on]
    if taken and candidate.kind.value not in kinds:
        return False, (
            f"{reason}, but {route.pipeline} takes {' or '.join(kinds)} and this is"
            f" {candidate.kind.value}"
        )
    return taken, reason


class Decider:
    """Judges series against the routes of a configuration.

    Parameters
    ----------
    config
        Routes, peers and recognition rules.
    ledger
        Where series come from and decisions go.
    priors
        Told what a run lacks; answers whether that may still come from an archive.
    """

    def __init__(
        self, config: Config, ledger: Ledger, priors: Callable[[Want], bool] = lambda _: False
    ) -> None:
        self._priors = priors
        self._config = config
        self._ledger = ledger
        self._patient = Patient(ledger, config.recognize.cbct)
        self._routes = tuple(route for route in config.routes if route.enabled)

    def decide(self, series: Series) -> None:
        """Decide about a COMPLETE or INCOMPLETE series, for each route that matches it."""
        subject = self._subject(series)
        if subject.candidate.ours:
            self._nothing(subject, "a result of this node came back; it starts nothing")
            return
        matched, reasons = self._matching(subject)
        if not matched:
            self._nothing(subject, "; ".join(reasons) or "no route is enabled")
            return
        several_steps = len(matched) > 1 or series.revision > FIRST_REVISION
        if several_steps:
            self._ledger.record_decision(
                series, route=NO_ROUTE, state=DecisionState.WAITING, reason=_UNFINISHED
            )
        for route, reason in matched:
            self._decide_route(subject, route, reason, overdue=False)
        if several_steps:
            if series.state is SeriesState.COMPLETE:
                self._ledger.supersede(series.series_instance_uid, series.revision)
            self._ledger.record_decision(
                series, route=NO_ROUTE, state=DecisionState.NONE, reason=_JUDGED
            )

    def reconsider(self, decision: Decision, *, overdue: bool) -> None:
        """Look again at a decision that waits or is held; overdue waiting becomes held."""
        series = self._ledger.series(decision.series_instance_uid)
        if series is None or series.revision != decision.series_revision:
            return
        if decision.route == NO_ROUTE:
            self.decide(series)
            if decision.state is DecisionState.UNJUDGED:
                self._ledger.record_decision(
                    series, route=NO_ROUTE, state=DecisionState.NONE, reason=_JUDGED
                )
            return
        route = next((r for r in self._routes if r.name == decision.route), None)
        if route is None:
            if decision.state is DecisionState.WAITING:
                self._ledger.record_decision(
                    series,
                    route=decision.route,
                    state=DecisionState.NONE,
                    reason="the route is not in the configuration any more",
                )
            return
        if decision.state is DecisionState.HELD and not self._still_held(decision):
            return
        subject = self._subject(series)
        _, reason = self._judge(subject, route)
        self._decide_route(subject, route, reason, overdue=overdue)

    def _still_held(self, decision: Decision) -> bool:
        job = None if decision.job_id is None else self._ledger.job(decision.job_id)
        return job is not None and job.state is JobState.HELD

    def _subject(self, series: Series) -> _Subject:
        last = self._ledger.series_associations(series.series_instance_uid)[-1]
        return _Subject(
            series=series,
            candidate=self._patient.candidate(series),
            origin=Origin(
                calling_ae_title=last.calling_ae_title, called_ae_title=last.called_ae_title
            ),
            correlation=last.association_id,
        )

    def _matching(self, subject: _Subject) -> tuple[list[tuple[Route, str]], list[str]]:
        """Return the routes that take the series, and why the others do not."""
        matched, reasons = [], []
        for route in self._routes:
            taken, reason = self._judge(subject, route)
            if taken:
                matched.append((route, reason))
            else:
                reasons.append(f"{route.name}: {reason}")
        return matched, reasons

    def _judge(self, subject: _Subject, route: Route) -> tuple[bool, str]:
        return judge_route(route, subject.candidate, subject.origin)

    def _decide_route(
        self, subject: _Subject, route: Route, matched: str, *, overdue: bool
    ) -> None:
        series = subject.series
        spec = PIPELINES[route.pipeline]
        if series.state is SeriesState.INCOMPLETE:
            answer: Selection = Ambiguous(
                reason=f"the series is incomplete: {series.reason}",
                hint="send what is missing; or release the job to run it as it is",
            )
        else:
            answer = self._select(subject, spec, overdue=overdue)
        destinations, unknown = self._destinations(route, subject.origin)
        if unknown and isinstance(answer, Selected):
            answer = unknown
        if isinstance(answer, Missing) and not overdue:
            self._record(subject, route.name, DecisionState.WAITING, answer.reason)
            return
        selected = isinstance(answer, Selected)
        reasons = (f"route {route.name}: {matched}", series.reason, answer.reason)
        job = NewJob(
            route=route.name,
            pipeline=spec.name,
            pipeline_version=spec.version,
            settings_json=canonical_json(route.pipeline_settings().model_dump(mode="json")),
            destinations=destinations,
            priority=route.priority,
            series_instance_uid=series.series_instance_uid,
            series_revision=series.revision,
            inputs=answer.inputs
            if isinstance(answer, Selected)
            else inputs_of({spec.trigger: subject.candidate.instances}),
            start_reason="; ".join(reason for reason in reasons if reason),
            correlation=subject.correlation,
            held=None if isinstance(answer, Selected) else (answer.reason, answer.hint),
            max_attempts=self._config.pipelines.max_attempts,
        )
        state = DecisionState.JOB if selected else DecisionState.HELD
        self._record(subject, route.name, state, answer.reason or matched, job)

    def _select(self, subject: _Subject, spec: PipelineSpec, *, overdue: bool) -> Selection:
        trigger = subject.candidate
        case = only_case(spec, trigger)
        if isinstance(case, Ambiguous):
            return case
        if not (spec.required or spec.optional):
            return select(spec, case, [trigger])
        patient = self._patient.candidates(trigger.patient_key)
        answer = select(spec, case, patient, strangers=self._patient.strangers(patient))
        if overdue or isinstance(answer, Ambiguous):
            return answer
        if self._priors(wanted(spec, case, patient)) and isinstance(answer, Selected):
            return Missing(reason="what it could use as well is being fetched", hint="")
        return answer

    def _destinations(
        self, route: Route, origin: Origin
    ) -> tuple[tuple[str, ...], Ambiguous | None]:
        """Return the destinations by name, with the sender's name where the route says so.

        A shadow route has none: its results are kept and shown, not sent.
        """
        if route.shadow:
            return (), None
        names: list[str] = []
        problem = None
        for name in route.destinations:
            if name != SENDER:
                names.append(name)
                continue
            peer = self._config.peer_of(origin.calling_ae_title)
            if peer is not None and peer[1].host is not None:
                names.append(peer[0])
            else:
                problem = Ambiguous(
                    reason=f"the sender {origin.calling_ae_title} is no peer that can be sent to",
                    hint="give its peer host and port, or name a destination in the route; then"
                    " send the series again",
                )
        return tuple(dict.fromkeys(names)), problem

    def _nothing(self, subject: _Subject, reason: str) -> None:
        self._record(subject, NO_ROUTE, DecisionState.NONE, reason)

    def _record(
        self,
        subject: _Subject,
        route: str,
        state: DecisionState,
        reason: str,
        job: NewJob | None = None,
    ) -> None:
        series = subject.series
        before = self._earlier(series, route)
        decision = self._ledger.record_decision(
            series, route=route, state=state, reason=reason, job=job
        )
        if decision is None:
            return  # something arrived meanwhile; the next look judges the newer state
        if (
            before is not None
            and before.state is DecisionState.HELD
            and decision.state is DecisionState.JOB
            and decision.job_id == before.job_id
            and decision.job_id is not None
            and self._still_held(decision)
        ):
            self._ledger.release_job(decision.job_id)
        if before is None or (before.state, before.reason) != (decision.state, decision.reason):
            event(
                _log,
                f"series_{_ACTIONS[decision.state]}",
                level=logging.ERROR if decision.state is DecisionState.HELD else logging.INFO,
                assoc=subject.correlation,
                series=series.series_instance_uid,
                kind=subject.candidate.kind.value,
                revision=series.revision,
                route=route or None,
                job=decision.job_id,
                reason=reason,
            )

    def _earlier(self, series: Series, route: str) -> Decision | None:
        made: Sequence[Decision] = self._ledger.decisions_of(
            series.series_instance_uid, series.revision
        )
        return next((d for d in made if d.route == route), None)


_ACTIONS: Final = {
    DecisionState.JOB: "routed",
    DecisionState.HELD: "held",
    DecisionState.WAITING: "waiting",
    DecisionState.NONE: "unrouted",
    DecisionState.UNJUDGED: "not_judged",
}
