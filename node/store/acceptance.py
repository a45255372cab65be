"""Approved structure sets that came back, the drafts they belong to, and how both agree.

An approved set belongs to a draft when it names an image that the draft was made from, of the same
patient. Each pair is compared once; every model that drew on the image gets its own score, those
of shadow routes too. Nothing here names a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Select, exists, func, select

from node.domain import Uid
from node.lifecycle import JobEvent, JobState
from node.store import schema
from node.store.base import LedgerPart, record_event
from node.store.dialect import insert_once

COMPARED: Final = "approved_compared"
"""Event: an approved structure set was held against a draft."""
FINISHED: Final = f"job_{JobEvent.FINISHED.lower()}"
APPROVAL_STATUS: Final = "ApprovalStatus"
"""DICOM keyword that the index keeps of structure sets (PS3.3 C.8.8.16)."""
_APPROVED: Final = "APPROVED"
_PIPELINE: Final = "autocontour"
_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparable:
    """An approved structure set and a draft on the same image."""

    sop_instance_uid: Uid
    sha256: str
    approved: Path
    job_id: int
    draft: Path
    images: tuple[Path, ...]
    missing: bool
    """Retention removed a file that the comparison needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How far a look at the ledger went."""

    instance: int
    """Number of the newest object that arrived."""
    event: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one structure of a draft agrees with the approved one."""

    organ: str
    """Our name."""
    theirs: str
    model: str
    """Model pack with its version, or ``classical``."""
    version: str
    """Of the pipeline."""
    dice: float
    surface_dice: float
    hd95_mm: float
    added_path_mm: float
    volume_ml: float
    volume_theirs_ml: float
    unchanged: bool
    """No voxel differs: nobody corrected it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLine:
    """A score with its place in time."""

    number: int
    """Of the comparison; later ones are higher."""
    at: datetime
    job_id: int
    route: str
    shadow: bool
    """Nothing was sent: whoever approved had not seen the draft."""
    sop_instance_uid: Uid
    """The approved structure set."""
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompared:
    """An approved structure set that could not be held against a draft."""

    at: datetime
    job_id: int
    sop_instance_uid: Uid
    reason: str


class AcceptanceLedger(LedgerPart):
    """What is to be compared, and what was."""

    def comparable(self, since: Seen | None = None) -> list[Comparable]:
        """Return the pairs that were not compared yet, oldest first.

        Parameters
        ----------
        since
            Look only at sets that arrived, and drafts that were finished, after that; a look then
            costs what happened, not what the ledger holds.
        """

        def look(connection: Connection) -> list[Comparable]:
            if since is None:
                found = connection.execute(_pairs()).all()
            else:
                sets = connection.execute(_approved().where(_I.id > since.instance)).scalars().all()
                drafts = connection.execute(_finished().where(_E.id > since.event)).scalars().all()
                found = []
                if sets:
                    found += connection.execute(_pairs().where(_I.id.in_(sets))).all()
                if drafts:
                    numbers = [int(number) for number in drafts]
                    found += connection.execute(_pairs().where(_J.id.in_(numbers))).all()
            pairs = {(row.sha256, row.job_id): row for row in found}
            return [self._comparable(connection, row) for row in pairs.values()]

        return self._database.read(look)

    def seen(self) -> Seen:
        """Return how far the ledger is now."""

        def look(connection: Connection) -> Seen:
            newest = [select(func.coalesce(func.max(c), 0)) for c in (_I.id, _E.id)]
            instance, event = (int(connection.execute(q).scalar_one()) for q in newest)
            return Seen(instance=instance, event=event)

        return self._database.read(look)

    def record_acceptance(
        self, pair: Comparable, scores: Sequence[Score], *, reason: str = ""
    ) -> None:
        """Keep what a comparison found, or why there is nothing to compare."""
        now = self._clock.now()

        def run(connection: Connection) -> None:
            number = insert_once(
                connection,
                schema.acceptance,
                ("sha256", "job_id"),
                {"sop_instance_uid": pair.sop_instance_uid, "sha256": pair.sha256,
                 "job_id": pair.job_id, "reason": reason, "at": now},
            )  # fmt: skip
            if number is None:
                return
            for score in scores:
                connection.execute(
                    schema.acceptance_score.insert(),
                    {"acceptance_id": number, **{f: getattr(score, f) for f in _FIELDS}},
                )
            record_event(
                connection, now, COMPARED, kind="job", subject=str(pair.job_id),
                approved=pair.sop_instance_uid, structures=len(scores),
                unchanged=sum(s.unchanged for s in scores), reason=reason,
            )  # fmt: skip

        self._database.write(run)

    def acceptance_scores(self) -> list[ScoreLine]:
        """Return every score, oldest first."""
        a, s = schema.acceptance.c, schema.acceptance_score.c
        query = (
            select(
                schema.acceptance_score, a.at, a.job_id, a.sop_instance_uid, _J.route,
                _J.destinations,
            )
            .join(schema.acceptance, a.id == s.acceptance_id)
            .join(schema.job, _J.id == a.job_id)
            .order_by(a.id, s.organ)
        )  # fmt: skip
        return self._database.read(lambda c: [_line(row) for row in c.execute(query)])

    def newest_acceptance(self) -> int:
        """Return the number of the comparison that was made last; 0 for none."""
        query = select(func.coalesce(func.max(schema.acceptance.c.id), 0))
        return self._database.read(lambda c: int(c.execute(query).scalar_one()))

    def uncompared(self, limit: int) -> list[Uncompared]:
        """Return the pairs that gave no score, newest first."""
        a = schema.acceptance.c
        query = select(schema.acceptance).where(a.reason != "").order_by(a.id.desc()).limit(limit)
        return self._database.read(
            lambda c: [
                Uncompared(at=row.at, job_id=row.job_id, reason=row.reason,
                           sop_instance_uid=Uid(row.sop_instance_uid))
                for row in c.execute(query)
            ]
        )  # fmt: skip

    def _comparable(self, connection: Connection, row: Any) -> Comparable:  # noqa: ANN401 - a row
        b, n = schema.blob.c, schema.job_input.c
        images = connection.execute(
            select(b.path, b.purged_at)
            .join(schema.job_input, n.sha256 == b.sha256)
            .where(n.job_id == row.job_id, n.role == "CT")
            .order_by(n.sop_instance_uid)
        ).all()
        files = [(row.approved, row.approved_purged), (row.draft, row.draft_purged), *images]
        return Comparable(
            sop_instance_uid=Uid(row.sop_instance_uid),
            sha256=row.sha256,
            approved=self._files.absolute(row.approved),
            job_id=row.job_id,
            draft=self._files.absolute(row.draft),
            images=tuple(self._files.absolute(path) for path, _ in images),
            missing=any(purged is not None for _, purged in files),
        )


_I: Final = schema.instance.c
_J: Final = schema.job.c
_E: Final = schema.event.c
_FIELDS: Final = (
    "organ", "theirs", "model", "version", "dice", "surface_dice", "hd95_mm", "added_path_mm",
    "volume_ml", "volume_theirs_ml", "unchanged",
)  # fmt: skip


def _approved() -> Select[Any]:
    """Return the numbers of approved structure sets."""
    return select(_I.id).where(
        _I.sop_class_uid == _STRUCTURE_SET,
        _I.keywords[APPROVAL_STATUS].as_string() == _APPROVED,
    )


def _finished() -> Select[Any]:
    """Return the jobs that finished, as texts."""
    return select(_E.subject).where(_E.action == FINISHED, _E.kind == "job")


def _pairs() -> Select[Any]:
    """Return approved sets with the drafts on their images, those without a row yet."""
    r, n, t, s = (
        table.c for table in (schema.reference, schema.job_input, schema.result, schema.series)
    )
    theirs, ours = schema.blob.alias("theirs"), schema.blob.alias("ours")
    compared = exists().where(
        schema.acceptance.c.sha256 == _I.sha256, schema.acceptance.c.job_id == _J.id
    )
    return (
        select(
            _I.id, _I.sop_instance_uid, _I.sha256, _J.id.label("job_id"),
            theirs.c.path.label("approved"), theirs.c.purged_at.label("approved_purged"),
            ours.c.path.label("draft"), ours.c.purged_at.label("draft_purged"),
        )
        .distinct()
        .select_from(schema.instance)
        .join(theirs, theirs.c.sha256 == _I.sha256)
        .join(schema.reference, (r.instance_id == _I.id) & (r.kind == "IMAGE"))
        .join(schema.job_input, (n.sop_instance_uid == r.uid) & (n.role == "CT"))
        .join(schema.job, _J.id == n.job_id)
        .join(schema.result, t.job_id == _J.id)
        .join(ours, ours.c.sha256 == t.sha256)
        .join(schema.series, s.series_instance_uid == _J.series_instance_uid)
        .where(
            _I.sop_class_uid == _STRUCTURE_SET,
            _I.conflict.is_(False),
            _I.keywords[APPROVAL_STATUS].as_string() == _APPROVED,
            _I.patient_key == s.patient_key,
            _J.pipeline == _PIPELINE,
            _J.state == JobState.COMPLETED.value,
            _J.superseded_by.is_(None),
            t.sop_class_uid == _STRUCTURE_SET,
            ~compared,
        )
        .order_by(_I.id, _J.id)
    )  # fmt: skip


def _line(row: Any) -> ScoreLine:  # noqa: ANN401 - a row
    return ScoreLine(
        number=row.acceptance_id,
        at=row.at,
        job_id=row.job_id,
        route=row.route,
        shadow=not row.destinations,
        sop_instance_uid=Uid(row.sop_instance_uid),
        score=Score(**{field: getattr(row, field) for field in _FIELDS}),
    )
