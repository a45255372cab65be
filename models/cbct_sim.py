"""A cone-beam CT simulator: a CT in, the CBCT that a linac's imager would have made of it out.

Slice by slice fan beams (full fan or half fan), two materials and a polychromatic spectrum,
scatter, quantum and electronic noise, the vendor's imperfect correction, truncation, filtered
backprojection. Every setting is one number of one frozen object, so a case can be repeated and a
training set randomized (`random_settings`). Cone-angle artefacts are out of its scope.

Physics, values and ranges: reference page "CBCT -> synthetic CT", section 4. Geometry: Kak and
Slaney, Principles of Computerized Tomographic Imaging (1988), chapter 3; short-scan weights:
Parker, Med. Phys. 9 (1982) 254; half-fan weights: Cho et al., Med. Phys. 22 (1995).
Arrays are (slice, row, column); detector coordinates are scaled to the isocenter, in mm.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ENERGIES_KEV = (50, 60, 70, 80, 100, 120)
ENERGY_WEIGHTS = (0.14, 0.24, 0.22, 0.18, 0.15, 0.07)
"""Photons at these energies."""
MU_WATER = (0.02269, 0.02059, 0.01935, 0.01837, 0.01707, 0.01610)
"""Attenuation of water at these energies, 1/mm."""
MU_BONE = (0.0815, 0.0604, 0.0500, 0.0428, 0.0356, 0.0320)
"""Attenuation of cortical bone, 1.92 g/cm3, 1/mm."""
KAPPA = 2.4
"""Attenuation of bone over that of water at the effective energy."""
REFERENCE_WATER_MM = 200.0
"""The water-equivalent attenuation coefficient is taken behind this much water."""
LEAST_SIGNAL = 2e-5
"""Floor of the corrected intensity before its logarithm."""
SHORT_SCAN_RAD = math.radians(200.0)
PIXEL_TOLERANCE_MM = 1e-3
WIDEST_CELL_MM = 1.8
"""Of a detector cell at the isocenter; coarser ones blur the half-fan overlap into a ring."""
DARKEST = 0.02
"""The quantile of a view that is taken for its darkest signal."""
VIEWS_AT_ONCE = 8


class Fan(StrEnum):
    """How the detector stands."""

    FULL = "FULL"
    """Centered, 200 degrees, field of view about 260 mm."""
    HALF = "HALF"
    """Shifted to one side, 360 degrees, field of view about 450 mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CbctSettings:
    """One scanner, one protocol, one patient position."""

    fan: Fan = Fan.HALF
    views: int = 360
    source_isocenter_mm: float = 1000.0
    source_detector_mm: float = 1500.0
    detector_mm: float = 400.0
    """Width of the detector at the detector."""
    detector_offset_mm: float = 148.0
    """Shift of the detector, at the detector, in half fan."""
    isocenter_mm: tuple[float, float] = (0.0, 0.0)
    """Of the isocenter from the middle of the image along rows and columns (row, column)."""
    energy_weights: tuple[float, ...] = ENERGY_WEIGHTS
    scatter: float = 0.16
    """Strength k of the scatter."""
    scatter_wide: float = 0.35
    """Share a of the wide kernel."""
    scatter_sigma_mm: tuple[float, float] = (30.0, 70.0)
    """Narrow and wide kernel, at the isocenter."""
    scatter_corrected: float = 0.6
    """Share c of the scatter that the vendor's correction takes away."""
    hardening_corrected: float = 0.25
    """Share bh of the water linearization: 0 none, 1 full."""
    photons: float = 1e5
    """Unattenuated photons N0 of a detector cell; 0 switches all noise off."""
    electronic: float = 5.0
    """SD of the electronic noise, photons."""
    lag: float = 0.015
    """Share of the previous view that a cell still shows."""
    gain_sd: float = 0.0
    """SD of the fixed gain error of a cell: rings."""
    glare: float = 0.0
    """Share of the whole signal, open beam included, that arrives blurred wide: veiling glare of
    the detector and scatter from far away (Poludniowski et al., Phys. Med. Biol. 56 (2011))."""
    glare_sigma_mm: float = 60.0
    """SD of that blur, at the isocenter."""
    veil: float = 0.0
    """Uniform background, share of the open beam."""
    view_corrected: float = 0.0
    """Share of each view's darkest signal that a plain vendor's correction takes away from all of
    the view (Boellaard et al., Radiother. Oncol. 44 (1997))."""
    bow_tie: float = 0.0
    """Share of the photons that a bow-tie filter keeps from the outermost cells."""
    bow_tie_mm: float = 95.0
    """Distance from the central ray, at the isocenter, over which it thickens."""
    hann_cut: float = 0.8
    """Cut-off of the Hann window, share of the Nyquist frequency."""
    slice_blur_mm: float = 0.0
    """SD of a blur across slices."""
    hu_gain: float = 1.0
    hu_shift: float = 0.0
    """Calibration error: HU * gain + shift, inside the field of view."""

    @property
    def half_overlap_mm(self) -> float:
        """Half-width b0 of the strip that both half-fan sides see; in full fan half the width."""
        return (self.detector_mm / 2 - self._offset) / self._magnification

    @property
    def reach_mm(self) -> float:
        """Distance of the far detector edge from the central ray, at the isocenter."""
        return (self.detector_mm / 2 + self._offset) / self._magnification

    @property
    def fov_radius_mm(self) -> float:
        """Radius of the circle that every view sees."""
        return self.source_isocenter_mm * math.sin(
            math.atan(self.reach_mm / self.source_isocenter_mm)
        )

    @property
    def _offset(self) -> float:
        return self.detector_offset_mm if self.fan is Fan.HALF else 0.0

    @property
    def _magnification(self) -> float:
        return self.source_detector_mm / self.source_isocenter_mm


