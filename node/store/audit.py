"""The audit trail as another system wants it: events in their order, and whose data they touch.

The events are the trail; what is exported is a view of them with a cursor. So a receiver that is
away for weeks costs no memory and no disk beyond the events, which stay in any case.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, func, or_, select, update

from node.lifecycle import DeliveryEvent
from node.store import schema
from node.store.acceptance import FINISHED
from node.store.base import LedgerPart
from node.store.dialect import insert_once
from node.store.listing import to_event
from node.store.records import EventLine

SYSLOG: Final = "syslog"
"""The one receiver."""
NODE_STARTED: Final = "node_started"
NODE_STOPPED: Final = "node_stopped"
ASSOCIATION_ENDED: Final = "association_ended"
VIEWED: Final = "web_viewed"
DELIVERED: Final = f"delivery_{DeliveryEvent.STORED.lower()}"
DELIVERING: Final = f"delivery_{DeliveryEvent.CLAIMED.lower()}"
REFUSED: Final = f"delivery_{DeliveryEvent.REFUSED.lower()}"
PURGED: Final = "file_purged"
_ACTIONS: Final = (
    NODE_STARTED, NODE_STOPPED, ASSOCIATION_ENDED, VIEWED, DELIVERED, DELIVERING, REFUSED,
    FINISHED, PURGED,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """An event that belongs into the audit trail."""

    id: int
    line: EventLine


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditBatch:
    """The next events of the trail."""

    events: tuple[AuditEvent, ...]
    begin: int
    """Where the cursor stands."""
    end: int
    """Where it stands when the receiver has these; events of other kinds are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStudy:
    """Whose data an event touched."""

    study_instance_uid: str
    sop_classes: Mapping[str, int]
    """SOP Class UID -> number of instances."""
    sample: Path | None
    """A file of the study, which knows the patient's identifier; None where all were purged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who opened an association."""

    ae_title: str
    address: str


class AuditLedger(LedgerPart):
    """The cursor, the events after it, and what they were about."""

    def begin_audit(self) -> None:
        """Begin with what happens from now on, unless there was a beginning before."""
        now = self._clock.now()

        def run(connection: Connection) -> None:
            newest = connection.execute(select(func.coalesce(func.max(_E.id), 0))).scalar_one()
            insert_once(
                connection,
                schema.audit_export,
                ("receiver",),
                {"receiver": SYSLOG, "event_id": newest, "at": now},
            )

        self._database.write(run)

    def audit_events(self, limit: int) -> AuditBatch:
        """Return the next events of the trail that the receiver has not got, oldest first."""

        def look(connection: Connection) -> AuditBatch:
            begin = connection.execute(
                select(_X.event_id).where(_X.receiver == SYSLOG)
            ).scalar_one()
            newest = connection.execute(select(func.coalesce(func.max(_E.id), 0))).scalar_one()
            query = select(schema.event).where(_E.id > begin, _E.id <= newest, _audited())
            rows = connection.execute(query.order_by(_E.id).limit(limit)).all()
            events = tuple(AuditEvent(id=row.id, line=to_event(row)) for row in rows)
            end = events[-1].id if len(events) == limit else max(begin, newest)
            return AuditBatch(events=events, begin=begin, end=end)

        return self._database.read(look)

    def audit_sent(self, event_id: int) -> None:
        """Note that the receiver has everything up to an event."""
        now = self._clock.now()
        self._database.write(
            lambda c: (
                c.execute(
                    update(schema.audit_export)
                    .where(_X.receiver == SYSLOG)
                    .values(event_id=event_id, at=now)
                ).rowcount
            )
        )

    def audit_backlog(self) -> tuple[int, datetime | None]:
        """Return how many events wait for the receiver, and since when; (0, None) without one."""
        after = select(_X.event_id).where(_X.receiver == SYSLOG).scalar_subquery()
        query = select(func.count().label("many"), func.min(_E.at).label("since")).where(
            _E.id > after, _audited()
        )

        def look(connection: Connection) -> tuple[int, datetime | None]:
            row = connection.execute(query).one()
            return int(row.many), row.since

        return self._database.read(look)

    def caller(self, association_id: str) -> Caller | None:
        """Return who opened an association."""
        a = schema.association.c
        query = select(a.calling_ae_title, a.address).where(a.association_id == association_id)

        def look(connection: Connection) -> Caller | None:
            row = connection.execute(query.order_by(a.id.desc()).limit(1)).one_or_none()
            return None if row is None else Caller(ae_title=row[0], address=row[1])

        return self._database.read(look)

    def audit_of_association(self, association_id: str) -> list[AuditStudy]:
        """Return the studies of which an association brought instances."""
        return self._studies(
            schema.instance, _I.study_instance_uid, _I.sop_class_uid,
            _I.association_id == association_id,
        )  # fmt: skip

    def audit_of_results(self, results: Collection[str]) -> list[AuditStudy]:
        """Return the studies that derived objects belong to, by their SOP Instance UIDs."""
        return self._studies(
            _RESULTS, _S.study_instance_uid, _R.sop_class_uid, _R.sop_instance_uid.in_(results)
        )

    def audit_of_job(self, job_id: int) -> list[AuditStudy]:
        """Return the study that a job made objects for."""
        return self._studies(_RESULTS, _S.study_instance_uid, _R.sop_class_uid, _R.job_id == job_id)

    def audit_of_inputs(self, job_id: int) -> list[AuditStudy]:
        """Return the studies that a job reads."""
        n = schema.job_input.c
        inputs = schema.job_input.join(
            schema.instance,
            (n.sop_instance_uid == _I.sop_instance_uid) & (n.sha256 == _I.sha256),
        )
        return self._studies(inputs, _I.study_instance_uid, _I.sop_class_uid, n.job_id == job_id)

    def audit_of_series(self, series_instance_uid: str) -> list[AuditStudy]:
        """Return the study of a series."""
        return self._studies(
            schema.instance, _I.study_instance_uid, _I.sop_class_uid,
            _I.series_instance_uid == series_instance_uid,
        )  # fmt: skip

    def audit_of_study(self, study_instance_uid: str) -> list[AuditStudy]:
        """Return a study."""
        return self._studies(
            schema.instance, _I.study_instance_uid, _I.sop_class_uid,
            _I.study_instance_uid == study_instance_uid,
        )  # fmt: skip

    def audit_of_files(self, sha256s: Collection[str]) -> list[AuditStudy]:
        """Return the studies that files belong or belonged to, received and derived ones."""
        received = self._studies(
            schema.instance, _I.study_instance_uid, _I.sop_class_uid, _I.sha256.in_(sha256s)
        )
        derived = self._studies(
            _RESULTS, _S.study_instance_uid, _R.sop_class_uid, _R.sha256.in_(sha256s)
        )
        return [*received, *derived]

    def _studies(
        self,
        source: FromClause,
        study: ColumnElement[Any],
        sop_class: ColumnElement[Any],
        *where: ColumnElement[bool],
    ) -> list[AuditStudy]:
        query = (
            select(study.label("study"), sop_class.label("kind"), func.count().label("many"))
            .select_from(source)
            .where(*where)
            .group_by(study, sop_class)
            .order_by(study, sop_class)
        )

        def look(connection: Connection) -> list[AuditStudy]:
            found: dict[str, dict[str, int]] = {}
            for row in connection.execute(query):
                found.setdefault(row.study, {})[row.kind] = row.many
            return [
                AuditStudy(study_instance_uid=uid, sop_classes=kinds,
                           sample=self._sample(connection, uid))
                for uid, kinds in found.items()
            ]  # fmt: skip

        return self._database.read(look)

    def _sample(self, connection: Connection, study: str) -> Path | None:
        b = schema.blob.c
        path = connection.execute(
            select(b.path)
            .join(schema.instance, _I.sha256 == b.sha256)
            .where(_I.study_instance_uid == study, _I.conflict.is_(False), b.purged_at.is_(None))
            .limit(1)
        ).scalar_one_or_none()
        return None if path is None else self._files.absolute(path)


_E: Final = schema.event.c
_X: Final = schema.audit_export.c
_I: Final = schema.instance.c
_R: Final = schema.result.c
_S: Final = schema.series.c
_RESULTS: Final = schema.result.join(schema.job, schema.job.c.id == _R.job_id).join(
    schema.series, _S.series_instance_uid == schema.job.c.series_instance_uid
)
"""A derived object belongs to the study of the series that asked for it."""


def _audited() -> ColumnElement[bool]:
    """Return the condition that an event belongs into the trail."""
    return or_(_E.action.in_(_ACTIONS), _E.kind == "user", _E.action.startswith("operator_"))
