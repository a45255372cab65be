"""CycleGAN from the shipped network to a site unlike its training, without pairs.

    python benchmarks/synthetic_ct_shift.py --archive ../shared/data/train_sts_ct.tar.xz \
        --out /tmp/shift --minutes 16
    python benchmarks/synthetic_ct_shift.py --archive ../shared/data/train_sts_ct.tar.xz \
        --out /tmp/shift --minutes 5 --mode pix2pix

The site is one simulated scanner outside the ranges that the network was trained on: softer
spectrum, more scatter left, fewer photons, larger voxels (`SITE`, `PIXEL_MM`). Its CBCTs are of one
half of the training patients, its CTs of the other half; CycleGAN never sees the truth of its
CBCTs (only their body's outline). Pix2Pix is given it. Which average of a CycleGAN's run is taken
is chosen without pairs (`sct_site.choose`). The six held-out patients, seen by the same scanner,
are scored once, at the end: raw, the network as it came, and adapted. HU in the body.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file

from models.cbct_sim import MU_WATER, CbctSettings, Fan
from models.pack import PACKS
from models.sct_net import SctNet, SctNetConfig
from models.training.evaluate_sct import as_network, evaluate
from models.training.loop import Budget, run
from models.training.sct_adversarial import PATCHES, AdversarialRecipe, CycleGan, Pix2Pix
from models.training.sct_data import HELD_OUT, Ct, read_sts
from models.training.sct_pairs import Pair, load_pair, make_pair, on_grid, save_pair
from models.training.sct_pictures import draw_samples
from models.training.sct_sampling import PairSampler
from models.training.sct_site import choose

PIXEL_MM: Final = 2.4
"""Trained on .95 to 2.1."""
SITE: Final = CbctSettings(
    fan=Fan.HALF,
    views=300,
    energy_weights=(0.30, 0.30, 0.18, 0.12, 0.07, 0.03),
    scatter=0.27,
    scatter_corrected=0.15,
    hardening_corrected=0.1,
    photons=8e3,
    electronic=9.0,
    lag=0.02,
    hann_cut=0.9,
    hu_shift=-20.0,
)
"""Trained on scatter .03-.25, corrected .2-1.0, photons 1e4-5e5, electronic noise 2-8."""
PARTS: Final = 2
"""Pieces of a patient, each a CBCT of its own."""
SLICES: Final = 20
HELD_SLICES: Final = 40


def seen_by_site(ct: Ct, seed: int) -> Pair:
    """Return `ct` as the site's scanner sees it: every patient lies and scatters differently."""
    random = np.random.default_rng([seed, 61])
    settings = replace(
        SITE,
        isocenter_mm=(float(random.uniform(-30, 30)), float(random.uniform(-30, 30))),
        scatter=SITE.scatter * float(random.uniform(0.9, 1.1)),
        photons=SITE.photons * float(random.uniform(0.8, 1.25)),
    )
    return make_pair(on_grid(ct, PIXEL_MM), settings, seed)


def _pieces(ct: Ct, parts: int, slices: int) -> Iterable[Ct]:
    """Yield pieces of `slices` slices, spread evenly over the patient."""
    last = max(0, len(ct.hu) - slices)
    for first in np.linspace(0, last, parts + 2)[1:-1].astype(int):
        yield replace(ct, hu=ct.hu[first : first + slices])


def images(cts: list[Ct], out: Path, *, parts: int, slices: int) -> list[Pair]:
    """Return what the site sees of `cts`, kept in `out`."""
    made = []
    for number, ct in enumerate(cts):
        for part, piece in enumerate(_pieces(ct, parts, slices)):
            path = out / f"{ct.name}-{part}.npz"
            if not path.exists():
                save_pair(seen_by_site(piece, 1000 * number + part + 7), path)
            made.append(load_pair(path))
    return made


def _unknown(pair: Pair) -> Pair:
    """Return `pair` without its truth."""
    return replace(pair, ct=pair.cbct)


def _task(
    mode: str, start: SctNet, site: list[Pair], others: list[Pair], recipe: AdversarialRecipe
) -> CycleGan | Pix2Pix:
    slices = start.config.slices
    if mode == "pix2pix":
        sampler = PairSampler(site, slices, recipe.seed, sizes=PATCHES)
        return Pix2Pix(sampler, start, recipe)
    apart = [_unknown(p) for p in site]
    sampler = PairSampler(apart, slices, recipe.seed, sizes=PATCHES, others=others)
    return CycleGan(sampler, start, recipe)


def main() -> None:
    """Adapt, then score the held-out patients once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=PACKS / "sct-pelvis/weights.safetensors")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--mode", choices=("cyclegan", "pix2pix"), default="cyclegan")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cts = sorted(read_sts(args.archive), key=lambda c: c.name)
    patients = [c for c in cts if c.name not in HELD_OUT]
    site = images(patients[::2], args.out / "cbct", parts=PARTS, slices=SLICES)
    others = images(patients[1::2], args.out / "ct", parts=1, slices=HELD_SLICES)
    config, recipe = SctNetConfig(), AdversarialRecipe(seed=args.seed)
    start = SctNet(config)
    start.load_state_dict(load_file(args.start))
    folder = args.out / args.mode
    task = _task(args.mode, start, site, others, recipe)
    record = {"mode": args.mode, "recipe": asdict(recipe), "pairs": len(site)}
    budget = Budget(minutes=args.minutes)
    run(task, folder, budget, record, lambda t: print(t, flush=True))
    adapted: SctNet = task.average
    if isinstance(task, CycleGan):
        adapted = choose(start, task.choices, [_unknown(p) for p in site], others)
        print(f"taken: average {task.choices.index(adapted) + 1} of {len(task.choices)}")
    held = images(
        [c for c in cts if c.name in HELD_OUT], args.out / "held", parts=1, slices=HELD_SLICES
    )
    networks = {
        "start": as_network(start.eval()),
        "adapted": as_network(adapted.eval()),
    }
    found = {name: evaluate(network, held) for name, network in networks.items()}
    draw_samples(folder / "held.png", held[:4], networks["adapted"], config.slices)
    (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    mu = sum(w * m for w, m in zip(SITE.energy_weights, MU_WATER, strict=True))
    print(f"site: water {10 * mu:.3f}/cm at first, {PIXEL_MM} mm pixels")
    for name, table in found.items():
        for case, row in table.items():
            raw = f"raw {row['raw_mae']:.1f} ({row['raw_me']:+.1f})"
            print(f"{name:<8} {case:<8} {raw} -> {row['mae']:.1f} ({row['me']:+.1f}) HU")


if __name__ == "__main__":
    main()
