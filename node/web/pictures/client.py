"""The process that decodes images for the page, seen from the page: asked, limited, replaced.

Stored objects are other people's bytes, and decoders are where such bytes do harm. So the page
itself never opens one: a child does, with little memory, no file to write and a time limit. When
it dies or hangs, the next picture starts another.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from node.errors import NodeError
from node.web.pictures.subject import Subject
from pipelines.api import Json

COMMAND: Final = (sys.executable, "-m", "node.web.pictures.child")
_LARGEST_HEAD: Final = 4 << 20
"""Bytes of the JSON line in front of an answer."""
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                   "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")  # fmt: skip


class NoPicture(NodeError):
    """The objects cannot be shown."""

    status: ClassVar[int] = 422
    hint = "look at the findings of the job; the objects themselves are untouched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An answer of the child: facts, and bytes for the browser."""

    head: dict[str, Json]
    body: bytes


class Pictures:
    """One child, started when it is first needed; requests wait for each other.

    Parameters
    ----------
    memory_mb : int
        Its address space.
    timeout_s : float
        For one answer, the first one of a job includes reading its files. [s]
    monotonic : callable
        The clock that limits waiting.
    command : sequence of str
        What to run; tests hand in doubles.
    """

    def __init__(
        self,
        *,
        memory_mb: int,
        timeout_s: float,
        monotonic: Callable[[], float],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._memory_mb = memory_mb
        self._timeout_s = timeout_s
        self._clock = monotonic
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()

    def ask(self, subject: Subject, what: str, **arguments: Json) -> Picture:
        """Return a picture, or facts about one.

        Raises
        ------
        NoPicture
            The objects cannot be shown, with the reason; or the child died or took too long.
        """
        line: dict[str, Json] = {"what": what, "subject": subject.tree(), "arguments": arguments}
        if not self._lock.acquire(timeout=self._timeout_s):
            raise NoPicture("too many pictures are being made", hint="try again in a moment")
        try:
            return self._ask(json.dumps(line).encode() + b"\n")
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _ask(self, line: bytes) -> Picture:
        process = self._running()
        until = self._clock() + self._timeout_s
        try:
            self._send(process, line, until)
            head = json.loads(self._take_line(process, until))
            body = self._take(process, int(head.pop("bytes", 0)), until)
        except TimeoutError:
            self._end()
            raise NoPicture(f"no picture within {self._timeout_s:.0f} s") from None
        except (OSError, ValueError, EOFError, RecursionError):
            self._end()
            raise NoPicture(
                "the objects could not be decoded within the limits of web.viewer_memory_mb"
            ) from None
        if "refused" in head:
            raise NoPicture(str(head["refused"]))
        return Picture(head=head, body=body)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._buffer.clear()
            self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [*self._command, str(self._memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders print values of patients there
                start_new_session=True,
                bufsize=0,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    **dict.fromkeys(_THREADS, "1"),
                },
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _send(self, process: subprocess.Popen[bytes], line: bytes, until: float) -> None:
        rest = memoryview(line)
        descriptor = _descriptor(process.stdin)
        os.set_blocking(descriptor, False)
        while rest:
            self._wait([], [descriptor], until)
            rest = rest[os.write(descriptor, rest) :]

    def _take_line(self, process: subprocess.Popen[bytes], until: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LARGEST_HEAD:
                raise ValueError("the answer is too long")
            self._receive(process, until)
        return self._cut(end + 1)

    def _take(self, process: subprocess.Popen[bytes], count: int, until: float) -> bytes:
        while len(self._buffer) < count:
            self._receive(process, until)
        return self._cut(count)

    def _receive(self, process: subprocess.Popen[bytes], until: float) -> None:
        descriptor = _descriptor(process.stdout)
        self._wait([descriptor], [], until)
        part = os.read(descriptor, 1 << 20)
        if not part:
            raise EOFError
        self._buffer += part

    def _wait(self, reading: list[int], writing: list[int], until: float) -> None:
        left = until - self._clock()
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise TimeoutError

    def _cut(self, count: int) -> bytes:
        part = bytes(self._buffer[:count])
        del self._buffer[:count]
        return part


def _descriptor(pipe: object) -> int:
    fileno = getattr(pipe, "fileno", None)
    if fileno is None:
        raise EOFError
    return int(fileno())
