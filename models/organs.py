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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What networks say together, on their own voxels."""

    mean: NDArray[np.float32]
    """Class probabilities averaged over the networks, shape (slices, classes, rows, columns)."""
    labels: tuple[NDArray[np.uint16], ...]
    """The likeliest class for each network, shape (slices, rows, columns)."""
    count: int
    """Slices of the CT."""
    axes: tuple["_Axis", "_Axis"]

    def slices(self) -> Iterator[OrganSlice]:
        """Yield the class probabilities of every CT slice, in order."""
        spread = (len(self.mean) - 1) / (self.count - 1) if self.count > 1 else 0.0
        rows, columns = self.axes
        for index in range(self.count):
            coarse = _between(self.mean, index * spread)
            fine = _enlarged(coarse, rows.up, columns.up)
            fine[0] += 1.0 - fine.sum(axis=0)  # outside the field everything is background
            yield OrganSlice(
                index=index, rows=rows.extent, columns=columns.extent, probabilities=fine
            )

    def agreement(self) -> dict[int, float]:
        """Return for each class but the background the lowest Dice of two networks.

        Empty where there is one network; 1 where none of two found the class.
        """
        sizes = [np.bincount(found.ravel(), minlength=self.mean.shape[1]) for found in self.labels]
        lowest: dict[int, float] = {}
        for a, b in itertools.combinations(range(len(self.labels)), 2):
            same = self.labels[a][self.labels[a] == self.labels[b]]
            both = np.bincount(same, minlength=self.mean.shape[1])
            for label in range(1, self.mean.shape[1]):
                size = sizes[a][label] + sizes[b][label]
                dice = 2 * float(both[label]) / float(size) if size else 1.0
                lowest[label] = min(lowest.get(label, 1.0), dice)
        return lowest


def answer(
    hu: NDArray[Any],
    spacing: tuple[float, float, float],
    networks: Sequence[Network],
    frames: Sequence[Frame],
    values: NDArray[Any] | None = None,
) -> Answer:
    """Run networks over a CT and average what they say.

    The average is taken on the networks' voxels, before it is brought to the CT's: that is the
    dear part, and it is paid once.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
        CT with everything outside the body at air (-1024 HU), as the training data has it.
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    networks : sequence of callable
        See `Network`.
    frames : sequence of Frame
        What each network was trained to see: one voxel size, fields around one middle
        (`models.pack.Manifest` holds to both).
    values : ndarray, optional
        The whole CT as it was scanned, for networks whose window each image sets; default: `hu`.
    """
    frames = [frame.for_image(hu if values is None else values) for frame in frames]
    first = frames[0]
    positions = _slice_positions(hu.shape[0], spacing[0], first.voxel_mm[0])
    axes = _in_plane(hu, spacing, frames)
    small = np.empty((len(positions), *(axis.down.shape[0] for axis in axes)), np.float32)
    for k, position in enumerate(positions):
        plane = _between(hu, position) - np.float32(AIR_HU)  # beyond the image lies air
        small[k] = (axes[1].down @ (axes[0].down @ plane).T).T + np.float32(AIR_HU)
    mean: NDArray[np.float32] | None = None
    labels = []
    for network, frame in zip(networks, frames, strict=True):
        at = _field(small.shape, frame)
        found = slide(small[at], network, frame)
        if mean is None:
            mean = np.zeros((len(small), found.shape[1], *small.shape[1:]), np.float32)
        mean[:, :, at[1], at[2]] += found
        mean[:, 0] += 1.0
        mean[:, 0, at[1], at[2]] -= 1.0  # beyond a network's field it says background
        label = np.zeros(small.shape, np.uint16)
        label[at] = found.argmax(axis=1)
        labels.append(label)
    assert mean is not None  # noqa: S101 (there is a network)
    mean /= np.float32(len(labels))
    return Answer(mean=mean, labels=tuple(labels), count=hu.shape[0], axes=axes)


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
        found = _softmax(network(network_input(seen, frame)))
        if blended is None:
            blended = np.zeros((len(hu), found.shape[1], *hu.shape[1:]), np.float32)
        for corner, part in zip(chosen, found, strict=True):
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
    hu: NDArray[Any], spacing: tuple[float, float, float], frames: Sequence[Frame]
) -> tuple["_Axis", "_Axis"]:
    """Return the way to the networks' rows and columns: about the body, or over the image."""
    middle, voxel = body_centre(hu), frames[0].voxel_mm
    fields = [frame.field for frame in frames if frame.field is not None]
    if fields:
        rows, columns = (max(field[a] for field in fields) for a in (0, 1))
    else:
        middle = ((hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2)
        rows, columns = (int(np.ceil(hu.shape[a] * spacing[a] / voxel[a])) for a in (1, 2))
    return (
        _Axis.around(middle[0], hu.shape[1], spacing[1], voxel[1], rows),
        _Axis.around(middle[1], hu.shape[2], spacing[2], voxel[2], columns),
    )


def _field(shape: tuple[int, ...], frame: Frame) -> tuple[slice, slice, slice]:
    """Return where the field of one network lies in the largest of all."""
    if frame.field is None:
        return slice(None), slice(None), slice(None)
    rows, columns = (
        slice((have - want) // 2, (have - want) // 2 + want)
        for have, want in zip(shape[1:], frame.field, strict=True)
    )
    return slice(None), rows, columns


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
