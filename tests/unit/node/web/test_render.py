"""How numbers, spans of time and sizes read."""

import pytest

from node.web.render import duration, number, short, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"),
     (90_000, "1 d 1 h"), (None, "–")],
)  # fmt: skip
def test_spans_have_at_most_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(14657.41, "14,657"), (0.17981, "0.1798"), (3.4e-5, "< 0.001"), (0.0, "0"), (1538, "1,538"),
     (None, "–"), (True, "True"), ("PASS", "PASS"), (-0.25, "-0.25")],
)  # fmt: skip
def test_figures_have_four_digits_and_no_exponent(value: object, text: str) -> None:
    assert number(value) == text


def test_sizes_and_uids_are_short() -> None:
    assert size(999) == "999 B"
    assert size(1_234_567) == "1 MB"
    assert size(5.2e9) == "5.2 GB"
    assert short("1.2.840.10008.5.1.4.1.1.2") == "….5.1.4.1.1.2"
    assert short("1.2.3") == "1.2.3"
