"""Make training pairs: CTs in, (simulated CBCT, CT) out, one file a pair.

    python -m models.training.sct_pairs --archive ../shared/data/train_sts_ct.tar.xz --out build/sct

Every pair draws its own scanner, patient size, voxel size and slices; the same index gives the
same pair. `evaluation_pairs` is the frozen hold-out: other patients, fixed seeds.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from models.cbct_sim import CbctSettings, Fan, simulate, wide_settings
from models.training.sct_data import HELD_OUT, PHANTOM_SITES, Ct, phantom, read_sts

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

AIR_HU: Final = -1000.0
BODY_HU: Final = -400.0
RIM_MM: Final = 3.0
"""The outermost part of the field of view is artefact: not scored, not learned."""
PIXEL_MM: Final = (0.95, 2.1)
"""Range of training pixels, drawn evenly on a log scale."""
SCALE: Final = (0.85, 1.3)
"""Range of the patient's size."""
SLICES: Final = 20
"""Of a training pair."""
SIDE_PX: Final = (96, 320)
"""Least and greatest rows and columns of a pair."""
MARGIN_PX: Final = 12
HARD_SHARE: Final = 0.7
"""Share of pairs from the whole range of scanners; the rest is like the evaluation set."""
EVALUATION_PIXEL_MM: Final = 1.6
EVALUATION_SHAPE: Final = (40, 160, 160)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A CBCT with its truth; arrays of one shape (slices, rows, columns)."""

    name: str
    cbct: Hu
    ct: Hu
    body: Mask
    """Body inside the field of view without its rim."""
    spacing: tuple[float, float, float]
    """(slice, row, column), mm."""


def make_pair(ct: Ct, settings: CbctSettings, seed: int, *, kept: slice = slice(None)) -> Pair:
    """Return the pair of a CT with square pixels; `kept` slices of what is simulated."""
    scan = simulate(ct.hu, ct.spacing, settings, seed)
    hu = np.clip(ct.hu, AIR_HU, 3000)
    fov = inside_fov(ct.hu.shape, ct.spacing[2], settings)
    return Pair(
        name=ct.name,
        cbct=scan[kept],
        ct=hu[kept],
        body=(body_of(hu) & fov)[kept],
        spacing=ct.spacing,
    )


class Scanner(Protocol):
    """Scanners of one kind, such as a site's own (`sct_fit.SiteScanner`)."""

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Return the least and the greatest pixel, mm."""
        ...

    def settings(self, seed: int, random: np.random.Generator) -> CbctSettings:
        """Return the scanner of the pair `seed`; whatever else is drawn comes from `random`."""
        ...


class AnyScanner:
    """Every scanner that the default network is trained on."""

    pixel_mm = PIXEL_MM

    def settings(self, seed: int, random: np.random.Generator) -> CbctSettings:
        """Return a scanner of the whole range, or one like those of the evaluation set."""
        hard = random.random() < HARD_SHARE
        return wide_settings(seed) if hard else evaluation_settings(seed)


class GlaringScanner:
    """Half fans with glare: what the network settles on last, since the overlap brightens."""

    pixel_mm = PIXEL_MM

    def settings(self, seed: int, random: np.random.Generator) -> CbctSettings:
        """Return the first of a seed's wide settings that is such a scanner."""
        drawn = (wide_settings(1000 * seed + n) for n in range(1000))
        first = next(d for d in drawn if d.fan is Fan.HALF and d.glare > 0)
        return replace(first, hu_shift=first.hu_shift * float(random.uniform(0, 1)))


def training_pair(ct: Ct, seed: int, scanner: Scanner | None = None) -> Pair:
    """Return a pair of `ct` seen by a scanner, on a grid and with a size drawn by `seed`."""
    scanner = scanner or AnyScanner()
    random = np.random.default_rng([seed, 21])
    scale = float(random.uniform(*SCALE))
    pixel = float(np.exp(random.uniform(*np.log(scanner.pixel_mm))))
    settings = scanner.settings(seed, random)
    first = int(random.integers(0, max(1, len(ct.hu) - SLICES)))
    part = replace(ct, hu=ct.hu[first : first + SLICES])
    sized = on_grid(replace(part, spacing=tuple(s * scale for s in ct.spacing)), pixel)  # type: ignore[arg-type]
    return make_pair(sized, settings, seed)


def on_grid(ct: Ct, pixel_mm: float, side: int | None = None) -> Ct:
    """Return `ct` with square pixels of `pixel_mm`, averaged, with air around; slices stay."""
    size = [
        max(8, round(n * s / pixel_mm))
        for n, s in zip(ct.hu.shape[1:], ct.spacing[1:], strict=True)
    ]
    image = torch.from_numpy(np.ascontiguousarray(ct.hu))[None]
    hu = functional.interpolate(image, size=size, mode="bilinear", antialias=True)[0].numpy()
    wanted = [side or int(np.clip(n + 2 * MARGIN_PX, *SIDE_PX)) for n in hu.shape[1:]]
    return replace(ct, hu=_fitted(hu, wanted), spacing=(ct.spacing[0], pixel_mm, pixel_mm))


def _fitted(hu: Hu, wanted: list[int]) -> Hu:
    """Return rows and columns cropped or filled with air, the middle kept."""
    for axis, target in enumerate(wanted, start=1):
        extra = target - hu.shape[axis]
        low = abs(extra) // 2
        if extra < 0:
            hu = hu.take(range(low, low + target), axis)
        else:
            pad = [(0, 0)] * 3
            pad[axis] = (low, extra - low)
            hu = np.pad(hu, pad, constant_values=AIR_HU)
    return np.ascontiguousarray(hu, dtype=np.float32)


