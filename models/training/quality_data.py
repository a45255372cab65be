"""What the image quality networks are shown: images made noisy, and images made thick.

Noise has the spectrum of filtered back projection, power ~ f H(f)^2 with a Hann window H of random
width, a preferred direction (streaks) and a strength that changes over the image; it is added to
CTs that have little, and to noise-free phantoms. Thick slices are averages of pairs of thin ones.
Values in the batches are HU / 1000, as `models.quality_net` takes them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from models.sct_infer import body_box, neighbours
from models.training.sct_data import HELD_OUT, PHANTOM_SITES, Ct, phantom, read_sts
from models.training.sct_pairs import body_of
from models.training.sct_sampling import Batch

Hu = NDArray[np.float32]

PATCH_PX: Final = 80
PATCHES: Final = 6
"""In a batch."""
NOISE_HU: Final = (3.0, 45.0)
"""SD of the noise that is added, drawn on a log scale."""
LITTLE_NOISE_HU: Final = (2.0, 20.0)
"""The same for phantoms whose slices are made thick: a CT has some."""
SURROUND_WEIGHT: Final = 0.1
LEAST_BODY: Final = 0.3
"""Share of a patch that is body."""
TRIES: Final = 8
HALF: Final = 0.5
AIR_HU, HIGHEST_HU = -1000.0, 3000.0
PHANTOMS: Final = 24
"""Procedural patients beside the CTs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean:
    """An image to spoil."""

    name: str
    hu: NDArray[np.int16]
    """Shape (slices, rows, columns), the body's box."""
    body: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    """(slice, row, column), mm."""


