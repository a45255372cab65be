"""The names of dose metrics, after TG-263, and nothing else: what the configuration may ask for.

A name is all there is to a metric: ``D95%``, ``D0.03cc``, ``D2%[%]``, ``DC700cc``, ``V20Gy``,
``V20Gy[cc]``, ``V95%``, ``CV15Gy[cc]``, ``gEUD(-10)``, ``Mean``, ``CI_RTOG``. This module is light:
the node checks its configuration with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

CODE_LENGTH: Final = 16
"""A metric's name is also a private code value of the SR (PS3.5, SH)."""


class Kind(StrEnum):
    """What is read from a DVH."""

    DOSE_AT_PERCENT = "D#%"
    """Dose that the hottest # % receive at least."""
    DOSE_AT_CC = "D#cc"
    COLD_DOSE_AT_CC = "DC#cc"
    """Dose complement: the highest dose in the coldest # cm3."""
    VOLUME = "V#"
    """Volume that receives # or more, in Gy or in % of the prescription."""
    COLD_VOLUME = "CV#"
    """Complement: volume that receives less than #."""
    GEUD = "gEUD(#)"
    MEAN = "Mean"
    MIN = "Min"
    MAX = "Max"
    SD = "SD"
    COVERAGE = "Coverage"
    CI_RTOG = "CI_RTOG"
    CN_PADDICK = "CN_Paddick"
    HI_ICRU83 = "HI_ICRU83"
    HI_RTOG = "HI_RTOG"
    R50 = "R50"
    GI = "GI"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One metric as it was asked for."""

    kind: Kind
    unit: str
    """Gy, %, cc, or empty for a ratio."""
    value: float = 0.0
    """The number in the name."""
    relative: bool = False
    """The number is in percent of the prescription."""

    @property
    def name(self) -> str:
        """Return the one spelling of the name, with its unit."""
        number = f"{self.value:g}"
        if self.kind in {Kind.VOLUME, Kind.COLD_VOLUME}:
            number += "%" if self.relative else "Gy"
        plain = self.kind.value.replace("#", number)
        return f"{plain}[{self.unit}]" if self.unit else plain


class MetricNameError(ValueError):
    """A metric is asked for by a name that says nothing; the message says what to write."""


_NUMBER: Final = r"(?P<value>\d+(?:\.\d+)?)"
_FORMS: Final = (
    (re.compile(rf"D{_NUMBER}%"), Kind.DOSE_AT_PERCENT, ("Gy", "%")),
    (re.compile(rf"D{_NUMBER}cc"), Kind.DOSE_AT_CC, ("Gy", "%")),
    (re.compile(rf"DC{_NUMBER}cc"), Kind.COLD_DOSE_AT_CC, ("Gy", "%")),
    (re.compile(rf"V{_NUMBER}(?P<of>Gy|%)"), Kind.VOLUME, ("%", "cc")),
    (re.compile(rf"CV{_NUMBER}(?P<of>Gy|%)"), Kind.COLD_VOLUME, ("cc", "%")),
    (re.compile(r"gEUD\((?P<value>-?\d+(?:\.\d+)?)\)", re.IGNORECASE), Kind.GEUD, ("Gy",)),
)
"""(form, kind, units); the first unit is meant where none is written."""
_PLAIN: Final[Mapping[str, tuple[Kind, str]]] = MappingProxyType(
    {
        **{kind.casefold(): (kind, "Gy") for kind in (Kind.MEAN, Kind.MIN, Kind.MAX, Kind.SD)},
        **{
            kind.casefold(): (kind, "")
            for kind in (Kind.COVERAGE, Kind.CI_RTOG, Kind.CN_PADDICK, Kind.HI_ICRU83,
                         Kind.HI_RTOG, Kind.R50, Kind.GI)
        },
        "ci": (Kind.CI_RTOG, ""),
        "cn": (Kind.CN_PADDICK, ""),
        "hi": (Kind.HI_ICRU83, ""),
    }
)  # fmt: skip
"""Names without a number, in lower case."""
FORMS: Final = (
    "D95%, D0.03cc, DC700cc, V20Gy, V95%, CV15Gy, gEUD(-10), Mean, Min, Max, SD, Coverage, "
    "CI_RTOG, CN_Paddick, HI_ICRU83, HI_RTOG, R50, GI; a unit may follow: V20Gy[cc], D2%[%]"
)


def wanted(text: str) -> Wanted:
    """Return the metric that `text` names.

    Raises
    ------
    MetricNameError
        Where it names none.
    """
    plain, bracket, unit = text.strip().removesuffix("]").partition("[")
    if bracket and not text.strip().endswith("]"):
        raise MetricNameError(f"'{text}': the [ is not closed")
    found = _with_number(plain, text) or _without_number(plain)
    if found is None:
        raise MetricNameError(f"'{text}' is no dose metric{_hint(plain)}; write one of {FORMS}")
    metric, units = found
    if unit and unit not in units:
        raise MetricNameError(f"'{text}': the unit is {' or '.join(units) or 'left out'}")
    metric = Wanted(kind=metric.kind, unit=unit or metric.unit, value=metric.value,
                    relative=metric.relative)  # fmt: skip
    if len(metric.name) > CODE_LENGTH:
        raise MetricNameError(
            f"'{metric.name}' has {len(metric.name)} characters; the code of an SR has "
            f"{CODE_LENGTH}"
        )
    return metric


def _with_number(plain: str, text: str) -> tuple[Wanted, tuple[str, ...]] | None:
    for form, kind, units in _FORMS:
        if match := form.fullmatch(plain):
            value = float(match["value"])
            relative = match.groupdict().get("of") == "%"
            _check(kind, value, text)
            return Wanted(kind=kind, unit=units[0], value=value, relative=relative), units
    return None


def _without_number(plain: str) -> tuple[Wanted, tuple[str, ...]] | None:
    if plain.casefold() not in _PLAIN:
        return None
    kind, unit = _PLAIN[plain.casefold()]
    return Wanted(kind=kind, unit=unit), (unit,) if unit else ()


def _check(kind: Kind, value: float, text: str) -> None:
    if value == 0:
        why = "the gEUD has no exponent 0" if kind is Kind.GEUD else "the number must not be 0"
        raise MetricNameError(f"'{text}': {why}")
    if float(f"{value:g}") != value or "e" in f"{value:g}":
        raise MetricNameError(f"'{text}': write a number of at most six digits")
    if kind is Kind.DOSE_AT_PERCENT and value > 100:  # noqa: PLR2004 (percent)
        raise MetricNameError(f"'{text}': a volume has no more than 100 %")


def _hint(plain: str) -> str:
    """Return what is probably missing."""
    if re.fullmatch(r"C?V\d+(\.\d+)?", plain):
        return f" (is it {plain}Gy or {plain}% of the prescription?)"
    if re.fullmatch(r"DC?\d+(\.\d+)?", plain):
        return f" (is it {plain}% or {plain}cc of the volume?)"
    return ""
