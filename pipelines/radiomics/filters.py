"""Image filters of IBSI-2 (arXiv 2006.05470): mean, LoG, Laws, Gabor, wavelets, Simoncelli, Riesz.

All work on isotropic voxels in the order (slice, row, column); the standard counts axes as
(column, row, slice), and so do the parameters. A separable filter is three passes in one
dimension. Rotation invariance takes the 24 rotations of a cube: the image is turned, filtered and
turned back, which treats kernels of even length as the standard does.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations, product
from math import factorial, prod
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, fftfreq, fftn, ifft2, ifftn, next_fast_len
from scipy.ndimage import convolve1d

from pipelines.radiomics.filter_settings import (
    Boundary,
    Gabor,
    ImageFilter,
    LaplacianOfGaussian,
    Laws,
    Mean,
    Pooling,
    Simoncelli,
    Wavelet,
)

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Turn = tuple[tuple[int, ...], tuple[int, ...]]
"""A rotation of the cube: a permutation of the axes and a sign for each."""

_MODE: Final[Mapping[Boundary, Literal["constant", "nearest", "wrap", "reflect"]]] = {
    "zero": "constant",
    "nearest": "nearest",
    "periodic": "wrap",
    "mirror": "reflect",
}
"""Names of `scipy.ndimage`."""
_PAD: Final[Mapping[Boundary, Literal["constant", "edge", "wrap", "symmetric"]]] = {
    "zero": "constant",
    "nearest": "edge",
    "periodic": "wrap",
    "mirror": "symmetric",
}
"""Names of `numpy.pad`."""

_LOWEST = 1 / 4
"""Lowest frequency of a Simoncelli band relative to its highest."""

_LAWS = {
    "L3": (1, 2, 1), "L5": (1, 4, 6, 4, 1), "E3": (-1, 0, 1), "E5": (-1, -2, 0, 2, 1),
    "S3": (-1, 2, -1), "S5": (-1, 0, 2, 0, -1), "W5": (-1, 2, 0, -2, 1), "R5": (1, -4, 6, -4, 1),
}  # fmt: skip
"""Level, edge, spot, wave and ripple; each is divided by its norm."""

_LOW = {
    "haar": np.array([1, 1]) / np.sqrt(2),
    "db2": np.array([1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5]) / np.sqrt(32),
    "db3": np.array(
        [
            1 + 10**0.5 - (5 + 2 * 10**0.5) ** 0.5,
            5 + 10**0.5 - 3 * (5 + 2 * 10**0.5) ** 0.5,
            10 - 2 * 10**0.5 - 2 * (5 + 2 * 10**0.5) ** 0.5,
            10 - 2 * 10**0.5 + 2 * (5 + 2 * 10**0.5) ** 0.5,
            5 + 10**0.5 + 3 * (5 + 2 * 10**0.5) ** 0.5,
            1 + 10**0.5 + (5 + 2 * 10**0.5) ** 0.5,
        ]
    )
    / np.sqrt(512),
    "coif1": np.array(
        [7**0.5 - 3, 1 - 7**0.5, 14 - 2 * 7**0.5, 14 + 2 * 7**0.5, 5 + 7**0.5, 1 - 7**0.5]
    )
    / np.sqrt(512),
}
"""Low-pass decomposition kernels (Daubechies 1988; Daubechies 1993 for coif1), of unit norm."""


def filtered(image: Floats, chosen: ImageFilter, voxel_mm: float) -> Floats:
    """Return the response map of a filter.

    Parameters
    ----------
    image : ndarray, shape (slices, rows, columns)
        On isotropic voxels; all of it counts, also outside a region.
    chosen : ImageFilter
    voxel_mm : float
        Edge of a voxel [mm].

    Returns
    -------
    ndarray, same shape, float64
    """
    match chosen:
        case Mean():
            kernel = np.full(chosen.support, 1 / chosen.support)
            return _separable(image, (kernel,) * chosen.dimensions, chosen.boundary)
        case LaplacianOfGaussian():
            return _laplacian_of_gaussian(image, chosen, chosen.sigma_mm / voxel_mm)
        case Laws():
            return _laws(image, chosen)
        case Gabor():
            return _gabor(image, chosen, voxel_mm)
        case Wavelet():
            one = partial(_wavelet, chosen=chosen)
            return (
                one(image)
                if chosen.pooling is None
                else _pooled(image, one, chosen.pooling, rotations())
            )
        case Simoncelli():
            return _simoncelli(image, chosen)


def reach_voxels(chosen: ImageFilter, voxel_mm: float) -> int:
    """Return how far about a voxel the image must go on for its response.

    For Simoncelli, whose kernel has no end, by far the most of it: an image is cut there.
    """
    match chosen:
        case Mean():
            return chosen.support // 2
        case LaplacianOfGaussian():
            return int(chosen.cutoff * chosen.sigma_mm / voxel_mm + 0.5)
        case Laws():
            return 2 + (chosen.energy or 0)
        case Gabor():
            return _gabor_half(chosen, voxel_mm)
        case Wavelet():
            return len(_LOW[chosen.family]) * int(2**chosen.level - 1)
        case Simoncelli():
            return 16 * int(2 ** (chosen.level - 1))


def rotations() -> list[Turn]:
    """Return the 24 rotations that turn a cube into itself."""
    found = []
    for axes in permutations(range(3)):
        parity = prod(1 if axes[a] < axes[b] else -1 for a, b in ((0, 1), (0, 2), (1, 2)))
        turns = [s for s in product((1, -1), repeat=3) if parity * prod(s) == 1]
        found += [(axes, signs) for signs in turns]
    return found


def quarter_turns() -> list[Turn]:
    """Return the 4 rotations about the slice axis."""
    return [(axes, signs) for axes, signs in rotations() if axes[0] == 0 and signs[0] == 1]


def laws_kernel(name: str) -> Floats:
    """Return a Laws kernel of unit norm."""
    kernel = np.array(_LAWS[name], dtype=np.float64)
    return kernel / np.linalg.norm(kernel)


def _laplacian_of_gaussian(image: Floats, chosen: LaplacianOfGaussian, sigma: float) -> Floats:
    """Return the Laplacian of Gaussian, `sigma` in voxels, cut off at a cube.

    The kernel is a sum of products, so it is exact in one dimension after the other.
    """
    half = int(chosen.cutoff * sigma + 0.5)
    k = np.arange(-half, half + 1, dtype=np.float64)
    bell = np.exp(-(k**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    bent = (k**2 / sigma**4 - 1 / sigma**2) * bell
    total = np.zeros(image.shape)
    for curved in range(chosen.dimensions):
        kernels = [bent if axis == curved else bell for axis in range(chosen.dimensions)]
        total += _separable(image, kernels, chosen.boundary)
    return total


def _laws(image: Floats, chosen: Laws) -> Floats:
    names = [chosen.kernels[n : n + 2] for n in range(0, len(chosen.kernels), 2)]
    kernels = [laws_kernel(name) for name in reversed(names)]  # ([slice,] row, column)
    one = partial(_separable, kernels=kernels, boundary=chosen.boundary)
    turns = rotations() if len(kernels) == image.ndim else quarter_turns()
    response = one(image) if chosen.pooling is None else _pooled(image, one, chosen.pooling, turns)
    if chosen.energy is None:
        return response
    size = 2 * chosen.energy + 1
    means = [np.full(size, 1 / size)] * len(kernels)
    return _separable(np.abs(response), means, chosen.boundary)


def _separable(image: Floats, kernels: Sequence[Floats], boundary: Boundary) -> Floats:
    """Return the convolution with the product of kernels along the last axes.

    Kernels of even length are centered on the tap after their middle, as those of the consensus.
    """
    for axis, kernel in enumerate(kernels, start=image.ndim - len(kernels)):
        image = convolve1d(image, kernel, axis=axis, mode=_MODE[boundary])
    return image


def _pooled(
    image: Floats, response: Callable[[Floats], Floats], pooling: Pooling, turns: Sequence[Turn]
) -> Floats:
    """Return the responses to the image in several turns, turned back and pooled."""
    combine = {"max": np.maximum, "min": np.minimum, "average": np.add}[pooling]
    total: Floats | None = None
    for axes, signs in turns:
        turned = np.transpose(image, axes)[tuple(slice(None, None, s) for s in signs)]
        back = response(turned)[tuple(slice(None, None, s) for s in signs)]
        back = np.transpose(back, np.argsort(axes))
        total = back if total is None else combine(total, back)
    assert total is not None  # noqa: S101 - one turn at least, that by nothing
    return total / len(turns) if pooling == "average" else np.ascontiguousarray(total)


def _wavelet(image: Floats, chosen: Wavelet) -> Floats:
    """Return a band of a level: low-pass in all axes down to it, kernels spread by zeros."""
    low = _LOW[chosen.family]
    high = low[::-1] * (-1.0) ** np.arange(1, len(low) + 1)
    bands = chosen.bands[::-1]  # (slice, row, column)
    for level in range(1, chosen.level + 1):
        last = level == chosen.level
        kernels = [
            _spread(high if last and band == "H" else low, 2 ** (level - 1)) for band in bands
        ]
        image = _separable(image, kernels, chosen.boundary)
    return image


def _spread(kernel: Floats, step: int) -> Floats:
    """Return a kernel with its taps `step` apart (à trous)."""
    spread = np.zeros(len(kernel) * step)
    spread[::step] = kernel
    return spread


def _gabor(image: Floats, chosen: Gabor, voxel_mm: float) -> Floats:
    """Return the mean magnitude over angles and planes."""
    planes = ((1, 2), (0, 2), (0, 1)) if chosen.planes == "orthogonal" else ((1, 2),)
    return sum(
        (_gabor_plane(image, axes, chosen, voxel_mm) for axes in planes), np.zeros(image.shape)
    ) / len(planes)


def _gabor_plane(image: Floats, axes: tuple[int, int], chosen: Gabor, voxel_mm: float) -> Floats:
    """Return the mean magnitude over the angles in planes of `axes`, (second, first) of the plane.

    An angle and its opposite give the same magnitude, so half a turn is enough.
    """
    half = _gabor_half(chosen, voxel_mm)
    pad = [(half, half) if axis in axes else (0, 0) for axis in range(3)]
    wide = np.moveaxis(np.pad(image, pad, mode=_PAD[chosen.boundary]), axes, (1, 2))
    size = [next_fast_len(n) for n in wide.shape[1:]]
    kernels = [fft2(gabor_kernel(chosen, voxel_mm, angle), size) for angle in gabor_angles(chosen)]
    rows, columns = (n - 2 * half for n in wide.shape[1:])
    found = np.empty((len(wide), rows, columns))
    for index, plane in enumerate(wide):
        spectrum = fft2(plane, size)
        total = np.zeros((rows, columns))
        for kernel in kernels:
            response = ifft2(spectrum * kernel)
            total += np.abs(response[2 * half : 2 * half + rows, 2 * half : 2 * half + columns])
        found[index] = total / len(kernels)
    return np.moveaxis(found, (1, 2), axes)


def gabor_angles(chosen: Gabor) -> list[float]:
    """Return the angles over which responses are averaged [rad]."""
    if chosen.step_pi is None:
        return [chosen.angle_pi * np.pi]
    turn = 1 if (1 / chosen.step_pi).is_integer() else 2
    count = int(np.ceil(turn / chosen.step_pi - 1e-9))
    return [(chosen.angle_pi + n * chosen.step_pi) * np.pi for n in range(count)]


def gabor_kernel(chosen: Gabor, voxel_mm: float, angle: float) -> Complex:
    """Return the kernel of an angle [rad], shape (second axis, first axis) of the plane."""
    sigma, wavelength = chosen.sigma_mm / voxel_mm, chosen.wavelength_mm / voxel_mm
    half = _gabor_half(chosen, voxel_mm)
    k = np.arange(-half, half + 1, dtype=np.float64)
    second, first = k[:, None], k[None]
    along = first * np.cos(angle) + second * np.sin(angle)
    across = -first * np.sin(angle) + second * np.cos(angle)
    bell = np.exp(-(along**2 + (chosen.aspect * across) ** 2) / (2 * sigma**2))
    kernel: Complex = bell * np.exp(2j * np.pi * along / wavelength)
    return kernel


def _gabor_half(chosen: Gabor, voxel_mm: float) -> int:
    """Return half the support of the kernel: where its bell is below 1e-10 in any direction."""
    reach = chosen.sigma_mm / voxel_mm * max(1.0, 1 / chosen.aspect)
    return int(np.ceil(7 * reach))


def _simoncelli(image: Floats, chosen: Simoncelli) -> Floats:
    """Return the band of a level, a ring about half of the highest frequency of that level.

    The consensus maps rest on frequencies that are sampled from -1 to 1 with both ends, where an
    even number of them misses zero by half a step; a band keeps no mean, whatever its level.
    """
    shifted = (np.fft.ifftshift(np.linspace(-1, 1, n)) for n in image.shape)
    scaled = _length(np.ix_(*shifted)) * 2 ** (chosen.level - 1)
    band = np.zeros(image.shape)
    inside = (scaled > _LOWEST) & (scaled <= 1)
    band[inside] = np.cos(np.pi / 2 * np.log2(2 * scaled[inside]))
    band[0, 0, 0] = 0
    spectrum: Complex = fftn(image) * band
    if chosen.riesz is not None:
        spectrum *= _riesz(image.shape, chosen.riesz)
    result: Floats = ifftn(spectrum).real
    return result


def _riesz(shape: tuple[int, ...], orders: tuple[int, int, int]) -> Complex:
    """Return the transfer function of a Riesz transform of `orders` (column, row, slice).

    An odd order has no value at the highest frequency of an even axis, which has no sign.
    """
    radius = _length(np.ix_(*(fftfreq(n) for n in shape)))
    radius[0, 0, 0] = 1
    lines = []
    for n, order in zip(shape, orders[::-1], strict=True):
        line = fftfreq(n)
        if n % 2 == 0 and order % 2:
            line[n // 2] = 0
        lines.append(line)
    total = sum(orders)
    weight = np.sqrt(factorial(total) / prod(factorial(n) for n in orders))
    found = np.full(radius.shape, (-1j) ** total * weight)
    for grid, order in zip(np.ix_(*lines), orders[::-1], strict=True):
        found *= (grid / radius) ** order
    return found


def _length(grids: Sequence[Floats]) -> Floats:
    """Return the length of the vectors with three components, which broadcast."""
    z, y, x = grids
    length: Floats = np.sqrt(z**2 + y**2 + x**2)
    return length
