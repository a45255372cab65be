"""One node owns a data folder; the file that says so also says how the last one ended."""

import fcntl
import os
from pathlib import Path
from typing import Final

from node.errors import LedgerError, OutOfResources

_RUNNING: Final = b"running\n"
_CLOSED: Final = b"closed\n"


class FolderLock:
    """An exclusive lock; the system frees it when the process dies, whatever it dies of.

    Its content tells a start whether the last node closed its database in order. Only then may
    the write-ahead log be missing: otherwise it holds what was acknowledged last.

    Raises
    ------
    OutOfResources
        The folder cannot be written to.
    LedgerError
        Another node has the lock.
    """

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / "lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise OutOfResources(f"cannot write to the data folder: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1
            raise LedgerError(
                "another node uses this data folder", hint="stop it first, or set node.data_dir"
            ) from None
        self.died = os.pread(self._descriptor, len(_RUNNING), 0) == _RUNNING
        """Whether the last owner ended without closing its database."""

    def running(self) -> None:
        """Say durably that a database is open: its write-ahead log must not be lost now."""
        self._write(_RUNNING)

    def closing(self) -> None:
        """Say that the database is being closed in order, which removes the log."""
        self._write(_CLOSED)

    def release(self) -> None:
        """Give the folder back; safe to call again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, text: bytes) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)
            os.fsync(self._descriptor)
        except OSError as error:
            raise OutOfResources(f"cannot write to the data folder: {error.strerror}") from error
