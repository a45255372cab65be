"""C-STORE: a stream into the intake, and the one place that writes success.

0x0000 is answered after `Arrival.accept` has returned and in no other case. Every error becomes
a failure status by the table of `node.scp.status`; the association lives on.
"""

import logging
from collections.abc import Callable
from typing import Final

from node.domain import Arrival, Door, Uid
from node.errors import NodeError
from node.log import bound, event
from node.scp.commands import AFFECTED_SOP_CLASS, AFFECTED_SOP_INSTANCE, Command
from node.scp.contexts import STORAGE_CLASSES
from node.scp.negotiation import Context
from node.scp.services import Answered, Exchange, Reply
from node.scp.session import Session, Sessions
from node.scp.status import CANNOT_UNDERSTAND, SOP_CLASS_NOT_SUPPORTED, SUCCESS, answer

_log = logging.getLogger(__name__)

_MOST_OF_UID: Final = 80
"""Characters of a UID that go to the log: a hostile one may be as long as a command set."""


def begin_store(
    door: Door, sessions: Sessions, session: Session, context: Context, command: Command
) -> Exchange:
    """Return the exchange that a C-STORE request begins."""
    sop_class = command.uid(AFFECTED_SOP_CLASS)
    sop_instance = command.uid(AFFECTED_SOP_INSTANCE)
    if not sop_class or not sop_instance or not command.has_data_set:
        return Answered(Reply(status=CANNOT_UNDERSTAND))
    if sop_class != context.abstract_syntax or sop_class not in STORAGE_CLASSES:
        return Answered(Reply(status=SOP_CLASS_NOT_SUPPORTED))

    def open_arrival() -> Arrival:
        sessions.record_opening(session)
        return door.receive(
            transfer_syntax_uid=context.transfer_syntax,
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            source=session.source,
        )

    return Storing(session, sop_instance, open_arrival)


class Storing:
    """An object on its way into the intake; an error is kept until its sender can be answered."""

    def __init__(
        self, session: Session, sop_instance_uid: Uid, open_arrival: Callable[[], Arrival]
    ) -> None:
        self._session = session
        self._sop_instance_uid = sop_instance_uid
        self._arrival: Arrival | None = None
        self._error: Exception | None = None
        self._bytes = 0
        try:
            self._arrival = open_arrival()
        except Exception as error:  # noqa: BLE001 - the edge: it becomes a failure status
            self._fail(error)

    def write(self, fragment: memoryview) -> None:
        """Hand the bytes on; after an error they are drained."""
        self._bytes += len(fragment)
        if self._arrival is not None:
            try:
                self._arrival.write(fragment)
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(error)

    def finish(self) -> Reply:
        """Return success when the object is durable, and what went wrong when it is not."""
        if not self._bytes and self._error is None:
            self.discard()
            return Reply(status=CANNOT_UNDERSTAND)
        if self._arrival is not None:
            try:
                with bound(assoc=self._session.source.association_id):
                    self._arrival.accept()
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(error)
        if self._error is not None:
            return self._failure(self._error)
        self._session.received += 1
        self._session.bytes += self._bytes
        return Reply(status=SUCCESS)

    def discard(self) -> None:
        """Forget the object."""
        if self._arrival is not None:
            self._arrival.discard()
            self._arrival = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.discard()

    def _failure(self, error: Exception) -> Reply:
        reply = answer(error)
        expected = isinstance(error, NodeError)
        event(
            _log,
            "store_refused",
            level=logging.WARNING if expected else logging.ERROR,
            error=None if expected else error,
            assoc=self._session.source.association_id,
            sop=self._sop_instance_uid[:_MOST_OF_UID],
            status=f"0x{reply.status:04X}",
            kind=type(error).__name__,
            # the text of an unexpected error may quote the data set: its traceback says enough
            reason=str(error) if expected else reply.comment,
        )
        return Reply(status=reply.status, comment=reply.comment)
