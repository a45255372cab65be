"""Durations, sizes and tables for people."""

from datetime import UTC, datetime

import pytest

from node.cli.text import at, duration, table, tallied


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")],
)
def test_a_duration_is_told_in_its_largest_unit(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert table(("job", "state"), [(7, "HELD"), (12, "COMPLETED")]) == [
        "job  state",
        "7    HELD",
        "12   COMPLETED",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(("job", "state"), []) == ["job  state"]


def test_states_without_members_are_left_out_of_a_tally() -> None:
    assert tallied({"HELD": 1, "CANCELED": 0, "COMPLETED": 34}) == "HELD 1   COMPLETED 34"
    assert tallied({}) == "none"


def test_a_time_is_told_in_utc_to_the_second() -> None:
    assert at(datetime(2026, 11, 20, 18, 44, 3, tzinfo=UTC)) == "2026-11-20 18:44:03Z"
    assert at(None) == "-"