def body_of(hu: Hu) -> Mask:
    """Return the largest piece of tissue, holes filled slice by slice."""
    tissue = ndimage.gaussian_filter(hu, (0, 1, 1)) > BODY_HU
    tissue = ndimage.binary_opening(tissue, np.ones((1, 3, 3), dtype=np.bool_))
    labels, count = ndimage.label(tissue)
    if count:
        tissue = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    return np.stack([ndimage.binary_fill_holes(plane) for plane in tissue])


def inside_fov(shape: tuple[int, ...], pixel_mm: float, settings: CbctSettings) -> Mask:
    """Return the field of view without its rim, on a grid of `shape`."""
    y, x = (
        (np.arange(n) - (n - 1) / 2) * pixel_mm - c
        for n, c in zip(shape[1:], settings.isocenter_mm, strict=True)
    )
    radius = settings.fov_radius_mm - RIM_MM
    return np.broadcast_to(y[:, None] ** 2 + x[None, :] ** 2 <= radius**2, shape)


def evaluation_settings(seed: int) -> CbctSettings:
    """Return settings of the evaluation set: the ranges of the prototype (reference, section 4)."""
    random = np.random.default_rng([seed, 31])
    return CbctSettings(
        fan=Fan.HALF,
        views=360,
        scatter=float(random.uniform(0.10, 0.22)),
        scatter_wide=float(random.uniform(0.2, 0.5)),
        scatter_sigma_mm=(float(random.uniform(20, 40)), float(random.uniform(50, 90))),
        scatter_corrected=float(random.uniform(0.4, 0.85)),
        hardening_corrected=float(random.uniform(0, 0.5)),
        photons=float(10 ** random.uniform(4.5, 5.5)),
        electronic=float(random.uniform(2, 8)),
        lag=float(random.uniform(0, 0.03)),
        hann_cut=float(random.uniform(0.6, 1.0)),
        hu_shift=float(random.normal(0, 25)),
    )


def evaluation_pairs(cts: Iterable[Ct]) -> list[Pair]:
    """Return the frozen evaluation set: the held-out patients among `cts`, 160 x 160 x 40."""
    pairs = []
    for ct in sorted((c for c in cts if c.name in HELD_OUT), key=lambda c: c.name):
        first = max(0, (len(ct.hu) - EVALUATION_SHAPE[0]) // 2)
        part = replace(ct, hu=ct.hu[first : first + EVALUATION_SHAPE[0]])
        number = int(ct.name.removeprefix("STS_"))
        sized = on_grid(part, EVALUATION_PIXEL_MM, EVALUATION_SHAPE[1])
        pairs.append(make_pair(sized, evaluation_settings(number), number))
    return pairs


def save_pair(pair: Pair, path: Path) -> None:
    """Write a pair: int16 HU, mask, spacing, name; no pickled objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        cbct=np.rint(pair.cbct).astype(np.int16),
        ct=np.rint(pair.ct).astype(np.int16),
        body=pair.body,
        spacing=np.array(pair.spacing),
        name=np.array(pair.name),
    )


def load_pair(path: Path) -> Pair:
    """Read a pair that `save_pair` wrote."""
    with np.load(path, allow_pickle=False) as data:
        s = [float(v) for v in data["spacing"]]
        return Pair(
            name=str(data["name"]),
            cbct=data["cbct"].astype(np.float32),
            ct=data["ct"].astype(np.float32),
            body=data["body"].astype(np.bool_),
            spacing=(s[0], s[1], s[2]),
        )


def _sources(cts: list[Ct], index: int, phantom_share: float) -> Ct:
    """Return the CT of pair `index`: the patients in turn, phantoms between."""
    random = np.random.default_rng([index, 41])
    if random.random() >= phantom_share:
        return cts[index % len(cts)]
    site = PHANTOM_SITES[int(random.integers(len(PHANTOM_SITES)))]
    pixel = float(np.exp(random.uniform(*np.log((1.4, 2.1)))))
    return phantom(
        site,
        index,
        pixel_mm=pixel,
        slice_mm=float(random.uniform(2, 5)),
        slices=SLICES,
    )


def main() -> None:
    """Write training pairs and the evaluation set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--count", type=int, default=280)
    parser.add_argument("--glaring", action="store_true", help="half fans with glare alone")
    parser.add_argument("--phantom-share", type=float, default=0.3)
    args = parser.parse_args()
    cts = sorted(read_sts(args.archive), key=lambda c: c.name)
    for pair in evaluation_pairs(cts):
        save_pair(pair, args.out / "evaluation" / f"{pair.name}.npz")
    patients = [c for c in cts if c.name not in HELD_OUT]
    scanner = GlaringScanner() if args.glaring else None
    for index in range(args.first, args.first + args.count):
        path = args.out / "training" / f"{index:04d}.npz"
        if path.exists():
            continue
        pair = training_pair(_sources(patients, index, args.phantom_share), index, scanner)
        save_pair(pair, path)
        print(f"{index - args.first + 1}/{args.count} {pair.name} {pair.cbct.shape}", flush=True)
    record = {"first": args.first, "count": args.count, "phantom_share": args.phantom_share}
    (args.out / "pairs.json").write_text(
        json.dumps(record | {"evaluation": asdict(evaluation_settings(6))}, indent=1)
    )


if __name__ == "__main__":
    main()
