"""A bell that several threads can wait for without missing a ring."""

import threading


class Bell:
    """Rung by whoever has news; every waiter sees each ring once, or the end."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Return whether waiting is over for good."""
        return self._closed

    @property
    def rings(self) -> int:
        """Return how often it rang; hand it to `wait` to see any later ring."""
        return self._rings

    def ring(self) -> None:
        """Wake every waiter."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Wake every waiter for the last time."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def wait(self, seconds: float, *, since: int) -> None:
        """Return when it rang after `since`, was closed, or `seconds` are over."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._rings != since, seconds)

    def pause(self, seconds: float) -> None:
        """Return when `seconds` are over or it was closed; rings do not shorten it."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed, seconds)
