"""Answers on their way into the ledger: all of them, in order, and none silently lost."""

import threading

import pytest

from node.domain import SentDelivery
from node.errors import LedgerError
from node.scu.recording import Recording


def answer(number: int) -> SentDelivery:
    return SentDelivery(delivery_id=number, status=0)


def test_every_answer_is_written_once_and_in_order() -> None:
    written: list[int] = []
    recording = Recording(lambda sent: written.extend(one.delivery_id for one in sent), "record")
    for number in range(500):
        recording.add(answer(number))
    recording.finish()

    assert written == list(range(500))


def test_a_batch_without_answers_needs_no_thread() -> None:
    before = threading.active_count()
    recording = Recording(lambda _: pytest.fail("nothing is to be written"), "record")
    recording.finish()

    assert threading.active_count() == before


def test_what_kept_an_answer_from_the_ledger_is_raised_at_the_end() -> None:
    def refuse(_) -> None:
        raise LedgerError("away")

    recording = Recording(refuse, "record")
    recording.add(answer(1))
    with pytest.raises(LedgerError, match="away"):
        recording.finish()
    assert not [t for t in threading.enumerate() if t.name == "record"]
