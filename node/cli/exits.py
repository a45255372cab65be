"""Exit codes of every command, the same everywhere."""

from enum import IntEnum


class Exit(IntEnum):
    """What a script may rely on."""

    DONE = 0
    """What was asked for is done."""
    FAILED = 1
    """It was tried and failed, or there is no result; the message says why."""
    USAGE = 2
    """The command line or the configuration is wrong; nothing was tried."""
    UNREACHABLE = 3
    """The node does not run, or the peer does not answer."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""
