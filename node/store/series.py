"""Series, instances, references and associations in the ledger."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, update

from node.domain import AETitle, Header, Instance, Reference, Series, Source, Uid
from node.lifecycle import SERIES_TRANSITIONS, SeriesEvent, SeriesState, advance
from node.store import schema
from node.store.base import RESENT, LedgerPart, record_event
from node.store.files import BlobFiles
from node.store.records import AssociationInfo

_CHUNK: Final = 500
"""UIDs in one IN clause; SQLite takes 32766 parameters, old builds 999."""
PULL_BEGAN: Final = "pull_began"
PULL_ENDED: Final = "pull_ended"
"""Events about a series that a peer was asked to send (C-MOVE)."""
PULL: Final = "pull"
"""Stands for the association in `SeriesLedger.pulls_beside`."""
_LONGEST_PULL: Final = timedelta(days=1)
"""Nothing that comes while a C-MOVE is under way proves that it brought everything."""
_BESIDE: Final = timedelta(seconds=60)
"""An association of the same sender that ended later than this was about something else."""


class SeriesLedger(LedgerPart):
    """What was received, and whether it is whole."""

    def series(self, series_instance_uid: str) -> Series | None:
        """Return a series."""
        found = self._series(schema.series.c.series_instance_uid == series_instance_uid)
        return found[0] if found else None

    def series_in_state(self, state: SeriesState) -> list[Series]:
        """Return the series in `state`, oldest arrival first."""
        return self._series(schema.series.c.state == state.value)

    def resent_series(self) -> dict[Uid, datetime]:
        """Return when the last released association began that repeated a RECEIVING series."""
        e, a, s = schema.event.c, schema.association.c, schema.series.c
        query = (
            select(e.subject, func.max(a.opened_at))
            .join(schema.association, a.association_id == e.correlation)
            .join(schema.series, s.series_instance_uid == e.subject)
            .where(e.action == RESENT, s.state == SeriesState.RECEIVING.value)
            .group_by(e.subject)
        )
        rows = self._database.read(lambda c: c.execute(query).all())
        return {Uid(series): opened for series, opened in rows}

    def study_series(self, study_instance_uid: str) -> list[Series]:
        """Return the series of a study, oldest arrival first."""
        return self._series(schema.series.c.study_instance_uid == study_instance_uid)

    def patient_series(self, patient_key: str) -> list[Series]:
        """Return the series of a patient, oldest arrival first."""
        return self._series(schema.series.c.patient_key == patient_key)

    def instances(self, series_instance_uid: str) -> list[Instance]:
        """Return the instances of a series, oldest first; of a UID only its first content."""
        return self._instances(
            schema.instance.c.series_instance_uid == series_instance_uid,
            schema.instance.c.conflict.is_(False),
        )

    def instances_by_sop_uid(self, uids: Collection[str]) -> list[Instance]:
        """Return the first contents of SOP Instance UIDs, as far as they are here."""
        wanted = sorted(set(uids))
        found: list[Instance] = []
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            found += self._instances(
                schema.instance.c.sop_instance_uid.in_(part), schema.instance.c.conflict.is_(False)
            )
        return found

    def conflicts(self, series_instance_uid: str) -> list[str]:
        """Return the SOP Instance UIDs of a series under which a second content arrived.

        The second content may name another series, so the question is asked of the UIDs.
        """
        first, second = schema.instance.alias("first"), schema.instance.alias("second")
        query = (
            select(first.c.sop_instance_uid)
            .join(second, second.c.sop_instance_uid == first.c.sop_instance_uid)
            .where(first.c.series_instance_uid == series_instance_uid, second.c.conflict.is_(True))
            .distinct()
            .order_by(first.c.sop_instance_uid)
        )
        return self._database.read(lambda c: [str(uid) for uid in c.execute(query).scalars()])

    def referencing(self, kind: str, uid: str) -> list[Instance]:
        """Return the instances that point to `uid`: the plans of a structure set, for example."""
        pointers = select(schema.reference.c.instance_id).where(
            schema.reference.c.uid == uid, schema.reference.c.kind == kind
        )
        return self._instances(
            schema.instance.c.id.in_(pointers), schema.instance.c.conflict.is_(False)
        )

    def referenced_images(self, series_instance_uid: str) -> set[str]:
        """Return the images of a series that other objects say it has."""
        query = (
            select(schema.reference.c.uid)
            .join(schema.instance, schema.instance.c.id == schema.reference.c.instance_id)
            .where(
                schema.reference.c.within == series_instance_uid,
                schema.reference.c.kind == "IMAGE",
                schema.instance.c.conflict.is_(False),
            )
            .distinct()
        )
        return self._database.read(lambda c: {str(uid) for uid in c.execute(query).scalars()})

    def result_uids(self, uids: Collection[str]) -> set[str]:
        """Return those of `uids` that are results of this node: they come back at times."""
        wanted = sorted(set(uids))
        r = schema.result.c.sop_instance_uid

        def look(connection: Connection) -> set[str]:
            found: set[str] = set()
            for start in range(0, len(wanted), _CHUNK):
                query = select(r).where(r.in_(wanted[start : start + _CHUNK]))
                found.update(connection.execute(query).scalars())
            return found

        return self._database.read(look)

    def is_purged(self, series_instance_uid: str) -> bool:
        """Return whether retention removed any file of a series."""
        i, b = schema.instance.c, schema.blob.c
        query = (
            select(i.id)
            .join(schema.blob, b.sha256 == i.sha256)
            .where(i.series_instance_uid == series_instance_uid, b.purged_at.is_not(None))
            .limit(1)
        )
        return self._database.read(lambda c: c.execute(query).first() is not None)

    def series_associations(self, series_instance_uid: str) -> list[AssociationInfo]:
        """Return the associations that delivered to a series, newest last."""
        i, a = schema.instance.c, schema.association.c
        query = (
            select(
                i.association_id,
                i.calling_ae_title,
                i.called_ae_title,
                i.address,
                func.min(i.received_at).label("first_at"),
                func.max(i.received_at).label("last_at"),
                func.count().label("instances"),
            )
            .where(i.series_instance_uid == series_instance_uid)
            .group_by(i.association_id, i.calling_ae_title, i.called_ae_title, i.address)
            .order_by(func.max(i.received_at))
        )

        def look(connection: Connection) -> list[AssociationInfo]:
            lines = connection.execute(query).all()
            names = [line.association_id for line in lines]
            known = {
                row.association_id: row
                for row in connection.execute(
                    select(schema.association).where(a.association_id.in_(names)).order_by(a.id)
                )
            }
            return [_delivered(line, known.get(line.association_id)) for line in lines]

        return self._database.read(look)

    def refusals_beside(self, associations: Sequence[AssociationInfo]) -> list[AssociationInfo]:
        """Return the associations of the same senders of which everything was refused meanwhile.

        Nothing of them is here that could name a series, so who sent it and when must do.

        Parameters
        ----------
        associations
            Those that delivered to a series.
        """
        ends = [a.ended_at or a.opened_at for a in associations]
        if not ends:
            return []
        a = schema.association.c
        query = (
            select(schema.association)
            .where(
                a.ended_at >= min(line.opened_at for line in associations),
                a.ended_at <= max(ends) + _BESIDE,
                a.refused > 0,
                a.received == 0,
                a.calling_ae_title.in_(sorted({line.calling_ae_title for line in associations})),
                a.address.in_(sorted({line.address for line in associations})),
            )
            .order_by(a.id)
        )
        return self._database.read(lambda c: [_to_association(row) for row in c.execute(query)])

    def pulls_beside(
        self, series_instance_uid: str, associations: Sequence[AssociationInfo]
    ) -> list[AssociationInfo]:
        """Return the last C-MOVE that brought objects of a series, as if it were an association.

        The archive's own association ends in order also when it could not send everything; only
        the answer to the C-MOVE tells: lost until it came, and when it says that objects failed.

        Parameters
        ----------
        associations
            Those that delivered to the series.
        """
        e = schema.event.c
        query = (
            select(schema.event)
            .where(e.subject == series_instance_uid, e.action.in_((PULL_BEGAN, PULL_ENDED)))
            .order_by(e.id.desc())
            .limit(2)
        )
        rows = self._database.read(lambda c: list(c.execute(query)))
        if not rows:
            return []
        last, first = rows[0], rows[-1]
        ended = last.action == PULL_ENDED
        opened_at = first.at if ended else last.at
        peer = AETitle(str(last.detail["peer"]))
        if not any(a.calling_ae_title == peer and a.opened_at >= opened_at for a in associations):
            return []  # it brought nothing of this series
        return [
            AssociationInfo(
                association_id=PULL,
                calling_ae_title=peer,
                called_ae_title=AETitle(""),
                address="",
                opened_at=opened_at,
                ended_at=last.at if ended else last.at + _LONGEST_PULL,
                end="RELEASED" if ended and not last.detail["failed"] else "LOST",
            )
        ]

    def open_associations(self) -> list[AssociationInfo]:
        """Return the associations that have not ended."""
        query = select(schema.association).where(schema.association.c.ended_at.is_(None))
        return self._database.read(
            lambda c: [
                _to_association(row) for row in c.execute(query.order_by(schema.association.c.id))
            ]
        )

    def advance_series(self, seen: Series, event: SeriesEvent, reason: str) -> Series | None:
        """Move a series along its table, if it still is as it was `seen`.

        Returns
        -------
        Series or None
            None when something arrived since: look again.

        Raises
        ------
        IllegalTransition
            The table holds no such step.
        """
        state = advance(SERIES_TRANSITIONS, seen.state, event)
        now = self._clock.now()

        def run(connection: Connection) -> Series | None:
            row = connection.execute(
                update(schema.series)
                .where(*unchanged(seen))
                .values(state=state.value, reason=reason)
                .returning(schema.series)
            ).one_or_none()
            if row is None:
                return None
            record_event(
                connection,
                now,
                f"series_{state.lower()}",
                kind="series",
                subject=seen.series_instance_uid,
                reason=reason,
                count=row.count,
                revision=row.revision,
            )
            return to_series(row)

        return self._write_and_wake(run)

    def _series(self, *where: ColumnElement[bool]) -> list[Series]:
        query = select(schema.series).where(*where).order_by(schema.series.c.first_received_at)
        return self._database.read(lambda c: [to_series(row) for row in c.execute(query)])

    def _instances(self, *where: ColumnElement[bool]) -> list[Instance]:
        def look(connection: Connection) -> list[Instance]:
            rows = connection.execute(with_blob().where(*where).order_by(schema.instance.c.id))
            return to_instances(connection, rows.all(), self._files)

        return self._database.read(look)


def unchanged(seen: Series) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that a series still is as it was `seen`."""
    column = schema.series.c
    return (
        column.series_instance_uid == seen.series_instance_uid,
        column.state == seen.state.value,
        column.revision == seen.revision,
        column["count"] == seen.count,
    )


