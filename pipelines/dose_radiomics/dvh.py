"""Dose-volume histograms from exact covered volumes, 1 mGy bins, trilinear dose.

The region is given as a field: covered fractions of square in-plane cells for every interval of
the plane axis in which they do not change. Volume, mean, extremes and spread are exact sums;
only D_x and V_x are read from the histogram, linear within a bin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtdose import DoseGrid
from pipelines.radiomics.cells import Window
from pipelines.radiomics.resample import linear

Floats = NDArray[np.float64]

BIN_GY = 0.001
MAX_BINS = 2_000_000
"""Bins widen by tens where the highest dose would need more than this many."""
_BATCH = 200_000
"""Cells gathered before they are counted: what stays in the cache of a core."""


class Field(Protocol):
    """A region whose covered fractions can be asked interval by interval."""

    def intervals(self) -> Iterator[tuple[float, float]]:
        """Yield (low, high) [mm] along the plane axis, ascending; fractions are constant inside."""
        ...

    def fractions(self, height: float, window: Window) -> Floats:
        """Return the largest possible covered fraction of every cell, shape `window.shape`."""
        ...

    def selects(self, dose: Floats, cells: NDArray[np.intp]) -> Floats | None:
        """Return the fractions of flat `cells` of the last window, as limited by their dose.

        None where the region has no limit by dose: what `fractions` said is all.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dvh:
    """Differential histogram with its exact sums."""

    volume_cc: float
    """Volume inside the dose grid, to which all percentages refer."""
    outside_cc: float
    """Volume of the region beyond the dose grid; no dose is invented for it."""
    mean: float
    sd: float
    minimum: float
    maximum: float
    """[Gy]; extremes are cell values."""
    bin_gy: float
    counts: Floats
    """Shape (bins,): volume [cc] with dose in [k, k + 1) x bin_gy."""

    def dose_at_cc(self, cc: float) -> float:
        """Return the dose [Gy] that the hottest `cc` receive at least."""
        above = np.cumsum(self.counts[::-1])
        from_top = int(np.searchsorted(above, min(cc, above[-1] * (1 - 1e-12))))
        share = (above[from_top] - cc) / self.counts[::-1][from_top]
        k = len(self.counts) - 1 - from_top
        return float(np.clip((k + max(share, 0.0)) * self.bin_gy, self.minimum, self.maximum))

    def dose_at_percent(self, percent: float) -> float:
        """Return the dose [Gy] that the hottest `percent` of the volume receive at least."""
        return self.dose_at_cc(self.volume_cc * percent / 100)

    def cc_at_dose(self, gray: float) -> float:
        """Return the volume [cc] that receives `gray` or more."""
        position = gray / self.bin_gy
        k = int(np.floor(position + 1e-9))
        if k >= len(self.counts):
            return 0.0
        share = 1 - max(position - k, 0.0)
        return float(self.counts[k] * share + self.counts[k + 1 :].sum())

    def percent_at_dose(self, gray: float) -> float:
        """Return the share [%] of the volume that receives `gray` or more."""
        return 100 * self.cc_at_dose(gray) / self.volume_cc

    def geud(self, a: float) -> float:
        """Return the generalized equivalent uniform dose (sum v D^a)^(1/a) [Gy]; a is not 0."""
        filled = np.flatnonzero(self.counts)
        dose = np.clip((filled + 0.5) * self.bin_gy, self.minimum, self.maximum)
        if self.maximum <= 0 or (a < 0 and self.minimum <= 0):
            return 0.0
        share = self.counts[filled] / self.counts[filled].sum()
        relative = dose / self.maximum  # keeps large exponents inside the range of a double
        scale = relative.min() if a < 0 else 1.0
        return float(self.maximum * scale * np.sum(share * (relative / scale) ** a) ** (1 / a))

    def curve(self, points: int) -> tuple[Floats, Floats]:
        """Return (dose [Gy], volume [%]) of the cumulative histogram at `points` equal steps."""
        edges = np.append(np.cumsum(self.counts[::-1])[::-1], 0.0)
        dose = np.linspace(0.0, len(self.counts) * self.bin_gy, points)
        volume = np.interp(dose, np.arange(len(edges)) * self.bin_gy, edges)
        return dose, 100 * volume / self.volume_cc


class Conversion(Protocol):
    """A map from physical to biological dose."""

    def __call__(self, dose: Floats) -> Floats:
        """Return the converted dose, same shape [Gy]."""
        ...