def ideal(settings: CbctSettings) -> CbctSettings:
    """Return `settings` without scatter, noise and calibration error, water fully linearized."""
    return replace(
        settings,
        scatter=0.0,
        glare=0.0,
        veil=0.0,
        view_corrected=0.0,
        photons=0.0,
        lag=0.0,
        gain_sd=0.0,
        hardening_corrected=1.0,
        hu_gain=1.0,
        hu_shift=0.0,
    )


def random_settings(seed: int) -> CbctSettings:
    """Return settings drawn from the training ranges of the reference, section 4."""
    rng = np.random.default_rng([seed, 11])
    weights = np.array(ENERGY_WEIGHTS) * np.exp(rng.normal(0, 0.15, len(ENERGY_WEIGHTS)))
    return CbctSettings(
        fan=Fan.HALF if rng.random() < 0.6 else Fan.FULL,  # noqa: PLR2004 (share of half fans)
        views=int(rng.integers(240, 500)),
        isocenter_mm=(float(rng.uniform(-50, 50)), float(rng.uniform(-50, 50))),
        energy_weights=tuple(float(w) for w in weights / weights.sum()),
        scatter=float(rng.uniform(0.03, 0.25)),
        scatter_wide=float(rng.uniform(0.2, 0.5)),
        scatter_sigma_mm=(float(rng.uniform(20, 40)), float(rng.uniform(50, 90))),
        scatter_corrected=float(rng.uniform(0.2, 1.0)),
        hardening_corrected=float(rng.uniform(0, 1)),
        photons=float(10 ** rng.uniform(4.0, 5.7)),
        electronic=float(rng.uniform(2, 8)),
        lag=float(rng.uniform(0, 0.03)),
        gain_sd=float(rng.uniform(0, 0.003)),
        hann_cut=float(rng.uniform(0.4, 1.0)),
        slice_blur_mm=float(rng.uniform(0, 1.5)),
        hu_gain=float(rng.uniform(0.9, 1.1)),
        hu_shift=float(rng.uniform(-150, 150)),
    )


