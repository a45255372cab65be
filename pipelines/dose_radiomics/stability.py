"""How much every feature depends on the dose grid, the interpolation and the algorithm.

The features of all regions are computed again on grids of other spacings and other phases, made
from the dose by cubic splines, with another interpolation in the recipe, and on every dose of the
plan where there are several. Coefficient of variation and ICC(2,1) over the levels of each factor
give the class of a feature. A grid finer than the dose holds nothing new: coarser ones tell more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, InputRejected
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics.dvh import Conversion
from pipelines.dose_radiomics.evaluate import Evaluator
from pipelines.dose_radiomics.inputs import Case
from pipelines.dose_radiomics.recipe import measured, region_features
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import LIMITS_CV, LIMITS_ICC, Stability
from pipelines.geometry.expressions import uses_dose
from pipelines.radiomics.features import FEATURES
from pipelines.radiomics.region import Interpolation
from pipelines.radiomics.resample import Axes, cubic, trilinear

Floats = NDArray[np.float64]

SPACINGS_MM: Final = (2.0, 2.5, 3.0, 4.0)
"""Grids to try; those much finer than the dose are left out."""
FINEST: Final = 0.75
"""Of the in-plane spacing of the dose: below that a grid holds nothing new."""
PHASES: Final = 5
"""Shifted grids beside the one given."""
_TWO = 2
Sample: TypeAlias = Callable[[DoseGrid, Axes], DoseGrid]
"""Makes the dose on another grid: (grid, positions along its axes) -> grid."""


class Factor(StrEnum):
    """What is changed."""

    SPACING = "spacing"
    PHASE = "phase"
    INTERPOLATION = "interpolation"
    ALGORITHM = "algorithm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One way to compute all features."""

    factor: Factor
    name: str
    grid: DoseGrid
    interpolate: Interpolation = trilinear


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One feature of one region at one level."""

    factor: Factor
    level: str
    region: str
    code: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a feature varies over the levels of one factor."""

    mean_cv: float
    """Mean over the regions of SD / |mean| over the levels [%]."""
    worst_cv: float
    """Of the worst region [%]."""
    icc: float | None
    """ICC(2,1), absolute agreement; None below two regions or without any difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One feature over all factors."""

    code: str
    spreads: Mapping[Factor, Spread]
    stability: Stability


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The whole result."""

    rows: tuple[Row, ...]
    values: tuple[Value, ...]
    regions: tuple[str, ...]
    levels: tuple[tuple[Factor, str], ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A region, ready for any dose grid."""

    label: str
    region: Region
    convert: Conversion | None


def study(
    cases: Sequence[Case],
    settings: DoseRadiomicsSettings,
    tell: Callable[[str], None],
    spacings_mm: Sequence[float] | None = None,
    sample: Sample | None = None,
) -> Study:
    """Compute all features at all levels of all factors.

    Parameters
    ----------
    cases : sequence of Case
        The first gives grids and interpolations; all together are the algorithms.
    settings : DoseRadiomicsSettings
    tell : callable
        Receives a line about each step.
    spacings_mm : sequence of float, optional
        Grids to try beside the one given [mm]; the `usable` ones of `SPACINGS_MM` by default.
    sample : callable, optional
        How another grid gets its dose: by cubic splines, unless the true dose is known.

    Raises
    ------
    InputRejected
        If no region has features.
    """
    values: list[Value] = []
    findings: list[Finding] = []
    levels: list[tuple[Factor, str]] = []
    for number, case in enumerate(cases, 1):
        evaluator = Evaluator(case, settings)
        subjects = list(_subjects(evaluator, case.dose))
        steps = usable(case.dose) if spacings_mm is None else spacings_mm
        work = list(grid_levels(case.dose, steps, sample or moved)) if number == 1 else []
        if len(cases) > 1:
            work.append(Level(factor=Factor.ALGORITHM, name=f"dose {number}", grid=case.dose))
        known: dict[tuple[int, Interpolation], dict[str, Mapping[str, float]]] = {}
        for level in work:
            same = (id(level.grid), level.interpolate)
            if same not in known:
                tell(f"{level.factor} {level.name}: {len(subjects)} regions")
                known[same] = _features(subjects, level, settings, evaluator)
            levels.append((level.factor, level.name))
            values += [
                Value(factor=level.factor, level=level.name, region=region, code=code, value=value)
                for region, found in known[same].items()
                for code, value in found.items()
            ]
        findings += [*case.findings, *evaluator.findings]
    if not values:
        reasons = "; ".join(dict.fromkeys(f.message for f in findings))
        raise InputRejected(f"no region has features: {reasons or 'no ROI matches'}")
    return Study(
        rows=rows(values),
        values=tuple(values),
        regions=tuple(dict.fromkeys(value.region for value in values)),
        levels=tuple(levels),
        findings=tuple(dict.fromkeys(findings)),
    )


