"""Train a network for image quality and make a pack that says how it does beside the classical one.

`rtnode sct train --mode noise-reduction` does it for a site's own CTs, every fifth of which is held
out; `benchmarks/image_quality_packs.py` made the packs that come with the node.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from models.pack import DataSource
from models.training.loop import Budget
from models.training.quality import train
from models.training.quality_data import PHANTOMS, Clean, clean_of, phantoms
from models.training.quality_pack import build_pack
from models.training.sct_data import Ct
from models.training.sct_pack import Description
from pipelines.image_quality.learned import Learned, open_pack
from pipelines.image_quality.measure import (
    NOISE_HU,
    PHANTOM_NOISE_HU,
    answers,
    mean_of,
    measured,
    procedural,
    spoiled,
)

Tell = Callable[[str], None]

HELD_EVERY: Final = 5
"""Every so many images of a site one is held out."""
UNSEEN: Final = range(3001, 3009)
"""Seeds of the procedural patients that a pack is measured on."""
TITLES: Final = {
    "noise-reduction": "Less noise in CT and cone-beam CT",
    "super-resolution": "Two thin slices out of each thick slice of a CT",
}


def train_site(  # noqa: PLR0913 (a command line)
    cts: Iterable[Ct],
    task: str,
    out: Path,
    budget: Budget,
    *,
    seed: int,
    threads: int,
    name: str,
    tell: Tell,
) -> Path:
    """Train on a site's CTs and procedural patients; return the folder of the pack.

    Raises
    ------
    ValueError
        Where there are not two CTs at least: one to train on and one to hold out.
    """
    images = [clean_of(ct) for ct in cts]
    held = images[::HELD_EVERY]
    kept = [image for n, image in enumerate(images) if n % HELD_EVERY]
    if not kept:
        raise ValueError("two CTs are the least: one to train on, one to hold out")
    tell(f"{len(kept)} CTs to train on, {len(held)} held out")
    torch.set_num_threads(threads)
    shown = [*kept, *phantoms(range(seed, seed + PHANTOMS))]
    train(shown, task, out, budget, seed=seed, tell=tell)
    described = Description(
        id=name,
        version="1.0.0",
        title=TITLES[task],
        body_region="what the CTs of the site show",
        data=(
            DataSource(name="CTs of the site", licence="internal", source="site",
                       patients=len(kept)),
        ),
        weights_licence="internal",
        notes=(f"{PHANTOMS} procedural patients beside them.",),
    )  # fmt: skip
    return pack_of(out, out / "pack", described, task, held, tell)


def pack_of(
    run: Path, out: Path, described: Description, task: str, held: Iterable[Clean], tell: Tell
) -> Path:
    """Write the pack of a run, measured on `held` and on procedural patients; return its folder."""
    with tempfile.TemporaryDirectory() as folder:
        bare = build_pack(run, Path(folder) / "pack", described, {})
        found = compared(open_pack(str(bare), task.replace("-", "_")), held, tell)
    return build_pack(run, out, described, found)


def compared(
    learned: Learned, held: Iterable[Clean], tell: Tell
) -> Mapping[str, Mapping[str, float]]:
    """Return the errors of input, classical method and network, case by case and in the mean."""
    task = learned.pack.manifest.kind.replace("-", "_")
    table: dict[str, dict[str, float]] = {}

    def judge(name: str, clean: Clean, noise_hu: float, seed: int) -> dict[str, float]:
        scene, truth = spoiled(clean, task, noise_hu, seed)
        found = answers(scene, learned)
        row = measured(truth, found)
        words = ", ".join(f"{m} {row[f'{m}_mae']:.2f} HU {c.verdict}" for m, c in found.items())
        tell(f"{name}: input {row['raw_mae']:.2f} HU, {words}")
        return row

    for clean in held:
        for sd in NOISE_HU[task]:
            name = clean.name + (f" +{sd:.0f} HU" if sd else "")
            table[name] = judge(name, clean, sd, 1)
    if table:
        table["mean of patients"] = mean_of(table)
    random = np.random.default_rng(5)
    unseen = {}
    for seed in UNSEEN:
        clean = procedural(seed, slice_mm=float(random.uniform(1.0, 3.0)))
        sd = float(random.uniform(*PHANTOM_NOISE_HU[task]))
        unseen[f"{clean.name} +{sd:.0f} HU"] = judge(clean.name, clean, sd, seed)
    return {**table, "mean of procedural": mean_of(unseen)}
