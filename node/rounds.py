"""A thread that works in rounds and rests between them, until it is told to stop.

Deliveries, storage commitment, retrievals, housekeeping and messages to people all live like
this. A round that fails is told once and tried again; nothing but `stop` ends the thread.
"""

import logging
import threading
from abc import ABC, abstractmethod

from node.errors import LedgerError
from node.log import event

_log = logging.getLogger(__name__)


class Rounds(ABC):
    """The life of such a thread; a subclass says what one round does.

    Parameters
    ----------
    name
        Of the thread, for the log.
    failure_pause_s
        Rest after a round that failed. [s]
    least_pause_s
        Rest that `wake` does not cut short, so that what follows quickly is one round. [s]
    """

    def __init__(self, name: str, *, failure_pause_s: float, least_pause_s: float = 0.0) -> None:
        self._failure_pause_s = failure_pause_s
        self._least_pause_s = least_pause_s
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def run_once(self) -> float:
        """Do one round; return the seconds until there may be more to do."""

    def ended(self) -> None:  # noqa: B027 - most have nothing to put away
        """Put away what the rounds used; called by the thread as its last act."""

    def start(self) -> None:
        """Begin with a round at once."""
        self._thread.start()

    def wake(self) -> None:
        """Begin the next round now: there is news."""
        self._woken.set()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish what cannot be left half-done, and end.

        A thread that waits for a peer longer than `timeout_s` is left behind; what it had claimed
        is given back at the next start.
        """
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def alive(self) -> bool:
        """Return whether the thread runs; for the watchdog."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                pause = self.run_once()
            except LedgerError:  # the store has told why
                pause = self._failure_pause_s
            except Exception as error:  # noqa: BLE001 - the edge of a thread that must not end
                event(
                    _log,
                    "round_failed",
                    level=logging.ERROR,
                    error=error,
                    thread=self._thread.name,
                )
                pause = self._failure_pause_s
            if pause > 0:
                self._woken.wait(pause)
                self._stopping.wait(self._least_pause_s)
        self.ended()
