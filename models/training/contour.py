"""Train the 2.5D contouring network: one script, one seed, one time budget.

    python -m models.training.contour --archive ../shared/data/train_openkbp.tar --out build/hn
        --minutes 60 --seed 1

Recipe: slices drawn mostly by a random organ, random in-plane affine maps, HU offset and gain,
noise; cross-entropy plus soft Dice; AdamW with warm-up and cosine decay over the time budget;
exponential moving average of the weights, which is what is kept. An organ that the clinician did
not draw may still be in the image: its probability then counts as background and its Dice term is
left out (marginal loss; Shi et al. 2021, doi 10.1016/j.media.2021.101979). Left and right are
never mirrored. The averaged weights are written every minute.
"""

import argparse
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from models.training.openkbp import ORGANS, Case, held_out, read_cases
from models.unet25 import UNet25, UNet25Config
from models.window import (
    FIELD_PX,
    PIXEL_MM,
    SOFT_HU,
    WIDE_HU,
    body_centre,
    slice_stack,
)

CLASS_WEIGHTS: Final = (0.6, 2.0, 1.5, 2.0, 2.0, 1.5, 3.0, 3.0)
"""Cross-entropy weights: background, then `ORGANS`; small organs count more."""
AIR_HU: Final = -900.0
"""Below it stays as it is: the training data is masked to air outside the body."""
SAVE_S: Final = 60.0
"""Seconds between two savings of the averaged weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Every number that shapes a training run."""

    seed: int = 1
    batch: int = 12
    learning_rate: float = 3e-3
    warm_up_steps: int = 50
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.998
    organ_share: float = 0.88
    """Share of slices drawn so that a random organ is on them."""
    rotation_rad: float = 0.25
    scale: float = 0.25
    """Log-uniform isotropic scale within +-25 %."""
    anisotropy: float = 0.08
    shift_px: float = 10.0
    offset_hu: float = 25.0
    gain: float = 0.15
    noise_hu: float = 25.0


class Sampler:
    """Draws augmented batches from volumes that lie in memory."""

    def __init__(self, cases: list[Case], config: UNet25Config, recipe: Recipe) -> None:
        self.cases, self.config, self.recipe = cases, config, recipe
        self.random = np.random.default_rng(recipe.seed)
        self.centres = [body_centre(c.hu) for c in cases]
        self.where = {
            label: [
                (i, np.flatnonzero((c.labels == label).any(axis=(1, 2))))
                for i, c in enumerate(cases)
                if label in c.drawn and (c.labels == label).any()
            ]
            for label in range(1, config.classes)
        }

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return input (N, channels, row, column), labels (N, row, column), drawn (N, classes)."""
        picks = [self._pick() for _ in range(self.recipe.batch)]
        stacks = np.stack([self._stack(i, z) for i, z in picks])
        labels = np.stack([self.cases[i].labels[z] for i, z in picks]).astype(np.float32)
        drawn = np.zeros((len(picks), self.config.classes), bool)
        drawn[:, 0] = True
        for n, (i, _) in enumerate(picks):
            drawn[n, list(self.cases[i].drawn)] = True
        grid = nn.functional.affine_grid(
            torch.from_numpy(np.stack([self._theta(i) for i, _ in picks])),
            [len(picks), 1, FIELD_PX, FIELD_PX],
            align_corners=False,
        )
        air = 1024.0  # grid_sample pads with zeros, so air must be zero
        hu = nn.functional.grid_sample(torch.from_numpy(stacks) + air, grid, align_corners=False)
        target = nn.functional.grid_sample(
            torch.from_numpy(labels)[:, None], grid, mode="nearest", align_corners=False
        )
        return (
            self._windows(self._intensity(hu - air)),
            target[:, 0].round().long(),
            torch.from_numpy(drawn),
        )

    def _pick(self) -> tuple[int, int]:
        if self.random.random() < self.recipe.organ_share:
            label = int(self.random.integers(1, self.config.classes))
            case, slices = self.where[label][self.random.integers(len(self.where[label]))]
            return case, int(self.random.choice(slices))
        case = int(self.random.integers(len(self.cases)))
        return case, int(self.random.integers(self.cases[case].hu.shape[0]))

    def _stack(self, case: int, centre: int) -> NDArray[np.float32]:
        hu = self.cases[case].hu
        return hu[slice_stack(hu.shape[0], centre, self.config.slices)].astype(np.float32)

    def _theta(self, case: int) -> NDArray[np.float32]:
        """Affine map from the network's square to the slice, in grid_sample's units (x, y)."""
        recipe, random = self.recipe, self.random
        _, rows, columns = self.cases[case].hu.shape
        _, row_mm, column_mm = self.cases[case].spacing
        angle = random.uniform(-recipe.rotation_rad, recipe.rotation_rad)
        zoom = math.exp(random.uniform(-1, 1) * math.log1p(recipe.scale))
        stretch = 1 + random.uniform(-recipe.anisotropy, recipe.anisotropy)
        reach = FIELD_PX * PIXEL_MM * zoom  # side of the square on the patient, mm
        cos, sin = math.cos(angle), math.sin(angle)
        to_columns = reach / (column_mm * columns)
        to_rows = reach / (row_mm * rows)
        row, column = self.centres[case]
        shift = random.uniform(-recipe.shift_px, recipe.shift_px, 2) * PIXEL_MM
        centre_x = (2 * (column + shift[0] / column_mm) + 1) / columns - 1
        centre_y = (2 * (row + shift[1] / row_mm) + 1) / rows - 1
        return np.array(
            [
                [cos * to_columns * stretch, -sin * to_columns, centre_x],
                [sin * to_rows, cos * to_rows / stretch, centre_y],
            ],
            np.float32,
        )

    def _intensity(self, hu: Tensor) -> Tensor:
        n = hu.shape[0]
        recipe = self.recipe

        def uniform(reach: float) -> Tensor:
            values = self.random.uniform(-reach, reach, (n, 1, 1, 1)).astype(np.float32)
            return torch.from_numpy(values)

        sigma = torch.from_numpy(
            self.random.uniform(0, recipe.noise_hu, (n, 1, 1, 1)).astype(np.float32)
        )
        inside = hu > AIR_HU
        changed = hu * (1 + uniform(recipe.gain)) + uniform(recipe.offset_hu)
        return torch.where(inside, changed + sigma * torch.randn_like(hu), hu)

    def _windows(self, hu: Tensor) -> Tensor:
        def window(x: Tensor, low: float, high: float) -> Tensor:
            return ((x - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0)

        middle = self.config.slices // 2
        wide = window(hu[:, middle : middle + 1], *WIDE_HU)
        return torch.cat([window(hu, *SOFT_HU), wide], dim=1)


def marginal_loss(logits: Tensor, target: Tensor, drawn: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice; organs that were not drawn count as background.

    Parameters
    ----------
    logits : Tensor, shape (N, classes, row, column)
    target : Tensor of int, shape (N, row, column)
    drawn : Tensor of bool, shape (N, classes)
    weights : Tensor, shape (classes,)
    """
    logp = nn.functional.log_softmax(logits.float(), dim=1)
    p = logp.exp()
    absent = (~drawn)[:, :, None, None]
    background = (p[:, 0] + (p * absent).sum(1)).clamp_min(1e-7).log()
    picked = logp.gather(1, target[:, None])[:, 0]
    weight = weights[target]
    nll = -torch.where(target == 0, background, picked) * weight
    cross_entropy = nll.sum() / weight.sum()
    onehot = nn.functional.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2)
    present = drawn.float()[:, :, None, None]
    overlap = (p * onehot * present).sum((0, 2, 3))
    total = ((p + onehot) * present).sum((0, 2, 3))
    dice = (2 * overlap + 1) / (total + 1)
    return cross_entropy + 1 - dice[1:].mean()


