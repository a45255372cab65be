"""The one door for DICOM objects: between "bytes arrived" and "success may be answered".

Name durable → fdatasync(bytes, receipt) → return; then fsync(folder) → COMMIT of the row, within a
moment. Nothing may be acknowledged that did not come back from here, and nothing else may be
acknowledged. What is durable and has no row yet is part of every look all the same: the database
writes it down before it reads (`Database.write_soon`), and a start makes the rows that a dead node
could not (`Intake.take_over`). While the database refuses, nothing new is taken.

The same bytes again are a no-op; other bytes under a UID that is taken are kept beside the first,
flagged, and hold the jobs that use the first. What cannot be understood is kept in quarantine,
with the reason.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

from sqlalchemy import Connection, bindparam, select, update

from node.domain import Accepted, Clock, Header, Kept, Source, Uid
from node.errors import CannotUnderstand, InstanceMismatch, LedgerError, OutOfResources
from node.lifecycle import SeriesState
from node.log import event
from node.store import schema
from node.store.arrivals import insert_instance, insert_quarantined
from node.store.audit import ASSOCIATION_ENDED
from node.store.base import RESENT, record_event
from node.store.dialect import Prepared
from node.store.files import BlobFiles, Published
from node.store.header import keyword_tags, parse_header, parse_stream
from node.store.part10 import Buffer, Encoded, split
from node.store.spool import Heads, Spool
from node.store.writer import CommitUncertain, Database

_log = logging.getLogger(__name__)

_I: Final = schema.instance.c
_CONTENTS: Final = Prepared(
    lambda _: (
        select(_I.sha256, schema.blob.c.purged_at.is_(None))
        .join(schema.blob, schema.blob.c.sha256 == _I.sha256)
        .where(_I.sop_instance_uid == bindparam("uid"))
    )
)


class Arrival:
    """An object on its way in; used by one thread."""

    def __init__(
        self,
        intake: "Intake",
        spool: Spool,
        requested: tuple[str, str],
        source: Source,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._requested = requested
        self._source = source
        self._trouble: OutOfResources | None = None

    def write(self, fragment: memoryview, /) -> None:
        """Take the next bytes of the data set; `accept` tells if there was no room for them."""
        if self._trouble is None:
            try:
                self._spool.write(fragment)
            except OutOfResources as trouble:
                self._trouble = trouble

    def accept(self) -> Accepted:
        """Return when the object is durable.

        Raises
        ------
        OutOfResources, LedgerError
            Nothing is stored; the sender may try again.
        InstanceMismatch
            The data set is another object than the request named.
        CannotUnderstand
            The bytes are in quarantine.
        """
        try:
            if self._trouble is not None:
                raise self._trouble
            return self._intake.keep_arrived(self._spool, self._requested, self._source)
        finally:
            self._spool.close()

    def discard(self) -> None:
        """Forget the object: its sender gave up. Harmless after `accept`."""
        self._spool.close()


class Intake:
    """Makes received objects durable.

    Parameters
    ----------
    extra_keywords : collection of str
        DICOM keywords that the configuration matches against, beside the usual ones.
    max_object_bytes : int
        Largest file that `accept_file` reads. [bytes]
    on_change : callable
        Called after each commit that changed a series or ended an association.
    """

    def __init__(
        self,
        database: Database,
        files: BlobFiles,
        clock: Clock,
        *,
        extra_keywords: Collection[str],
        max_object_bytes: int,
        on_change: Callable[[], None],
    ) -> None:
        keyword_tags(extra_keywords)  # a wrong one must stop the start, not the first object
        self._database = database
        self._files = files
        self._clock = clock
        self._extra = tuple(extra_keywords)
        self._heads = Heads()
        self._pending: dict[str, dict[str, int]] = {}
        """SOP Instance UID -> contents that are durable and on their way to a row."""
        self._pending_lock = threading.Lock()
        self._max_object_bytes = max_object_bytes
        self._on_change = on_change
        self._standing("", "")  # opens the connection that it keeps, while there are descriptors

    def receive(
        self,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        source: Source,
    ) -> "Arrival":
        """Begin to take in the object that a C-STORE request names, as its bytes arrive."""
        spool = Spool(
            self._files,
            self._heads,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source=source,
        )
        requested = (sop_class_uid, sop_instance_uid)
        return Arrival(self, spool, requested, source)

    def accept(
        self,
        dataset: Buffer,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        source: Source,
    ) -> Accepted:
        """Make a data set durable that is whole in memory; raises as `Arrival.accept`."""
        arrival = self.receive(
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            source=source,
        )
        arrival.write(memoryview(dataset))
        return arrival.accept()

    def accept_file(self, path: Path, source: Source) -> Accepted:
        """Make a DICOM file of a hot folder durable, with or without preamble.

        Raises
        ------
        OutOfResources, LedgerError
            Nothing is stored; try again.
        CannotUnderstand
            The bytes are in quarantine, unless the file is too large.
        """
        try:
            size = path.stat().st_size
        except OSError as error:
            raise OutOfResources("cannot read the file in the hot folder") from error
        if size > self._max_object_bytes:
            raise CannotUnderstand(
                f"the file has {size} bytes, the limit is {self._max_object_bytes}",
                hint="it is left where it is; raise the limit if it is a real object",
            )
        content = Encoded(transfer_syntax_uid="", data=self._files.read(path))
        try:
            content = split(content.data)
            header = parse_header(content.data, content.transfer_syntax_uid, self._extra)
        except CannotUnderstand as error:
            data = content.data
            self._quarantine(content.sha256(), (data,), len(data), source, error)
        sha256 = content.sha256()
        kept, durable = self._standing(header.sop_instance_uid, sha256)
        if not durable:
            published = self._files.publish(
                content,
                sha256=sha256,
                sop_class_uid=header.sop_class_uid,
                sop_instance_uid=header.sop_instance_uid,
            )
            kept = self._store(header, published, source, self._clock.now())
        return _accepted(kept, sha256, header)

    def association_opened(self, source: Source) -> None:
        """Record that an association can deliver from now on.

        Raises
        ------
        LedgerError
            The database refused.
        """
        now = self._clock.now()
        self._database.write(
            lambda c: c.execute(
                schema.association.insert().values(
                    association_id=source.association_id,
                    calling_ae_title=source.calling_ae_title,
                    called_ae_title=source.called_ae_title,
                    address=source.address,
                    opened_at=now,
                    end="",
                    received=0,
                    refused=0,
                )
            )
        )

    def association_ended(
        self,
        association_id: str,
        *,
        end: str,
        received: int,
        refused: int,
        repeated: Collection[Uid] = (),
    ) -> None:
        """Record how an association ended: RELEASED, ABORTED or LOST.

        `repeated` are the series of which it brought objects that were here already: in the same
        transaction, since a re-send of nothing but those is what ends the wait after a break.

        Raises
        ------
        LedgerError
            The database refused.
        """
        now = self._clock.now()
        a = schema.association.c
        statement = (
            update(schema.association)
            .where(a.association_id == association_id, a.ended_at.is_(None))
            .values(ended_at=now, end=end, received=received, refused=refused)
        )

        def end_it(connection: Connection) -> None:
            connection.execute(statement)
            if received or refused:
                record_event(
                    connection, now, ASSOCIATION_ENDED, kind="association",
                    subject=association_id, correlation=association_id, end=end,
                    received=received, refused=refused,
                )  # fmt: skip
            s = schema.series.c
            waiting = select(s.series_instance_uid).where(
                s.series_instance_uid.in_(sorted(repeated)),
                s.state == SeriesState.RECEIVING.value,
            )
            for series in connection.execute(waiting).scalars().all() if repeated else ():
                record_event(
                    connection, now, RESENT, kind="series", subject=series,
                    correlation=association_id,
                )  # fmt: skip

        self._database.settle()  # how it ended is evidence about what it brought: never before that
        self._database.write(end_it)
        self._on_change()

    def keep_arrived(self, spool: Spool, requested: tuple[str, str], source: Source) -> Accepted:
        """Make durable what arrived; see `Arrival.accept`."""
        try:
            header = spool.header(self._extra)
        except CannotUnderstand as error:
            self._quarantine(spool.sha256(), spool.pieces(), spool.size, source, error)
        if (header.sop_class_uid, header.sop_instance_uid) != requested:
            self._refuse(header, requested[0], source)
        sha256 = spool.sha256()
        kept, durable = self._standing(header.sop_instance_uid, sha256)
        if not durable:
            now = self._clock.now()
            self._store_soon(header, spool.publish(now), source, now)
        return _accepted(kept, sha256, header)

    # -- after a crash ---------------------------------------------------------------------------

    def take_over(self) -> int:
        """Give what a dead node received its row, and remove what it did not finish.

        Only by the node that owns the data folder, before it receives anything.

        Returns
        -------
        int
            Objects that got a row.

        Raises
        ------
        OutOfResources, LedgerError
            Stopped in the middle; the next start goes on.
        """
        return sum(self._take_over(path) for path in self._files.arrivals())

    def _take_over(self, path: Path) -> bool:
        """Return whether an object got its row: one that has it, or is not whole, gets none."""
        whole = self._files.whole_arrival(path)
        if whole is None:
            self._files.forget_arrival(path)  # it was never answered
            return False
        receipt, transfer_syntax_uid, begin = whole
        name = str(path.relative_to(self._files.data_dir))
        try:
            with path.open("rb") as file:
                file.seek(begin)
                header = parse_stream(file, receipt.size, transfer_syntax_uid, self._extra)
        except CannotUnderstand:  # by an earlier release it could be
            self._files.set_aside(name)
            return False
        published = self._files.adopt(path, receipt, transfer_syntax_uid)
        try:
            kept = self._store(header, published, receipt.source, receipt.received_at)
        except CommitUncertain:
            raise
        except LedgerError as error:
            self._tell_refused(header, receipt.source, str(error))  # fails too where all is refused
            self._files.set_aside(name)
            return False
        self._files.forget_arrival(path)
        return kept is not Kept.DUPLICATE

    # -- rows ------------------------------------------------------------------------------------

    def _standing(self, sop_instance_uid: str, sha256: str) -> tuple[Kept, bool]:
        """Return what a content is to those under its UID, and whether it is durable already.

        They are rows, and what is durable and waits for its row; nothing else proves anything.
        """
        with self._pending_lock:
            pending = set(self._pending.get(sop_instance_uid, ()))
        values = {"uid": sop_instance_uid}
        rows = {
            str(content): bool(kept)
            for content, kept in self._database.glance(lambda c: _CONTENTS.all(c, values))
        }
        if sha256 in pending or sha256 in rows:
            return Kept.DUPLICATE, sha256 in pending or rows[sha256]
        return (Kept.CONFLICT if pending or rows else Kept.STORED), False

    def _store(
        self, header: Header, published: Published, source: Source, received_at: datetime
    ) -> Kept:
        """Give a file its row, and return when that is committed."""
        try:
            kept, used = self._database.write(
                lambda c: insert_instance(c, received_at, header, published, source),
                sync=(published.path.parent,),
            )
        except CommitUncertain:  # the row may appear after a restart; the next start decides
            raise
        except BaseException:
            self._files.discard(published)
            raise
        self._settled(published, used=used, news=kept is not Kept.DUPLICATE)
        return kept

    def _store_soon(
        self, header: Header, published: Published, source: Source, received_at: datetime
    ) -> None:
        """Let a file that is durable have its row soon."""
        uid, sha256 = header.sop_instance_uid, published.sha256

        def committed(done: tuple[Kept, bool] | None, error: Exception | None) -> None:
            self._note_pending(uid, sha256, -1)
            if done is not None:
                kept, used = done
                self._settled(published, used=used, news=kept is not Kept.DUPLICATE)
            else:  # a mistake of ours: the file stays, and the next start tries again
                event(_log, "arrival_has_no_row", level=logging.ERROR, error=error,
                      assoc=source.association_id, sop=uid)  # fmt: skip

        try:
            self._database.write_soon(
                lambda c: insert_instance(c, received_at, header, published, source),
                sync=(published.path.parent,),
                then=committed,
            )
        except BaseException:
            self._files.discard(published)
            raise
        self._note_pending(uid, sha256, +1)  # not before: until then it could have been refused

    def _note_pending(self, sop_instance_uid: str, sha256: str, change: int) -> None:
        with self._pending_lock:
            contents = self._pending.setdefault(sop_instance_uid, {})
            contents[sha256] = contents.get(sha256, 0) + change
            if not contents[sha256]:
                del contents[sha256]
            if not contents:
                del self._pending[sop_instance_uid]

    def _settled(self, published: Published, *, used: bool, news: bool) -> None:
        """Tidy up behind a commit, and wake who waits for it."""
        if used:
            self._files.forget_arrival(published.arrival)
        else:
            self._files.discard(published)
        if news:
            self._on_change()

    def _refuse(self, header: Header, sop_class_uid: str, source: Source) -> NoReturn:
        """Record and raise a mismatch between request and data set."""
        what = "SOP class" if header.sop_class_uid != sop_class_uid else "SOP Instance UID"
        reason = f"the data set has another {what} than the request"
        self._tell_refused(header, source, reason)
        raise InstanceMismatch(reason)

    def _tell_refused(self, header: Header, source: Source, reason: str) -> None:
        now = self._clock.now()
        self._database.write(
            lambda c: record_event(
                c,
                now,
                "instance_refused",
                kind="instance",
                subject=header.sop_instance_uid,
                correlation=source.association_id,
                reason=reason,
            )
        )

    def _quarantine(
        self,
        sha256: str,
        pieces: Iterable[Buffer],
        size: int,
        source: Source,
        error: CannotUnderstand,
    ) -> NoReturn:
        """Keep bytes that could not be understood, and raise the error with their name."""
        name = self._files.keep_in_quarantine(sha256, pieces, size)
        now = self._clock.now()
        reason = str(error)
        self._database.write(
            lambda c: insert_quarantined(
                c, now, source, sha256=sha256, path=name, size=size, reason=reason
            )
        )
        kept = f"kept in quarantine as {name}" if name else "not kept: the quarantine is full"
        raise CannotUnderstand(reason, hint=f"{kept}; look at the sender's export") from error


def _accepted(kept: Kept, sha256: str, header: Header) -> Accepted:
    return Accepted(
        kept=kept,
        sha256=sha256,
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
    )
