"""What a child says is read line by line, and logged only where it cannot name a patient."""

import logging
import sys
import time

import pytest

from node.config.model import Limits
from node.engine.child import Child, ChildDied
from node.engine.options import EngineOptions


def child(code: str) -> Child:
    return Child((sys.executable, "-c", code), ("autocontour",), 1, time.monotonic)


def listen(one: Child) -> None:
    """Read until the child is gone or breaks the protocol."""
    while True:
        one.receive(1.0)


def test_lines_are_read_one_by_one_and_silence_is_no_answer() -> None:
    one = child("print('{\"ready\": true}', flush=True); input(); print('{\"job\": 1}')")
    try:
        assert one.receive(20.0) == {"ready": True}
        assert one.receive(0.0) is None
        one.send({"job": 1})
        assert one.receive(20.0) == {"job": 1}
    finally:
        one.kill()


def test_two_lines_in_one_go_are_two_answers() -> None:
    one = child('print(\'{"a": 1}\\n{"b": 2}\', flush=True); input()')
    try:
        assert [one.receive(20.0), one.receive(20.0)] == [{"a": 1}, {"b": 2}]
    finally:
        one.kill()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "ended with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("print('hello', flush=True); input()", "broke the protocol"),
        ("print('[1]', flush=True); input()", "broke the protocol"),
        ("print('[' * 100_000, flush=True); input()", "broke the protocol"),
    ],
)
def test_a_child_that_ends_or_babbles_is_told_from_one_that_works(code, words) -> None:
    one = child(code)
    try:
        with pytest.raises(ChildDied, match=words):
            listen(one)
    finally:
        one.kill()


def test_its_log_lines_are_passed_on_and_all_else_is_withheld(caplog) -> None:
    caplog.set_level(logging.INFO, logger="node")
    one = child(
        "import sys\n"
        'print(\'{"level": "WARNING", "event": "odd_slice", "slices": 3}\', file=sys.stderr)\n'
        "print('CANARY^NAME 19390404', file=sys.stderr)\n"
        "print('Fatal Python error: Segmentation fault', file=sys.stderr)\n"
    )
    with pytest.raises(ChildDied):
        listen(one)
    one.kill()

    said = {r.msg: r.fields for r in caplog.records}
    assert said["odd_slice"]["slices"] == 3
    assert said["worker_crashed"]["frame"] == "Fatal Python error: Segmentation fault"
    assert said["worker_output_withheld"]["bytes"] == len("CANARY^NAME 19390404\n")
    assert "CANARY" not in str(said)
    assert one.tail() == "odd_slice\nFatal Python error: Segmentation fault"


def test_libraries_of_a_child_are_told_how_many_threads_they_may_use() -> None:
    one = child("import os, json; print(json.dumps({'n': os.environ['OMP_NUM_THREADS']}))")
    try:
        assert one.receive(20.0) == {"n": "1"}
    finally:
        one.kill()


@pytest.mark.parametrize(("attempt", "pause"), [(1, 5), (2, 10), (3, 20), (10, 300)])
def test_pauses_double_up_to_the_longest(attempt, pause) -> None:
    assert EngineOptions(limits=lambda _: Limits()).pause_s(attempt) == pause


def test_a_child_that_does_not_read_cannot_hold_the_slot_for_ever() -> None:
    """The line of a large job does not fit the pipe; a stopped child never empties it."""
    one = child("import time; print('{\"ready\": true}', flush=True); time.sleep(60)")
    try:
        assert one.receive(20.0) == {"ready": True}
        begun = time.monotonic()
        with pytest.raises(ChildDied, match="does not take the job"):
            one.send({"inputs": "x" * 1_000_000}, timeout_s=0.3)
        assert time.monotonic() - begun < 10.0
    finally:
        one.kill()


def test_a_line_longer_than_the_pipe_arrives_whole() -> None:
    one = child("import json; print(json.dumps({'n': len(json.loads(input())['inputs'])}))")
    try:
        one.send({"inputs": "x" * 1_000_000}, timeout_s=20.0)
        assert one.receive(20.0) == {"n": 1_000_000}
    finally:
        one.kill()