def usable(grid: DoseGrid, spacings_mm: Sequence[float] = SPACINGS_MM) -> tuple[float, ...]:
    """Return the spacings that are not much finer than those of a dose."""
    finest = FINEST * min(grid.spacing_mm[1:])
    return tuple(step for step in spacings_mm if step >= finest)


def moved(grid: DoseGrid, axes: Axes) -> DoseGrid:
    """Return the dose as another grid would have sampled it, by cubic splines."""
    return replace(grid, dose=cubic(grid.dose, grid.positions, axes), positions=axes)


def grid_levels(
    grid: DoseGrid, spacings_mm: Sequence[float], sample: Sample = moved
) -> Iterator[Level]:
    """Yield other spacings, phases and interpolations of one dose, itself first in each factor."""
    plane, row, column = grid.spacing_mm
    native = f"native {plane:g} x {row:g} x {column:g} mm"
    yield Level(factor=Factor.SPACING, name=native, grid=grid)
    for step in spacings_mm:
        if np.allclose(grid.spacing_mm, step):
            continue
        axes = _three(np.arange(p[0], p[-1] + 1e-6, step) for p in grid.positions)
        if min(len(axis) for axis in axes) >= _TWO:
            yield Level(factor=Factor.SPACING, name=f"{step:g} mm", grid=sample(grid, axes))
    yield Level(factor=Factor.PHASE, name=native, grid=grid)
    for number in range(1, PHASES + 1):
        shift = [_halton(number, base) for base in (2, 3, 5)]
        axes = _three(
            p[:-1] + part * np.diff(p) for p, part in zip(grid.positions, shift, strict=True)
        )
        if min(len(axis) for axis in axes) >= _TWO:
            name = "shift " + " ".join(f"{part:.2f}" for part in shift)
            yield Level(factor=Factor.PHASE, name=name, grid=sample(grid, axes))
    for name, way in (("trilinear", trilinear), ("cubic", cubic)):
        yield Level(factor=Factor.INTERPOLATION, name=name, grid=grid, interpolate=way)


def rows(values: Iterable[Value]) -> tuple[Row, ...]:
    """Return spread and class of every feature, in the order of a report."""
    tables = _tables(values)
    found = []
    for code in FEATURES:
        spreads = {
            factor: spread
            for factor in Factor
            if (factor, code) in tables and (spread := spread_of(tables[factor, code])) is not None
        }
        if spreads:
            found.append(Row(code=code, spreads=spreads, stability=classify(spreads.values())))
    return tuple(found)


def spread_of(table: Floats) -> Spread | None:
    """Return the spread of a feature; None where no region has it at two levels.

    Parameters
    ----------
    table : ndarray, shape (regions, levels)
        NaN where a region does not have the feature at a level.
    """
    whole = table[np.isfinite(table).all(axis=1)]
    if not len(whole) or whole.shape[1] < _TWO:
        return None
    cv = variation(whole)
    return Spread(mean_cv=float(cv.mean()), worst_cv=float(cv.max()), icc=icc21(whole))


def variation(table: Floats) -> Floats:
    """Return SD / |mean| of every row [%]; 0 for equal values, whatever their mean."""
    sd, mean = table.std(axis=1, ddof=1), np.abs(table.mean(axis=1))
    scale = np.abs(table).max(axis=1)
    equal = sd <= 1e-12 * scale
    cv: Floats = 100 * np.divide(sd, mean, out=np.full(len(sd), np.inf), where=mean > 0)
    return np.where(equal, 0.0, cv)