def wide_settings(seed: int) -> CbctSettings:
    """Return `random_settings` with what else scanners do, each with a chance of its own.

    A spectrum that is softer or harder as a whole, veiling glare and a uniform background, a
    bow-tie filter, fewer views, and instead of a correction that knows the scatter's shape one
    that takes a constant from each view.
    """
    drawn, rng = random_settings(seed), np.random.default_rng([seed, 12])
    tilt = np.exp(rng.normal(0, 0.35) * (np.array(ENERGIES_KEV) - 75) / 25)
    weights = np.array(drawn.energy_weights) * tilt
    glaring, plain, filtered, sparse = rng.random(4) < (0.5, 0.4, 0.5, 0.25)
    glare, veil, view_corrected, bow_tie = rng.uniform((0, 0, 0, 0.3), (0.07, 0.004, 0.5, 0.9))
    return replace(
        drawn,
        energy_weights=tuple(float(w) for w in weights / weights.sum()),
        glare=float(glare) if glaring else 0.0,
        glare_sigma_mm=float(rng.uniform(30, 100)),
        veil=float(veil) if glaring else 0.0,
        scatter=drawn.scatter * (float(rng.uniform(0, 1)) if glaring else 1.0),
        scatter_corrected=0.0 if plain else drawn.scatter_corrected,
        view_corrected=float(view_corrected) if plain else 0.0,
        bow_tie=float(bow_tie) if filtered else 0.0,
        bow_tie_mm=float(rng.uniform(60, 130)),
        views=int(rng.integers(150, 260)) if sparse else drawn.views,
    )


