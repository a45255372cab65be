"""What the demo shows on a terminal: steps, one moving line, tables."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 110


class Screen:
    """Prints; the moving line only where somebody looks at a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._moving = sys.stdout.isatty()
        self._open = False

    def say(self, text: str) -> None:
        """Print a line."""
        self._end()
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def tick(self, step: str, text: str) -> None:
        """Replace the moving line."""
        if self._moving:
            line = f"[{time.monotonic() - self._began:6.1f} s] {step}: {text}"[:WIDTH]
            print(f"\r{line:<{WIDTH}}", end="", flush=True)
            self._open = True

    def done(self, text: str) -> None:
        """End the moving line with a lasting one."""
        if self._open:
            print(f"\r{'':<{WIDTH}}\r", end="")
            self._open = False
        self.say(text)

    def show(self, lines: Iterable[str]) -> None:
        """Print a block."""
        self._end()
        for line in lines:
            print(f"  {line}")
        print(flush=True)

    def _end(self) -> None:
        if self._open:
            print()
            self._open = False


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return aligned lines."""
    cells = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return lines
