"""Does a series match a route or a recognition rule, and which condition decided.

A keyword condition must hold on every object of the series (scouts set aside), so that the answer
does not depend on the order of arrival. Reasons quote the configuration, never a value that a peer
sent: descriptions and comments may hold a patient's name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from node.config.match import (
    REGEX_VALUE_LENGTH,
    Condition,
    Contains,
    Equals,
    Exists,
    Kind,
    Match,
    OneOf,
    Operator,
    Range,
    Regex,
    Rule,
    Scalar,
)
from node.domain import Instance
from node.routing.facts import Origin

Value: TypeAlias = "str | float | int | list[str] | list[float] | None"
"""What `node.domain.Header.keywords` holds for a keyword."""
Judgement: TypeAlias = tuple[bool, str]
"""Whether it matches, and the sentence that says why or why not."""


def judge(match: Match, kind: Kind, origin: Origin, instances: Sequence[Instance]) -> Judgement:
    """Return whether a series matches `match`; the reason names the first condition that fails.

    Parameters
    ----------
    match
        What a route asks for; everything given must hold.
    kind
        What the series was recognized as.
    origin
        Who sent the series.
    instances
        Its objects, without scouts; at least one.
    """
    modalities = {i.header.modality for i in instances}
    asked: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
        ("modality", modalities <= set(match.modality), match.modality),
        ("kind", kind.value in match.kind, match.kind),
        (
            "calling AE title",
            origin.calling_ae_title in match.calling_ae_title,
            match.calling_ae_title,
        ),
        ("called AE title", origin.called_ae_title in match.called_ae_title, match.called_ae_title),
    )
    for name, holds, wanted in asked:
        if wanted and not holds:
            return False, f"the {name} is not {_listed(wanted)}"
    held, reason = _all_hold(match.keywords, instances)
    if not held:
        return False, reason
    found = [f"{name} is {_listed(wanted)}" for name, _, wanted in asked if wanted]
    found += [explain(keyword, condition) for keyword, condition in match.keywords.items()]
    return True, ", ".join(found)


def judge_rule(rule: Rule, instances: Sequence[Instance]) -> Judgement:
    """Return whether every object satisfies a recognition rule."""
    held, reason = _all_hold(rule.keywords, instances)
    return (True, f"rule '{rule.name}'") if held else (False, f"rule '{rule.name}': {reason}")


def holds(condition: Condition, value: Value) -> bool:
    """Return whether a DICOM value satisfies one operator; of several values one suffices."""
    return _OPERATORS[type(condition)](condition, _present(value))


def explain(keyword: str, condition: Condition) -> str:
    """Return the condition in words, e.g. ``SeriesDescription contains 'H&N'``."""
    match condition:
        case Equals(equals=wanted):
            return f"{keyword} is {wanted!r}"
        case OneOf(one_of=listed):
            return f"{keyword} is {_listed(listed)}"
        case Contains(contains=part):
            return f"{keyword} contains {part!r}"
        case Regex(regex=pattern):
            return f"{keyword} matches {pattern!r}"
        case Range(range=(low, high)):
            return f"{keyword} lies in {low:g} to {high:g}"
        case Exists(exists=exists):
            return f"{keyword} has {'a' if exists else 'no'} value"


def _all_hold(keywords: Mapping[str, Condition], instances: Sequence[Instance]) -> Judgement:
    for keyword, condition in keywords.items():
        failed = sum(not holds(condition, i.header.keywords.get(keyword)) for i in instances)
        if failed:
            share = "" if failed == len(instances) else f" ({failed} of {len(instances)} objects)"
            return False, f"not so: {explain(keyword, condition)}{share}"
    return True, ""


def _present(value: Value) -> tuple[Scalar, ...]:
    """Return the values that are there; DICOM pads text with spaces."""
    many: Iterable[Scalar] = value if isinstance(value, list) else () if value is None else (value,)
    trimmed = (v.strip(" \0") if isinstance(v, str) else v for v in many)
    return tuple(v for v in trimmed if v != "")


def _same(wanted: Scalar, value: Scalar) -> bool:
    """Compare as numbers where the configuration has a number, else as text."""
    if isinstance(wanted, str):
        return wanted == str(value)
    number = _number(value)
    return number is not None and number == wanted


def _number(value: Scalar) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _in_range(condition: Range, values: tuple[Scalar, ...]) -> bool:
    low, high = condition.range
    numbers = (_number(v) for v in values)
    return any(n is not None and low <= n <= high for n in numbers)


def _searched(condition: Regex, values: tuple[Scalar, ...]) -> bool:
    pattern = re.compile(condition.regex)
    return any(pattern.search(str(v)[:REGEX_VALUE_LENGTH]) for v in values)


_OPERATORS: Final[Mapping[type[Operator], Callable[..., bool]]] = {
    Equals: lambda c, values: any(_same(c.equals, v) for v in values),
    OneOf: lambda c, values: any(_same(w, v) for v in values for w in c.one_of),
    Contains: lambda c, values: any(c.contains.lower() in str(v).lower() for v in values),
    Regex: _searched,
    Range: _in_range,
    Exists: lambda c, values: bool(values) is c.exists,
}


def _listed(wanted: Sequence[Scalar]) -> str:
    return " or ".join(str(w) for w in wanted)
