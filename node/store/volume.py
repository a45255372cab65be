"""How full the data volume is, judged in one way for the receiver, the commands and the pages."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from node.config.model import StorageSection

GIGABYTE: Final = 1_000_000_000


class DiskState(StrEnum):
    """What the data volume allows."""

    OK = "OK"
    LOW = "LOW"
    """Below the warning level: everything goes on, somebody should look."""
    FULL = "FULL"
    """Below the floor, or the last write failed: objects are refused with 0xA700."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The data volume as `status` shows it."""

    free_bytes: int
    """What an unprivileged user may still write."""
    total_bytes: int = 0
    state: DiskState
    trouble: str = ""
    """Cause of the last failed write; empty since the last one that worked."""


def judge(free_bytes: int, *, min_free: int, warn_free: int) -> DiskState:
    """Return the state of a volume with so much free; all in bytes."""
    if free_bytes < min_free:
        return DiskState.FULL
    return DiskState.LOW if free_bytes < warn_free else DiskState.OK


def volume_of(folder: Path, limits: StorageSection) -> Disk:
    """Look at the volume of `folder`; what cannot be looked at is FULL, as for the receiver."""
    try:
        figures = os.statvfs(folder)
    except OSError as error:
        return Disk(free_bytes=0, state=DiskState.FULL, trouble=error.strerror or str(error))
    free = figures.f_bavail * figures.f_frsize
    state = judge(
        free,
        min_free=int(limits.min_free_gb * GIGABYTE),
        warn_free=int(limits.warn_free_gb * GIGABYTE),
    )
    return Disk(free_bytes=free, total_bytes=figures.f_blocks * figures.f_frsize, state=state)
