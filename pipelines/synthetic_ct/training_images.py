"""A site's own DICOM as training images: CTs alone, CBCT with its CT, or the two apart.

Two layouts. For `sim` any folder of CTs: they are simulated, once, into a cache. For `pix2pix` and
`cyclegan` the layout of validation cases: below the folder, DICOM in folders named ``cbct``,
``ct`` and ``planning``; `pix2pix` takes a case's ``cbct`` with its ``ct``, brought into place;
`cyclegan` takes every CBCT and every CT or planning CT, whoever they show.
No identifier of a patient is kept: images are numbered.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from models.training.sct_data import Ct
from models.training.sct_fit import SiteScanner
from models.training.sct_pairs import (
    PIXEL_MM,
    Pair,
    body_of,
    load_pair,
    on_grid,
    save_pair,
    training_pair,
)
from pipelines.api import InputRejected
from pipelines.imaging.body import Mask, find_regions
from pipelines.synthetic_ct.inputs import read_inputs
from pipelines.synthetic_ct.site import TRUTH, case_inputs, read_cts, truth_of

Tell = Callable[[str], None]

CBCT: Final = "cbct"
PLANNING: Final = "planning"
AIR_HU, HIGHEST_HU = -1000.0, 3000.0
SQUARE: Final = 0.01
"""Relative difference of row and column spacing that still counts as square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImages:
    """What a network is trained on."""

    pairs: tuple[Pair, ...]
    """CBCT with truth; with `cts`, CBCTs alone, whose ``ct`` is the CBCT again."""
    cts: tuple[Pair, ...] | None = None
    """CTs of anybody, where CBCT and CT are apart."""


def training_images(
    folder: Path,
    mode: str,
    *,
    cache: Path,
    count: int,
    seed: int,
    site: SiteScanner | None,
    tell: Tell,
) -> TrainingImages:
    """Return the training images below `folder`.

    Parameters
    ----------
    folder : Path
        Files of `rtnode sct simulate`, or DICOM; see the module.
    mode : str
        sim, pix2pix or cyclegan.
    cache : Path
        Receives simulated pairs; what lies there already is not made again.
    count, seed : int
        Simulated pairs of each CT, and their seed.
    site : SiteScanner, optional
        The scanner to simulate; any where there is none.
    tell : callable
        Receives a line for what was made or left out.
    """
    files = sorted(folder.rglob("*.npz"))
    if files:
        return TrainingImages(pairs=tuple(load_pair(p) for p in files))
    if mode == "sim":
        return TrainingImages(pairs=tuple(simulated(folder, cache, count, seed, site, tell)))
    if mode == "pix2pix":
        return TrainingImages(pairs=tuple(_paired(folder, tell)))
    return _apart(folder, tell)


def simulated(
    folder: Path, cache: Path, count: int, seed: int, site: SiteScanner | None, tell: Tell
) -> Iterator[Pair]:
    """Yield `count` simulated pairs of each CT below `folder`; keep them in `cache`."""
    for ct in read_cts(folder):
        if isinstance(ct, str):
            tell(ct)
            continue
        for number in range(count):
            path = cache / f"{ct.name}-{number:02d}.npz"
            if not path.exists():
                drawn = 100_000 * seed + 1000 * number + int(ct.name[3:])
                save_pair(training_pair(ct, drawn, site), path)
                tell(f"{ct.name} {number + 1}/{count}")
            yield load_pair(path)


def _paired(folder: Path, tell: Tell) -> Iterator[Pair]:
    """Yield the cases that hold a CBCT and the CT of the same day, the CT on the CBCT's grid."""
    cases = sorted(p.parent for p in folder.rglob(CBCT) if (p.parent / TRUTH).is_dir())
    for number, case in enumerate(cases, start=1):
        try:
            read = read_inputs(case_inputs(case))
            truth = truth_of(case, read)
        except InputRejected as refused:
            tell(f"case {number} of {len(cases)} was left out: {refused}")
            continue
        spacing = read.cbct.geometry.spacing
        if abs(spacing[1] - spacing[2]) > SQUARE * spacing[2]:
            tell(f"case {number} of {len(cases)} was left out: its pixels are not square")
            continue
        yield Pair(
            name=f"case_{number:04d}",
            cbct=np.clip(read.hu, AIR_HU, HIGHEST_HU),
            ct=np.clip(truth.hu, AIR_HU, HIGHEST_HU),
            body=read.regions.body & truth.covered,
            spacing=spacing,
        )


def _apart(folder: Path, tell: Tell) -> TrainingImages:
    """Return all CBCTs and all CTs, on pixels of one size: the first CBCT's."""
    pairs: list[Pair] = []
    pixel = None
    for scan in _readable(folder, (CBCT,), tell):
        pixel = pixel or max(PIXEL_MM[0], scan.spacing[2])
        sized = _sized(scan, pixel)
        body = find_regions(sized.hu, sized.spacing).body
        pairs.append(_alone(sized, body, f"cbct_{len(pairs) + 1:04d}"))
    cts: list[Pair] = []
    for ct in _readable(folder, (TRUTH, PLANNING), tell):
        sized = _sized(ct, pixel or PIXEL_MM[0])
        cts.append(_alone(sized, body_of(sized.hu), f"ct_{len(cts) + 1:04d}"))
    return TrainingImages(pairs=tuple(pairs), cts=tuple(cts))


def _readable(folder: Path, names: Sequence[str], tell: Tell) -> Iterator[Ct]:
    """Yield the series in all folders of these names."""
    for place in sorted(p for p in folder.rglob("*") if p.is_dir() and p.name in names):
        for ct in read_cts(place):
            if isinstance(ct, str):
                tell(ct)
            else:
                yield ct


def _sized(ct: Ct, pixel_mm: float) -> Ct:
    """Return all of `ct` on square pixels."""
    lengths = [n * s for n, s in zip(ct.hu.shape[1:], ct.spacing[1:], strict=True)]
    sized = on_grid(ct, pixel_mm, round(max(lengths) / pixel_mm))
    return replace(sized, hu=np.clip(sized.hu, AIR_HU, HIGHEST_HU))


def _alone(ct: Ct, body: Mask, name: str) -> Pair:
    """Return an image without a partner: it stands on both sides."""
    return Pair(name=name, cbct=ct.hu, ct=ct.hu, body=body, spacing=ct.spacing)
