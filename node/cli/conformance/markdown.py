"""Markdown: tables with cells that cannot break them, and a list of contents."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_ANCHOR: Final = re.compile(r"[^\w\- ]")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a cell's line breaks and bars are escaped."""
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def contents(text: str, *, levels: tuple[int, int]) -> str:
    """Return a linked list of the headings of `text` between two levels, code blocks left out."""
    bare = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(r"^(#+) (.+)$", bare, re.MULTILINE)
    return "".join(
        f"{'  ' * (len(marks) - levels[0])}- [{title}](#{anchor(title)})\n"
        for marks, title in found
        if levels[0] <= len(marks) <= levels[1]
    )


def anchor(title: str) -> str:
    """Return the fragment that Git hosts give a heading."""
    return _ANCHOR.sub("", title.lower()).replace(" ", "-")


def _cell(value: object) -> str:
    return str(value).replace("|", r"\|").replace("\n", " ").strip() or "-"
