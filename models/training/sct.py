"""Train a synthetic CT network: one trainer, one budget, one seed, resumable.

    python -m models.training.sct --pairs build/sct --out build/sct-run --minutes 60 --seed 1
    python -m models.training.sct --pairs build/sct --out build/sct-settled --minutes 15 \
        --start build/sct-run/weights.safetensors --whole 0.5 --rate 3e-4 --tissue 2

The second command settles the network: from the weights of the first, slowly, on whole boxes as
the node shows them. `models.training.loop` drives the tasks of `sct_tasks`; what it leaves in the
folder is told there.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models.pack import MANIFEST, file_sha256
from models.sct_net import SctNetConfig
from models.training.loop import RECORD, Budget, run
from models.training.sct_data import calibrated
from models.training.sct_pairs import Pair, load_pair
from models.training.sct_sampling import PairSampler
from models.training.sct_tasks import Recipe, Supervised


def training_files(pairs: Path) -> Iterator[Path]:
    """Yield the pair files of a folder that `sct_pairs` or ``rtnode sct simulate`` wrote."""
    inner = pairs / "training"
    yield from sorted((inner if inner.is_dir() else pairs).glob("*.npz"))


def earlier(start: Path) -> list[dict[str, Any]]:
    """Return the records of the runs behind the weights `start`, the oldest first."""
    run, pack = start.with_name(RECORD), start.with_name(MANIFEST)
    if run.exists():
        record = json.loads(run.read_text())
    elif pack.exists():
        record = json.loads(pack.read_text())["training"]
    else:
        return []
    return [*record.pop("stages", []), record]


def level(pair: Pair) -> Pair:
    """Return `pair` with its CT at the nominal HU of fat and muscle."""
    return replace(pair, ct=calibrated(pair.ct, pair.body))


def main() -> None:
    """Train the default network."""
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--whole", type=float, default=default.whole, help="share of whole boxes")
    parser.add_argument("--rate", type=float, default=default.learning_rate)
    parser.add_argument("--tissue", type=float, default=default.tissue_weight)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(
        seed=args.seed, learning_rate=args.rate, whole=args.whole, tissue_weight=args.tissue
    )
    config = SctNetConfig()
    pairs = [level(load_pair(p)) for p in training_files(args.pairs)]
    print(f"{len(pairs)} pairs of {len({p.name for p in pairs})} CTs", flush=True)
    sampler = PairSampler(pairs, config.slices, recipe.seed, whole=recipe.whole)
    task = Supervised(sampler, config, recipe)
    record: dict[str, Any] = {"mode": "sim", "recipe": asdict(recipe), "pairs": len(pairs)}
    if args.start is not None:
        task.begin_with(load_file(args.start))
        record |= {"started_from": file_sha256(args.start), "stages": earlier(args.start)}
    run(task, args.out, Budget(minutes=args.minutes), record, lambda t: print(t, flush=True))


if __name__ == "__main__":
    main()
