"""What a training step of the synthetic CT network is: the supervised task and the shared parts.

Every task owns its networks, optimizers and sampler, takes one step at a time, and keeps an
exponential moving average of its CBCT -> CT generator, which is what a pack ships.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sct_net import SctNet
from models.training.loop import Draws
from models.training.sct_sampling import Batch

TISSUES: Final = ((-0.16, -0.05), (0.015, 0.12), (0.2, 3.0))
"""Fat, muscle, bone, HU / 1000."""
TISSUE_PX: Final = 3
"""Side of the box that smooths the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Every number that shapes a supervised run."""

    seed: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.999
    gradient_weight: float = 0.2
    """Of the difference of image gradients, beside the difference of values."""
    tissue_weight: float = 0.0
    """Of the difference of the tissues' means."""
    whole: float = 0.0
    """Share of the batches that show whole boxes, as the node does."""


class Batches(Draws, Protocol):
    """Draws what is shown with its truth."""

    def batch(self) -> Batch:
        """Return the next batch."""
        ...


class Supervised:
    """Simulated pairs, weighted L1 of values and gradients (`--mode sim`).

    `build` makes the network of a configuration. Its answer of n channels is held against the n
    middle channels of the truth.
    """

    def __init__(
        self,
        sampler: Batches,
        config: Any,  # noqa: ANN401 (what `build` takes)
        recipe: Recipe,
        device: str = "cpu",
        build: Callable[[Any], nn.Module] = SctNet,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.sampler, self.recipe, self.device = sampler, recipe, device
        self.generator = build(config).to(device, memory_format=torch.channels_last)
        self.average = averaged(self.generator)
        self.networks: Mapping[str, nn.Module] = {
            "generator": self.generator,
            "average": self.average,
        }
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "generator-optimizer": torch.optim.AdamW(
                self.generator.parameters(),
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
            )
        }
        self.steps = 0

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from trained weights instead of the identity."""
        self.generator.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def step(self, rate: float, share: float) -> dict[str, float]:  # noqa: ARG002 (the protocol's)
        """Take one step; return its loss in HU."""
        (optimizer,) = self.optimizers.values()
        set_rate(optimizer, self.recipe.learning_rate * rate)
        batch = self.sampler.batch()
        cbct = batch.cbct.to(self.device, memory_format=torch.channels_last)
        weight = batch.weight.to(self.device)
        with torch.autocast(self.device, torch.bfloat16):
            made = self.generator(cbct)
        truth = centre(batch.ct, made.shape[1]).to(self.device)
        loss, mae = weighted_difference(made.float(), truth, weight, self.recipe.gradient_weight)
        if self.recipe.tissue_weight > 0:
            tissues = tissue_difference(made.float(), truth, weight)
            loss = loss + self.recipe.tissue_weight * tissues
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.generator.parameters(), self.recipe.clip_norm)
        optimizer.step()
        self.steps += 1
        follow(self.average, self.generator, min(self.recipe.ema, self.steps / (9 + self.steps)))
        return {"loss": float(loss.item()) * 1000, "weighted_mae_hu": mae * 1000}


def centre(stack: Tensor, count: int = 1) -> Tensor:
    """Return the middle channels (N, count, row, column) of (N, slices, row, column)."""
    first = (stack.shape[1] - count) // 2
    return stack[:, first : first + count]


def weighted_difference(
    made: Tensor, truth: Tensor, weight: Tensor, gradient_weight: float
) -> tuple[Tensor, float]:
    """Return the loss and its plain part: mean weighted |made - truth|, and of their gradients."""
    total = weight.sum().clamp_min(1.0)
    plain = (weight * (made - truth).abs()).sum() / total
    loss = plain
    for axis in (2, 3):
        edges = (made.diff(dim=axis) - truth.diff(dim=axis)).abs()
        both = torch.minimum(
            weight.narrow(axis, 1, weight.shape[axis] - 1),
            weight.narrow(axis, 0, weight.shape[axis] - 1),
        )
        loss = loss + gradient_weight * (both * edges).sum() / total
    return loss, float(plain.item())


def tissue_difference(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return how the mean values of fat, muscle and bone differ, image by image.

    What a voxel-wise loss cannot settle it answers with a value between the tissues: fat reads too
    high, muscle too low, and a patient of much muscle as a whole too low. Here every tissue's mean
    counts, by its share of the body. Tissues are told by the smoothed truth, so that noise of the
    CT does not choose the voxels.
    """
    body = weight >= 1
    smooth = functional.avg_pool2d(truth, TISSUE_PX, stride=1, padding=TISSUE_PX // 2)
    size = body.sum(dim=(1, 2, 3)).clamp_min(1)
    total = made.new_zeros(len(made))
    for low, high in TISSUES:
        inside = body & (smooth > low) & (smooth < high)
        total = total + ((made - truth) * inside).sum(dim=(1, 2, 3)).abs() / size
    return total.mean()


def averaged(network: nn.Module) -> nn.Module:
    """Return a copy of `network` that only follows."""
    return copy.deepcopy(network).requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the new ones."""
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
