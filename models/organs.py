"""Run a contouring network over a CT: HU in, class probabilities on every CT slice out.

The CT is brought to the network's voxels (`models.window.Frame`), the network slides over it in
overlapping windows whose answers are blended with Gaussian weights, and the probabilities are
brought back slice by slice, so that memory does not grow with the CT's pixels. Resampling is
separable: two small matrices a slice.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from models.window import AIR_HU, FLAT, Frame, body_centre, network_input

Network: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Input (N, channels, [slices,] rows, columns) -> logits (N, classes, [slices,] rows, columns)."""

Matrix: TypeAlias = "sparse.csr_array[np.float32]"
"""Weights of one axis."""
BATCH: Final = 16
"""Slices that a 2.5D network is given at once."""
OVERLAP: Final = 0.5
"""Share of a window that the next one sees again."""
SIGMA: Final = 0.2
"""Width of the blending weights, in windows: the middle of a window knows more than its edge."""
LEVEL: Final = 0.5
"""Where the surface of an organ's field lies."""
TENTH: Final = 0.1
"""Parts of an elongated organ below this share of its largest part are crumbs."""


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
    hu: NDArray[Any], spacing: tuple[float, float, float], network: Network, frame: Frame
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
    frame : Frame
        What the network was trained to see.
    """
    count = hu.shape[0]
    positions = _slice_positions(count, spacing[0], frame.voxel_mm[0])
    axes = _in_plane(hu, spacing, frame)
    small = np.empty((len(positions), *(axis.down.shape[0] for axis in axes)), np.float32)
    for k, position in enumerate(positions):
        plane = _between(hu, position) - np.float32(AIR_HU)  # beyond the image lies air
        small[k] = (axes[1].down @ (axes[0].down @ plane).T).T + np.float32(AIR_HU)
    answers = slide(small, network, frame)
    spread = (len(positions) - 1) / (count - 1) if count > 1 else 0.0
    for index in range(count):
        coarse = _between(answers, index * spread)
        fine = _enlarged(coarse, axes[0].up, axes[1].up)
        fine[0] += 1.0 - fine.sum(axis=0)  # outside the field everything is background
        yield OrganSlice(
            index=index, rows=axes[0].extent, columns=axes[1].extent, probabilities=fine
        )


def slide(hu: NDArray[np.float32], network: Network, frame: Frame) -> NDArray[np.float32]:
    """Return the blended class probabilities of a volume that has the network's voxels.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), float32
        What is missing of a patch is added on both sides, as the frame says.

    Returns
    -------
    ndarray, shape (slices, classes, rows, columns), float32
    """
    margins = [_margin(s, w) for s, w in zip(hu.shape, frame.patch, strict=True)]
    inside = tuple(slice(a, a + s) for (a, _), s in zip(margins, hu.shape, strict=True))
    hu = np.pad(hu, margins, constant_values=frame.padding_hu)
    corners = list(
        itertools.product(*(_starts(s, w) for s, w in zip(hu.shape, frame.patch, strict=True)))
    )
    weight = _weights(frame.patch)[:, None]
    total = np.zeros((len(hu), 1, *hu.shape[1:]), np.float32)
    blended: NDArray[np.float32] | None = None
    batch = BATCH if frame.dimensions == FLAT else 1
    for first in range(0, len(corners), batch):
        chosen = corners[first : first + batch]
        seen = np.stack([_window(hu, corner, frame) for corner in chosen])
        answer = _softmax(network(network_input(seen, frame)))
        if blended is None:
            blended = np.zeros((len(hu), answer.shape[1], *hu.shape[1:]), np.float32)
        for corner, part in zip(chosen, answer, strict=True):
            volume = part[None] if frame.dimensions == FLAT else np.moveaxis(part, 0, 1)
            z, y, x = (slice(c, c + w) for c, w in zip(corner, frame.patch, strict=True))
            blended[z, :, y, x] += volume * weight
            total[z, :, y, x] += weight
    assert blended is not None  # noqa: S101 (a window always exists)
    blended /= total
    z, y, x = inside
    return blended[z, :, y, x]


def _margin(size: int, window: int) -> tuple[int, int]:
    """Return what is added before and behind an axis that is shorter than a window."""
    short = max(0, window - size)
    return short // 2, short - short // 2


def _in_plane(
    hu: NDArray[Any], spacing: tuple[float, float, float], frame: Frame
) -> tuple["_Axis", "_Axis"]:
    """Return the way to the network's rows and columns: about the body, or over the image."""
    middle, fields = body_centre(hu), frame.field
    if fields is None:
        middle = ((hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2)
        fields = (
            int(np.ceil(hu.shape[1] * spacing[1] / frame.voxel_mm[1])),
            int(np.ceil(hu.shape[2] * spacing[2] / frame.voxel_mm[2])),
        )
    rows, columns = (
        _Axis.around(middle[a], hu.shape[a + 1], spacing[a + 1], frame.voxel_mm[a + 1], fields[a])
        for a in (0, 1)
    )
    return rows, columns


def _window(hu: NDArray[np.float32], corner: tuple[int, ...], frame: Frame) -> NDArray[np.float32]:
    """Return the slices of one input; those beyond the ends repeat the outermost."""
    z, y, x = corner
    _, rows, columns = frame.patch
    return hu[np.clip(z + frame.slices, 0, len(hu) - 1), y : y + rows, x : x + columns]


def without_crumbs(mask: NDArray[np.bool_], components: str) -> NDArray[np.bool_]:
    """Return the parts of a mask that belong to the organ.

    Parameters
    ----------
    mask : ndarray of bool
    components : str
        ``largest``: the largest connected part; ``tenth``: all of at least a tenth of it, for
        elongated organs that may be found in several parts.
    """
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    least = TENTH * sizes.max() if components == "tenth" else sizes.max()
    kept: NDArray[np.bool_] = np.isin(parts, 1 + np.flatnonzero(sizes >= least))
    return kept


@dataclass(frozen=True, slots=True)
class _Axis:
    """The way from CT pixels to network pixels along one axis, and back."""

    down: Matrix
    """(network pixels, CT pixels)."""
    up: Matrix
    """(CT pixels of the extent, network pixels)."""
    extent: slice
    """CT pixels that the network's field covers."""

    @classmethod
    def around(cls, middle: float, size: int, step: float, voxel: float, field: int) -> "_Axis":
        """Return the axis whose field of `field` network pixels is centred on CT pixel `middle`."""
        start = middle * step - (field - 1) / 2 * voxel  # mm
        positions = (start + voxel * np.arange(field, dtype=np.float64)) / step
        first = max(0, int(np.ceil((start - voxel / 2) / step)))
        last = min(size, int(np.floor((start + (field - 0.5) * voxel) / step)) + 1)
        back = (np.arange(first, last, dtype=np.float64) * step - start) / voxel
        return cls(
            down=_resize(size, 1.0, positions, voxel / step),
            up=_resize(field, voxel, back, step),
            extent=slice(first, last),
        )


def _slice_positions(count: int, spacing: float, wanted: float) -> NDArray[np.float64]:
    """Return the fractional CT slices that lie `wanted` mm apart, first and last included."""
    return np.linspace(0, count - 1, max(1, round((count - 1) * spacing / wanted) + 1))


def _between(volume: NDArray[Any], position: float) -> NDArray[np.float32]:
    """Return the slice at a fractional index, interpolated linearly."""
    low = int(position)
    part = np.float32(position - low)
    first = volume[low].astype(np.float32)
    if part < 1e-6 or low + 1 >= volume.shape[0]:  # noqa: PLR2004 (rounding)
        return first
    second = volume[low + 1].astype(np.float32)
    return first + part * (second - first)


def _resize(size: int, pixel: float, positions: NDArray[np.float64], target_pixel: float) -> Matrix:
    """Return the (targets, size) matrix of a triangle filter: linear, anti-aliased when shrinking.

    `positions` are the targets in source pixels; beyond the outermost source pixel the weights
    fade, so that the outside counts as zero.
    """
    support = max(1.0, target_pixel / pixel)
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    weights = np.clip(1 - distance / support, 0, None) / support
    return sparse.csr_array(weights.astype(np.float32))


def _enlarged(coarse: NDArray[np.float32], rows: Matrix, columns: Matrix) -> NDArray[np.float32]:
    """Return (classes, rows, columns) brought to other rows and columns.

    Sparse matrices: two of a hundred weights are not 0, and no library starts threads for them.
    """
    classes, height, width = coarse.shape
    tall = rows @ coarse.transpose(1, 0, 2).reshape(height, classes * width)
    wide = columns @ tall.reshape(-1, width).T
    return np.ascontiguousarray(wide.reshape(-1, rows.shape[0], classes).transpose(2, 1, 0))


def _starts(size: int, window: int) -> Sequence[int]:
    """Return where windows begin so that they cover an axis and overlap evenly."""
    if window == 1:
        return range(size)
    steps = max(0, int(np.ceil((size - window) / (window * (1 - OVERLAP)))))
    return np.linspace(0, size - window, steps + 1).round().astype(int).tolist()


def _weights(window: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return Gaussian weights of a window; never 0, so that every voxel is answered."""
    weight = np.ones((1, 1, 1))
    for axis, size in enumerate(window):
        offset = (np.arange(size) - (size - 1) / 2) / (SIGMA * size)
        shape = [1, 1, 1]
        shape[axis] = size
        weight = weight * np.exp(-0.5 * offset**2).reshape(shape)
    return np.maximum(weight, 1e-3).astype(np.float32)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted
