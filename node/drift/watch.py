"""Finds approved structure sets that came back, and has them held against our drafts.

The comparison decodes images and other people's contours, so a child with limits does it, one
pair at a time; what it finds is kept in the ledger. Neither receiving nor jobs wait for it.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final, cast

from typing_extensions import override

from node.config.model import Limits
from node.domain import Clock
from node.drift.chart import Alarm, alarms
from node.engine.child import Child, ChildDied
from node.log import event
from node.rounds import Rounds
from node.store.acceptance import Comparable, Score, Seen
from node.store.ledger import Ledger
from pipelines.api import Json

_log = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "node.drift.child")
LOOK_S: Final = 30.0
"""Time between two looks at the ledger. [s]"""
_POLL_S: Final = 0.5


class DriftWatch(Rounds):
    """Compares what came back.

    Parameters
    ----------
    limits
        Time and memory of one comparison.
    command
        The child; tests put their own in its place.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        limits: Limits,
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__("drift", failure_pause_s=LOOK_S)
        self._ledger = ledger
        self._clock = clock
        self._limits = limits
        self._command = tuple(command)
        self._seen: Seen | None = None

    @override
    def run_once(self) -> float:
        """Look once."""
        self.look()
        return LOOK_S

    def look(self) -> int:
        """Compare what is new; return how many pairs were.

        Raises
        ------
        LedgerError
            The database refused; the next look goes on.
        """
        seen = self._ledger.seen()
        done = 0
        for pair in self._ledger.comparable(self._seen):
            if self._stopping.is_set():
                return done
            self._compare(pair)
            done += 1
        self._seen = seen
        return done

    def _compare(self, pair: Comparable) -> None:
        """Hold one pair against each other and keep the answer."""
        started = self._clock.monotonic()
        if pair.missing:
            answer: Mapping[str, Json] | None = {"refused": "retention removed a file of it"}
        else:
            answer = self._ask(pair)
        if answer is None:  # the node stops
            return
        refused = str(answer.get("refused") or "")
        scores = [
            Score(**cast("dict[str, object]", one))  # type: ignore[arg-type]
            for one in cast("list[Json]", answer.get("scores") or [])
        ]
        before = {alarm.number for alarm in self._alarms()}
        self._ledger.record_acceptance(pair, scores, reason=refused)
        event(
            _log, "approved_compared", job=pair.job_id, approved=pair.sop_instance_uid,
            structures=len(scores), unchanged=sum(score.unchanged for score in scores),
            refused=refused or None, seconds=round(self._clock.monotonic() - started, 1),
        )  # fmt: skip
        for alarm in self._alarms():
            if alarm.number not in before:
                event(
                    _log, "drift", level=logging.WARNING, organ=alarm.organ, model=alarm.model,
                    measure=alarm.measure, value=round(alarm.value, 4), worse=alarm.worse,
                )  # fmt: skip

    def _alarms(self) -> list[Alarm]:
        return alarms(self._ledger.acceptance_scores())

    def _ask(self, pair: Comparable) -> Mapping[str, Json] | None:
        """Return the answer of a child; None when the node stops before."""
        asked: dict[str, Json] = {
            "images": [str(path) for path in pair.images],
            "draft": str(pair.draft),
            "approved": str(pair.approved),
            "memory_mb": self._limits.memory_mb,
        }
        child = Child(self._command, (), 1, self._clock.monotonic)
        try:
            child.send(asked)
            end = self._clock.monotonic() + self._limits.timeout_s
            while (left := end - self._clock.monotonic()) > 0:
                if self._stopping.is_set():
                    return None
                answer = child.receive(min(_POLL_S, left))
                if answer is not None:
                    return answer
        except ChildDied as error:
            return {"refused": str(error)}
        else:
            return {"refused": f"the comparison took longer than {self._limits.timeout_s:g} s"}
        finally:
            child.kill()
