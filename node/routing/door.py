"""The intake, watched for what is sent again: a repeat proves that a sender took up a broken send.

An object that is here already adds no row to the ledger, so a complete re-send after a broken
association would leave no trace. This door remembers it, and has it recorded with the end of the
association, so that a restart knows it too.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from node.domain import Accepted, Clock, Kept, Source, Uid
from node.store.intake import Arrival, Intake

RELEASED = "RELEASED"
_MOST: Final = 4096
"""Series that are remembered: only those that are RECEIVING are ever asked about."""


class WatchedArrival:
    """An object on its way in; tells what became of it."""

    def __init__(self, arrival: Arrival, tell: Callable[[Accepted], None]) -> None:
        self._arrival = arrival
        self._tell = tell
        self.write = arrival.write
        self.discard = arrival.discard

    def accept(self) -> Accepted:
        """Return when the object is durable; raise a `NodeError` when it is not."""
        accepted = self._arrival.accept()
        self._tell(accepted)
        return accepted


class Door:
    """Passes everything on to the intake, and knows which series were sent again as a whole.

    Parameters
    ----------
    intake
        Makes objects durable.
    clock
        For the time at which an association began.
    resent
        What the ledger knows of earlier repeats.
    """

    def __init__(
        self, intake: Intake, clock: Clock, resent: Mapping[Uid, datetime] | None = None
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, datetime] = {}
        self._repeated: dict[str, set[Uid]] = defaultdict(set)
        self._resent: dict[Uid, datetime] = dict(resent or {})

    def resent_at(self, series_instance_uid: str) -> datetime | None:
        """Return when the last sound association began that repeated objects of a series."""
        with self._lock:
            return self._resent.get(Uid(series_instance_uid))

    def receive(
        self,
        *,
        transfer_syntax_uid: Uid,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        source: Source,
    ) -> "WatchedArrival":
        """Begin to take in the object that a C-STORE request names."""
        arrival = self._intake.receive(
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            source=source,
        )
        return WatchedArrival(arrival, lambda accepted: self._note(accepted, source))

    def accept_file(self, path: Path, source: Source) -> Accepted:
        """Return when the file is durable; raise a `NodeError` when it is not."""
        accepted = self._intake.accept_file(path, source)
        self._note(accepted, source)
        return accepted

    def association_opened(self, source: Source) -> None:
        """Record that an association can deliver from now on."""
        with self._lock:
            self._open[source.association_id] = self._clock.now()
        self._intake.association_opened(source)

    def association_ended(
        self, association_id: str, *, end: str, received: int, refused: int
    ) -> None:
        """Record how an association ended: RELEASED, ABORTED or LOST."""
        with self._lock:
            opened = self._open.pop(association_id, None)
            repeated = self._repeated.pop(association_id, set())
            if end != RELEASED or refused:
                repeated = set()
            if opened is not None:
                for series in repeated:
                    self._resent.pop(series, None)  # the newest stand at the end
                    self._resent[series] = opened
                while len(self._resent) > _MOST:
                    del self._resent[next(iter(self._resent))]
        self._intake.association_ended(
            association_id, end=end, received=received, refused=refused, repeated=repeated
        )

    def _note(self, accepted: Accepted, source: Source) -> None:
        if accepted.kept is Kept.DUPLICATE:
            with self._lock:
                self._repeated[source.association_id].add(accepted.series_instance_uid)
