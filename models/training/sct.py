"""Train a synthetic CT network: one trainer, one budget, one seed, resumable.

    python -m models.training.sct --pairs build/sct --out build/sct-run --minutes 60 --seed 1

`models.training.loop` drives the tasks of `sct_tasks`; what it leaves in the folder is told there.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from models.sct_net import SctNetConfig
from models.training.loop import Budget, run
from models.training.sct_pairs import load_pair
from models.training.sct_sampling import PairSampler
from models.training.sct_tasks import Recipe, Supervised


def training_files(pairs: Path) -> Iterator[Path]:
    """Yield the pair files of a folder that `sct_pairs` or ``rtnode sct simulate`` wrote."""
    inner = pairs / "training"
    yield from sorted((inner if inner.is_dir() else pairs).glob("*.npz"))


def main() -> None:
    """Train the default network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe, config = Recipe(seed=args.seed), SctNetConfig()
    pairs = [load_pair(p) for p in training_files(args.pairs)]
    print(f"{len(pairs)} pairs of {len({p.name for p in pairs})} CTs", flush=True)
    task = Supervised(PairSampler(pairs, config.slices, recipe.seed), config, recipe)
    record = {"mode": "sim", "recipe": asdict(recipe), "pairs": len(pairs)}
    run(task, args.out, Budget(minutes=args.minutes), record, lambda t: print(t, flush=True))


if __name__ == "__main__":
    main()