def train(cases: list[Case], out: Path, minutes: float, recipe: Recipe) -> UNet25:
    """Train for `minutes` of wall time and leave ``weights.safetensors`` in `out`."""
    torch.manual_seed(recipe.seed)
    config = UNet25Config()
    net = UNet25(config)
    average = copy.deepcopy(net).requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    sampler = Sampler(cases, config, recipe)
    losses: list[float] = []
    started = saved = time.monotonic()
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, len(losses), share)
        losses.append(_learn(net, optimizer, sampler.batch(), recipe))
        _follow(average, net, min(recipe.ema, len(losses) / (9 + len(losses))))
        if len(losses) % 100 == 0:
            print(f"step {len(losses)} {share:.1%} loss {np.mean(losses[-100:]):.4f}", flush=True)
        if time.monotonic() - saved > SAVE_S:
            saved = time.monotonic()
            _save(average, out, recipe, losses, minutes * share)
    _save(average, out, recipe, losses, minutes)
    return average


def learning_rate(recipe: Recipe, step: int, share: float) -> float:
    """Return the rate at `step`, after `share` of the time budget: warm-up, then cosine to 0."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    return recipe.learning_rate * warm * max(0.5 * (1 + math.cos(math.pi * share)), 1e-3)


def _learn(
    net: UNet25,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    recipe: Recipe,
) -> float:
    """Take one step; return its loss."""
    image, target, drawn = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(image)
    loss = marginal_loss(logits, target, drawn, torch.tensor(CLASS_WEIGHTS))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
    optimizer.step()
    return float(loss.item())


@torch.no_grad()
def _follow(average: UNet25, net: UNet25, decay: float) -> None:
    """Move the averaged weights towards the new ones."""
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def _save(net: UNet25, out: Path, recipe: Recipe, losses: list[float], minutes: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), out / "weights.safetensors")
    curve = [round(float(np.mean(losses[i : i + 100])), 4) for i in range(0, len(losses), 100)]
    record = {
        "recipe": asdict(recipe),
        "network": asdict(UNet25Config()),
        "steps": len(losses),
        "minutes": round(minutes, 1),
        "loss": curve,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    """Read the archive, train, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cases = [c for c in read_cases(args.archive) if not held_out(c.name)]
    print(f"{len(cases)} patients for training, organs {', '.join(ORGANS)}")
    train(cases, args.out, args.minutes, Recipe(seed=args.seed))


if __name__ == "__main__":
    main()
