"""Tables, and durations for people."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
"""Seconds of a unit, and its sign."""


def duration(seconds: float) -> str:
    """Return `seconds` in the largest unit that fits: ``3 min``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def at(when: datetime | None) -> str:
    """Return a time as ``2026-11-20 18:44:03Z``."""
    return "-" if when is None else when.strftime("%Y-%m-%d %H:%M:%SZ")


def tallied(counts: Mapping[str, int]) -> str:
    """Return counts by state as ``COMPLETED 34   HELD 1``."""
    return "   ".join(f"{state} {count}" for state, count in counts.items() if count) or "none"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return `rows` under `head` in aligned columns."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
