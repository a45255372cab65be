"""Regions as small expressions over ROIs and dose: ``Lungs - GTV``, ``(PTV + 20mm) - PTV``.

Grammar, loosest first; parentheses group::

    region := part (('|' | '-') part)*         union, subtraction
    part   := item ('&' item)*                 intersection
    item   := 'not' item | base (('+' | '-') number 'mm')*      margins, outwards and inwards
    base   := '(' region ')' | name | band
    name   := Lung_L | Lung-Left | 'any text' | "any text" | /regular expression/i
    band   := D>=20Gy | D<50% | 5Gy<=D<20Gy    % of the prescription

The minus of a subtraction needs spaces about it and a margin a space before its sign, because ROI
names may hold both. A margin is every place within a Euclidean distance of the region, or deeper
in it than that. What a region covers is computed by who asks: dose radiomics on covered fractions,
auto-contouring on depths below surfaces; there is no dose, so a band is refused there.
"""

import re
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias


class ExpressionError(ValueError):
    """An expression does not follow the grammar; the message says where."""


@dataclass(frozen=True, slots=True)
class Name:
    """ROIs by name or by pattern; several hits are united."""

    text: str
    pattern: bool = False

    @property
    def label(self) -> str:
        """Return the name as it is written in an expression."""
        return f"/{self.text}/i" if self.pattern else self.text


@dataclass(frozen=True, slots=True)
class Limit:
    """One side of a dose band."""

    value: float
    relative: bool
    """In percent of the prescription instead of Gy."""
    closed: bool
    """The value itself belongs to the band."""

    def gray(self, prescription: float | None) -> float:
        """Return the limit in Gy; needs a prescription where it is relative."""
        if not self.relative:
            return self.value
        if prescription is None:
            raise ExpressionError("a dose in % needs a prescription, and none is known")
        return self.value * prescription / 100


@dataclass(frozen=True, slots=True)
class Band:
    """Cells whose dose lies between two limits."""

    low: Limit | None
    high: Limit | None


