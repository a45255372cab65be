"""One warm worker process: started, asked, listened to, killed.

The child leads its own process group, so that a kill takes what it may have started with it, and
it asks the kernel to be killed when the thread that started it ends: start it only from a thread
that lives as long as it may. What it prints on standard error is logged: its own JSON lines,
which passed the redactor of `node.log` there, and the frames of a crash; other output comes from
native libraries that may print values, and is only counted.
"""

import contextlib
import json
import logging
import os
import re
import select
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypeAlias, cast

from node.log import event
from pipelines.api import Json

Line: TypeAlias = dict[str, Json]
"""One line of the child protocol."""

_log = logging.getLogger(__name__)

_TAIL: Final = 12
"""Lines of standard error that are kept for the note of an attempt."""
_CRASH: Final = re.compile(
    r'(Fatal Python error: [\w ]+|Current thread .*|  File "[^"]+", line \d+ in .*)'
)
"""What faulthandler prints: frames, no values."""
_LARGEST_ANSWER: Final = 64 << 20
"""Bytes of an answer line; figures and findings are kilobytes."""
_ENVELOPE: Final = frozenset({"time", "level", "event", "logger", "traceback"})


class ChildDied(Exception):
    """The worker process ended, or said something that is not the protocol."""


class Child:
    """A running worker process.

    Parameters
    ----------
    command
        What to run; process id of the node and `preload` are appended.
    preload
        Pipelines whose libraries it loads before it says that it is ready.
    threads
        Threads that numeric libraries may use.
    monotonic
        The clock that limits waiting.
    """

    def __init__(
        self,
        command: Sequence[str],
        preload: Sequence[str],
        threads: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._clock = monotonic
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads))  # fmt: skip
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [*command, str(os.getpid()), *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **limits, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": _search_path()},
        )
        self._buffer = bytearray()
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._listener = threading.Thread(
            target=self._listen, name=f"worker-{self.pid}-log", daemon=True
        )
        self._listener.start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def send(self, line: Mapping[str, Json], timeout_s: float = 30.0) -> None:
        """Hand over a job.

        Parameters
        ----------
        timeout_s
            For the whole line: that of a large job does not fit the pipe.

        Raises
        ------
        ChildDied
            If nobody reads.
        """
        pipe = cast("IO[bytes]", self._process.stdin)
        rest = memoryview(json.dumps(line).encode() + b"\n")
        end = self._clock() + timeout_s
        try:
            while rest:
                _, ready, _ = select.select([], [pipe], [], max(0.0, end - self._clock()))
                if not ready:
                    raise ChildDied("the worker process does not take the job")
                # a ready pipe takes this much without blocking (pipe(7))
                rest = rest[os.write(pipe.fileno(), rest[: select.PIPE_BUF]) :]
        except OSError:
            raise ChildDied(self.farewell()) from None

    def receive(self, timeout_s: float) -> Line | None:
        """Return the next line of the child, or None when there is none within `timeout_s`.

        Raises
        ------
        ChildDied
            If it ended, or the line is not the protocol.
        """
        pipe = cast("IO[bytes]", self._process.stdout)
        end = self._clock() + max(0.0, timeout_s)
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - self._clock()))
            if not ready:
                return None
            chunk = os.read(pipe.fileno(), 1 << 16)
            if not chunk:
                raise ChildDied(self.farewell())
            self._buffer += chunk
            if len(self._buffer) > _LARGEST_ANSWER:
                raise ChildDied("the worker answered without end")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise ChildDied("the worker broke the protocol") from None
        if not isinstance(answer, dict):
            raise ChildDied("the worker broke the protocol")
        return answer

    def kill(self) -> None:
        """End the child and whatever it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(timeout=2.0)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()

    def farewell(self) -> str:
        """Return how the child ended, in words."""
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the worker process closed its pipe"
        if code < 0:
            return f"the worker process was killed by {signal.Signals(-code).name}"
        return f"the worker process ended with code {code}"

    def tail(self) -> str:
        """Return the last lines it said that may be stored."""
        return "\n".join(self._tail)

    def _listen(self) -> None:
        """Log what the child prints on standard error, until it ends."""
        withheld = 0
        with cast("IO[bytes]", self._process.stderr) as pipe:
            for raw in pipe:
                text = raw.decode("utf-8", "replace").rstrip("\n")
                if not (self._relay(text) or self._keep_crash(text)):
                    withheld += len(raw)
        if withheld:
            event(_log, "worker_output_withheld", worker=self.pid, bytes=withheld)

    def _relay(self, text: str) -> bool:
        """Log a JSON line of the child's own log again; False when it is none."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(said, dict) or not isinstance(said.get("event"), str):
            return False
        fields = {k: v for k, v in said.items() if k not in _ENVELOPE}
        traceback = said.get("traceback") or []
        if traceback:
            fields["traceback"] = " | ".join(map(str, traceback))
        level = logging.getLevelNamesMapping().get(str(said.get("level")), logging.INFO)
        event(_log, said["event"], level=level, worker=self.pid, **fields)
        if level >= logging.WARNING:
            self._tail.append(" ".join([said["event"], *map(str, traceback)]))
        return True

    def _keep_crash(self, text: str) -> bool:
        if not _CRASH.fullmatch(text):
            return False
        self._tail.append(text)
        event(_log, "worker_crashed", level=logging.WARNING, worker=self.pid, frame=text)
        return True


def _search_path() -> str:
    """Return the module path of the child: it must run the very code that this process runs."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
