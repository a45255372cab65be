"""The training loop of all networks: a budget, a learning rate over it, and going on after a stop.

`run` drives any `Task`: learning rate over the budget, losses to ``losses.csv``, everything needed
to go on to ``state.safetensors`` each minute, the averaged network to ``weights.safetensors`` and
a record to ``training.json``. With a budget in steps the same seed gives the same weights on the
same machine, whether interrupted or not.
"""

import csv
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from models.training.checkpoint import load_checkpoint, save_checkpoint

SAVE_S: Final = 60.0
"""Seconds between two savings."""
LOG_STEPS: Final = 50
WARM_UP: Final = 0.03
"""Share of the budget over which the learning rate rises."""
STATE, WEIGHTS, RECORD, LOSSES = (
    "state.safetensors",
    "weights.safetensors",
    "training.json",
    "losses.csv",
)


class Draws(Protocol):
    """What draws the batches: random, but able to go on where it was."""

    def state(self) -> dict[str, Any]:
        """Return the random state as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        ...


class Task(Protocol):
    """A way to train a network."""

    steps: int

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Return all that learns, and ``average``."""
        ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Return the optimizers by name."""
        ...

    @property
    def sampler(self) -> Draws:
        """Return what draws the batches."""
        ...

    @property
    def average(self) -> Any:  # noqa: ANN401 (a network whose ``config`` is a dataclass)
        """Return the averaged network, which is what is kept."""
        ...

    def step(self, rate: float, share: float) -> dict[str, float]:
        """Take one step; return the losses by name.

        `rate` is the share of the full learning rate, `share` how much of the run is done.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to train: one of the two."""

    minutes: float | None = None
    """Wall time of all parts of the run together."""
    steps: int | None = None

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the budget is spent, 1 at its end."""
        if self.steps is not None:
            return step / self.steps
        return seconds / (60 * (self.minutes or 0.0)) if self.minutes else 1.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    losses: list[dict[str, float]]
    """Means of `LOG_STEPS` steps each."""


def run(
    task: Task,
    out: Path,
    budget: Budget,
    record: dict[str, Any],
    tell: Callable[[str], None] = print,
) -> Progress:
    """Train until the budget is spent; go on where `out` already holds a state.

    Parameters
    ----------
    task : Task
    out : Path
        Folder of the run.
    budget : Budget
    record : dict
        What to write down about the run; JSON.
    tell : callable
        Receives a line each `LOG_STEPS` steps.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress = _resumed(task, out / STATE)
    recent: list[dict[str, float]] = []
    before = progress.seconds
    started = saved = time.monotonic()
    while (share := budget.share(progress.step, progress.seconds)) < 1:
        recent.append(task.step(learning_rate(share), share))
        progress.step += 1
        now = time.monotonic()
        progress.seconds = before + now - started
        if len(recent) == LOG_STEPS:
            progress.losses.append(_mean(recent))
            recent.clear()
            tell(_line(progress, budget))
        if now - saved > SAVE_S:
            saved = now
            _save(task, out, progress, record)
    if recent:
        progress.losses.append(_mean(recent))
    _save(task, out, progress, record)
    return progress


def learning_rate(share: float) -> float:
    """Return the share of the full rate after `share` of the budget: warm-up, then cosine."""
    warm = min(1.0, (share + 1e-4) / WARM_UP)
    return warm * max(0.5 * (1 + math.cos(math.pi * min(share, 1.0))), 1e-3)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0]}


def _line(progress: Progress, budget: Budget) -> str:
    share = budget.share(progress.step, progress.seconds)
    left = progress.seconds * (1 - share) / max(share, 1e-6) / 60
    losses = " ".join(f"{k} {v:.3g}" for k, v in progress.losses[-1].items())
    return f"step {progress.step} {share:6.1%}, {left:.0f} min left: {losses}"


def _resumed(task: Task, path: Path) -> Progress:
    if not path.exists():
        return Progress(losses=[])
    rest = load_checkpoint(path, task.networks, task.optimizers)
    task.sampler.restore(rest["random"])
    task.steps = int(rest["step"])
    return Progress(step=task.steps, seconds=float(rest["seconds"]), losses=list(rest["losses"]))


def _save(task: Task, out: Path, progress: Progress, record: dict[str, Any]) -> None:
    rest = {
        "random": task.sampler.state(),
        "step": progress.step,
        "seconds": progress.seconds,
        "losses": progress.losses,
    }
    save_checkpoint(out / STATE, task.networks, task.optimizers, rest)
    weights = {k: v.detach().cpu().contiguous() for k, v in task.average.state_dict().items()}
    save_file(weights, out / WEIGHTS)
    found = record | {
        "network": asdict(task.average.config),
        "steps": progress.step,
        "minutes": round(progress.seconds / 60, 1),
    }
    (out / RECORD).write_text(json.dumps(found, indent=1) + "\n")
    if progress.losses:
        with (out / LOSSES).open("w", newline="") as file:
            table = csv.DictWriter(file, list(progress.losses[0]))
            table.writeheader()
            table.writerows(progress.losses)