class DoseOnWindow:
    """Dose frames interpolated to the cells of a window, one frame at a time, and blended."""

    def __init__(self, grid: DoseGrid, window: Window) -> None:
        self._grid = grid
        rows, columns = window.centers
        self._rows = linear(grid.positions[1], rows)
        self._columns = linear(grid.positions[2], columns)
        self.inside = self._rows.inside[:, None] & self._columns.inside[None, :]
        """Shape (rows, columns): cells that the grid reaches."""
        self._frames: dict[int, Floats] = {}
        self._cells: NDArray[np.intp] | None = None
        self._picked: dict[int, Floats] = {}

    def at(self, heights: Floats, cells: NDArray[np.intp]) -> Iterator[Floats | None]:
        """Yield the dose [Gy] of flat `cells` at each of `heights` [mm]; None outside the grid."""
        place = linear(self._grid.positions[0], heights)
        for k, share, inside in zip(
            place.lower.tolist(), place.share.tolist(), place.inside.tolist(), strict=True
        ):
            if not inside:
                yield None
                continue
            lower = self._pick(k, cells)
            blend = self._pick(k + 1, cells) - lower
            blend *= share
            blend += lower
            yield blend

    def _pick(self, k: int, cells: NDArray[np.intp]) -> Floats:
        """Return frame `k` at flat `cells`; kept while the same cells are asked for."""
        if cells is not self._cells:
            self._cells, self._picked = cells, {}
        if k not in self._picked:
            self._picked[k] = self._frame(k).take(cells)
        return self._picked[k]

    def _frame(self, k: int) -> Floats:
        """Return frame `k` at the cells of the window, flat; two frames are kept."""
        if k not in self._frames:
            for old in [n for n in self._frames if abs(n - k) > 1]:
                del self._frames[old]
            frame, r, c = self._grid.dose[k], self._rows, self._columns
            first, last = int(c.lower[0]), int(c.lower[-1]) + 2
            part = frame[:, first:last]
            above = part[r.lower]
            by_row = above + r.share[:, None] * (part[r.lower + 1] - above)
            left = by_row[:, c.lower - first]
            right = by_row[:, c.lower - first + 1]
            self._frames[k] = (left + c.share * (right - left)).ravel()
        return self._frames[k]


def dvh(
    field: Field, grid: DoseGrid, window: Window, convert: Conversion | None = None
) -> Dvh | None:
    """Return the DVH of `field` in `grid`; None where no part of it lies inside the grid.

    Parameters
    ----------
    field : Field
    grid : DoseGrid
    window : Window
        Cells that enclose the field; their size is also the largest step along the plane axis.
    convert : callable, optional
        From physical to biological dose, applied after the interpolation.
    """
    sampler = DoseOnWindow(grid, window)
    reached = sampler.inside.ravel()
    sums = _Sums()
    for low, high in field.intervals():
        fractions = field.fractions((low + high) / 2, window).ravel()
        cells = np.flatnonzero(fractions)
        if not len(cells):
            continue
        steps = max(1, int(np.ceil((high - low) / window.size_mm - 1e-9)))
        unit = window.size_mm**2 * (high - low) / steps / 1000
        share = fractions[cells]
        lost = cells[~reached[cells]]
        if len(lost):
            share_lost = fractions[lost]
            cells = cells[reached[cells]]
            share = fractions[cells]
            sums.outside += unit * steps * float(share_lost.sum())
        volume = unit * share
        heights = low + (np.arange(steps) + 0.5) * (high - low) / steps
        for dose in sampler.at(heights, cells):
            if dose is None:
                sums.outside += float(volume.sum())
                continue
            gray = dose if convert is None else convert(dose)
            selected = field.selects(gray, cells)
            sums.add(gray, volume if selected is None else unit * selected)
    return sums.result()


class _Sums:
    """Collects doses and volumes; counts them in batches."""

    def __init__(self) -> None:
        self.outside = 0.0
        self._waiting: list[tuple[Floats, Floats]] = []
        self._cells = 0
        self._volume = self._first = self._second = 0.0
        self._lowest, self._highest = np.inf, -np.inf
        self._width = BIN_GY
        self._counts = np.zeros(0)

    def add(self, dose: Floats, volume: Floats) -> None:
        """Take cells with their dose [Gy] and covered volume [cc]."""
        self._waiting.append((dose, volume))
        self._cells += len(dose)
        if self._cells > _BATCH:
            self._count()

    def _count(self) -> None:
        dose, volume = self._waiting[0]
        if len(self._waiting) > 1:
            dose = np.concatenate([d for d, _ in self._waiting])
            volume = np.concatenate([v for _, v in self._waiting])
        self._waiting, self._cells = [], 0
        if not volume.all():
            keep = volume > 0
            dose, volume = dose[keep], volume[keep]
        if not len(dose):
            return
        weighted = volume * dose
        self._volume += float(volume.sum())
        self._first += float(weighted.sum())
        self._second += float(weighted @ dose)
        self._lowest = min(self._lowest, float(dose.min()))
        self._highest = max(self._highest, float(dose.max()))
        while self._highest / self._width > MAX_BINS:
            padded = np.pad(self._counts, (0, -len(self._counts) % 10))
            self._counts = padded.reshape(-1, 10).sum(axis=1)
            self._width *= 10
        place = dose * (1 / self._width)
        place += 1e-9
        found = np.bincount(place.astype(np.intp), volume)
        if len(found) > len(self._counts):
            self._counts = np.pad(self._counts, (0, len(found) - len(self._counts)))
        self._counts[: len(found)] += found

    def result(self) -> Dvh | None:
        """Return the histogram; None where nothing was counted."""
        if self._waiting:
            self._count()
        if self._volume <= 0:
            return None
        mean = self._first / self._volume
        return Dvh(
            volume_cc=self._volume,
            outside_cc=self.outside,
            mean=mean,
            sd=float(np.sqrt(max(self._second / self._volume - mean**2, 0.0))),
            minimum=self._lowest,
            maximum=self._highest,
            bin_gy=self._width,
            counts=self._counts,
        )
