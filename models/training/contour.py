"""Train a contouring network on the OpenKBP archive: one script, one seed, one budget, resumable.

    python -m models.training.contour --archive ../shared/data/train_openkbp.tar --out build/hn
        --mode 2.5d --minutes 60 --seed 1

Then scores the held-out patients and writes ``metrics.json`` beside the weights. A site trains on
its own patients with ``rtnode contour train``, which drives the same `train_network`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from models.training.cases import Case
from models.training.contour_recipe import DESIGNS, Recipe
from models.training.contour_sampling import Sampler
from models.training.contour_task import ContourTask
from models.training.evaluate_contour import score_all, summary, torch_network
from models.training.loop import Budget, run
from models.training.openkbp import ORGANS, held_out, read_cases
from models.unet import UNet


def train_network(
    cases: Sequence[Case],
    organs: tuple[str, ...],
    recipe: Recipe,
    out: Path,
    budget: Budget,
    tell: Callable[[str], None] = print,
) -> UNet:
    """Train, or go on where `out` holds a state, and return the averaged network.

    Leaves ``weights.safetensors``, ``state.safetensors``, ``losses.csv`` and ``training.json``.
    """
    task = ContourTask(Sampler(list(cases), organs, recipe), recipe)
    record = {
        "recipe": asdict(recipe),
        "frame": recipe.frame.model_dump(),
        "organs": organs,
        "patients": len(cases),
    }
    run(task, out, budget, record, tell)
    return task.average


def main() -> None:
    """Read the archive, train, score."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", choices=sorted(DESIGNS), default="2.5d")
    parser.add_argument("--gan", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    everyone = list(read_cases(args.archive))
    unseen = [c for c in everyone if held_out(c.name)]
    recipe = Recipe(mode=args.mode, gan=args.gan, seed=args.seed)
    net = train_network(
        [c for c in everyone if not held_out(c.name)],
        ORGANS,
        recipe,
        args.out,
        Budget(minutes=args.minutes),
        lambda line: print(line, flush=True),
    )
    table = summary(score_all(unseen, [torch_network(net)], [recipe.frame], ORGANS))
    for organ, row in table.items():
        print(organ, row)
    (args.out / "metrics.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