def with_blob() -> Select[Any]:
    """Return the query of instances with path, size and transfer syntax."""
    return select(
        schema.instance, schema.blob.c.path, schema.blob.c.size, schema.blob.c.transfer_syntax_uid
    ).join(schema.blob, schema.blob.c.sha256 == schema.instance.c.sha256)


def to_series(row: Row[Any]) -> Series:
    """Return the value object of a row."""
    values = row._mapping
    return Series(
        series_instance_uid=Uid(row.series_instance_uid),
        study_instance_uid=Uid(row.study_instance_uid),
        patient_key=row.patient_key,
        modality=row.modality,
        state=SeriesState(row.state),
        revision=row.revision,
        count=values[schema.series.c["count"]],
        reason=row.reason,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
    )


def to_instances(
    connection: Connection, rows: Sequence[Row[Any]], files: BlobFiles
) -> list[Instance]:
    """Return the value objects of rows of `with_blob`, with their references."""
    pointers: dict[int, list[Reference]] = {}
    ids = [row.id for row in rows]
    for start in range(0, len(ids), _CHUNK):
        query = select(schema.reference).where(
            schema.reference.c.instance_id.in_(ids[start : start + _CHUNK])
        )
        for line in connection.execute(query):
            within = Uid(line.within) if line.within else None
            pointers.setdefault(line.instance_id, []).append(
                Reference(kind=line.kind, uid=Uid(line.uid), within=within)
            )
    return [_to_instance(row, tuple(pointers.get(row.id, ())), files) for row in rows]


