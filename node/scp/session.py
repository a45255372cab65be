"""The book of associations: from the acceptance to the one line that tells what became of them.

An association is recorded at the intake when it opens and when it ends, because how it ended is
evidence for the completeness of a series. A database that is away delays these records and
loses none of them: an end that could not be recorded is tried again.
"""

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field

from node.domain import Clock, Door, Source, Uid
from node.errors import NodeError
from node.log import event

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Session:
    """One association, established; used by its own thread."""

    source: Source
    opened_at: float
    """Monotonic seconds."""
    recorded: bool = False
    """The intake knows that the association is open."""
    received: int = 0
    refused: int = 0
    """Objects that were not taken, nor later on this association."""
    bytes: int = 0
    """Of the data sets that were received."""
    end: str = field(default="", init=False)
    """RELEASED, ABORTED or LOST."""
    _lacking: set[int] = field(default_factory=set, init=False)
    """Hashes of the SOP Instance UIDs of what was refused: a hostile UID may be of any length."""

    def judged(self, sop_instance_uid: Uid, taken: bool) -> None:  # noqa: FBT001 - what it is
        """Note what became of an object; one that is taken at the second try is not lacking."""
        if taken:
            self._lacking.discard(hash(sop_instance_uid))
        else:
            self._lacking.add(hash(sop_instance_uid))
        self.refused = len(self._lacking)


class Sessions:
    """All associations that are open, and the ends that wait for the database."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._open: set[Session] = set()
        self._from: Counter[str] = Counter()
        self._unrecorded_ends: list[Session] = []
        self._lock = threading.Lock()

    @property
    def established(self) -> int:
        """Number of established associations."""
        with self._lock:
            return len(self._open)

    def begin(self, source: Source, *, in_total: int, per_address: int) -> Session | None:
        """Enter an association that is about to be accepted; None when a limit is reached."""
        with self._lock:
            if len(self._open) >= in_total or self._from[source.address] >= per_address:
                return None
            session = Session(source, self._clock.monotonic())
            self._open.add(session)
            self._from[source.address] += 1
        return session

    def record_opening(self, session: Session) -> None:
        """Record that the association is open, once.

        Raises
        ------
        NodeError
            The database refused; the next call tries again.
        """
        if not session.recorded:
            self._door.association_opened(session.source)
            session.recorded = True

    def end(self, session: Session, end: str) -> None:
        """Close the book on an association; harmless when that was done before.

        Parameters
        ----------
        session : Session
        end : str
            RELEASED, ABORTED or LOST.
        """
        with self._lock:
            if session not in self._open:
                return
            self._open.discard(session)
            address = session.source.address
            self._from[address] -= 1
            if self._from[address] <= 0:
                del self._from[address]
        session.end = end
        self._tell(session)
        if session.recorded:
            self._record_ends([session])

    def record_late_ends(self) -> None:
        """Try again to record the ends that the database refused; called every moment."""
        with self._lock:
            waiting, self._unrecorded_ends = self._unrecorded_ends, []
        self._record_ends(waiting)

    def _tell(self, session: Session) -> None:
        source = session.source
        event(
            _log,
            "association_ended",
            assoc=source.association_id,
            calling=source.calling_ae_title,
            called=source.called_ae_title,
            address=source.address,
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
                    session.source.association_id,
                    end=session.end,
                    received=session.received,
                    refused=session.refused,
                )
            except NodeError:
                with self._lock:
                    self._unrecorded_ends.append(session)
