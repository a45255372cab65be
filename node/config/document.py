"""YAML 1.2 text to plain JSON values, with the line of every key and every problem at once.

The nodes are read before ruamel turns them into Python objects, because the written form tells
what the value does not: ``0104`` is a number in YAML 1.2 and another one in YAML 1.1, a bare
``2026-01-02`` is a date. Whatever two readers may read differently is refused with a reason.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

Location: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the root to a value: ``("routes", 0, "match")``."""

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_REFUSED: Final = (
    (TagToken, "a tag (!) is not allowed; quote the text"),
    (AnchorToken, "an anchor (&) is not allowed; write the value out or quote it"),
    (AliasToken, "an alias (*) is not allowed; write the value out or quote it"),
    (DirectiveToken, "a directive (%) is not allowed; this file is YAML 1.2"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where."""

    line: int
    """Counted from 1."""
    location: Location
    message: str

    def told(self, file: str) -> str:
        """Return ``file:line: path: message``."""
        path = ".".join(str(part) for part in self.location)
        return f"{file}:{self.line}: {path + ': ' if path else ''}{self.message}"


@dataclass(slots=True, kw_only=True)
class Document:
    """A configuration file as plain values, and where each one stands."""

    tree: JsonValue = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, location: Location) -> int:
        """Return the line of `location`, or of the nearest thing above it that is there."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return 1

    def value_at(self, location: Location) -> JsonValue:
        """Return the value at `location`; KeyError where there is none."""
        value = self.tree
        for part in location:
            try:
                value = value[part]  # type: ignore[index]  # tried, not asked
            except (TypeError, IndexError):
                raise KeyError(part) from None
        return value

    def report(self, location: Location, message: str) -> None:
        """Note a problem at `location`, unless one is noted there already."""
        if any(problem.location == location for problem in self.problems):
            return
        self.problems.append(
            Problem(line=self.line_of(location), location=location, message=message)
        )


def parse(text: str) -> Document:
    """Read `text`; what cannot be read is a problem of the document, never an exception."""
    document = Document()
    try:
        document.problems += _refused_tokens(text)
        root = None if document.problems else YAML().compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append(
            Problem(
                line=mark.line + 1 if mark else 1,
                location=(),
                message=f"not YAML: {error.problem or error.context}; quote texts that hold"
                " : # * & ! % @ ` or a backslash",
            )
        )
        return document
    except YAMLError as error:
        message = str(error).split("\n", 1)[0]
        document.problems.append(Problem(line=1, location=(), message=f"not YAML: {message}"))
        return document
    except RecursionError:
        message = "is nested too deeply to be a configuration"
        document.problems.append(Problem(line=1, location=(), message=message))
        return document
    if root is not None:
        document.tree = _value(root, (), document)
    elif not document.problems:
        document.tree = {}
    return document


def from_values(tree: JsonValue) -> Document:
    """Return a document of values that come from no file: all in line 1."""
    document = Document(tree=tree)
    pending: list[tuple[Location, JsonValue]] = [((), tree)]
    for location, value in pending:  # grows while it is walked
        document.lines[location] = 1
        if isinstance(value, dict):
            pending += [((*location, key), below) for key, below in value.items()]
        elif isinstance(value, list):
            pending += [((*location, i), below) for i, below in enumerate(value)]
    return document


def _refused_tokens(text: str) -> Iterator[Problem]:
    for token in YAML().scan(text):
        for kind, message in _REFUSED:
            if isinstance(token, kind):
                yield Problem(line=token.start_mark.line + 1, location=(), message=message)


def _value(node: Node, location: Location, document: Document) -> JsonValue:
    document.lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        return _mapping(node, location, document)
    if isinstance(node, SequenceNode):
        return [_value(item, (*location, i), document) for i, item in enumerate(node.value)]
    return _scalar(node, location, document)


def _mapping(node: MappingNode, location: Location, document: Document) -> JsonValue:
    mapping: dict[str, JsonValue] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
        below = (*location, key)
        if _kind(key_node) != "str":
            document.problems.append(
                Problem(line=line, location=below, message="a key is text; quote it")
            )
        elif key in mapping:
            first = document.lines[below]
            document.problems.append(
                Problem(line=line, location=below, message=f"given twice, first in line {first}")
            )
            continue
        document.lines[below] = line
        mapping[key] = _value(value_node, below, document)
    return mapping


def _scalar(node: ScalarNode, location: Location, document: Document) -> JsonValue:
    text = str(node.value)
    match _kind(node):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float" as kind:
            return _number(text, kind, location, document)
        case "timestamp":
            document.report(location, f'{text} is a date; quote it: "{text}"')
    return text


def _number(text: str, kind: str, location: Location, document: Document) -> JsonValue:
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "float" and _FLOAT.fullmatch(text):
        return float(text)
    decimal = re.fullmatch(r"0+(\d+)", text)
    instead = f"write {decimal[1]}" if decimal else "write it as a plain decimal number"
    document.report(
        location, f'{text} reads differently in YAML 1.1 and 1.2; {instead}, or quote it: "{text}"'
    )
    return text


def _kind(node: Node) -> str:
    return str(node.tag).rpartition(":")[2]