def icc21(table: Floats) -> float | None:
    """Return ICC(2,1): two-way random effects, absolute agreement, one measurement.

    Shrout and Fleiss, Psychol Bull 86:420 (1979). `table` has shape (subjects, raters).
    """
    n, k = table.shape
    if n < _TWO or k < _TWO:
        return None
    grand = table.mean()
    by_row, by_column = table.mean(axis=1), table.mean(axis=0)
    rows_ms = k * np.sum((by_row - grand) ** 2) / (n - 1)
    columns_ms = n * np.sum((by_column - grand) ** 2) / (k - 1)
    rest = table - by_row[:, None] - by_column[None] + grand
    error_ms = np.sum(rest**2) / ((n - 1) * (k - 1))
    total = rows_ms + (k - 1) * error_ms + k * (columns_ms - error_ms) / n
    smallest = 1e-24 * float(np.abs(table).max()) ** 2
    return float((rows_ms - error_ms) / total) if total > smallest else None


def classify(spreads: Iterable[Spread]) -> Stability:
    """Return the class of a feature: its worst factor decides."""
    known = list(spreads)
    cv = max(spread.mean_cv for spread in known)
    icc = min((spread.icc for spread in known if spread.icc is not None), default=1.0)
    if cv > LIMITS_CV[1] or icc < LIMITS_ICC[1]:
        return Stability.UNSTABLE
    if cv < LIMITS_CV[0] and icc >= LIMITS_ICC[0]:
        return Stability.STABLE
    return Stability.LIMITED


def _subjects(evaluator: Evaluator, dose: DoseGrid) -> Iterator[_Subject]:
    """Yield the regions that features are wanted of."""
    for task in evaluator.tasks():
        if not task.expression and not evaluator.has_features(task.leading):
            continue
        region = evaluator.region(task)
        if region is not None:
            convert, _ = evaluator.conversion(task.leading)
            if not uses_dose(task.node):  # then its margins are the same on every grid
                region = measured(region, dose, convert)
            yield _Subject(label=task.label, region=region, convert=convert)


def _features(
    subjects: Sequence[_Subject],
    level: Level,
    settings: DoseRadiomicsSettings,
    evaluator: Evaluator,
) -> dict[str, Mapping[str, float]]:
    """Return the features of every region that has any at one level."""

    def one(subject: _Subject) -> Mapping[str, float]:
        region = subject.region
        if uses_dose(region.node):
            region = measured(region, level.grid, subject.convert)
        found = region_features(region, level.grid, subject.convert, settings, level.interpolate)
        return found.values

    every = {s.label: evaluator.guarded(s.label, partial(one, s)) for s in subjects}
    return {label: values for label, values in every.items() if values}


def _tables(values: Iterable[Value]) -> dict[tuple[Factor, str], Floats]:
    """Return (factor, code) -> table of regions x levels."""
    groups: dict[tuple[Factor, str], list[Value]] = {}
    levels: dict[Factor, dict[str, int]] = {}
    for value in values:
        groups.setdefault((value.factor, value.code), []).append(value)
        columns = levels.setdefault(value.factor, {})
        columns.setdefault(value.level, len(columns))
    tables = {}
    for (factor, code), members in groups.items():
        regions = {name: i for i, name in enumerate(dict.fromkeys(v.region for v in members))}
        table = np.full((len(regions), len(levels[factor])), np.nan)
        for value in members:
            table[regions[value.region], levels[factor][value.level]] = value.value
        tables[factor, code] = table
    return tables


def _three(axes: Iterable[Floats]) -> Axes:
    planes, lines, columns = axes
    return planes, lines, columns


def _halton(number: int, base: int) -> float:
    """Return a member of the Halton sequence: shifts that fill a voxel evenly."""
    result, part = 0.0, 1.0
    while number:
        part /= base
        result += part * (number % base)
        number //= base
    return result
