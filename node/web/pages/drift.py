"""How approved contours agree with the drafts of each model: control charts, alarms, gaps."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from node.drift.chart import BASELINE, HINT, MEASURES, Chart, alarms, charts
from node.web.site import Refusal, Site

WIDTH: Final = 340.0
HEIGHT: Final = 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 8.0, 8.0, 18.0
_SHOWN: Final = 60
"""Newest values of a chart that are drawn; the limits are those of the first ones all the same."""
_UNCOMPARED: Final = 20
_TICKS: Final = 3
"""Steps of the axis, at least."""
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value where it is drawn."""

    x: float
    y: float
    kind: str
    """inside, outside or unchanged."""
    words: str
    job: int
    """Whose draft it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart as SVG coordinates."""

    chart: Chart
    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    """(y, label)."""
    center: float | None
    lower: float | None
    upper: float | None
    """y of the limits; None where there are none."""
    baseline: float | None
    """x where the baseline ends; None where it lies further back."""


def drift(site: Site, request: Request) -> Response:
    """Show the charts of one measure."""
    measure = request.query_params.get("measure", "dice")
    if measure not in MEASURES:
        raise Refusal(404, "there is no such measure")
    ledger = site.ledger()
    newest, same = ledger.newest_acceptance(), site.remembered.same
    lines = same("scores", newest, ledger.acceptance_scores)
    found = same(
        f"charts {measure}", newest, lambda: [drawing(chart) for chart in charts(lines, measure)]
    )
    groups = groupby(found, key=lambda d: (d.chart.model, d.chart.version, d.chart.shadow))
    return site.renderer.page(
        request,
        "drift.html",
        measure=measure,
        measures=MEASURES,
        groups=[(key, list(drawings)) for key, drawings in groups],
        alarms=same("alarms", newest, lambda: alarms(lines)),
        hint=HINT,
        baseline=BASELINE,
        uncompared=ledger.uncompared(_UNCOMPARED),
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=WIDTH - _RIGHT,
    )


def drawing(chart: Chart) -> Drawing:
    """Return where everything of a chart is drawn."""
    first = max(0, len(chart.values) - _SHOWN)
    values = chart.values[first:]
    axis = _axis(chart, values)
    low, high = axis[0], axis[-1]

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def x(place: int) -> float:
        inner = WIDTH - _LEFT - _RIGHT
        return round(_LEFT + inner * (place - first + 0.5) / max(len(values), BASELINE), 1)

    limits = chart.limits
    outside = set(chart.outside)
    points = tuple(
        Point(
            x=x(place),
            y=y(value),
            kind=_kind(chart, place, outside),
            words=f"{chart.points[place].at:%Y-%m-%d}: {value:.3g}",
            job=chart.points[place].job_id,
        )
        for place, value in enumerate(values, first)
    )
    return Drawing(
        chart=chart,
        points=points,
        ticks=tuple((y(tick), f"{tick:.4g}") for tick in axis),
        center=None if limits is None else y(limits.center),
        lower=None if limits is None else y(limits.lower),
        upper=None if limits is None else y(limits.upper),
        baseline=x(BASELINE) - 0.5 * (x(1) - x(0)) if first == 0 and limits else None,
    )


def _kind(chart: Chart, place: int, outside: set[int]) -> str:
    if place in outside:
        return "outside"
    return "unchanged" if chart.points[place].score.unchanged else "inside"


def _axis(chart: Chart, values: tuple[float, ...]) -> list[float]:
    """Return round numbers that span all values and limits, from the lowest to the highest."""
    limits = chart.limits
    low, high = min(values), max(values)
    if limits is not None:
        low, high = min(low, limits.lower), max(high, limits.upper)
    raw = (high - low) / _TICKS or 0.02 * abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - _ROUNDING))
    first, last = math.floor(low / step + _ROUNDING), math.ceil(high / step - _ROUNDING)
    if first == last:  # one value on a round number: it stands at the edge that it cannot cross
        first -= 1
    return [step * n for n in range(first, last + 1)]
