"""Where the values of a control chart are drawn."""

import pytest

from node.drift.chart import BASELINE, charts
from node.web.pages.drift import HEIGHT, WIDTH, drawing
from tests.drift_kit import baseline, line


def test_values_stand_between_round_numbers_in_their_order() -> None:
    made = drawing(charts([*baseline(), line(30, 0.5)], "dice")[0])

    labels = [label for _, label in made.ticks]
    assert labels == ["0.4", "0.6", "0.8", "1"]
    assert [p.kind for p in made.points] == ["inside"] * BASELINE + ["outside"]
    assert all(a.x < b.x for a, b in zip(made.points, made.points[1:], strict=False))
    assert made.points[-1].y > made.points[0].y  # worse is lower
    assert all(0 <= p.x <= WIDTH and 0 <= p.y <= HEIGHT for p in made.points)
    assert made.upper < made.center < made.lower
    assert made.points[BASELINE - 1].x < made.baseline < made.points[BASELINE].x


@pytest.mark.parametrize("value", [0.0, 1.0, 0.937])
@pytest.mark.parametrize("measure", ["dice", "hd95_mm", "volume"])
def test_a_single_value_has_an_axis_around_it(value: float, measure: str) -> None:
    made = drawing(charts([line(1, value, hd95_mm=value, volume_ml=100 * value)], measure)[0])

    (point,) = made.points
    assert 0 <= point.y <= HEIGHT
    assert len({y for y, _ in made.ticks}) >= 2
    assert made.center is None


def test_of_many_values_the_newest_are_drawn_with_the_limits_of_the_first() -> None:
    many = [*baseline(), *(line(100 + n, 0.9) for n in range(400))]
    made = drawing(charts(many, "dice")[0])

    assert len(made.points) == 60
    assert made.center is not None
    assert made.baseline is None
