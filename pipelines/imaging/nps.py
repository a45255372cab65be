"""Noise power (Wiener) spectrum of flat regions, before and after.

NPS(u, v) = dx dy / (Nx Ny) <|DFT|^2> over squares of soft tissue whose second-order surface is
removed (IEC 62220-1; ICRU 87). Its integral is the noise variance.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE_PX: Final = 16
"""Side of a square."""
FLATNESS: Final = 1.5
"""A square is flat when its SD is below this multiple of the median SD of the flattest half."""
SOFT_HU: Final = (-250.0, 200.0)
LEAST_SQUARES: Final = 4
MOST_SQUARES: Final = 400
SLICES: Final = 24
"""About so many slices are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """A noise power spectrum."""

    power: NDArray[np.float64]
    """Shape (SIDE_PX, SIDE_PX), HU2 mm2, zero frequency first."""
    pixel: tuple[float, float]
    """(row, column), mm."""
    squares: int

    @property
    def variance(self) -> float:
        """Return the integral, HU2."""
        rows, columns = (SIDE_PX * s for s in self.pixel)
        return float(self.power.sum() / (rows * columns))

    @property
    def mean_frequency(self) -> float:
        """Return the mean of the radial frequency, weighted by the power, 1/mm."""
        return float((self.power * self._radius).sum() / max(self.power.sum(), 1e-12))

    @property
    def radial(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return frequency [1/mm] and mean power [HU2 mm2] in rings up to Nyquist."""
        width = 1 / (SIDE_PX * max(self.pixel))
        ring = np.round(self._radius / width).astype(int)
        inside = (ring > 0) & (ring <= SIDE_PX // 2)
        counts = np.bincount(ring[inside], minlength=SIDE_PX // 2 + 1)[1:]
        sums = np.bincount(ring[inside], self.power[inside], minlength=SIDE_PX // 2 + 1)[1:]
        frequencies: NDArray[np.float64] = width * np.arange(1, SIDE_PX // 2 + 1, dtype=np.float64)
        return frequencies, np.asarray(sums / np.maximum(counts, 1), dtype=np.float64)

    @property
    def _radius(self) -> NDArray[np.float64]:
        u, v = (np.fft.fftfreq(SIDE_PX, s) for s in self.pixel)
        return np.asarray(np.hypot(u[:, None], v[None, :]), dtype=np.float64)


def flat_squares(hu: Hu, body: Mask) -> NDArray[np.int64]:
    """Return the corners (slice, row, column) of squares of flat soft tissue, shape (n, 3)."""
    size = (1, SIDE_PX, SIDE_PX)
    middle = (slice(None), slice(SIDE_PX // 2, None, SIDE_PX), slice(SIDE_PX // 2, None, SIDE_PX))
    values = hu.astype(np.float64)
    mean = ndimage.uniform_filter(values, size)[middle]
    square = ndimage.uniform_filter(values**2, size)[middle]
    within = ndimage.minimum_filter(body, size)[middle]
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    soft = within & (mean > SOFT_HU[0]) & (mean < SOFT_HU[1])
    if not soft.any():
        return np.zeros((0, 3), dtype=np.int64)
    ranked = np.sort(deviation[soft])
    limit = FLATNESS * float(np.median(ranked[: max(1, len(ranked) // 2)]))
    corners = np.argwhere(soft & (deviation <= limit)) * (1, SIDE_PX, SIDE_PX)
    fits = (corners[:, 1] + SIDE_PX <= hu.shape[1]) & (corners[:, 2] + SIDE_PX <= hu.shape[2])
    kept = corners[fits]
    return np.asarray(kept[:: max(1, len(kept) // MOST_SQUARES)], dtype=np.int64)


def spectrum(hu: Hu, corners: NDArray[np.int64], pixel: tuple[float, float]) -> Spectrum | None:
    """Return the spectrum of `hu` over the squares at `corners`; None for too few squares.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
    corners : ndarray, shape (n, 3)
        As from `flat_squares`; use the same for both images.
    pixel : (row, column), mm
    """
    if len(corners) < LEAST_SQUARES:
        return None
    squares = np.stack(
        [hu[k, i : i + SIDE_PX, j : j + SIDE_PX].astype(np.float64) for k, i, j in corners]
    )
    flat = squares.reshape(len(squares), -1)
    surface = _second_order()
    flat = flat - (flat @ surface) @ surface.T
    power = np.abs(np.fft.fft2(flat.reshape(squares.shape))) ** 2
    scale = pixel[0] * pixel[1] / SIDE_PX**2
    return Spectrum(power=power.mean(axis=0) * scale, pixel=pixel, squares=len(squares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """The spectra of the same flat regions before and after."""

    before: Spectrum
    after: Spectrum

    @property
    def ratio(self) -> float:
        """Return the noise variance after over that before."""
        return self.after.variance / max(self.before.variance, 1e-9)


def texture(cbct: Hu, sct: Hu, body: Mask, pixel: tuple[float, float]) -> Texture | None:
    """Return the spectra of CBCT and synthetic CT; None where too little of the body is flat.

    Parameters
    ----------
    cbct, sct : ndarray, shape (slices, rows, columns), HU
    body : ndarray of bool, same shape
    pixel : (row, column), mm
    """
    some = slice(None, None, max(1, len(cbct) // SLICES))
    corners = flat_squares(cbct[some], body[some])
    before, after = (spectrum(image[some], corners, pixel) for image in (cbct, sct))
    return None if before is None or after is None else Texture(before=before, after=after)


def _second_order() -> NDArray[np.float64]:
    """Return an orthonormal basis (pixels, 6) of surfaces of second order."""
    y, x = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j]
    terms = (np.ones_like(x), x, y, x * x, x * y, y * y)
    basis, _ = np.linalg.qr(np.stack([t.ravel() for t in terms], axis=1))
    return np.asarray(basis, dtype=np.float64)
