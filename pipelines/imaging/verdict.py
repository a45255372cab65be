"""What a gate is: a measured value, two limits, a verdict."""

from dataclasses import dataclass
from enum import StrEnum


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


def overall(gates: tuple[Gate, ...]) -> Verdict:
    """Return the worst verdict."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
    return next(v for v in order if v is Verdict.PASS or any(g.verdict is v for g in gates))
