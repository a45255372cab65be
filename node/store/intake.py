"""The one door for DICOM objects: between "bytes arrived" and "success may be answered".

fsync(file) → fsync(folder) → COMMIT → return. Nothing may be acknowledged that did not come back
from here, and nothing else may be acknowledged. The same bytes again are a no-op; other bytes
under a UID that is taken are kept beside the first, flagged, and hold the jobs that use the first.
What cannot be understood is kept in quarantine, with the reason.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from node.domain import Accepted, Clock, Header, Kept, Source, Uid
from node.errors import CannotUnderstand, InstanceMismatch, OutOfResources
from node.lifecycle import SeriesState
from node.store import schema
from node.store.arrivals import insert_instance, insert_quarantined
from node.store.base import RESENT, record_event
from node.store.dialect import Prepared
from node.store.files import BlobFiles, Published
from node.store.header import keyword_tags, parse_header, parse_stream
from node.store.part10 import Buffer, Encoded, split
from node.store.spool import Buffers, Spool
from node.store.writer import Access, CommitUncertain

_I: Final = schema.instance.c
_DURABLE: Final = Prepared(
    lambda _: (
        select(_I.id)
        .join(schema.blob, schema.blob.c.sha256 == _I.sha256)
        .where(
            _I.sop_instance_uid == bindparam("uid"),
            _I.sha256 == bindparam("sha256"),
            schema.blob.c.purged_at.is_(None),
        )
    )
)


class Arrival:
    """An object on its way in; used by one thread."""

    def __init__(
        self,
        intake: "Intake",
        spool: Spool,
        requested: tuple[str, str],
        transfer_syntax_uid: str,
        source: Source,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._requested = requested
        self._transfer_syntax_uid = transfer_syntax_uid
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
            return self._intake.keep_arrived(
                self._spool, self._requested, self._transfer_syntax_uid, self._source
            )
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
        database: Access,
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
        self._buffers = Buffers()
        self._max_object_bytes = max_object_bytes
        self._on_change = on_change

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
            self._buffers,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
        )
        requested = (sop_class_uid, sop_instance_uid)
        return Arrival(self, spool, requested, transfer_syntax_uid, source)

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
        data = self._files.read(path)
        with self._quarantining(data, "", source):
            content = split(data)
        header = self._understand(content, source)
        return self._keep(header, content.sha256(), source, self._in_memory(header, content))

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

        self._database.write(end_it)
        self._on_change()

    def keep_arrived(
        self, spool: Spool, requested: tuple[str, str], transfer_syntax_uid: str, source: Source
    ) -> Accepted:
        """Make durable what arrived; see `Arrival.accept`."""
        if spool.in_memory:
            with spool.content() as data:
                content = Encoded(transfer_syntax_uid=transfer_syntax_uid, data=data)
                header = self._understand(content, source)
                self._require_requested(header, requested, source)
                return self._keep(header, spool.sha256(), source, self._in_memory(header, content))
        with (
            spool.content() as data,
            self._quarantining(data, transfer_syntax_uid, source),
            spool.stream() as stream,
        ):
            header = parse_stream(stream, spool.size, transfer_syntax_uid, self._extra)
        self._require_requested(header, requested, source)
        return self._keep(header, spool.sha256(), source, lambda _sha256: spool.publish())

    def _understand(self, content: Encoded, source: Source) -> Header:
        with self._quarantining(content.data, content.transfer_syntax_uid, source):
            return parse_header(content.data, content.transfer_syntax_uid, self._extra)

    def _require_requested(
        self, header: Header, requested: tuple[str, str], source: Source
    ) -> None:
        if (header.sop_class_uid, header.sop_instance_uid) != requested:
            self._refuse(header, requested[0], source)

    def _in_memory(self, header: Header, content: Encoded) -> Callable[[str], Published]:
        """Return what writes and syncs a data set that is held in memory."""

        def publish(sha256: str) -> Published:
            return self._files.publish(
                content,
                sha256=sha256,
                sop_class_uid=header.sop_class_uid,
                sop_instance_uid=header.sop_instance_uid,
            )

        return publish

    def _keep(
        self, header: Header, sha256: str, source: Source, publish: Callable[[str], Published]
    ) -> Accepted:
        kept = Kept.DUPLICATE
        if not self._is_durable(header.sop_instance_uid, sha256):
            kept = self._store(header, publish(sha256), source)
        if kept is not Kept.DUPLICATE:
            self._on_change()
        return Accepted(
            kept=kept,
            sha256=sha256,
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
        )

    def _is_durable(self, sop_instance_uid: str, sha256: str) -> bool:
        """Return whether these bytes have a committed row: the only thing that proves it."""
        values = {"uid": sop_instance_uid, "sha256": sha256}
        return self._database.read(lambda c: _DURABLE.first(c, values)) is not None

    def _store(self, header: Header, published: Published, source: Source) -> Kept:
        now = self._clock.now()
        used = False
        try:
            kept, used = self._database.write(
                lambda c: insert_instance(c, now, header, published, source),
                sync=(published.path.parent,),
            )
        except CommitUncertain:
            used = True  # the row may appear after a restart; the next sweep decides
            raise
        finally:
            if not used:
                self._files.discard(published)
        return kept

    def _refuse(self, header: Header, sop_class_uid: str, source: Source) -> None:
        """Record and raise a mismatch between request and data set."""
        what = "SOP class" if header.sop_class_uid != sop_class_uid else "SOP Instance UID"
        now = self._clock.now()
        self._database.write(
            lambda c: record_event(
                c,
                now,
                "instance_refused",
                kind="instance",
                subject=header.sop_instance_uid,
                correlation=source.association_id,
                reason=f"the data set has another {what} than the request",
            )
        )
        raise InstanceMismatch(f"the data set has another {what} than the request")

    @contextmanager
    def _quarantining(
        self, data: Buffer, transfer_syntax_uid: str, source: Source
    ) -> Iterator[None]:
        """Keep bytes that could not be understood, then let the error go on with their name."""
        try:
            yield
        except CannotUnderstand as error:
            sha256 = Encoded(transfer_syntax_uid=transfer_syntax_uid, data=data).sha256()
            name = self._files.keep_in_quarantine(sha256, data)
            now = self._clock.now()
            reason = str(error)
            self._database.write(
                lambda c: insert_quarantined(
                    c, now, source, sha256=sha256, path=name, size=len(data), reason=reason
                )
            )
            kept = f"kept in quarantine as {name}" if name else "not kept: the quarantine is full"
            raise CannotUnderstand(reason, hint=f"{kept}; look at the sender's export") from error
