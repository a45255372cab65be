"""What the gates of the synthetic CT look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.imaging.body import Mask, Vector
from pipelines.imaging.verdict import Gate, Limits

Hu = NDArray[np.float32]


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
