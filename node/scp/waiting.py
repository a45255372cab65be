"""Waiting instead of polling, for the two threads that pynetdicom runs for each association.

Both look a thousand times a second whether there is anything to do, which costs 5 % of a processor
for an association that is idle, and the time of others while an object is being synced. Here they
sleep until a byte, a message or an answer is there, and look by themselves a few times a second
for what has no signal: timers, and the order to end.
"""

import contextlib
import os
import select
from queue import Queue
from typing import Any, Final

_LOOK_S: Final = 0.05
"""Longest sleep; a release or an abort is noticed this late at worst."""
_CLOSING: Final = "Sta13"
"""Waiting for the connection to close (PS3.8 table 9-10): looked after without a pause."""


class _Doorbell:
    """A descriptor that is readable after a ring; it closes with the last who holds it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def __del__(self) -> None:
        os.close(self.descriptor)


def sleep_until_needed(dul: Any) -> None:  # noqa: ANN401 - pynetdicom is not typed
    """Let the thread of a `pynetdicom.dul.DULServiceProvider` sleep while it has nothing to do.

    Call it before the thread starts. Its loop asks first for something to send; that question now
    waits until there is something to send or to receive.
    """
    bell = _Doorbell()
    something_to_send, send = dul._process_recv_primitive, dul.send_pdu

    def ask() -> bool:
        if something_to_send():
            return True
        if dul.state_machine.current_state == _CLOSING or not dul.event_queue.empty():
            return False
        _wait_for_bytes(dul.socket, bell)
        return bool(something_to_send())

    def send_and_ring(primitive: object) -> None:
        send(primitive)
        bell.ring()

    dul._process_recv_primitive = ask
    dul.send_pdu = send_and_ring


def wait_for_message(messages: Queue[object]) -> None:
    """Return when a message is there, or after a moment."""
    with messages.not_empty:
        if not messages.queue:
            messages.not_empty.wait(_LOOK_S)


def _wait_for_bytes(connection: Any, bell: _Doorbell) -> None:  # noqa: ANN401 - as above
    raw = getattr(connection, "socket", None)
    if raw is None or raw.fileno() < 0:
        return
    poll = select.poll()
    poll.register(raw, select.POLLIN)
    poll.register(bell.descriptor, select.POLLIN)
    poll.poll(_LOOK_S * 1000)
    bell.silence()