@dataclass(frozen=True, slots=True)
class Either:
    """Union."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Not:
    """Complement; of use only beside something that has bounds."""

    inner: "Node"


@dataclass(frozen=True, slots=True)
class Margin:
    """A region grown (mm > 0) or shrunk (mm < 0) by a distance in all directions."""

    inner: "Node"
    mm: float


Node: TypeAlias = Name | Band | Either | Both | Not | Margin
Leaf: TypeAlias = Name | Margin
"""What has covered fractions of its own, whatever stands beside it."""

MAX_MARGIN_MM: Final = 100.0

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<band>(?:(?P<low>\d+(?:\.\d+)?)\s*(?P<lowunit>Gy|%)\s*(?P<lowop><=|<)\s*)?
        D(?:\s*(?P<op><=|>=|<|>)\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>Gy|%))?(?![\w.~^-]))
      | /(?P<regex>(?:[^/\\]|\\.)+)/i
      | '(?P<single>[^']+)' | "(?P<double>[^"]+)"
      | (?P<margin>(?P<sign>[+-])\s*(?P<mm>\d+(?:\.\d+)?)\s*mm(?!\w))
      | (?P<mark>[()|&+] | -(?=\s))
      | (?P<bare>[^\W\d_][\w.~^+]*(?:-[\w.~^+]+)*)
    )""",
    re.VERBOSE,
)


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises
    ------
    ExpressionError
        Where the text does not follow the grammar; the message shows the place.
    """
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> Node:
        node = self._region()
        if self.text[self.at :].strip():
            self._fail("expected |, &, - or the end")
        if bounded(node) is False:
            raise ExpressionError(f"'{self.text}' has no bounds: name an ROI that limits it")
        return node

    def _region(self) -> Node:
        node = self._part()
        while mark := self._mark("|-"):
            right = self._part()
            node = Either(node, right) if mark == "|" else Both(node, Not(right))
        return node

    def _part(self) -> Node:
        node = self._item()
        while self._mark("&"):
            node = Both(node, self._item())
        return node

    def _item(self) -> Node:
        token = _TOKEN.match(self.text, self.at)
        if token is not None and token["bare"] == "not":
            self.at = token.end()
            return Not(self._item())
        node = self._base(token)
        while (token := _TOKEN.match(self.text, self.at)) is not None and token["margin"]:
            node = self._margin(node, token)
        if token is not None and token["mark"] == "+":
            self._fail("a + needs a distance such as + 5mm; a union is written |")
        return node

    def _margin(self, inner: Node, token: re.Match[str]) -> Margin:
        mm = float(token["mm"])
        if not 0 < mm <= MAX_MARGIN_MM:
            self._fail(f"a margin lies between 0 and {MAX_MARGIN_MM:g} mm")
        if not bounded(inner):
            self._fail("a margin needs a region with bounds: name an ROI that limits it")
        self.at = token.end()
        return Margin(inner, mm if token["sign"] == "+" else -mm)

    def _base(self, token: re.Match[str] | None) -> Node:
        if token is None or token["margin"] or (token["mark"] and token["mark"] != "("):
            self._fail("expected an ROI name, a dose band or (")
        self.at = token.end()
        if token["mark"]:
            node = self._region()
            if not self._mark(")"):
                self._fail("a ( is not closed")
            return node
        if token["band"]:
            return self._band(token)
        if token["regex"]:
            return self._pattern(token["regex"])
        return Name(token["single"] or token["double"] or token["bare"])

    def _pattern(self, pattern: str) -> Name:
        try:
            re.compile(pattern)
        except re.error as error:
            self._fail(f"/{pattern}/i is no regular expression: {error}")
        return Name(pattern, pattern=True)

    def _band(self, token: re.Match[str]) -> Band:
        low = high = None
        if token["low"]:
            low = Limit(float(token["low"]), token["lowunit"] == "%", token["lowop"] == "<=")
        if token["op"]:
            limit = Limit(float(token["value"]), token["unit"] == "%", "=" in token["op"])
            if token["op"].startswith("<"):
                high = limit
            elif low is None:
                low = limit
            else:
                self._fail("a dose band has one lower and one upper limit")
        if low is None and high is None:
            self._fail("D needs a limit such as D>=20Gy; quote an ROI that is called D")
        return Band(low, high)

    def _mark(self, wanted: str) -> str:
        """Return and pass the next mark if it is one of `wanted`, else an empty text."""
        token = _TOKEN.match(self.text, self.at)
        if token is None or not token["mark"] or token["mark"] not in wanted:
            return ""
        self.at = token.end()
        return token["mark"]

    def _fail(self, reason: str) -> NoReturn:
        place = self.text[: self.at].rstrip() + " ▸" + self.text[self.at :]
        raise ExpressionError(f"{reason}, at ▸ in '{place.strip()}'")


def bounded(node: Node) -> bool:
    """Return whether the region ends somewhere by itself, whatever the dose is."""
    match node:
        case Name():
            return True
        case Both(left, right):
            return bounded(left) or bounded(right)
        case Either(left, right):
            return bounded(left) and bounded(right)
        case Margin(inner):
            return bounded(inner)
        case _:
            return False


def names(node: Node) -> tuple[Name, ...]:
    """Return the names in an expression from left to right."""
    match node:
        case Name():
            return (node,)
        case Both(left, right) | Either(left, right):
            return names(left) + names(right)
        case Not(inner) | Margin(inner):
            return names(inner)
        case _:
            return ()


def leaves(node: Node) -> tuple[Leaf, ...]:
    """Return the names and margins of an expression, each once; not what is inside a margin."""
    match node:
        case Name() | Margin():
            return (node,)
        case Both(left, right) | Either(left, right):
            return tuple(dict.fromkeys(leaves(left) + leaves(right)))
        case Not(inner):
            return leaves(inner)
        case _:
            return ()


def reach_mm(node: Node) -> float:
    """Return how far beyond its names a region, or a step on the way to it, may reach [mm]."""
    match node:
        case Margin(inner, mm):
            return reach_mm(inner) + max(mm, 0.0)
        case Both(left, right) | Either(left, right):
            return max(reach_mm(left), reach_mm(right))
        case Not(inner):
            return reach_mm(inner)
        case _:
            return 0.0


def uses_dose(node: Node) -> bool:
    """Return whether the region depends on the dose."""
    match node:
        case Band():
            return True
        case Both(left, right) | Either(left, right):
            return uses_dose(left) or uses_dose(right)
        case Not(inner) | Margin(inner):
            return uses_dose(inner)
        case _:
            return False
