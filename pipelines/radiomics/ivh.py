"""Intensity-volume histogram features (IBSI reference manual, 3.5)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = dict[str, float]

IVH = ("NK6P", "4279", "PWN1", "BOHI", "WITY", "JXJA", "9CMM")


def ivh(values: Floats, levels: Floats) -> Features:
    """Return the 7 features.

    Parameters
    ----------
    values : ndarray, shape (n,)
    levels : ndarray, shape (k,), ascending, evenly spaced
        Values x_k at which the fraction of voxels at or above is taken.

    Returns
    -------
    dict
        V10, V90, I10, I90, V10 - V90, I10 - I90 and the area under the curve by trapezoids;
        empty where there is only one level, so that no fraction of the range exists.
    """
    if len(levels) < 2:  # noqa: PLR2004 - a range has two ends
        return {}
    ordered = np.sort(values)
    above = 1 - np.searchsorted(ordered, levels, "left") / len(ordered)
    part = (levels - levels[0]) / (levels[-1] - levels[0])
    beyond = levels[-1] + (levels[1] - levels[0])

    def volume(q: float) -> float:
        return float(above[np.searchsorted(part, q - 1e-12)])

    def intensity(q: float) -> float:
        below = np.flatnonzero(above <= q + 1e-12)
        return float(levels[below[0]]) if len(below) else float(beyond)

    v10, v90, i10, i90 = volume(0.1), volume(0.9), intensity(0.1), intensity(0.9)
    area = float(np.trapezoid(above, part))
    return dict(zip(IVH, (v10, v90, i10, i90, v10 - v90, i10 - i90, area), strict=True))
