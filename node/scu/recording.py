"""Answers of a peer, written down beside the sending: group commit for deliveries.

A commit takes longer than a fast peer takes for an object. So a thread of its own records what was
answered, and while it does, and for a moment after, the next answers gather for the following
commit. A peer that hangs keeps no answer back: each is durable a moment after it came.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from node.domain import SentDelivery

_REST_S: Final = 0.1
"""Between two commits: the answers of a fast peer share one, and a slow peer notices nothing."""


class Recording:
    """The answers of one batch, on their way into the ledger.

    Parameters
    ----------
    write : callable
        Returns when the answers are durable; called by one thread, never with none.
    name : str
        Of the thread.
    """

    def __init__(self, write: Callable[[Sequence[SentDelivery]], None], name: str) -> None:
        self._write = write
        self._answers: list[SentDelivery] = []
        self._news = threading.Condition()
        self._finished = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def add(self, answer: SentDelivery) -> None:
        """Hand over an answer; it is recorded as soon as the commit before it is done."""
        with self._news:
            self._answers.append(answer)
            self._news.notify()
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Return when every answer is durable; raise what kept one from it."""
        with self._news:
            self._finished = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while answers := self._next():
                self._write(answers)
                self._rest()
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`, in its thread
            self._failure = error

    def _next(self) -> list[SentDelivery]:
        """Wait for answers and take them all; none when the batch is over."""
        with self._news:
            while not (self._answers or self._finished):
                self._news.wait()
            answers, self._answers = self._answers, []
        return answers

    def _rest(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._finished, _REST_S)
