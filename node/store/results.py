"""Finishing a job: files first, then state, results and deliveries in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from node.domain import ResultFile
from node.errors import InstanceMismatch
from node.lifecycle import DeliveryState, JobEvent
from node.store import schema
from node.store.base import LedgerPart, record_event, step_job
from node.store.dialect import insert_once
from node.store.files import BlobFiles, Published
from node.store.header import parse_header
from node.store.jobs import end_attempt, ours
from node.store.part10 import split
from node.store.writer import CommitUncertain
from pipelines.api import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """What a worker achieved."""

    results: tuple[ResultFile, ...]
    findings: Json
    figures: Json
    report: str
    hold: tuple[str, str] | None
    held: Mapping[str, tuple[str, str]]
    destinations: tuple[str, ...] | None


class ResultLedger(LedgerPart):
    """The transactional outbox."""

    def finish_job(  # noqa: PLR0913 - one call is the point: it is one transaction
        self,
        job_id: int,
        token: int,
        results: Sequence[ResultFile],
        *,
        findings: Json,
        figures: Json,
        report: str = "",
        hold: tuple[str, str] | None = None,
        held: Mapping[str, tuple[str, str]] | None = None,
        destinations: Sequence[str] | None = None,
    ) -> bool:
        """Publish results and record the end of a job, all of it or nothing.

        A result whose UID is there with the same bytes is not stored again; with other bytes the
        first one stays, because a UID never names two contents: an event tells of it.

        Parameters
        ----------
        results : sequence of ResultFile
            Copied; the work folder remains the caller's.
        hold : (reason, hint), optional
            Results are kept and their deliveries HELD until a person releases them.
        held : mapping, optional
            The same for single destinations: destination -> (reason, hint).
        destinations : sequence of str, optional
            Instead of the job's own.

        Returns
        -------
        bool
            False when fenced out: nothing is recorded.

        Raises
        ------
        OutOfResources, LedgerError
            Nothing is recorded; call again.
        InstanceMismatch, CannotUnderstand
            A file is not the object that it was announced to be.
        """
        if not self._database.read(
            lambda c: c.execute(select(schema.job.c.id).where(*ours(job_id, token))).first()
        ):
            return False
        finish = Finish(
            results=tuple(results),
            findings=findings,
            figures=figures,
            report=report,
            hold=hold,
            held=held or {},
            destinations=None if destinations is None else tuple(destinations),
        )
        now = self._clock.now()
        published: list[Published] = []
        spare: list[Published] = []
        try:
            for result in results:
                published.append(_publish(self._files, result))  # noqa: PERF401 - kept when one fails
            spare = published
            used = self._database.write(
                lambda c: _record(c, now, job_id, token, finish, published),
                sync=sorted({p.path.parent for p in published}),
            )
            spare = [p for p in published if used is None or p.name not in used]
        except CommitUncertain:
            spare = []
            raise
        except BaseException:
            spare = published
            raise
        finally:
            for file in spare:
                self._files.discard(file)
        self._on_change()
        return used is not None


def _publish(files: BlobFiles, result: ResultFile) -> Published:
    content = split(files.read(result.path))
    header = parse_header(content.data, content.transfer_syntax_uid)
    announced = (result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid)
    if announced != (header.sop_class_uid, header.sop_instance_uid, header.series_instance_uid):
        raise InstanceMismatch("a result file does not hold the object that it was announced as")
    return files.publish(
        content,
        sha256=content.sha256(),
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
    )


def _record(
    connection: Connection,
    now: datetime,
    job_id: int,
    token: int,
    finish: Finish,
    published: Sequence[Published],
) -> set[str] | None:
    """Write everything; return the names of the files that got a row, None when fenced out."""
    row = connection.execute(
        select(schema.job).where(*ours(job_id, token)).with_for_update()
    ).one_or_none()
    if row is None:
        return None
    destinations = row.destinations if finish.destinations is None else finish.destinations
    used: set[str] = set()
    for result, file in zip(finish.results, published, strict=True):
        result_id, stored = _store_result(connection, now, job_id, row.correlation, result, file)
        if stored:
            used.add(file.name)
        for destination in destinations:
            hold = finish.hold or finish.held.get(destination)
            _queue(connection, now, job_id, result_id, destination, result, hold)
    end_attempt(connection, now, row, JobEvent.FINISHED, "")
    step_job(
        connection,
        now,
        job_id,
        JobEvent.FINISHED,
        lease_until=None,
        findings=finish.findings,
        figures=finish.figures,
        report=finish.report,
        reason=finish.hold[0] if finish.hold else "",
        hint=finish.hold[1] if finish.hold else "",
    )
    return used


def _store_result(
    connection: Connection,
    now: datetime,
    job_id: int,
    correlation: str,
    result: ResultFile,
    file: Published,
) -> tuple[int, bool]:
    """Return (number of the result, whether the file got a row)."""
    r = schema.result.c
    there = connection.execute(
        select(r.id, r.sha256, r.job_id).where(r.sop_instance_uid == result.sop_instance_uid)
    ).one_or_none()
    if there is not None:
        if there.sha256 != file.sha256:
            record_event(
                connection,
                now,
                "result_differs",
                kind="job",
                subject=str(job_id),
                correlation=correlation,
                sop_instance_uid=result.sop_instance_uid,
                kept_from_job=there.job_id,
                refused_sha256=file.sha256,
            )
        return int(there.id), False
    stored = insert_blob(connection, now, file)
    number = connection.execute(
        schema.result.insert()
        .values(
            job_id=job_id,
            sop_instance_uid=result.sop_instance_uid,
            sop_class_uid=result.sop_class_uid,
            series_instance_uid=result.series_instance_uid,
            modality=result.modality,
            sha256=file.sha256,
            created_at=now,
        )
        .returning(r.id)
    ).scalar_one()
    return int(number), stored


def _queue(
    connection: Connection,
    now: datetime,
    job_id: int,
    result_id: int,
    destination: str,
    result: ResultFile,
    hold: tuple[str, str] | None,
) -> None:
    reason, hint = hold or ("", "")
    insert_once(
        connection,
        schema.delivery,
        ("destination", "sop_instance_uid"),
        {
            "job_id": job_id,
            "result_id": result_id,
            "destination": destination,
            "sop_instance_uid": result.sop_instance_uid,
            "state": (DeliveryState.HELD if hold else DeliveryState.PENDING).value,
            "attempt": 0,
            "reason": reason,
            "hint": hint,
            "created_at": now,
            "changed_at": now,
        },
    )


def insert_blob(connection: Connection, now: datetime, file: Published) -> bool:
    """Make a file valid; False when this content has a file already."""
    inserted = insert_once(
        connection,
        schema.blob,
        ("sha256",),
        {
            "sha256": file.sha256,
            "path": file.name,
            "size": file.size,
            "transfer_syntax_uid": file.transfer_syntax_uid,
            "created_at": now,
        },
    )
    return inserted is not None or revive_blob(connection, now, file)


def revive_blob(connection: Connection, now: datetime, file: Published) -> bool:
    """Give a content that retention had removed its new file; False when it has one."""
    b = schema.blob.c
    revived = connection.execute(
        update(schema.blob)
        .where(b.sha256 == file.sha256, b.purged_at.is_not(None))
        .values(path=file.name, purged_at=None, created_at=now)
        .returning(b.sha256)
    ).first()
    return revived is not None


def has_file(connection: Connection, file: Published) -> bool:
    """Return whether a content's row names this very file: a commit whose answer got lost."""
    b = schema.blob.c
    query = select(b.sha256).where(b.sha256 == file.sha256, b.path == file.name)
    return connection.execute(query).first() is not None
