"""Coded terminology of created objects, from the list beside this module: ``objects/codes.txt``.

One line a code: value, scheme, what it is used for, meaning. A test collects the codes of created
objects and holds them against the list and the schemes whose codes follow a table of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.cli.conformance.markdown import table

_LIST: Final = Path(__file__).resolve().parent / "objects" / "codes.txt"

SCHEMES: Final = {
    "IBSI": "features: the four characters of the IBSI reference manual, one code a feature",
    "99RTNODE": "dose-volume points, named after TG-263 (`V20Gy[%]`)",
    "UCUM": "units of measured values",
}
"""Schemes whose codes are not listed one by one -> what they stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code that created objects use."""

    value: str
    scheme: str
    used: str
    meaning: str


def listed() -> Iterator[Code]:
    """Yield the codes of the list."""
    for line in _LIST.read_text(encoding="utf-8").splitlines():
        value, scheme, used, meaning = line.split(maxsplit=3)
        yield Code(value=value, scheme=scheme, used=used, meaning=meaning)


def codes() -> str:
    """Return the tables of annex C."""
    return (
        table(
            ("code", "scheme", "meaning", "used for"),
            [(c.value, c.scheme, c.meaning, c.used.replace("+", ", ")) for c in listed()],
        )
        + "\n"
        + table(("scheme", "codes"), list(SCHEMES.items()))
        + "\nA finding keeps the code that the structure set gives its ROI; organs are recognized"
        " by name where it gives none.\n"
    )
