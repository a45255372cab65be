"""What a gate is: a measured value, two limits, a verdict; and what the gates look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic_ct.body import Mask, Vector

Hu = NDArray[np.float32]


class Verdict(StrEnum):
    """What a gate, or all of them together, says."""

    PASS = "PASS"  # noqa: S105 (a verdict, no password)
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where PASS ends and FAIL begins; a gate with ``fails < passes`` wants large values."""

    passes: float
    fails: float

    def judge(self, value: float) -> Verdict:
        """Return the verdict on `value`; NaN fails."""
        sign = 1 if self.fails >= self.passes else -1
        if sign * value <= sign * self.passes:
            return Verdict.PASS
        return Verdict.WARN if sign * value <= sign * self.fails else Verdict.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One measured value with its verdict."""

    name: str
    """Stable kebab-case name, also the code of the finding."""
    value: float
    unit: str
    limits: Limits
    verdict: Verdict
    meaning: str
    """What a bad value says, for a physicist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the gates look at; arrays of one shape."""

    sct: Hu
    cbct: Hu
    body: Mask
    """Body inside the field of view."""
    outline: Mask
    """The body as the CBCT alone shows it; differs from `body` where the CBCT is truncated."""
    fov: Mask
    spacing: Vector
    prior: Hu | None = None
    """Planning CT in place, where there is one."""
    reference: Hu | None = None
    """The CBCT with histogram and shading of the planning CT: what an sCT is held against."""
    one_mode_expected: bool = False
    """The method cannot part fat from muscle if the CBCT does not: a warning, no failure."""
    planning_pixels: bool = False
    """Values of the deformed planning CT stand in it: its texture differs from the CBCT's."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Limits of this pack or site, by gate name, instead of the usual ones."""


def overall(gates: tuple[Gate, ...]) -> Verdict:
    """Return the worst verdict."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
    return next(v for v in order if v is Verdict.PASS or any(g.verdict is v for g in gates))


def gate(case: Case, name: str, value: float, unit: str, limits: Limits, meaning: str) -> Gate:
    """Return a gate judged by the limits of the case, else by `limits`."""
    limits = case.limits.get(name, limits)
    return Gate(
        name=name,
        value=value,
        unit=unit,
        limits=limits,
        verdict=limits.judge(value),
        meaning=meaning,
    )