def simulate(
    hu: NDArray[np.float32],
    spacing: tuple[float, float, float],
    settings: CbctSettings,
    seed: int,
    *,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the CBCT of `hu` on the same grid.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns), HU
        May be larger than the field of view: what lies outside is projected, too.
    spacing : (slice, row, column), mm
        Pixels must be square.
    settings : CbctSettings
    seed : int
        Of the noise: the same arguments give the same bytes on the same device type.

    Returns
    -------
    ndarray, same shape, float32 HU in [-1000, 3000]
        -1000 outside the field of view.

    Raises
    ------
    ValueError
        If the array is not three-dimensional or its pixels are not square.
    """
    if hu.ndim != 3 or abs(spacing[1] - spacing[2]) > PIXEL_TOLERANCE_MM:  # noqa: PLR2004 (axes)
        raise ValueError(f"need a volume with square pixels, got {hu.shape} at {spacing} mm")
    with torch.no_grad(), _one_thread():
        scan = _Scan(settings, hu.shape[1:], spacing[2], device)
        water, bone = _line_integrals(scan, torch.as_tensor(hu, device=device))
        attenuation = _measure(scan, water, bone, spacing[0], seed)
        mu = scan.backproject(_filtered(scan, attenuation))
        image = 1000 * (mu / _water_coefficient(settings) - 1)
        image = image * settings.hu_gain + settings.hu_shift
        image = _blur_slices(image, settings.slice_blur_mm / spacing[0])
        image = torch.where(scan.inside, image, -1000.0).clamp(-1000, 3000)
    return np.ascontiguousarray(image.cpu().numpy().astype(np.float32))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: the same bytes on every machine, and no slower.

    The work is many small steps; on a busy machine the threads would only wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Scan:
    """Geometry of one scan: rays of each view through the grid, and back.

    The source stands at ``-SID e`` with ``e = (cos b, sin b)`` in (x, y); the detector, scaled to
    the isocenter, runs along ``t = (-sin b, cos b)``; x along columns, y along rows, mm from the
    isocenter.
    """

    def __init__(
        self, settings: CbctSettings, shape: tuple[int, ...], pixel_mm: float, device: str
    ) -> None:
        self.settings, self.pixel_mm, self.device = settings, pixel_mm, device
        self.rows, self.columns = shape
        self.cell_mm = min(pixel_mm * 0.9, WIDEST_CELL_MM)  # finer than a pixel: the fan widens
        first, last = -settings.half_overlap_mm, settings.reach_mm
        count = int((last - first) / self.cell_mm)
        self.cells = first + self.cell_mm * (torch.arange(count, device=device) + 0.5)
        self.blind = math.ceil((last + first) / self.cell_mm)
        """Cells missing on the short side: filtering fills them, so backprojection needs them."""
        arc = 2 * math.pi if settings.fan is Fan.HALF else SHORT_SCAN_RAD
        self.angles = [arc * i / settings.views for i in range(settings.views)]
        self.step_rad = arc / settings.views
        middle_row = (self.rows - 1) / 2 + settings.isocenter_mm[0] / pixel_mm
        middle_column = (self.columns - 1) / 2 + settings.isocenter_mm[1] / pixel_mm
        self.y = (torch.arange(self.rows, device=device) - middle_row) * pixel_mm
        self.x = (torch.arange(self.columns, device=device) - middle_column) * pixel_mm
        self.inside = self.x[None, :] ** 2 + self.y[:, None] ** 2 <= settings.fov_radius_mm**2

    def project(self, image: Tensor) -> Tensor:
        """Return line integrals of `image`: (pixels, channels) -> (views, cells, channels).

        Joseph's method: one linear interpolation for each row (or column) that a ray crosses.
        """
        views = [
            functional.embedding_bag(index, image, mode="sum", per_sample_weights=weight)
            for index, weight in map(self._ray_taps, self.angles)
        ]
        return torch.stack(views)

    def _ray_taps(self, angle: float) -> tuple[Tensor, Tensor]:
        """Return pixel numbers and weights [mm] of the taps of each ray, shape (cells, taps)."""
        sid = self.settings.source_isocenter_mm
        ex, ey = math.cos(angle), math.sin(angle)
        dx, dy = sid * ex - self.cells * ey, sid * ey + self.cells * ex
        along_columns = abs(ex) >= abs(ey)
        lead, cross = (dx, dy) if along_columns else (dy, dx)
        start, offset = (ex, ey) if along_columns else (ey, ex)
        steps, others = (self.x, self.y) if along_columns else (self.y, self.x)
        at = -sid * offset + (steps[None, :] + sid * start) * (cross / lead)[:, None]
        position = (at - others[0]) / self.pixel_mm
        low = torch.floor(position)
        share = position - low
        length = self.pixel_mm * torch.hypot(dx, dy) / lead.abs()
        number = torch.arange(len(steps), device=self.device)[None, :]
        taps, weights = [], []
        for offset_index, weight in ((0, 1 - share), (1, share)):
            tap = low.long() + offset_index
            known = (tap >= 0) & (tap < len(others))
            tap = tap.clamp(0, len(others) - 1)
            taps.append(
                tap * self.columns + number if along_columns else number * self.columns + tap
            )
            weights.append(weight * known * length[:, None])
        return torch.cat(taps, 1), torch.cat(weights, 1)

    def backproject(self, filtered: Tensor) -> Tensor:
        """Return sum_b filtered / U^2 db, shape (slices, rows, columns).

        `filtered` has shape (views, blind + cells, slices).
        """
        where = self.inside.nonzero()
        x, y = self.x[where[:, 1]], self.y[where[:, 0]]
        total = torch.zeros((len(x), filtered.shape[2]), device=self.device)
        for chunk in _chunks(len(self.angles), VIEWS_AT_ONCE):
            index, weight = self._pixel_taps(chunk, x, y)
            table = filtered[chunk.start : chunk.stop].reshape(-1, filtered.shape[2])
            total += functional.embedding_bag(index, table, mode="sum", per_sample_weights=weight)
        image = torch.zeros((self.rows, self.columns, filtered.shape[2]), device=self.device)
        image[where[:, 0], where[:, 1]] = total * self.step_rad
        return image.permute(2, 0, 1)

    def _pixel_taps(self, chunk: range, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return cell numbers and weights of each pixel, shape (pixels, 2 x views)."""
        sid = self.settings.source_isocenter_mm
        angles = torch.tensor([self.angles[i] for i in chunk], device=self.device)
        ex, ey = torch.cos(angles)[None, :], torch.sin(angles)[None, :]
        depth = 1 + (x[:, None] * ex + y[:, None] * ey) / sid  # U
        cell = (y[:, None] * ex - x[:, None] * ey) / depth
        count = self.blind + len(self.cells)
        position = (cell - self.cells[0]) / self.cell_mm + self.blind
        position = position.clamp(0, count - 1.001)
        low = position.long()
        share = position - low
        first = low + torch.arange(len(chunk), device=self.device)[None, :] * count
        scale = depth**-2
        return torch.cat([first, first + 1], 1), torch.cat([scale * (1 - share), scale * share], 1)


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _line_integrals(scan: _Scan, hu: Tensor) -> tuple[Tensor, Tensor]:
    """Return water and bone path [mm], shape (views, cells, slices) each."""
    density = (1 + hu.float() / 1000).clamp(min=0)
    bone = ((hu - 150) / 1350).clamp(0, 1).float()
    water = (density - KAPPA * bone).clamp(min=0)
    slices = hu.shape[0]
    both = torch.cat([water, bone]).reshape(2 * slices, -1).T.contiguous()
    paths = scan.project(both)
    return paths[..., :slices], paths[..., slices:]


