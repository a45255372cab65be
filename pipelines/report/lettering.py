"""Text on paper: how wide it is, where a line breaks, and which letters the font has.

Matplotlib's own DejaVu Sans is used everywhere, so that a page is the same on every machine. It
covers Latin, Greek and Cyrillic; what it lacks (for instance Chinese and Japanese names of
structures) is shown as a square here and stands in full in the SR, the tables and the HTML page.
"""

from collections.abc import Iterator
from functools import cache
from typing import Final

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font, LoadFlags

FAMILY: Final = "DejaVu Sans"
MISSING: Final = "\u25a1"
"""Stands for a letter that the font does not have."""
_POINT_MM: Final = 25.4 / 72


def drawable(text: str) -> str:
    """Return `text` with every letter that the font lacks as a square, on one line."""
    return "".join(c if _glyph(c) else MISSING for c in " ".join(text.split()))


def width_mm(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width [mm] of `text` set in `size` [pt]."""
    return sum(_advance(c, bold=bold) for c in text) * size * _POINT_MM


def wrapped(text: str, size: float, width: float) -> Iterator[str]:
    """Yield the lines of `text` set in `size` [pt] that fit into `width` [mm]."""
    line = ""
    for word in drawable(text).split(" "):
        longer = f"{line} {word}" if line else word
        if line and width_mm(longer, size) > width:
            yield line
            line = word
        else:
            line = longer
        while width_mm(line, size) > width and len(line) > 1:
            fitting = fitted(line, size, width, mark="")
            yield fitting
            line = line[len(fitting) :]
    yield line


def fitted(text: str, size: float, width: float, *, mark: str = "…") -> str:
    """Return the longest beginning of `text` that fits into `width` [mm], marked where cut."""
    if width_mm(text, size) <= width:
        return text
    kept = len(text) - 1
    while kept > 1 and width_mm(text[:kept] + mark, size) > width:
        kept -= 1
    return text[:kept] + mark


@cache
def _glyph(letter: str) -> int:
    index: int = _font(bold=False).get_char_index(ord(letter))
    return index


@cache
def _advance(letter: str, *, bold: bool) -> float:
    """Return the width of a letter as a share of the font size."""
    font = _font(bold=bold)
    font.set_size(100, 72)
    glyph = font.load_char(ord(letter), flags=LoadFlags.NO_HINTING)
    advance: float = glyph.linearHoriAdvance / 65536 / 100
    return advance


def _font(*, bold: bool) -> FT2Font:
    weight = "bold" if bold else "normal"
    return get_font(findfont(FontProperties(family=FAMILY, weight=weight)))
