"""Settings of the simulator that make images like a site's own: `rtnode sct fit-simulator`.

Patients of the procedural kind are scanned by scanners drawn at random, with the pixels of the
site; a regression tells the settings from the `traits` of the images (approximate Bayesian
computation with regression adjustment: Beaumont, Zhang and Balding, Genetics 162 (2002) 2025); the
same regression then reads the site's CBCTs. What the traits do not tell keeps its wide range by
itself: its residual is large. Scatter and beam hardening both make cups and are told apart badly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.cbct_sim import CbctSettings, Fan, random_settings, simulate
from models.training.sct_data import phantom
from models.training.sct_pairs import body_of, inside_fov
from models.training.sct_traits import UNITS, traits

LIBRARY: Final = 64
"""Simulated images behind the regression."""
LIBRARY_SLICES: Final = 3
RIDGE: Final = 0.3
"""Of the regression, in units of standardized traits."""
SPREAD: Final = 1.0
"""Residual SDs by which a fitted range is wider than what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """A setting that is fitted."""

    limits: tuple[float, float]
    """What the simulator was made for."""
    of: Callable[[CbctSettings], float]


PARAMETERS: Final[Mapping[str, _Parameter]] = {
    "photons_log10": _Parameter(limits=(3.5, 6.0), of=lambda s: float(np.log10(s.photons))),
    "hann_cut": _Parameter(limits=(0.3, 1.0), of=lambda s: s.hann_cut),
    "slice_blur_mm": _Parameter(limits=(0.0, 2.0), of=lambda s: s.slice_blur_mm),
    "scatter_left": _Parameter(
        limits=(0.0, 0.3), of=lambda s: s.scatter * (1 - s.scatter_corrected)
    ),
    "hardening_left": _Parameter(limits=(0.0, 1.0), of=lambda s: 1 - s.hardening_corrected),
    "hu_gain": _Parameter(limits=(0.8, 1.2), of=lambda s: s.hu_gain),
    "hu_shift": _Parameter(limits=(-200.0, 200.0), of=lambda s: s.hu_shift),
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SiteScanner(_Part):
    """What `fit-simulator` found: the file that `simulate --site` randomizes around."""

    schema_version: Literal[1] = 1
    images: int = Field(ge=1)
    """CBCTs behind it."""
    region: str
    fan: Fan
    pixel_mm: tuple[float, float]
    """Least and greatest of the site."""
    found: dict[str, tuple[float, float, float]]
    """Trait of `sct_traits` -> 10, 50 and 90 % over the site's CBCTs."""
    ranges: dict[str, tuple[float, float]]
    """Parameter -> what is drawn from, evenly."""
    uncertainty: dict[str, float]
    """Parameter -> SD of what the regression missed on its own simulated images."""

    def settings(self, seed: int, random: np.random.Generator) -> CbctSettings:
        """Return a scanner like the site's; what was not fitted is as in `random_settings`."""
        drawn = {name: float(random.uniform(*self.ranges[name])) for name in PARAMETERS}
        corrected = float(random.uniform(0.3, 0.8))
        return replace(
            random_settings(seed),
            fan=self.fan,
            photons=10 ** drawn["photons_log10"],
            hann_cut=drawn["hann_cut"],
            slice_blur_mm=drawn["slice_blur_mm"],
            scatter=drawn["scatter_left"] / (1 - corrected),
            scatter_corrected=corrected,
            hardening_corrected=1 - drawn["hardening_left"],
            hu_gain=drawn["hu_gain"],
            hu_shift=drawn["hu_shift"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Parameters from traits: linear and squared, standardized, ridge."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    """Shape (1 + 2 traits, parameters)."""
    missed: NDArray[np.float64]
    """SD of the error on images left out of the fit, shape (parameters,)."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]], drawn: NDArray[np.float64]) -> "Regression":
        """Fit to simulated images: `rows` of traits and their parameters, shape (n, parameters)."""
        table = np.array([[row[name] for name in UNITS] for row in rows])
        mean, scale = table.mean(axis=0), table.std(axis=0) + 1e-6
        terms = _terms((table - mean) / scale)
        left = np.empty_like(drawn)
        for fold in range(4):
            out = np.arange(len(table)) % 4 == fold
            left[out] = terms[out] @ _solve(terms[~out], drawn[~out]) - drawn[out]
        missed = np.sqrt(np.mean(left**2, axis=0))
        return cls(mean=mean, scale=scale, weights=_solve(terms, drawn), missed=missed)

    def read(self, found: Mapping[str, float]) -> dict[str, float]:
        """Return the parameters of an image with the traits `found`, within their limits."""
        table = (np.array([[found[name] for name in UNITS]]) - self.mean) / self.scale
        values = (_terms(np.clip(table, -3, 3)) @ self.weights)[0]
        return {
            name: float(np.clip(value, *parameter.limits))
            for (name, parameter), value in zip(PARAMETERS.items(), values, strict=True)
        }


def library(
    region: str, fan: Fan, spacing: tuple[float, float], count: int = LIBRARY, *, seed: int = 1
) -> Regression:
    """Simulate `count` scans of procedural patients; return how traits tell settings.

    Parameters
    ----------
    region : str
        One of `sct_data.PHANTOM_SITES`.
    fan : Fan
    spacing : (slice, pixel), mm
    count : int
    seed : int
    """
    rows, drawn = [], []
    for number in range(count):
        settings = replace(random_settings(10_000 * seed + number), fan=fan)
        rows.append(scanned_traits(region, settings, spacing, 10_000 * seed + number))
        drawn.append([p.of(settings) for p in PARAMETERS.values()])
    return Regression.of(rows, np.array(drawn))


def scanned_traits(
    region: str, settings: CbctSettings, spacing: tuple[float, float], seed: int
) -> dict[str, float]:
    """Return the traits of the simulated scan of a procedural patient."""
    slice_mm, pixel_mm = spacing
    ct = phantom(region, seed, pixel_mm=pixel_mm, slice_mm=slice_mm, slices=LIBRARY_SLICES)
    scan = simulate(ct.hu, ct.spacing, settings, seed)
    fov = inside_fov(ct.hu.shape, pixel_mm, settings)
    return traits(scan, body_of(ct.hu) & fov, fov, ct.spacing)


def fit_site(
    images: Sequence[tuple[Mapping[str, float], float]],
    regression: Regression,
    region: str,
    fan: Fan,
) -> SiteScanner:
    """Return the ranges of a site from the traits and pixels [mm] of its CBCTs.

    Raises
    ------
    ValueError
        Without any CBCT.
    """
    if not images:
        raise ValueError("no CBCT to fit to")
    read = [regression.read(found) for found, _ in images]
    ranges = {}
    for (name, parameter), missed in zip(PARAMETERS.items(), regression.missed, strict=True):
        low, high = np.percentile([r[name] for r in read], (10, 90))
        ranges[name] = (
            round(max(parameter.limits[0], float(low - SPREAD * missed)), 4),
            round(min(parameter.limits[1], float(high + SPREAD * missed)), 4),
        )
    quantiles = {
        name: np.percentile([found[name] for found, _ in images], (10, 50, 90)) for name in UNITS
    }
    pixels = [pixel for _, pixel in images]
    return SiteScanner(
        images=len(images),
        region=region,
        fan=fan,
        pixel_mm=(round(min(pixels), 3), round(max(pixels), 3)),
        found={n: (round(q[0], 3), round(q[1], 3), round(q[2], 3)) for n, q in quantiles.items()},
        ranges=ranges,
        uncertainty={
            name: round(float(missed), 4)
            for name, missed in zip(PARAMETERS, regression.missed, strict=True)
        },
    )


def read_site(path: Path) -> SiteScanner:
    """Read the file of `fit-simulator`.

    Raises
    ------
    ValueError
        If it is none (pydantic's ValidationError is one).
    """
    return SiteScanner.model_validate_json(path.read_bytes())


def _terms(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.ones((len(table), 1)), table, table**2], axis=1)


def _solve(terms: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ridge weights; the constant is not held back."""
    hold = RIDGE * len(terms) ** 0.5 * np.eye(terms.shape[1])
    hold[0, 0] = 0
    return np.asarray(np.linalg.solve(terms.T @ terms + hold, terms.T @ drawn))
