"""Control charts: limits by the formula, what is outside, what is told."""

import pytest

from node.drift.chart import BASELINE, MEASURES, alarms, charts, limits_of
from tests.drift_kit import baseline, line


def test_limits_are_the_mean_and_2_66_mean_moving_ranges() -> None:
    limits = limits_of([4.0, 6.0] * 10, MEASURES["hd95_mm"])

    assert limits is not None
    assert limits.center == 5.0
    assert limits.upper == pytest.approx(5.0 + 2.66 * 2.0)
    assert limits.lower == 0.0  # a distance is never negative


def test_limits_end_where_the_measure_ends() -> None:
    limits = limits_of([0.98, 1.0] * 10, MEASURES["dice"])

    assert limits is not None
    assert limits.upper == 1.0
    assert limits.lower == pytest.approx(0.99 - 2.66 * 0.02)


def test_there_are_no_limits_before_there_are_enough_values() -> None:
    assert limits_of([0.9] * (BASELINE - 1), MEASURES["dice"]) is None
    few = charts(baseline()[:-1], "dice")[0]

    assert few.limits is None
    assert few.outside == ()


def test_what_comes_later_does_not_move_the_limits() -> None:
    first = charts(baseline(), "dice")[0].limits
    later = charts([*baseline(), *(line(50 + n, 0.5) for n in range(30))], "dice")[0]

    assert later.limits == first
    assert len(later.outside) == 30
    assert later.drifting


def test_a_value_beyond_the_limits_raises_one_alarm_and_a_good_one_ends_it() -> None:
    bad = [*baseline(), line(30, 0.80, surface_dice=0.7)]

    (alarm,) = alarms(bad)

    assert (alarm.organ, alarm.measure, alarm.worse, alarm.number) == ("Lung_L", "dice", True, 30)
    assert alarm.words == (
        "Lung_L of classical (pipeline 0.1.0): Dice 0.8 is worse than the limits 0.857 to 0.963"
        " of its first 20"
    )
    assert alarms([*bad, line(31, 0.91)]) == []


def test_agreement_that_is_suddenly_better_is_told_too() -> None:
    (alarm,) = alarms([*baseline(), line(30, 1.0, unchanged=True)])

    assert not alarm.worse


def test_models_versions_and_shadow_routes_have_charts_of_their_own() -> None:
    mixed = [*baseline(), *baseline(model="net 1.0"), *baseline(version="0.2.0"),
             *baseline(shadow=True), *baseline(organ="Lung_R")]  # fmt: skip

    found = charts(mixed, "volume")

    assert [(c.model, c.version, c.shadow, c.organ) for c in found] == [
        ("classical", "0.1.0", False, "Lung_L"),
        ("classical", "0.1.0", False, "Lung_R"),
        ("classical", "0.1.0", True, "Lung_L"),
        ("classical", "0.2.0", False, "Lung_L"),
        ("net 1.0", "0.1.0", False, "Lung_L"),
    ]
    assert found[0].values == pytest.approx((10.0,) * BASELINE)


def test_what_nobody_corrected_is_counted() -> None:
    chart = charts([line(1), line(2, 1.0, unchanged=True)], "dice")[0]

    assert chart.unchanged == 1
