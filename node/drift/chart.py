"""Is a model still as good as it was: individuals charts of how approved contours differ from it.

Limits are mean ± 2.66 times the mean moving range of the baseline, the first `BASELINE` values of
a model, version and organ (2.66 = 3 / d2 for ranges of two; NIST/SEMATECH e-Handbook 6.3.2.2;
AAPM TG-218 sets limits for patient QA the same way). They stay as they are, so a slow drift does
not widen them; another version of the model begins anew. Before there are so many values there
are no limits: the range of a few says nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from node.store.acceptance import ScoreLine

BASELINE: Final = 20
"""Values that the limits are made of (AAPM TG-218 takes 20 too)."""
FACTOR: Final = 2.66
"""3 / d2, d2 = 1.128 for moving ranges of two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of agreement."""

    name: str
    unit: str
    value: Callable[[ScoreLine], float]
    higher_is_better: bool | None
    """None: neither; it should stay where it is."""
    least: float | None = None
    most: float | None = None
    """What it can be at all; limits beyond that are not shown."""


def _volume(line: ScoreLine) -> float:
    """Return how much larger ours is. [%]."""
    theirs = line.score.volume_theirs_ml
    return 100.0 * (line.score.volume_ml - theirs) / theirs


MEASURES: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        key: Measure(name=name, unit=unit, value=value, higher_is_better=better, least=least,
                     most=most)
        for key, name, unit, value, better, least, most in (
            ("dice", "Dice", "", lambda s: s.score.dice, True, 0.0, 1.0),
            ("surface_dice", "Surface Dice 2 mm", "", lambda s: s.score.surface_dice, True, 0.0,
             1.0),
            ("hd95_mm", "HD95", "mm", lambda s: s.score.hd95_mm, False, 0.0, None),
            ("added_path_mm", "Added path length", "mm", lambda s: s.score.added_path_mm, False,
             0.0, None),
            ("volume", "Volume difference", "%", _volume, None, -100.0, None),
        )
    }
)  # fmt: skip
"""Key in addresses and files -> what it is."""
WATCHED: Final = ("dice", "surface_dice")
"""What raises an alarm: an organ that needs more correcting is seen in one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of the baseline."""

    center: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One measure of one organ of one model, in time."""

    model: str
    version: str
    shadow: bool
    """Whoever approved had not seen the drafts; a chart of its own, since nothing drew them."""
    organ: str
    measure: str
    points: tuple[ScoreLine, ...]
    values: tuple[float, ...]
    limits: Limits | None
    """None while there are too few values."""

    @property
    def unchanged(self) -> int:
        """Return how many structures were approved without any correction."""
        return sum(point.score.unchanged for point in self.points)

    @property
    def outside(self) -> tuple[int, ...]:
        """Return the places of the values after the baseline that are beyond a limit."""
        if self.limits is None:
            return ()
        low, high = self.limits.lower, self.limits.upper
        return tuple(
            place
            for place, value in enumerate(self.values)
            if place >= BASELINE and not low <= value <= high
        )

    @property
    def drifting(self) -> bool:
        """Return whether the newest value is beyond a limit."""
        return bool(self.outside) and self.outside[-1] == len(self.values) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """The newest score of an organ is beyond its limits."""

    model: str
    version: str
    shadow: bool
    organ: str
    measure: str
    value: float
    limits: Limits
    worse: bool
    """False: better than ever; did anybody look?"""
    number: int
    at: datetime

    @property
    def words(self) -> str:
        """Return the sentence that people get."""
        way = "worse" if self.worse else "better"
        return (
            f"{self.organ} of {self.model} (pipeline {self.version}{', shadow' * self.shadow}):"
            f" {MEASURES[self.measure].name} {self.value:.3g} is {way} than the limits"
            f" {self.limits.lower:.3g} to {self.limits.upper:.3g} of its first {BASELINE}"
        )


HINT: Final = (
    "look at the newest approved sets: another scanner, protocol, guideline or person? One value"
    " may be chance, two in a row hardly are"
)


def limits_of(values: Sequence[float], measure: Measure) -> Limits | None:
    """Return the control limits of the first `BASELINE` of `values`; None for fewer."""
    if len(values) < BASELINE:
        return None
    first = values[:BASELINE]
    center = sum(first) / BASELINE
    ranges = [abs(b - a) for a, b in pairwise(first)]
    half = FACTOR * sum(ranges) / len(ranges)
    lower, upper = center - half, center + half
    return Limits(
        center=center,
        lower=lower if measure.least is None else max(lower, measure.least),
        upper=upper if measure.most is None else min(upper, measure.most),
    )


def charts(lines: Iterable[ScoreLine], measure: str) -> list[Chart]:
    """Return the charts of a measure, by model, version, shadow or not, and organ.

    Parameters
    ----------
    lines
        In the order of time.
    measure
        A key of `MEASURES`.
    """
    kind = MEASURES[measure]
    grouped: dict[tuple[str, str, bool, str], list[ScoreLine]] = {}
    for line in lines:
        key = (line.score.model, line.score.version, line.shadow, line.score.organ)
        grouped.setdefault(key, []).append(line)
    found = []
    for (model, version, shadow, organ), points in sorted(grouped.items()):
        values = tuple(kind.value(point) for point in points)
        found.append(
            Chart(model=model, version=version, shadow=shadow, organ=organ, measure=measure,
                  points=tuple(points), values=values, limits=limits_of(values, kind))
        )  # fmt: skip
    return found


def alarms(lines: Sequence[ScoreLine]) -> list[Alarm]:
    """Return the organs whose newest score is beyond its limits, one alarm each."""
    found: dict[tuple[str, str, bool, str], Alarm] = {}
    for measure in WATCHED:
        for chart in charts(lines, measure):
            if chart.drifting and chart.limits is not None:
                value, point = chart.values[-1], chart.points[-1]
                key = (chart.model, chart.version, chart.shadow, chart.organ)
                found.setdefault(
                    key,
                    Alarm(model=chart.model, version=chart.version, shadow=chart.shadow,
                          organ=chart.organ, measure=measure, value=value, limits=chart.limits,
                          worse=value < chart.limits.center, number=point.number, at=point.at),
                )  # fmt: skip
    return list(found.values())
