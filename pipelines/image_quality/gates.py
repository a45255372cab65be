"""The gates on an image with less noise, and on thin slices: what must not have changed.

Limits were set on procedural patients and the training patients (docs/image-quality.md says how
many passed); a pack may state its own. They find gross errors: a structure of the size of the
noise, or of plausible values between two slices, is found by none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.ct_series import HIGHEST_HU, LOWEST_HU
from pipelines.image_quality.classical import averages
from pipelines.image_quality.measures import Change
from pipelines.imaging.body import Mask, eroded
from pipelines.imaging.verdict import Gate, Limits

Hu = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the gates look at."""

    source: Hu
    """The image as it came."""
    before: Hu
    """The image on the grid of `after`: the source, or straight lines between its slices."""
    after: Hu
    body: Mask
    """On the grid of `after`."""
    factor: int
    """Thin slices of each slice of the source."""
    most_hu: float
    """What was allowed to change."""
    change: Change
    """From `before` to `after`."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Limits of this pack, by gate name, instead of the usual ones."""


Measure = Callable[[Case], float | None]
"""None where the image cannot say."""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    unit: str
    limits: Limits
    meaning: str
    measure: Measure


def gates(case: Case) -> tuple[Gate, ...]:
    """Return all gates of the task that the image can answer."""
    found = []
    for rule in (*COMMON, *(NOISE if case.factor == 1 else SLICES)):
        value = rule.measure(case)
        if value is None:
            continue
        limits = case.limits.get(rule.name, rule.limits)
        found.append(
            Gate(
                name=rule.name,
                value=value,
                unit=rule.unit,
                limits=limits,
                verdict=limits.judge(value),
                meaning=rule.meaning,
            )
        )
    return tuple(found)


def _tissue(case: Case) -> float | None:
    return max((abs(v) for v in case.change.tissues.values()), default=None)


def _structure(case: Case) -> float:
    return case.change.structure


def _width(case: Case) -> float | None:
    if case.change.profile is None:
        return None
    before, after = case.change.profile.widths
    return after / max(before, 0.5)


def _added(case: Case) -> float | None:
    """Return the noise power after over before in the ring where it grew most."""
    found = case.change.texture
    if found is None:
        return None
    _, before = found.before.radial
    _, after = found.after.radial
    heard = before > 0.02 * before.max()  # where there is hardly any power, nothing is seen
    return float((after[heard] / before[heard]).max())


def _left(case: Case) -> float | None:
    return None if case.change.texture is None else case.change.texture.ratio


def _largest(case: Case) -> float:
    held = np.clip(case.before, LOWEST_HU, HIGHEST_HU)
    return float(np.abs(case.after - held).max())


def _consistency(case: Case) -> float:
    thick = np.clip(case.source, LOWEST_HU, HIGHEST_HU)
    return float(np.abs(averages(case.after, case.factor) - thick).max())


def _slope(case: Case) -> float | None:
    """Return the change from first to last thin slice over that of the straight line.

    Where the line is steepest: 1 is the line, 0 a copy of the thick slice, -1 the wrong order.
    """
    inner = eroded(case.body[:: case.factor], 5)
    line, made = (
        i[case.factor - 1 :: case.factor] - i[:: case.factor] for i in (case.before, case.after)
    )
    if not inner.any():
        return None
    steep = inner & (np.abs(line) > max(10.0, float(np.percentile(np.abs(line[inner]), 95))))
    square = float((line[steep].astype(np.float64) ** 2).sum())
    return float((line[steep] * made[steep]).sum(dtype=np.float64)) / square if square else None


TISSUE: Final = "the mean of a flat tissue changed"
STRUCTURE: Final = "somewhere a structure is gone, or is new"

COMMON: Final = (
    _Rule("shading", "HU", Limits(passes=5.0, fails=10.0),
          "large regions read other HU than before", lambda c: c.change.shading_p99),
    _Rule("edges-kept", "", Limits(passes=0.90, fails=0.80),
          "strong edges are weaker or elsewhere", lambda c: c.change.edges_kept),
    _Rule("edge-width", "", Limits(passes=1.12, fails=1.30),
          "edges are wider: resolution was lost", _width),
    _Rule("residual-edges", "", Limits(passes=0.15, fails=0.30),
          "the difference image shows edges of the patient", lambda c: c.change.sharpness_taken),
)  # fmt: skip
"""Gates of both tasks."""

NOISE: Final = (
    _Rule("tissue-mean", "HU", Limits(passes=2.0, fails=4.0), TISSUE, _tissue),
    _Rule("structure-changed", "HU", Limits(passes=10.0, fails=18.0), STRUCTURE, _structure),
    _Rule("texture-added", "", Limits(passes=1.05, fails=1.25),
          "at some spatial frequency there is more noise than before", _added),
    _Rule("noise-left", "", Limits(passes=0.04, fails=0.01),
          "hardly any noise is left: over-smoothed", _left),
    _Rule("largest-change", "HU", Limits(passes=300.0, fails=301.0),
          "a voxel changed by more than is allowed", _largest),
)  # fmt: skip
"""Gates of noise reduction; the limits of the largest change are the setting's."""

SLICES: Final = (
    _Rule("tissue-mean", "HU", Limits(passes=3.0, fails=6.0), TISSUE, _tissue),
    _Rule("structure-changed", "HU", Limits(passes=60.0, fails=90.0), STRUCTURE, _structure),
    _Rule("data-consistency", "HU", Limits(passes=0.55, fails=1.0),
          "the thin slices do not average to the thick ones", _consistency),
    _Rule("slice-slope", "", Limits(passes=0.7, fails=0.4),
          "thin slices are in the wrong order, or copies of the thick one", _slope),
    _Rule("texture-added", "", Limits(passes=2.0, fails=3.0),
          "at some spatial frequency there is more noise than in a straight line", _added),
)  # fmt: skip
"""Gates of super-resolution; true thin slices of the training images differ from a straight line by
57 HU where they differ most, and have 1.9 times its noise: data consistency is what binds."""
