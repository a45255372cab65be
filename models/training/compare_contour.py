"""The founding research's comparison at equal cost: 2.5D and 3D U-Net, each with and without a GAN.

    python -m models.training.compare_contour --archive ../shared/data/train_openkbp.tar
        --out build/compare --cpu-minutes 10

Each network is trained for the same processor time from the same seed on the same patients and
scored on the held-out ones; ``comparison.json`` is written anew after each, so a part is of use.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Final

import torch

from models.training.cases import Case
from models.training.contour_recipe import Mode, Recipe
from models.training.contour_sampling import Sampler
from models.training.contour_task import ContourTask
from models.training.evaluate_contour import score_all, summary, torch_network
from models.training.loop import learning_rate
from models.training.openkbp import ORGANS, held_out, read_cases

CONTESTANTS: Final[tuple[tuple[str, Mode, bool], ...]] = (
    ("2.5D U-Net", "2.5d", False),
    ("3D U-Net", "3d", False),
    ("2.5D GAN", "2.5d", True),
    ("3D GAN", "3d", True),
)
"""Name, mode, and whether a judge takes part."""


def trained(cases: list[Case], recipe: Recipe, cpu_minutes: float) -> ContourTask:
    """Return a task after `cpu_minutes` of this process."""
    task = ContourTask(Sampler(cases, ORGANS, recipe), recipe)
    started = time.process_time()
    while (share := (time.process_time() - started) / (60 * cpu_minutes)) < 1:
        task.step(learning_rate(share), share)
    return task


def main() -> None:
    """Train and score all contestants."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu-minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    everyone = list(read_cases(args.archive))
    seen = [c for c in everyone if not held_out(c.name)]
    unseen = [c for c in everyone if held_out(c.name)]
    args.out.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, mode, gan in CONTESTANTS:
        recipe = Recipe(mode=mode, gan=gan, seed=args.seed)
        task = trained(seen, recipe, args.cpu_minutes)
        network = torch_network(task.average)
        scores = summary(score_all(unseen, [network], [recipe.frame], ORGANS))
        table[name] = {"steps": task.steps, "cpu_minutes": args.cpu_minutes, "organs": scores}
        (args.out / "comparison.json").write_text(json.dumps(table, indent=1) + "\n")
        print(name, task.steps, {o: s["dice"] for o, s in scores.items()}, flush=True)


if __name__ == "__main__":
    main()
