"""Isotropic resampling with aligned grid centers (IBSI reference manual, 2.4)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

Floats = NDArray[np.float64]
Axes = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class Linear:
    """Positions between samples: the two nearest samples and the share of the upper one."""

    lower: NDArray[np.intp]
    share: Floats
    inside: NDArray[np.bool_]
    """False more than half a sample beyond the first or last; the value is never used there."""


def linear(samples: Floats, at: Floats) -> Linear:
    """Return how to interpolate at positions `at`, shape (n,), between ascending `samples` [mm]."""
    lower = np.clip(np.searchsorted(samples, at, side="right") - 1, 0, len(samples) - 2)
    step = samples[lower + 1] - samples[lower]
    share = np.clip((at - samples[lower]) / step, 0.0, 1.0)
    first, last = samples[1] - samples[0], samples[-1] - samples[-2]
    tolerance = 1e-6
    inside = (at >= samples[0] - first / 2 - tolerance) & (at <= samples[-1] + last / 2 + tolerance)
    return Linear(lower, share, inside)


def aligned(samples: Floats, step_mm: float) -> Floats:
    """Return positions `step_mm` apart whose middle is the middle of `samples`, ascending [mm].

    n' = ceil(n s / s'), so that the new voxels cover all of the old ones.
    """
    number = len(samples)
    spacing = (samples[-1] - samples[0]) / (number - 1)
    count = int(np.ceil(number * spacing / step_mm - 1e-9))
    first = samples[0] + (spacing * (number - 1) - step_mm * (count - 1)) / 2
    positions: Floats = first + step_mm * np.arange(count, dtype=np.float64)
    return positions


def trilinear(values: NDArray[np.floating], samples: Axes, at: Axes) -> Floats:
    """Return `values` at every point of the grid `at`; the nearest one in the outer half voxel.

    Parameters
    ----------
    values : ndarray, shape (slices, rows, columns)
    samples, at : three ndarrays each
        Positions along (slice, row, column) [mm], ascending.

    Returns
    -------
    ndarray, shape (len(at[0]), len(at[1]), len(at[2])), float64
    """
    result = np.asarray(values, dtype=np.float64)
    for axis in np.argsort([len(new) / len(old) for new, old in zip(at, samples, strict=True)]):
        place = linear(samples[axis], at[axis])
        first, last = int(place.lower[0]), int(place.lower[-1]) + 2
        part = result[tuple(slice(first, last) if a == axis else slice(None) for a in range(3))]
        low = np.take(part, place.lower - first, axis=axis)
        high = np.take(part, place.lower - first + 1, axis=axis)
        shape = [len(place.share) if a == axis else 1 for a in range(3)]
        high -= low
        high *= place.share.reshape(shape)
        high += low
        result = high
    return result


def spline(values: NDArray[np.floating], samples: Axes, at: Axes) -> Floats:
    """Return `values` at every point of the grid `at` by cubic splines.

    As `trilinear`, but nothing is smoothed where the samples are dense enough. An axis with
    fewer than four samples is taken by a spline of the highest degree that they allow.
    """
    result = np.asarray(values, dtype=np.float64)
    for axis in np.argsort([len(new) / len(old) for new, old in zip(at, samples, strict=True)]):
        line = samples[axis]
        curve = make_interp_spline(line, result, k=min(3, len(line) - 1), axis=int(axis))
        result = curve(np.clip(at[axis], line[0], line[-1]))
    return result


def cubic(values: NDArray[np.floating], samples: Axes, at: Axes) -> Floats:
    """Return `values` by cubic splines, never below zero, as for a dose; see `spline`."""
    return np.maximum(spline(values, samples, at), 0.0)
