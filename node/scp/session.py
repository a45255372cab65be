"""The book of connections: from the first byte to the one line that tells what became of them.

An association is recorded at the intake when it opens and when it ends, because how it ended is
evidence for the completeness of a series. A database that is away delays these records and
loses none of them: an end that could not be recorded is tried again.
"""

import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from node.domain import Clock, Source
from node.errors import NodeError
from node.log import event
from node.scp.guards import ABORT, RELEASE_RQ, PduReader
from node.scp.settings import Door

_log = logging.getLogger(__name__)

Association: TypeAlias = Any
"""A `pynetdicom.association.Association`: a thread; the library is not typed."""

_ENDS: Final[Mapping[int | None, str]] = {RELEASE_RQ: "RELEASED", ABORT: "ABORTED"}
"""Last PDU that was read -> how the association ended, once the connection is closed."""


@dataclass(slots=True)
class Session:
    """One connection."""

    association_id: str
    """Correlation id: eight hex digits."""
    address: str
    opened_at: float
    """Monotonic seconds."""
    reader: PduReader
    source: Source | None = None
    """Known since the association was established."""
    contexts: Mapping[int, str] = field(default_factory=dict)
    """Presentation context id -> SOP class that it was accepted for."""
    recorded: bool = False
    """The intake knows that the association is open."""
    received: int = 0
    refused: int = 0
    bytes: int = 0
    """Of the data sets that were received."""
    answered_since_stop: int = 0
    aborted_by_us: bool = False
    end: str = ""


class Sessions:
    """All connections that are open, and the ends that wait for the database."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._open: dict[Association, Session] = {}
        self._unrecorded_ends: list[Session] = []
        self._lock = threading.Lock()

    def begin(self, association: Association, address: str, reader: PduReader) -> Session:
        """Enter a connection that was just accepted."""
        session = Session(
            association_id=secrets.token_hex(4),
            address=address,
            opened_at=self._clock.monotonic(),
            reader=reader,
        )
        with self._lock:
            self._open[association] = session
        return session

    def of(self, association: Association) -> Session:
        """Return the session of an association that has not ended."""
        with self._lock:
            return self._open[association]

    def find(self, association: Association) -> Session | None:
        """Return the session of an association, None when it has ended."""
        with self._lock:
            return self._open.get(association)

    def open_associations(self) -> list[Association]:
        """Return every connection that has not ended."""
        with self._lock:
            return list(self._open)

    @property
    def established(self) -> int:
        """Number of established associations."""
        with self._lock:
            return sum(1 for session in self._open.values() if session.source is not None)

    def record_opening(self, session: Session) -> Source:
        """Record that the association is open, once; return its source.

        Raises
        ------
        LedgerError
            The database refused; the next call tries again.
        """
        if session.source is None:
            raise RuntimeError("a message came before the association was established")
        if not session.recorded:
            self._door.association_opened(session.source)
            with self._lock:
                session.recorded = True
                ended = bool(session.end)
            if ended:  # while this was being written: nobody else records the end
                self._record_ends([session])
        return session.source

    def end(self, association: Association, end: str = "") -> Session | None:
        """Close the book on a connection; None when that was done before.

        Parameters
        ----------
        association : Association
        end : str
            RELEASED, ABORTED or LOST; without it the last PDU decides.
        """
        with self._lock:
            session = self._open.pop(association, None)
            if session is None:
                return None
            last = ABORT if session.aborted_by_us else session.reader.last_type
            session.end = end or _ENDS.get(last, "LOST")
            recorded = session.recorded
        self._tell(session)
        if recorded:
            self._record_ends([session])
        return session

    def sweep(self) -> list[Session]:
        """End connections whose thread died without a word, and record ends that waited."""
        dead = [a for a in self.open_associations() if a.ident is not None and not a.is_alive()]
        ended = []
        for association in dead:
            session = self.end(association, "LOST")
            if session is not None:
                association.dul.kill_dul()
                session.reader.cut()
                ended.append(session)
        with self._lock:
            waiting, self._unrecorded_ends = self._unrecorded_ends, []
        self._record_ends(waiting)
        return ended

    def _tell(self, session: Session) -> None:
        if session.source is None:
            return  # never became an association; its refusal has been logged
        event(
            _log,
            "association_ended",
            assoc=session.association_id,
            calling=session.source.calling_ae_title,
            called=session.source.called_ae_title,
            address=session.address,
            received=session.received,
            refused=session.refused,
            bytes=session.bytes,
            seconds=round(self._clock.monotonic() - session.opened_at, 3),
            end=session.end,
        )

    def _record_ends(self, sessions: list[Session]) -> None:
        for session in sessions:
            try:
                self._door.association_ended(
                    session.association_id,
                    end=session.end,
                    received=session.received,
                    refused=session.refused,
                )
            except NodeError:
                with self._lock:
                    self._unrecorded_ends.append(session)