def _to_instance(row: Row[Any], references: tuple[Reference, ...], files: BlobFiles) -> Instance:
    frame = row.frame_of_reference_uid
    return Instance(
        header=Header(
            sop_class_uid=Uid(row.sop_class_uid),
            sop_instance_uid=Uid(row.sop_instance_uid),
            study_instance_uid=Uid(row.study_instance_uid),
            series_instance_uid=Uid(row.series_instance_uid),
            transfer_syntax_uid=Uid(row.transfer_syntax_uid),
            frame_of_reference_uid=Uid(frame) if frame else None,
            modality=row.modality,
            patient_key=row.patient_key,
            keywords=row.keywords,
            references=references,
        ),
        path=files.absolute(row.path),
        sha256=row.sha256,
        size=row.size,
        source=Source(
            calling_ae_title=AETitle(row.calling_ae_title),
            called_ae_title=AETitle(row.called_ae_title),
            address=row.address,
            association_id=row.association_id,
        ),
        received_at=row.received_at,
        conflict=row.conflict,
    )


def _to_association(row: Row[Any]) -> AssociationInfo:
    """Return a row of `schema.association`."""
    return AssociationInfo(
        association_id=row.association_id,
        calling_ae_title=AETitle(row.calling_ae_title),
        called_ae_title=AETitle(row.called_ae_title),
        address=row.address,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        end=row.end,
        refused=row.refused,
    )


def _delivered(line: Row[Any], known: Row[Any] | None) -> AssociationInfo:
    """Return an association from what it delivered and, where there is one, its row."""
    return AssociationInfo(
        association_id=line.association_id,
        calling_ae_title=AETitle(line.calling_ae_title),
        called_ae_title=AETitle(line.called_ae_title),
        address=line.address,
        opened_at=known.opened_at if known is not None else line.first_at,
        ended_at=known.ended_at if known is not None else line.last_at,
        end=known.end if known is not None else "",
        instances=line.instances,
        refused=known.refused if known is not None else 0,
    )
