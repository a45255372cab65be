"""The patterns that may run on values of a peer, and those that may not."""

import contextlib
import re
import time

import pytest
from pydicom.datadict import keyword_dict

from node.config.match import REGEX_VALUE_LENGTH, checked_keyword, checked_pattern
from node.store.header import keyword_tags


@pytest.mark.parametrize(
    "pattern",
    [
        "^H(&|and)?N",
        r"(?i)cbct",
        r"\(a\)+",
        "[)]+",
        r"\d{2,4}",
        "a|b|c",
        r"[\]a]+x",
        "(?:a|b)?",
        "[^]]*",
    ],
)
def test_a_plain_pattern_is_taken_as_it_is(pattern: str) -> None:
    assert checked_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a+)+$", "never a"),
        ("(a|a)*$", "never a"),
        ("(?:ab){2,}", "never a"),
        (r"(a)\1", "back-reference"),
        (r"(?P<x>a)(?P=x)", "back-reference"),
        ("a*b*c*", "at most 2 open"),
        ("a{1,}b{1,}c{1,}", "at most 2 open"),
        ("[a", "not a regular expression"),
        ("a" * 201, "at most 200 characters"),
    ],
)
def test_a_pattern_that_could_run_away_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked_pattern(pattern)


def test_the_worst_pattern_allowed_ends_soon_on_the_longest_value() -> None:
    pattern = re.compile(checked_pattern(".*.*x"))
    started = time.perf_counter()

    assert pattern.search("a" * REGEX_VALUE_LENGTH) is None

    assert time.perf_counter() - started < 1


def test_a_keyword_is_case_sensitive_and_the_right_one_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'SeriesDescription'"):
        checked_keyword("seriesDescription")


def test_the_index_can_keep_every_keyword_that_may_be_matched() -> None:
    """Else `check` says ok and `serve` does not start."""
    allowed = set()
    for keyword in keyword_dict:
        with contextlib.suppress(ValueError):
            allowed.add(checked_keyword(keyword))

    assert set(keyword_tags(allowed)) == allowed
    assert {"Manufacturer", "KVP", "ImageType", "SeriesDescription", "StationName"} <= allowed
