"""Shipped stability classes: what to expect of a feature before anybody has studied a plan.

`pipelines.dose_radiomics.stability_table` was measured by ``benchmarks/dose_stability.py`` on an
analytic thoracic dose and holds for the recipe that it was measured with, and for no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_table import TABLE

LIMITS_CV: Final = (5.0, 25.0)
"""[%], stable below the first, unstable above the second."""
LIMITS_ICC: Final = (0.9, 0.5)
"""Stable from the first on, unstable below the second (Koo and Li 2016: excellent, poor)."""


_MEASURED: Final = DoseRadiomicsSettings()
"""The recipe of the table."""


class Stability(StrEnum):
    """What a change of grid, interpolation or algorithm does to a feature."""

    STABLE = "stable"
    """Every coefficient of variation below 5 % and every ICC known at least 0.9."""
    LIMITED = "limited"
    UNSTABLE = "unstable"
    """Some coefficient of variation above 25 % or some ICC below 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """The class of a feature with the figures behind it."""

    stability: Stability
    cv_percent: float
    """Of the worst factor, mean over the regions [%]."""
    icc: float | None
    """The lowest of all factors."""


CLASSES: Final[Mapping[str, Shipped]] = MappingProxyType(
    {
        code: Shipped(stability=Stability(name), cv_percent=cv, icc=icc)
        for code, name, cv, icc in TABLE
    }
)
"""IBSI code -> class; GLCM and GLRLM merged over the directions."""


def class_of(code: str, settings: DoseRadiomicsSettings) -> Shipped | None:
    """Return the shipped class; None for a feature or a recipe that was not measured."""
    same = (
        settings.resample_mm == _MEASURED.resample_mm
        and settings.bin_gy == _MEASURED.bin_gy
        and settings.dose == _MEASURED.dose
    )
    return CLASSES.get(code) if same else None


def stability_word(code: str, settings: DoseRadiomicsSettings) -> str:
    """Return the shipped class of a feature; empty where none was measured."""
    found = class_of(code, settings)
    return "" if found is None else found.stability.value


def told(settings: DoseRadiomicsSettings) -> tuple[str, ...]:
    """Return what is not stable, as lines for a report; nothing for a recipe not measured."""
    lines = []
    for kind in (Stability.UNSTABLE, Stability.LIMITED):
        codes = [
            code
            for code in CLASSES
            if (found := class_of(code, settings)) is not None and found.stability is kind
        ]
        if codes:
            lines.append(f"Stability against dose grid and interpolation, {kind}: "
                         f"{', '.join(codes)}")  # fmt: skip
    return tuple(lines)
