"""From an image and its masks to all features: the one engine behind doses, CT and MR."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics import enclosing, ivh, morphology, stats, texture

Floats = NDArray[np.float64]
Levels = NDArray[np.int32]
Spacing = tuple[float, float, float]

TIE = 1e-9
"""Keeps a value of exactly k bins in one bin, whatever the scaling of the stored numbers was."""


class Discretisation(Protocol):
    """A way from values to levels."""

    @property
    def words(self) -> str:
        """Return the method and its parameters."""
        ...

    def levels(self, values: Floats) -> Levels:
        """Return levels from 1, same shape."""
        ...

    def volume_histogram(self, values: Floats) -> tuple[Floats, Floats]:
        """Return values and evenly spaced levels for the intensity-volume histogram."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BinSize:
    """Bins of one width (IBSI Q3RU)."""

    width: float
    anchor: float | None = 0.0
    """Where the first bin begins; None: at the lowest value of the region."""
    unit: str = ""
    span: tuple[float, float] | None = None
    """Of the intensity-volume histogram: its levels are then the centers of bins over it."""

    @property
    def words(self) -> str:
        """Return the method and its parameters."""
        start = "the lowest value" if self.anchor is None else f"{self.anchor:g} {self.unit}"
        if self.span is not None:
            start = f"{self.span[0]:g} and the last ends at {self.span[1]:g} {self.unit}"
        words = f"fixed bin size {self.width:g} {self.unit}, first bin starts at {start}"
        return " ".join(words.split()).replace(" ,", ",")

    def levels(self, values: Floats) -> Levels:
        """Return floor((x - anchor) / width) + 1."""
        anchor = float(values.min()) if self.anchor is None else self.anchor
        place: Levels = np.floor((values - anchor) / self.width + TIE).astype(np.int32)
        place += 1
        return place

    def volume_histogram(self, values: Floats) -> tuple[Floats, Floats]:
        """Return values, and multiples of the width that span them, or bin centers over `span`."""
        if self.span is not None:
            low, high = self.span
            center = low + self.width / 2
            place = np.floor((values - low) / self.width + TIE) * self.width
            return place + center, np.arange(center, high, self.width)
        first = np.floor(values.min() / self.width + TIE)
        last = np.floor(values.max() / self.width + TIE)
        return values, np.arange(first, last + 1) * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class BinNumber:
    """A number of bins between the lowest and the highest value (IBSI K15C)."""

    count: int

    @property
    def words(self) -> str:
        """Return the method and its parameters."""
        return f"fixed bin number {self.count}"

    def levels(self, values: Floats) -> Levels:
        """Return floor(N (x - min) / (max - min)) + 1, N for the highest value."""
        low, high = float(values.min()), float(values.max())
        if high == low:
            return np.ones(values.shape, dtype=np.int32)
        place: Levels = np.floor(self.count * (values - low) / (high - low)).astype(np.int32)
        place += 1
        return np.minimum(place, self.count, out=place)

    def volume_histogram(self, values: Floats) -> tuple[Floats, Floats]:
        """Return levels in place of the values, and all of their numbers; one if all are equal."""
        levels = self.levels(values).astype(np.float64)
        count = self.count if values.max() > values.min() else 1
        return levels, np.arange(1.0, count + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What is computed, and on which levels."""

    families: Collection[str]
    levels: Discretisation
    volume_histogram: Discretisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Features by IBSI code; what is undefined is absent."""

    merged: dict[str, float]
    """GLCM and GLRLM merged over the directions; all other families."""
    averaged: dict[str, float]
    """GLCM and GLRLM averaged over the directions."""


def features(
    image: Floats,
    mask: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    spacing_mm: Spacing,
    method: Method,
) -> Values:
    """Return the features of a region.

    Parameters
    ----------
    image : ndarray, shape (slices, rows, columns)
        With a margin about the region of `stats.PEAK_RADIUS_MM`, where the image has it.
    mask : ndarray of bool, same shape
        Morphological mask.
    kept : ndarray of bool, same shape
        Intensity mask; differs from `mask` after a re-segmentation only, and is not empty.
    spacing_mm : (slice, row, column)
    method : Method
    """
    wanted = frozenset(method.families)
    inside = image[kept]
    found = method.levels.levels(inside)
    values: dict[str, float] = {}
    if "morphology" in wanted:
        values |= morphology.morphology(mask, image, kept, spacing_mm)
    if "enclosing" in wanted:
        values |= enclosing.enclosing(mask, spacing_mm)
    if "autocorrelation" in wanted:
        values |= morphology.autocorrelation(image, kept, spacing_mm)
    if "statistics" in wanted:
        values |= stats.statistics(inside)
    if "histogram" in wanted:
        values |= stats.histogram(found)
    if "ivh" in wanted:
        values |= ivh.ivh(*method.volume_histogram.volume_histogram(inside))
    if "local" in wanted:
        values |= stats.local_intensity(image, kept, spacing_mm)
    level = np.zeros(image.shape, dtype=np.int32)
    level[kept] = found
    merged, averaged = _texture(level, None if mask is kept else mask, wanted)
    return Values(merged=values | merged, averaged=averaged)


def _texture(
    level: Levels, mask: NDArray[np.bool_] | None, wanted: frozenset[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the texture of discretised voxels, and GLCM and GLRLM averaged."""
    values: dict[str, float] = {}
    averaged: dict[str, float] = {}
    if not wanted & {"glcm", "glrlm", "glszm", "gldzm", "neighborhood"}:
        return values, averaged
    volume = texture.Volume(level, mask)
    for name, family in (("glcm", texture.glcm), ("glrlm", texture.glrlm)):
        if name in wanted:
            merged, each = family(volume)
            values |= merged
            averaged |= each
    for name, single in (
        ("glszm", texture.glszm),
        ("gldzm", texture.gldzm),
        ("neighborhood", texture.neighborhood),
    ):
        if name in wanted:
            values |= single(volume)
    return values, averaged
