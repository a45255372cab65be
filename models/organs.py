"""Run the 2.5D contouring network over a CT: HU in, one soft field per organ out.

The network sees a fixed field of view (`models.window`); this module brings a CT of any pixel and
slice spacing there and its answer back. Resampling is separable: two small matrices a slice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.window import (
    FIELD_PX,
    PIXEL_MM,
    SOFT_HU,
    WIDE_HU,
    body_centre,
    slice_stack,
    windowed,
)

Network: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Input (N, slices + 1, FIELD_PX, FIELD_PX) -> logits (N, classes, FIELD_PX, FIELD_PX)."""

SLICE_RANGE_MM: Final = (1.4, 3.4)
"""Slice spacings that training saw; others are resampled to `SLICE_MM`."""
SLICE_MM: Final = 2.5
BATCH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganSlice:
    """The network's answer on one CT slice, inside its field of view."""

    index: int
    """Slice of the CT."""
    rows: slice
    """CT rows that `probabilities` covers."""
    columns: slice
    probabilities: NDArray[np.float32]
    """Shape (classes, rows, columns), sums to 1 over classes."""


def segment(
    hu: NDArray[Any], spacing: tuple[float, float, float], network: Network, slices: int
) -> Iterator[OrganSlice]:
    """Yield the class probabilities of every CT slice, in order.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
        CT with everything outside the body at air (-1024 HU), as the training data has it.
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    network : callable
        See `Network`.
    slices : int
        Neighbouring slices that the network takes.
    """
    count = hu.shape[0]
    steps = _slice_positions(count, spacing[0])
    down, rows, columns = _field(hu, spacing)
    small = np.empty((len(steps), FIELD_PX, FIELD_PX), np.float32)
    air = 1024.0  # outside the field counts as air
    for k, position in enumerate(steps):
        plane = _between(hu, position) + air
        small[k] = down[0] @ plane @ down[1].T - air
    answers = _softmax(_run(small, network, slices))
    up_rows = _resize(FIELD_PX, PIXEL_MM, _offsets(rows, spacing[1], down[2]), spacing[1])
    up_columns = _resize(FIELD_PX, PIXEL_MM, _offsets(columns, spacing[2], down[3]), spacing[2])
    spread = (len(steps) - 1) / (count - 1) if count > 1 else 0.0
    for index in range(count):
        coarse = _between(answers, index * spread)
        fine = np.matmul(np.matmul(up_rows, coarse), up_columns.T)
        fine[0] += 1.0 - fine.sum(axis=0)  # outside the field everything is background
        yield OrganSlice(index=index, rows=rows, columns=columns, probabilities=fine)


def _slice_positions(count: int, spacing: float) -> NDArray[np.float64]:
    low, high = SLICE_RANGE_MM
    if low <= spacing <= high:
        return np.arange(count, dtype=float)
    wanted = max(1, round((count - 1) * spacing / SLICE_MM) + 1)
    return np.linspace(0, count - 1, wanted)


def _between(volume: NDArray[Any], position: float) -> NDArray[np.float32]:
    """Return the slice at a fractional index, interpolated linearly."""
    low = int(position)
    part = np.float32(position - low)
    first = volume[low].astype(np.float32)
    if part < 1e-6 or low + 1 >= volume.shape[0]:  # noqa: PLR2004 (rounding)
        return first
    second = volume[low + 1].astype(np.float32)
    return first + part * (second - first)


def _field(
    hu: NDArray[Any], spacing: tuple[float, float, float]
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32], float, float], slice, slice]:
    """Return the matrices into the field, the field's first position [mm], and its CT extent."""
    row, column = body_centre(hu)
    reach = (FIELD_PX - 1) / 2 * PIXEL_MM
    matrices, starts, extents = [], [], []
    for centre, size, step in zip((row, column), hu.shape[1:], spacing[1:], strict=True):
        start = centre * step - reach
        positions = (start + PIXEL_MM * np.arange(FIELD_PX, dtype=np.float64)) / step
        matrices.append(_resize(size, 1.0, positions, PIXEL_MM / step))
        starts.append(start)
        first = max(0, int(np.ceil((start - PIXEL_MM / 2) / step)))
        last = min(size, int(np.floor((start + (FIELD_PX - 0.5) * PIXEL_MM) / step)) + 1)
        extents.append(slice(first, last))
    return (matrices[0], matrices[1], starts[0], starts[1]), extents[0], extents[1]


def _offsets(extent: slice, step: float, start: float) -> NDArray[np.float64]:
    """Return CT pixel positions of an extent in network pixels."""
    return (np.arange(extent.start, extent.stop) * step - start) / PIXEL_MM


def _resize(
    size: int, pixel: float, positions: NDArray[np.float64], target_pixel: float
) -> NDArray[np.float32]:
    """Return the (targets, size) matrix of a triangle filter: linear, anti-aliased when shrinking.

    `positions` are the targets in source pixels; beyond the outermost source pixel the weights
    fade, so that the outside counts as zero.
    """
    support = max(1.0, target_pixel / pixel)
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    weights = np.clip(1 - distance / support, 0, None) / support
    return weights.astype(np.float32)


def _run(small: NDArray[np.float32], network: Network, slices: int) -> NDArray[np.float32]:
    soft, wide = windowed(small, SOFT_HU), windowed(small, WIDE_HU)
    answers = []
    for first in range(0, len(small), BATCH):
        chosen = range(first, min(first + BATCH, len(small)))
        batch = np.stack(
            [
                np.concatenate([soft[slice_stack(len(small), k, slices)], wide[k : k + 1]])
                for k in chosen
            ]
        )
        answers.append(network(batch))
    return np.concatenate(answers)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted
