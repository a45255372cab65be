"""Train a network that lowers noise or parts thick slices: the loop and the task of synthetic CT.

    python -m models.training.quality --archive ../shared/data/train_sts_ct.tar.xz \
        --task noise-reduction --out build/quality-noise --minutes 12

The same seed and ``--steps`` give the same weights; the same command goes on after a stop.
`models.training.quality_pack` turns the run into a model pack.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from models.quality_net import DETAIL_BOUND, NOISE_BOUND, QualityNet, QualityNetConfig
from models.training.loop import Budget, Progress, run
from models.training.quality_data import Clean, QualitySampler, training_images
from models.training.sct_tasks import Recipe, Supervised

CONFIGS: Final = {
    "noise-reduction": QualityNetConfig(factor=1, bound=NOISE_BOUND),
    "super-resolution": QualityNetConfig(factor=2, bound=DETAIL_BOUND),
}
"""Task -> network."""


def train(
    images: Sequence[Clean],
    task: str,
    out: Path,
    budget: Budget,
    *,
    seed: int = 1,
    tell: Callable[[str], None] = print,
) -> Progress:
    """Train the network of `task`; see `models.training.loop.run` for what `out` receives.

    Raises
    ------
    ValueError
        Without any image.
    """
    config = CONFIGS[task]
    recipe = Recipe(seed=seed, learning_rate=1e-3)
    sampler = QualitySampler(images, config.factor, config.slices, seed)
    learner = Supervised(sampler, config, recipe, build=QualityNet)
    record = {
        "task": task,
        "recipe": asdict(recipe),
        "images": len(images),
        "patients": sum(i.name.startswith("STS_") for i in images),
    }
    return run(learner, out, budget, record, tell)


def main() -> None:
    """Train a default network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--task", choices=sorted(CONFIGS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = list(training_images(args.archive))
    print(f"{len(images)} images", flush=True)
    budget = Budget(minutes=None if args.steps else args.minutes, steps=args.steps)
    train(images, args.task, args.out, budget, seed=args.seed, tell=lambda t: print(t, flush=True))


if __name__ == "__main__":
    main()