class QualitySampler:
    """Draws patches; its random state can be saved and restored."""

    def __init__(
        self, images: Iterable[Clean], factor: int, slices: int, seed: int, *, size: int = PATCH_PX
    ) -> None:
        """Keep the images.

        Raises
        ------
        ValueError
            Without any image.
        """
        self.images = list(images)
        self.factor, self.slices, self.size = factor, slices, size
        self.random = np.random.default_rng([seed, 71])
        if not self.images:
            raise ValueError("no training images")

    def batch(self) -> Batch:
        """Return the next batch: what is shown, the `factor` true slices, the weight."""
        drawn = [self._turned(*self._patch()) for _ in range(PATCHES)]
        shown, truth, weight = (
            torch.from_numpy(np.stack([np.asarray(d[i], np.float32) for d in drawn]))
            for i in range(3)
        )
        return Batch(cbct=shown / 1000, ct=truth / 1000, weight=weight)

    def state(self) -> dict[str, Any]:
        """Return the random state as JSON."""
        return dict(self.random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.random.bit_generator.state = state

    def _patch(self) -> tuple[Hu, Hu, Hu]:
        image = self.images[int(self.random.integers(len(self.images)))]
        for _ in range(TRIES):
            slice_, window = self._place(image)
            if image.body[slice_][window].mean() >= LEAST_BODY:
                break
        if self.factor == 1:
            shown, truth, inside = self._noisy(image, slice_, window)
        else:
            shown, truth, inside = self._thick(image, slice_, window)
        weight = np.where(inside, 1.0, SURROUND_WEIGHT).astype(np.float32)[None]
        return shown, truth, weight

    def _place(self, image: Clean) -> tuple[int, tuple[slice, slice]]:
        depth, rows, columns = image.hu.shape
        row = int(self.random.integers(max(1, rows - self.size + 1)))
        column = int(self.random.integers(max(1, columns - self.size + 1)))
        window = (slice(row, row + self.size), slice(column, column + self.size))
        return int(self.random.integers(depth - self.factor + 1)), window

    def _noisy(
        self, image: Clean, centre: int, window: tuple[slice, slice]
    ) -> tuple[Hu, Hu, NDArray[np.bool_]]:
        stack = neighbours(len(image.hu), centre, self.slices)
        clean = self._filled(image.hu[stack][:, *window], AIR_HU)
        body = self._filled(image.body[centre][window][None], 0)[0] > 0
        noise = fbp_noise(self.random, clean.shape, _strength(self.random, NOISE_HU))
        shown = np.clip(clean + noise * _dose(self.random, clean), AIR_HU - 24, HIGHEST_HU)
        return shown, clean[self.slices // 2 : self.slices // 2 + 1], body

    def _thick(
        self, image: Clean, first: int, window: tuple[slice, slice]
    ) -> tuple[Hu, Hu, NDArray[np.bool_]]:
        reach = self.slices // 2
        wanted = first + np.arange(-2 * reach, 2 * reach + 2)
        depth = len(image.hu)
        start = max(0, -(-(2 * reach - first) // 2))  # thick slices that lie before the stack
        stop = min(self.slices, reach + (depth - first) // 2)
        kept = np.clip(np.arange(self.slices), start, stop - 1)
        thin = self._filled(image.hu[np.clip(wanted, 0, depth - 1)][:, *window], AIR_HU)
        if image.name.partition("_")[0] in PHANTOM_SITES:
            thin += fbp_noise(self.random, thin.shape, _strength(self.random, LITTLE_NOISE_HU))
        shown = thickened(thin, 2)[kept]
        body = self._filled(image.body[first][window][None], 0)[0] > 0
        return shown, thin[2 * reach : 2 * reach + 2], body

    def _filled(self, part: NDArray[Any], value: float) -> Hu:
        missing = [(0, 0), *((0, self.size - n) for n in part.shape[1:])]
        return np.pad(part.astype(np.float32), missing, constant_values=value)

    def _turned(self, shown: Hu, truth: Hu, weight: Hu) -> tuple[Hu, Hu, Hu]:
        """Return all three turned by quarters and mirrored by chance, in plane and along slices."""
        turns = int(self.random.integers(4))
        mirrored, reversed_ = self.random.random(2) < HALF
        parts = [np.rot90(a, turns, (1, 2)) for a in (shown, truth, weight)]
        if mirrored:
            parts = [a[:, :, ::-1] for a in parts]
        shown, truth, weight = parts
        return (shown[::-1], truth[::-1], weight) if reversed_ else (shown, truth, weight)


def thickened(thin: Hu, factor: int) -> Hu:
    """Return the averages of each `factor` slices; those that fill no thick slice are left out."""
    count = len(thin) // factor
    parts = thin[: count * factor].reshape(count, factor, *thin.shape[1:])
    return np.asarray(parts.mean(axis=1), dtype=np.float32)


def fbp_noise(random: np.random.Generator, shape: tuple[int, ...], sd: float) -> Hu:
    """Return noise (slices, rows, columns) of filtered back projection with a standard deviation.

    Slices are nearly independent; the width of the window and the direction are drawn.
    """
    v, u = (np.fft.fftfreq(n) for n in shape[1:])
    radius = np.hypot(v[:, None], u[None, : shape[2] // 2 + 1])
    angle = np.arctan2(v[:, None], u[None, : shape[2] // 2 + 1])
    cut = random.uniform(0.3, 0.75)  # of the sampling frequency; 0.5 is Nyquist
    window = np.where(radius < cut, 0.5 + 0.5 * np.cos(np.pi * np.minimum(radius / cut, 1)), 0)
    streaks = 1 + random.uniform(0, 1) * np.cos(angle - random.uniform(0, np.pi)) ** 2
    transfer = np.sqrt(radius * streaks) * window
    white = random.normal(size=shape).astype(np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * transfer, s=shape[1:])
    noise = ndimage.gaussian_filter1d(noise, random.uniform(0.0, 0.5), axis=0)
    return np.asarray(noise * (sd / max(float(noise.std()), 1e-9)), dtype=np.float32)


def clean_of(ct: Ct) -> Clean:
    """Return a CT as a training image: clipped, cut to the body's box."""
    hu = np.clip(ct.hu, AIR_HU, HIGHEST_HU)
    body = body_of(hu)
    rows, columns = body_box(body)
    cut = (slice(None), rows, columns)
    return Clean(
        name=ct.name,
        hu=np.rint(hu[cut]).astype(np.int16),
        body=body[cut],
        spacing=ct.spacing,
    )


def training_images(archive: Path, seed: int = 1) -> Iterator[Clean]:
    """Yield the training patients of the archive, then procedural ones without noise."""
    for ct in read_sts(archive):
        if ct.name not in HELD_OUT:
            yield clean_of(ct)
    yield from phantoms(range(seed, seed + PHANTOMS))


def phantoms(seeds: Iterable[int]) -> Iterator[Clean]:
    """Yield a noise-free procedural patient for each seed, the sites in turn."""
    for seed in seeds:
        random = np.random.default_rng([seed, 72])
        ct = quiet_phantom(
            PHANTOM_SITES[seed % len(PHANTOM_SITES)],
            seed,
            pixel_mm=float(random.uniform(1.0, 2.0)),
            slice_mm=float(random.uniform(1.0, 3.0)),
            slices=20,
        )
        yield clean_of(ct)


def quiet_phantom(site: str, seed: int, *, pixel_mm: float, slice_mm: float, slices: int) -> Ct:
    """Return a procedural patient without noise, edges softened as a scanner does."""
    ct = phantom(site, seed, pixel_mm=pixel_mm, slice_mm=slice_mm, slices=slices, noise_hu=0.0)
    soft = ndimage.gaussian_filter(ct.hu, (0.0, 0.5, 0.5))
    return Ct(name=ct.name, hu=soft.astype(np.float32), spacing=ct.spacing)


def evaluation_images(archive: Path) -> Sequence[Clean]:
    """Return the held-out patients, in the archive's order."""
    return [clean_of(ct) for ct in read_sts(archive) if ct.name in HELD_OUT]


def _strength(random: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = np.log(limits)
    return float(np.exp(random.uniform(low, high)))


def _dose(random: np.random.Generator, clean: Hu) -> Hu:
    """Return how the noise's strength changes over the patch: a slope, and less of it in air."""
    rows, columns = clean.shape[1:]
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    slope = 1 + random.uniform(0, 0.3) * np.cos(random.uniform(0, 6.3)) * x
    slope = slope + random.uniform(0, 0.3) * np.sin(random.uniform(0, 6.3)) * y
    outside = ndimage.uniform_filter(clean, (0, 5, 5)) < -900  # noqa: PLR2004 (air)
    return np.asarray(np.where(outside, 0.5, 1.0) * slope, dtype=np.float32)
