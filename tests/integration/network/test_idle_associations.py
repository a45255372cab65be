"""The thread of an association sleeps while nothing happens, and leaves nothing behind."""

import gc
import threading
import time
from pathlib import Path

from node.scu.association import Context
from tests.integration.network.support import (
    EXPLICIT,
    VERIFICATION,
    FakeDoor,
    associate,
    receiving,
)
from tests.node_kit import until


def descriptors() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_an_idle_association_takes_next_to_no_processor_time():
    """Polling, as the library does it, takes 5 % of a processor for each."""
    with receiving(FakeDoor()) as receiver:
        opened = [associate(receiver.port) for _ in range(4)]
        before = time.process_time()
        time.sleep(1.5)
        used = time.process_time() - before
        for association in opened:
            association.release()

    assert used < 0.12


def test_an_answer_waits_for_nothing():
    with receiving(FakeDoor()) as receiver:
        association = associate(receiver.port, Context(VERIFICATION, EXPLICIT))
        begun = time.monotonic()
        for _ in range(20):
            assert association.echo().status == 0
        seconds = time.monotonic() - begun
        association.release()

    assert seconds < 20 * 0.04


def test_hundreds_of_associations_leave_no_descriptor_and_no_thread():
    with receiving(FakeDoor()) as receiver:
        associate(receiver.port).release()
        until(lambda: receiver.associations == 0, what="the first association to end")
        until(lambda: not receiver._connections, what="its thread to end")
        files, threads = descriptors(), threading.active_count()
        for number in range(60):
            association = associate(receiver.port)
            association.release() if number % 2 else association.abort()
        until(lambda: threading.active_count() <= threads, what="threads to end")
        until(lambda: descriptors() <= files + 2, what="descriptors to be closed")


def test_an_association_that_ends_while_its_opening_is_recorded_does_not_stay_open():
    """Its row would say for ever that something may still come."""
    door = FakeDoor()
    opened = door.association_opened
    begun = threading.Event()

    def slowly(source) -> None:
        begun.set()
        time.sleep(0.5)
        opened(source)

    door.association_opened = slowly
    with receiving(door) as receiver:
        association = associate(receiver.port)
        begun.wait(5)
        association._connection.close()
        until(lambda: len(door.opened) == 1)
        until(lambda: len(door.ended) == 1)