def _measure(scan: _Scan, water: Tensor, bone: Tensor, slice_mm: float, seed: int) -> Tensor:
    """Return what the vendor's software takes for -ln(I), shape (views, cells, slices)."""
    settings = scan.settings
    primary = _transmission(settings, water, bone)
    scatter = _scatter(settings, primary, (scan.cell_mm, slice_mm))
    signal = _detected(scan, primary + scatter, seed)
    corrected = signal - settings.scatter_corrected * scatter
    if settings.view_corrected > 0:
        darkest = torch.quantile(signal.flatten(1), DARKEST, dim=1)
        corrected = corrected - settings.view_corrected * darkest[:, None, None]
    attenuation = -torch.log(corrected.clamp(min=LEAST_SIGNAL))
    share = settings.hardening_corrected
    if share == 0:
        return attenuation
    return (1 - share) * attenuation + share * _linearized(settings, attenuation)


def _transmission(settings: CbctSettings, water: Tensor, bone: Tensor) -> Tensor:
    total = torch.zeros_like(water)
    for weight, mu_w, mu_b in zip(settings.energy_weights, MU_WATER, MU_BONE, strict=True):
        total += weight * torch.exp(-mu_w * water - mu_b * bone)
    return total


def _water_coefficient(settings: CbctSettings) -> float:
    """Return the effective attenuation coefficient of water, 1/mm."""
    path = torch.tensor(REFERENCE_WATER_MM)
    transmitted = _transmission(settings, path, torch.zeros(()))
    return -math.log(float(transmitted)) / REFERENCE_WATER_MM


def _linearized(settings: CbctSettings, attenuation: Tensor) -> Tensor:
    """Return the attenuation that water of the same path would have at one energy."""
    paths = torch.linspace(0, 900, 1801, device=attenuation.device)
    curve = -torch.log(_transmission(settings, paths, torch.zeros_like(paths)))
    high = torch.searchsorted(curve, attenuation.contiguous()).clamp(1, len(curve) - 1)
    low = high - 1
    share = (attenuation - curve[low]) / (curve[high] - curve[low])
    return _water_coefficient(settings) * (paths[low] + share * (paths[high] - paths[low]))


def _scatter(settings: CbctSettings, primary: Tensor, pitch_mm: tuple[float, float]) -> Tensor:
    """Return what is not primary, in units of the open beam.

    Two Gaussians of I p over cells and slices, the glare as a Gaussian of I, and the background.
    """
    rest = torch.full_like(primary, settings.veil)
    if settings.glare > 0:
        rest += settings.glare * _gaussian(
            primary, tuple(settings.glare_sigma_mm / p for p in pitch_mm)
        )
    if settings.scatter == 0:
        return rest
    source = primary * -torch.log(primary.clamp(min=LEAST_SIGNAL))
    narrow, wide = (
        _gaussian(source, tuple(sigma / p for p in pitch_mm)) for sigma in settings.scatter_sigma_mm
    )
    return rest + settings.scatter * (narrow + settings.scatter_wide * wide)


