"""What one received object does to the tables, inside the committer's transaction.

This runs for every slice of every scan, so the statements are built once and get their values
as parameters.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select, update

from node.domain import Header, Kept, Source
from node.errors import LedgerError
from node.lifecycle import SERIES_TRANSITIONS, JobEvent, JobState, SeriesEvent, SeriesState, advance
from node.store import schema
from node.store.base import record_event, step_job
from node.store.dialect import Prepared, insert_once
from node.store.files import Published
from node.store.results import has_file, insert_blob, revive_blob

FIRST_REVISION: Final = 0
"""Of a series; raised by each instance that comes after it was COMPLETE or INCOMPLETE."""

_I: Final = schema.instance.c
_S: Final = schema.series.c
_CONTENTS: Final = Prepared(
    lambda _: select(_I.sha256).where(_I.sop_instance_uid == bindparam("uid"))
)
_INSERT: Final = Prepared(lambda _: schema.instance.insert().returning(_I.id))
_COUNT: Final = Prepared(
    lambda _: (
        update(schema.series)
        .where(_S.series_instance_uid == bindparam("uid"), _S.state == SeriesState.RECEIVING.value)
        .values(count=_S["count"] + 1, last_received_at=bindparam("now"))
        .returning(_S.study_instance_uid, _S.patient_key, _S.modality)
    )
)
"""The step of nearly every instance: RECEIVING stays RECEIVING."""
_SERIES: Final = (
    select(schema.series).where(_S.series_instance_uid == bindparam("uid")).with_for_update()
)


def insert_instance(
    connection: Connection, now: datetime, header: Header, published: Published, source: Source
) -> tuple[Kept, bool]:
    """Insert an instance; return what became of it, and whether its file got a row."""
    contents = _CONTENTS.all(connection, {"uid": header.sop_instance_uid})
    there = [sha256 for (sha256,) in contents]
    if published.sha256 in there:
        used = revive_blob(connection, now, published) or has_file(connection, published)
        return Kept.DUPLICATE, used
    used = insert_blob(connection, now, published)
    inserted = _INSERT.first(
        connection,
        {
            "sop_instance_uid": header.sop_instance_uid,
            "sha256": published.sha256,
            "sop_class_uid": header.sop_class_uid,
            "study_instance_uid": header.study_instance_uid,
            "series_instance_uid": header.series_instance_uid,
            "frame_of_reference_uid": header.frame_of_reference_uid,
            "modality": header.modality,
            "patient_key": header.patient_key,
            "keywords": dict(header.keywords),
            "calling_ae_title": source.calling_ae_title,
            "called_ae_title": source.called_ae_title,
            "address": source.address,
            "association_id": source.association_id,
            "received_at": now,
            "conflict": bool(there),
        },
    )
    if inserted is None:
        raise LedgerError("the database inserted an instance and named no row")
    _insert_references(connection, inserted[0], header)
    if there:
        _flag_conflict(connection, now, header, published, source)
        return Kept.CONFLICT, used
    _extend_series(connection, now, header, source)
    return Kept.STORED, used


def insert_quarantined(
    connection: Connection, now: datetime, source: Source, *, sha256: str, **values: object
) -> None:
    """Record an object that could not be understood; the same bytes again make an event only."""
    row = {
        "sha256": sha256,
        "calling_ae_title": source.calling_ae_title,
        "address": source.address,
        "association_id": source.association_id,
        "at": now,
    }
    insert_once(connection, schema.quarantine, ("sha256",), row | values)
    record_event(
        connection,
        now,
        "instance_quarantined",
        kind="instance",
        subject=sha256,
        correlation=source.association_id,
        reason=values["reason"],
    )


def _insert_references(connection: Connection, instance_id: int, header: Header) -> None:
    if not header.references:
        return
    connection.execute(
        schema.reference.insert(),
        [
            {"instance_id": instance_id, "kind": r.kind, "uid": r.uid, "within": r.within}
            for r in header.references
        ],
    )


def _flag_conflict(
    connection: Connection, now: datetime, header: Header, published: Published, source: Source
) -> None:
    """Tell of a second content under one UID, and hold the jobs that have not begun with it."""
    record_event(
        connection,
        now,
        "instance_conflict",
        kind="instance",
        subject=header.sop_instance_uid,
        correlation=source.association_id,
        sha256=published.sha256,
        series=header.series_instance_uid,
    )
    j, i = schema.job.c, schema.job_input.c
    waiting = connection.execute(
        select(j.id)
        .join(schema.job_input, i.job_id == j.id)
        .where(i.sop_instance_uid == header.sop_instance_uid, j.state == JobState.SCHEDULED.value)
        .distinct()
    ).scalars()
    for job_id in waiting.all():
        step_job(
            connection,
            now,
            job_id,
            JobEvent.HELD,
            reason="an object with other content arrived under the UID of an input",
            hint="compare both objects with the sender; then release or cancel the job",
        )


def _extend_series(connection: Connection, now: datetime, header: Header, source: Source) -> None:
    """Count an instance in its series; one that was settled opens again with a new revision."""
    uid = header.series_instance_uid
    counted = _COUNT.first(connection, {"uid": uid, "now": now})
    if counted is None:
        row = connection.execute(_SERIES, {"uid": uid}).one_or_none()
        if row is None:
            if _start_series(connection, now, header, source):
                return
            row = connection.execute(_SERIES, {"uid": uid}).one()  # another receiver was first
        _reopen_series(connection, now, row, header, source)
        counted = (row.study_instance_uid, row.patient_key, row.modality)
    this = (header.study_instance_uid, header.patient_key, header.modality)
    if this == tuple(counted):
        return
    names = ("study", "patient", "modality")
    _series_event(
        connection, now, "series_mixed", header, source,
        sop_instance_uid=header.sop_instance_uid,
        other=[n for n, a, b in zip(names, counted, this, strict=True) if a != b],
    )  # fmt: skip


def _reopen_series(
    connection: Connection, now: datetime, row: Row[Any], header: Header, source: Source
) -> None:
    """Count an instance in a series that was settled, or that another receiver just began."""
    before = SeriesState(row.state)
    late = before is not SeriesState.RECEIVING
    connection.execute(
        update(schema.series)
        .where(_S.series_instance_uid == header.series_instance_uid)
        .values(
            state=advance(SERIES_TRANSITIONS, before, SeriesEvent.INSTANCE_STORED).value,
            revision=row.revision + int(late),
            count=_S["count"] + 1,
            reason="" if late else row.reason,
            last_received_at=now,
        )
    )
    if late:
        _series_event(connection, now, "series_reopened", header, source, revision=row.revision + 1)


def _start_series(connection: Connection, now: datetime, header: Header, source: Source) -> bool:
    row = {
        "series_instance_uid": header.series_instance_uid,
        "study_instance_uid": header.study_instance_uid,
        "patient_key": header.patient_key,
        "modality": header.modality,
        "state": SeriesState.RECEIVING.value,
        "revision": FIRST_REVISION,
        "count": 1,
        "reason": "",
        "first_received_at": now,
        "last_received_at": now,
    }
    started = insert_once(connection, schema.series, ("series_instance_uid",), row)
    if started is not None:
        _series_event(connection, now, "series_started", header, source, modality=header.modality)
    return started is not None


def _series_event(
    connection: Connection,
    now: datetime,
    action: str,
    header: Header,
    source: Source,
    **detail: object,
) -> None:
    record_event(
        connection,
        now,
        action,
        kind="series",
        subject=header.series_instance_uid,
        correlation=source.association_id,
        **detail,
    )
