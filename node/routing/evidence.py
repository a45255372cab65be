"""Gathers from the ledger what the pure rules look at, and remembers when things last changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.config.match import Kind, Rule
from node.domain import Clock, Instance, Series
from node.lifecycle import SeriesState
from node.routing.facts import Arrival, Candidate
from node.routing.recognize import is_ours, recognize, without_scouts
from node.store.ledger import Ledger
from node.store.records import AssociationInfo

RELEASED = "RELEASED"
_REMEMBERED: Final = 20_000
"""Objects of which the headers are kept in memory, about 2 kB each."""
_REFERENCES = frozenset({"IMAGE", "STRUCTURE_SET", "PLAN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What was there at the last look that found something new."""

    sign: tuple[object, ...]
    since: float


class Silence:
    """How long nothing happened to each series, on the monotonic clock of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: dict[str, _Mark] = {}

    def of(
        self,
        series: Series,
        associations: Sequence[AssociationInfo],
        resent_at: datetime | None = None,
    ) -> float:
        """Return the seconds since the series, an association of it or a re-send changed."""
        now = self._clock.monotonic()
        ends = ((a.association_id, a.end) for a in associations)
        sign = (series.revision, series.count, resent_at, *ends)
        mark = self._marks.get(series.series_instance_uid)
        if mark is None or mark.sign != sign:
            mark = self._marks[series.series_instance_uid] = _Mark(sign=sign, since=now)
        return now - mark.since

    def at_last_look(self, series: Series) -> float:
        """Return the silence as of the last call of `of`; endless for a series never looked at."""
        mark = self._marks.get(series.series_instance_uid)
        return float("inf") if mark is None else self._clock.monotonic() - mark.since

    def forget_before(self, seconds: float) -> None:
        """Drop what has been silent for longer than `seconds`."""
        oldest = self._clock.monotonic() - seconds
        self._marks = {uid: mark for uid, mark in self._marks.items() if mark.since >= oldest}


def arrival(
    quiet_s: float, associations: Sequence[AssociationInfo], resent_at: datetime | None = None
) -> Arrival:
    """Return how a series came in.

    Parameters
    ----------
    quiet_s
        Silence of the series, in seconds.
    associations
        Those that delivered to it.
    resent_at
        When a released association began that repeated objects of it, if one did.
    """
    broken = [a for a in associations if a.ended_at is not None and not _sound(a)]
    if resent_at is not None:
        broken = [a for a in broken if a.ended_at is not None and a.ended_at > resent_at]
    return Arrival(
        quiet_s=quiet_s,
        open_associations=sum(a.ended_at is None for a in associations),
        interrupted=any(not _resumed(b, associations) for b in broken),
        one_by_one=all(a.instances <= 1 for a in associations),
    )


def _resumed(broken: AssociationInfo, associations: Iterable[AssociationInfo]) -> bool:
    """Tell whether an association that began after the break brought everything it had."""
    return any(
        _sound(a) and broken.ended_at is not None and a.opened_at >= broken.ended_at
        for a in associations
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was read of a series, as long as no object joins it."""

    version: tuple[int, int]
    kind: Kind
    instances: tuple[Instance, ...]
    ours: bool


class Patient:
    """The series of a patient as candidates for selection.

    A patient in treatment has dozens of series of which one is new, so what was read of the
    others is kept until an object joins them; `_REMEMBERED` objects at most.
    """

    def __init__(self, ledger: Ledger, cbct: Iterable[Rule]) -> None:
        self._ledger = ledger
        self._cbct = tuple(cbct)
        self._known: dict[str, _Known] = {}

    def candidate(self, series: Series) -> Candidate:
        """Return one series."""
        known = self._read(series)
        uid = series.series_instance_uid
        return Candidate(
            series_instance_uid=uid,
            patient_key=series.patient_key,
            kind=known.kind,
            complete=series.state is SeriesState.COMPLETE and not self._ledger.is_purged(uid),
            instances=known.instances,
            ours=known.ours,
            conflicts=tuple(self._ledger.conflicts(uid)),
        )

    def _read(self, series: Series) -> _Known:
        """Return what a series holds, from memory where nothing was added since."""
        uid, version = series.series_instance_uid, (series.revision, series.count)
        known = self._known.pop(uid, None)
        if known is None or known.version != version:
            instances = self._ledger.instances(uid)
            kind, _ = recognize(instances, self._cbct)
            known = _Known(
                version=version,
                kind=kind,
                instances=without_scouts(instances) or tuple(instances),
                ours=self.made_here(instances),
            )
        self._known[uid] = known  # at the end: the first one is the one that rested longest
        held = sum(len(k.instances) for k in self._known.values())
        while held > _REMEMBERED and len(self._known) > 1:
            held -= len(self._known.pop(next(iter(self._known))).instances)
        return known

    def made_here(self, instances: Sequence[Instance]) -> bool:
        """Return whether the objects are results of this node that came back."""
        uids = [i.header.sop_instance_uid for i in instances]
        return is_ours(instances) or bool(self._ledger.result_uids(uids))

    def candidates(self, patient_key: str) -> list[Candidate]:
        """Return all series of a patient that hold anything."""
        every = self._ledger.patient_series(patient_key)
        return [self.candidate(series) for series in every if series.count]

    def strangers(self, candidates: Sequence[Candidate]) -> frozenset[str]:
        """Return the UIDs that the candidates reference and another patient's objects bear."""
        own = {i.header.sop_instance_uid for c in candidates for i in c.instances}
        named = {
            r.uid
            for c in candidates
            for i in c.instances
            for r in i.header.references
            if r.kind in _REFERENCES
        }
        patients = {c.patient_key for c in candidates}
        return frozenset(
            i.header.sop_instance_uid
            for i in self._ledger.instances_by_sop_uid(named - own)
            if i.header.patient_key not in patients
        )


def _sound(association: AssociationInfo) -> bool:
    """Tell whether an association was released, and nothing that it brought was refused.

    A sender may release after objects that we did not take: the disk was full for the last slices.
    """
    return association.end == RELEASED and not association.refused
