"""The slots of a node, started and stopped together."""

import threading
from pathlib import Path

from node.domain import Clock
from node.engine.bell import Bell
from node.engine.options import EngineOptions
from node.engine.slot import Slot
from node.store.ledger import Ledger


class Engine:
    """Runs the jobs of a ledger until it is stopped.

    Parameters
    ----------
    ledger
        Jobs are claimed from it and finished in it.
    work_dir
        Each attempt gets a folder of its own below.
    options
        Limits and times.
    clock
        For waiting and for the time of the next attempt.
    """

    def __init__(
        self, ledger: Ledger, work_dir: Path, options: EngineOptions, clock: Clock
    ) -> None:
        self._work_dir = work_dir
        self._bell = Bell()
        self._threads = [
            threading.Thread(
                target=Slot(f"slot-{number}", ledger, work_dir, options, clock, self._bell).serve,
                name=f"engine-{number}",
            )
            for number in range(options.slots)
        ]

    def start(self) -> None:
        """Start the slots and their children."""
        self._work_dir.mkdir(mode=0o750, exist_ok=True)
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Tell the slots that there may be a job."""
        self._bell.ring()

    def stop(self) -> None:
        """Let running jobs end within the drain time, give the others back, end the children."""
        self._bell.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def alive(self) -> bool:
        """Return whether every slot still serves."""
        return all(thread.is_alive() for thread in self._threads)