def _gaussian(values: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Blur the last two axes with SD in samples; edges are repeated."""
    for axis, sigma in zip((-2, -1), sigmas, strict=True):
        radius = min(math.ceil(3 * sigma), 4 * values.shape[axis])
        offsets = torch.arange(-radius, radius + 1, device=values.device)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        swapped = values.transpose(axis, -1)
        # as a matrix: exact at the repeated edges for any radius
        size = swapped.shape[-1]
        target = torch.arange(size, device=values.device)
        matrix = torch.zeros((size, size), device=values.device)
        source = (target[:, None] + offsets[None, :]).clamp(0, size - 1)
        matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand(size, -1).contiguous())
        values = (swapped @ matrix.T).transpose(axis, -1)
    return values


def _detected(scan: _Scan, signal: Tensor, seed: int) -> Tensor:
    """Return the signal with noise, gain errors and lag, in units of the open beam.

    A bow-tie filter takes photons away, not signal: the flood image divides it out.
    """
    settings = scan.settings
    if settings.photons > 0:
        fall = torch.exp(-((scan.cells / settings.bow_tie_mm) ** 2))
        photons = settings.photons * (1 - settings.bow_tie * (1 - fall))[:, None]
        generator = torch.Generator(device=signal.device).manual_seed(seed)
        counts = torch.poisson(signal * photons, generator=generator)
        noise = torch.randn(signal.shape, generator=generator, device=signal.device)
        counts += settings.electronic * noise
        gain = torch.randn(signal.shape[1:], generator=generator, device=signal.device)
        signal = counts / photons * (1 + settings.gain_sd * gain)
    if settings.lag > 0:
        before = torch.cat([signal[:1], signal[:-1]])
        signal = (1 - settings.lag) * signal + settings.lag * before
    return signal


def _filtered(scan: _Scan, attenuation: Tensor) -> Tensor:
    """Return weighted, extrapolated, ramp-filtered projections: (views, blind + cells, slices)."""
    sid = scan.settings.source_isocenter_mm
    weight = _redundancy(scan) * sid / torch.sqrt(sid**2 + scan.cells**2)
    weighted = attenuation * weight[..., None]
    pad = weighted.shape[1] // 2 + scan.blind
    taper = torch.cos(torch.linspace(0, math.pi / 2, pad, device=scan.device))[None, :, None]
    before = weighted[:, :1] * taper.flip(1)  # nearly 0 on the short side, by its weight
    after = weighted[:, -1:] * taper
    padded = torch.cat([before, weighted, after], 1)
    size = 2 ** math.ceil(math.log2(2 * padded.shape[1]))
    spectrum = torch.fft.rfft(padded, n=size, dim=1)
    spectrum *= _ramp(size, scan.cell_mm, scan.settings.hann_cut, scan.device)[None, :, None]
    result = torch.fft.irfft(spectrum, n=size, dim=1)
    return result[:, pad - scan.blind : pad + weighted.shape[1]].contiguous()


def _ramp(size: int, cell_mm: float, cut: float, device: str) -> Tensor:
    """Return the band-limited ramp with a Hann window (Kak and Slaney, equation 61 ff.)."""
    n = torch.fft.fftfreq(size, 1 / size, device=device).round()
    kernel = torch.where(n.remainder(2) == 1, -1 / (math.pi * n * cell_mm) ** 2, 0.0)
    kernel[0] = 1 / (4 * cell_mm**2)
    response = torch.fft.rfft(kernel).real * cell_mm
    frequency = torch.linspace(0, 1, size // 2 + 1, device=device) / cut
    window = torch.where(frequency < 1, 0.5 * (1 + torch.cos(math.pi * frequency)), 0.0)
    return response * window


def _redundancy(scan: _Scan) -> Tensor:
    """Return the weight of each ray, shape (views, cells): what is measured twice counts once."""
    settings = scan.settings
    fan = torch.atan(scan.cells / settings.source_isocenter_mm)
    if settings.fan is Fan.HALF:
        edge = math.atan(settings.half_overlap_mm / settings.source_isocenter_mm)
        weight = (1 + torch.sin((math.pi / 2 * fan / edge).clamp(-math.pi / 2, math.pi / 2))) / 2
        return weight.expand(len(scan.angles), -1)
    spare = (SHORT_SCAN_RAD - math.pi) / 2
    angle = torch.tensor(scan.angles, device=scan.device)[:, None]
    rising = torch.sin(math.pi / 4 * angle / (spare - fan)) ** 2
    falling = torch.sin(math.pi / 4 * (SHORT_SCAN_RAD - angle) / (spare + fan)) ** 2
    weight = torch.ones((len(scan.angles), len(fan)), device=scan.device)
    weight = torch.where(angle < 2 * (spare - fan), rising, weight)
    return torch.where(angle > math.pi - 2 * fan, falling, weight)


def _blur_slices(image: Tensor, sigma: float) -> Tensor:
    if sigma <= 0:
        return image
    slices = image.shape[0]
    flat = image.reshape(slices, -1)
    index = torch.arange(slices, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * ((index[:, None] - index[None, :]) / sigma) ** 2)
    return ((kernel / kernel.sum(1, keepdim=True)) @ flat).reshape(image.shape)
