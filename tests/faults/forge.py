"""Starts nodes that die where they are told: a process that has loaded everything and forks.

Reads one JSON line for each node: ``{"config": ..., "log": ..., "die_at": [...]}`` and answers
with its process id, then with its exit status when it is gone. ``die_at`` is
``[module, name, when, nth]``: SIGKILL before or after the nth call that did something. Nothing in
the product knows of this: the functions are replaced here, in the child.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from node.config.load import load
from node.log import configure
from node.service import run
from tests.node_kit import FAKE_WORKER


def die_at(module: str, name: str, when: str, nth: int) -> None:
    """Replace a function or method by one that kills this process at its nth effective call."""
    *path, attribute = name.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, attribute)
    calls = [0]

    def kill() -> None:
        calls[0] += 1
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def instead(*arguments, **named):
        if when == "before":
            kill()
        answer = real(*arguments, **named)
        if when == "after" and answer not in ([], False):
            kill()
        if when == "after, with an answer" and answer:
            kill()
        return answer

    setattr(owner, attribute, instead)


def serve(order: dict) -> int:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order.get("environment", {}))
    if order.get("die_at"):
        die_at(*order["die_at"])
    config = load(Path(order["config"]))
    configure(config.log.format.value, config.log.level.value, sys.stdout)
    return run(config, worker=FAKE_WORKER)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = serve(json.loads(line))
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
