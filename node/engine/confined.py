"""What a child process does to itself before it touches other people's bytes."""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that the kernel sends when the thread that started us ends."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the node dies, and check that it still lives.

    The signal comes when the *thread* that started us ends (prctl(2)); children are started from
    threads that live as long as they do.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def go_first() -> None:
    """Let the kernel take this process before the node when memory runs out; write no core.

    A core file would hold images and names.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def take_standard_output() -> TextIO:
    """Return what was standard output; descriptor 1 becomes standard error for everybody else."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


@contextlib.contextmanager
def address_space(memory_mb: object) -> Iterator[None]:
    """Limit the address space for a while; the hard limit stays, so that it can be undone.

    Parameters
    ----------
    memory_mb
        A number; anything else sets no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if isinstance(memory_mb, int):
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 1024 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
