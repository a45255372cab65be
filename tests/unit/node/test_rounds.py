"""A thread that works in rounds: it outlives what fails, rests, wakes and ends."""

import threading
from collections.abc import Callable

import pytest

from node.errors import LedgerError
from node.rounds import Rounds

TIMEOUT_S = 10.0


class Counted(Rounds):
    """Does what it is given, once a round, and tells when it did."""

    def __init__(self, *rounds: Callable[[], float]) -> None:
        super().__init__("counted", failure_pause_s=0.01)
        self.rounds = list(rounds)
        self.idle, self.put_away = threading.Event(), threading.Event()

    def run_once(self) -> float:
        if self.rounds:
            return self.rounds.pop(0)()
        self.idle.set()
        return TIMEOUT_S

    def ended(self) -> None:
        self.put_away.set()


def fail(error: Exception) -> Callable[[], float]:
    def run() -> float:
        raise error

    return run


def test_what_fails_is_told_once_and_the_next_round_comes(caplog: pytest.LogCaptureFixture) -> None:
    rounds = Counted(fail(LedgerError("locked")), fail(ValueError("odd")), lambda: 0.0)
    rounds.start()

    assert rounds.idle.wait(TIMEOUT_S)
    assert rounds.alive()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    rounds.stop()
    assert not rounds.alive()
    assert rounds.put_away.is_set()


def test_news_cuts_a_rest_short() -> None:
    rounds = Counted()
    rounds.start()
    assert rounds.idle.wait(TIMEOUT_S)
    rounds.idle.clear()

    rounds.wake()

    assert rounds.idle.wait(TIMEOUT_S / 2)
    rounds.stop()


def test_what_was_never_started_can_be_stopped() -> None:
    Counted().stop()
