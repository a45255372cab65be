"""Watches what arrives and decides when: is a series whole, and may its jobs start now.

The ledger calls `wake` after each change; between changes time alone moves things on. Whether a
series is whole is asked of pure rules, again whenever it or its patient changed or a quiet period
ended. A job starts only when the other series of the same patient have settled, so that a CBCT
does not start without the planning CT that is being pushed beside it. Everything is read from the
ledger anew, so a restart goes on where the last process stopped, with quiet periods from zero.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from node.config.model import Config
from node.domain import Clock, Series
from node.engine.bell import Bell
from node.errors import NodeError
from node.lifecycle import SeriesEvent, SeriesState
from node.log import event
from node.routing.completeness import Patience, Verdict, Wholeness, examine
from node.routing.decisions import NO_ROUTE, Decider
from node.routing.evidence import Silence, arrival
from node.routing.recognize import recognize, without_scouts
from node.routing.wants import Want
from node.store.ledger import Ledger
from node.store.records import AssociationInfo, Decision, DecisionState

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.1
"""Shortest time between two looks: a study arrives with hundreds of changes a second."""
_BUSY_S: Final = 0.25
"""Time between looks while something is being received or waits."""
_IDLE_S: Final = 5.0
_FOR_A_PERSON: Final = (DecisionState.HELD, DecisionState.UNJUDGED)
_NOT_JUDGED: Final = "the node could not judge this series; the log has the cause"


class Coordinator:
    """One thread between intake and engine.

    Parameters
    ----------
    ledger
        Where everything is read and every step is recorded.
    config
        Quiet periods, recognition rules, routes.
    clock
        Its monotonic time measures silence.
    resent_at
        When a released association began that repeated objects of a series (`Door.resent_at`).
    priors
        Told what a run lacks; answers whether that may still come from an archive.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: Config,
        clock: Clock,
        resent_at: Callable[[str], datetime | None] = lambda _: None,
        *,
        priors: Callable[[Want], bool] = lambda _: False,
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._resent_at = resent_at
        self._patience = Patience(
            after_release_s=config.receive.quiet_period_s,
            otherwise_s=config.receive.quiet_period_open_s,
        )
        self._decider = Decider(config, ledger, priors)
        self._silence = Silence(clock)
        self._examined: dict[str, tuple[object, ...]] = {}
        self._failed: dict[str, tuple[int, int]] = {}
        self._waiting_since: dict[tuple[str, int, str], float] = {}
        self._news: set[str] = set()
        self._undecided: dict[str, None] = {}
        self._fresh = True
        self._asked = threading.Event()
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="coordinator")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wake(self) -> None:
        """Ask for a look; cheap, from any thread."""
        self._bell.ring()

    def revisit(self) -> None:
        """Read all of the ledger anew at the next look: a person changed a series by hand."""
        self._asked.set()
        self._bell.ring()

    def stop(self) -> None:
        """Finish the current look and end."""
        self._bell.close()
        if self._thread.ident is not None:
            self._thread.join()

    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def look(self) -> bool:
        """Take every step that is due now; return whether anything waits for time to pass.

        Raises
        ------
        LedgerError
            The database refused; call again, every step may be repeated.
        """
        try:
            return self._look()
        except NodeError:
            self._fresh = True  # nobody knows which steps are in the ledger: read all of it anew
            raise

    def _look(self) -> bool:
        if self._asked.is_set():
            self._asked.clear()
            self._fresh = True
        receiving = self._ledger.series_in_state(SeriesState.RECEIVING)
        for series in receiving:
            self._guarded(series, self._judge)
        if self._fresh:
            self._take_up()
        pending = self._pending()
        for series in pending:
            if self._settled(series):
                self._guarded(series, self._decider.decide)
        waiting = self._reconsider()
        self._fresh = False
        self._silence.forget_before(2 * self._config.receive.hold_after_s)
        return bool(receiving or pending or waiting)

    def _run(self) -> None:
        while not self._bell.closed:
            rings = self._bell.rings
            busy = True
            try:
                with self._ledger.unhurried():
                    busy = self.look()
            except NodeError as error:
                event(_log, "look_failed", level=logging.ERROR, error=error)
            self._bell.wait(_BUSY_S if busy else _IDLE_S, since=rings)
            self._bell.pause(_PAUSE_S)

    def _guarded(self, series: Series, step: Callable[[Series], None]) -> None:
        """Take a step for one series; a mistake of ours there must not stop all others."""
        version = (series.revision, series.count)
        if self._failed.get(series.series_instance_uid) == version:
            return
        try:
            step(series)
        except NodeError:
            raise
        except Exception as error:  # noqa: BLE001 - odd objects of one peer must not stop the others
            self._failed[series.series_instance_uid] = version
            event(_log, "series_not_judged", level=logging.ERROR, error=error,
                  series=series.series_instance_uid)  # fmt: skip
            reason = _NOT_JUDGED
            if series.state is SeriesState.RECEIVING:
                self._ledger.advance_series(series, SeriesEvent.DEADLINE_PASSED, reason)
            else:
                self._ledger.record_decision(
                    series, route=NO_ROUTE, state=DecisionState.UNJUDGED, reason=reason
                )

    def _judge(self, series: Series) -> None:
        """Move a RECEIVING series on if the evidence or the deadline says so."""
        uid = series.series_instance_uid
        associations = self._ledger.series_associations(uid)
        quiet = self._silence.of(series, associations, self._resent_at(uid))
        overdue = quiet >= self._config.receive.hold_after_s
        pulls = self._ledger.pulls_beside(uid, associations)
        if not overdue and not self._worth_examining(series, [*associations, *pulls], quiet):
            return
        verdict = self._verdict(series, associations, pulls, quiet)
        if verdict.wholeness is Wholeness.WHOLE:
            whole = self._ledger.advance_series(series, SeriesEvent.WHOLE, verdict.sentence)
            if whole is not None:
                self._examined.pop(uid, None)
                self._undecided[uid] = None
                self._news.add(series.patient_key)
                event(_log, "series_complete", assoc=associations[-1].association_id, series=uid,
                      objects=series.count, revision=series.revision,
                      reason=verdict.sentence)  # fmt: skip
        elif overdue or verdict.wholeness is Wholeness.CONTRADICTION:
            self._give_up(series, verdict.sentence)

    def _verdict(
        self,
        series: Series,
        associations: list[AssociationInfo],
        pulls: list[AssociationInfo],
        quiet_s: float,
    ) -> Verdict:
        instances = self._ledger.instances(series.series_instance_uid)
        kind, _ = recognize(instances, self._config.recognize.cbct)
        return examine(
            kind,
            without_scouts(instances) or instances,
            arrival(
                quiet_s,
                [*associations, *self._ledger.refusals_beside(associations), *pulls],
                self._resent_at(series.series_instance_uid),
            ),
            self._patience,
            referenced=self._ledger.referenced_images(series.series_instance_uid),
            conflicts=len(self._ledger.conflicts(series.series_instance_uid)),
        )

    def _worth_examining(self, series: Series, ways: list[AssociationInfo], quiet_s: float) -> bool:
        """Tell whether anything changed that the verdict depends on since it was last asked.

        Parameters
        ----------
        ways
            The associations that delivered to the series, and the retrievals behind them.
        """
        patience = self._patience
        opened = any(way.ended_at is None for way in ways)
        if opened and quiet_s < patience.otherwise_s:
            return False
        limits = (patience.moment_s, patience.after_release_s, patience.otherwise_s)
        others = self._ledger.patient_series(series.patient_key)
        sign = (
            sum(quiet_s >= limit for limit in limits),
            self._resent_at(series.series_instance_uid),
            *((way.association_id, way.ended_at, way.end) for way in ways),
            *((s.series_instance_uid, s.revision, s.count) for s in others),
        )
        if self._examined.get(series.series_instance_uid) == sign:
            return False
        self._examined[series.series_instance_uid] = sign
        return True

    def _give_up(self, series: Series, reason: str) -> None:
        """Show a series as INCOMPLETE, with a held job for each route that would take it."""
        seen = self._ledger.advance_series(series, SeriesEvent.DEADLINE_PASSED, reason)
        self._examined.pop(series.series_instance_uid, None)
        if seen is None:
            return
        event(_log, "series_incomplete", level=logging.ERROR, series=series.series_instance_uid,
              objects=series.count, revision=series.revision, reason=reason)  # fmt: skip
        self._guarded(seen, self._decider.decide)

    def _take_up(self) -> None:
        """After a start: look at everything that the last process may have left half done."""
        self._undecided.update(
            (series.series_instance_uid, None) for series in self._ledger.undecided_series()
        )
        for series in self._ledger.series_in_state(SeriesState.INCOMPLETE):
            if not self._ledger.decisions_of(series.series_instance_uid, series.revision):
                self._guarded(series, self._decider.decide)

    def _pending(self) -> list[Series]:
        """Return the COMPLETE series about which nothing is decided, in the order they became so.

        Only this thread declares a series COMPLETE, so after the start it knows them all: asking
        the ledger at each look would read every series that it ever received.
        """
        pending = []
        for uid in list(self._undecided):
            series = self._ledger.series(uid)
            if (
                series is None
                or series.state is not SeriesState.COMPLETE
                or self._ledger.decisions_of(uid, series.revision)
            ):
                del self._undecided[uid]
            else:
                pending.append(series)
        return pending

    def _settled(self, series: Series) -> bool:
        """Tell whether nothing of the same patient is on its way any more.

        A series that has been silent for the longer quiet period no longer holds others up.
        """
        limit = self._patience.otherwise_s
        recent = [
            other
            for other in self._ledger.patient_series(series.patient_key)
            if self._silence.at_last_look(other) < limit
        ]
        if any(other.state is SeriesState.RECEIVING for other in recent):
            return False
        still_open = {a.association_id for a in self._ledger.open_associations()}
        return not still_open or not any(
            a.association_id in still_open
            for other in recent
            for a in self._ledger.series_associations(other.series_instance_uid)
        )

    def _reconsider_one(self, decision: Decision, series: Series, *, overdue: bool) -> None:
        """Judge a decision again; a mistake of ours there must not leave it waiting for ever."""
        try:
            self._decider.reconsider(decision, overdue=overdue)
        except NodeError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_guarded`
            event(_log, "decision_not_judged", level=logging.ERROR, error=error,
                  series=series.series_instance_uid, route=decision.route)  # fmt: skip
            if decision.state is DecisionState.WAITING:
                self._ledger.record_decision(
                    series, route=decision.route, state=DecisionState.UNJUDGED, reason=_NOT_JUDGED
                )

    def _reconsider(self) -> bool:
        """Look again at decisions that wait, and at held ones where the patient has news."""
        news, self._news = self._news, set()
        decisions = self._ledger.decisions([DecisionState.WAITING])
        if self._fresh:
            decisions += self._ledger.decisions(_FOR_A_PERSON)
        elif news:
            decisions += self._ledger.decisions(_FOR_A_PERSON, patients=news)
        now = self._clock.monotonic()
        waiting = False
        since_before, self._waiting_since = self._waiting_since, {}
        for decision in decisions:
            series = self._ledger.series(decision.series_instance_uid)
            if series is None:
                continue
            waits = decision.state is DecisionState.WAITING
            waiting = waiting or waits
            key = (decision.series_instance_uid, decision.series_revision, decision.route)
            if waits:
                self._waiting_since[key] = since_before.get(key, now)
            waited_s = now - self._waiting_since.get(key, now)
            overdue = waits and waited_s >= self._config.receive.hold_after_s
            if not (self._fresh or overdue or series.patient_key in news):
                continue
            if not self._settled(series):
                self._news.add(series.patient_key)
                continue
            self._reconsider_one(decision, series, overdue=overdue)
        return waiting or bool(self._news)
