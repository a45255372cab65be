"""What a training step of a contouring network is: segmentation loss, and a judge if wanted.

With ``gan`` a discriminator sees image and contours together and learns to tell a clinician's from
the network's (Isola et al. 2017, arXiv 1611.07004; least squares as Mao et al. 2017, arXiv
1611.04076); the network is rewarded for contours it takes for a clinician's. An organ that was not
drawn is shown to it in neither, so that its absence betrays nothing.
"""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from models.training.contour_loss import marginal_loss
from models.training.contour_recipe import Recipe
from models.training.contour_sampling import Batch, Sampler
from models.training.muon import Muon
from models.unet import CONVOLUTION, MEMORY, UNet

WIDTHS: Final = (16, 32, 64)
"""Channels of the discriminator; every level halves the size."""


class Judge(nn.Module):
    """Discriminator: one verdict a region, 1 for contours that a clinician drew."""

    def __init__(self, dimensions: int, inputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS:
            layers += [
                CONVOLUTION[dimensions](inputs, width, 3, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            ]
            inputs = width
        self.layers = nn.Sequential(*layers, CONVOLUTION[dimensions](inputs, 1, 3, padding=1))

    def forward(self, image: Tensor, contours: Tensor) -> Tensor:
        """Return verdicts (N, 1, ...) on (N, channels, ...) and class maps (N, classes, ...)."""
        verdict: Tensor = self.layers(torch.cat([image, contours], dim=1))
        return verdict


class ContourTask:
    """Trains a U-Net on the patches of a sampler, alone or against a judge."""

    def __init__(self, sampler: Sampler, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.sampler, self.recipe = sampler, recipe
        config = recipe.network(len(sampler.organs))
        self.memory = MEMORY[config.dimensions]
        self.net = UNet(config)
        self.average = copy.deepcopy(self.net).requires_grad_(requires_grad=False).eval()
        self.networks: dict[str, nn.Module] = {"net": self.net, "average": self.average}
        kernels, others = kernels_of(self.net)
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "net-kernels": Muon(kernels, lr=recipe.learning_rate),
            "net-others": self._adamw(others),
        }
        self.judge: Judge | None = None
        if recipe.gan:
            self.judge = Judge(config.dimensions, config.inputs + config.classes)
            self.networks["judge"] = self.judge
            optimizer = self._adamw(list(self.judge.parameters()))
            self.optimizers = {**self.optimizers, "judge-optimizer": optimizer}
        self.steps = 0

    def step(self, rate: float, share: float) -> dict[str, float]:
        """Take one step of the run, at `rate` times the learning rate; return the losses."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * rate
        batch = self.sampler.batch(self.recipe.design.batch)
        image = batch.image.contiguous(memory_format=self.memory)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(image)
        weight = self.recipe.organ_weight(share)
        loss = marginal_loss(logits, batch.target, batch.drawn, weight)
        losses = {"loss": float(loss.item())}
        if self.judge is not None:
            shown = logits.float().softmax(dim=1)
            losses["judge"] = self._teach(self.judge, image, shown.detach(), batch)
            persuaded = self._verdict(self.judge, image, shown, batch)
            adversarial = (persuaded - 1).square().mean()
            losses["adversarial"] = float(adversarial.item())
            loss = loss + self.recipe.adversarial * adversarial
        self._learn(self.net, ("net-kernels", "net-others"), loss)
        self.steps += 1
        follow(self.average, self.net, min(self.recipe.ema, self.steps / (9 + self.steps)))
        return losses

    def _teach(self, judge: Judge, image: Tensor, shown: Tensor, batch: Batch) -> float:
        """Take one step of the judge; return its loss."""
        classes = shown.shape[1]
        true = nn.functional.one_hot(batch.target, classes).movedim(-1, 1).float()
        right = self._verdict(judge, image, true, batch)
        wrong = self._verdict(judge, image, shown, batch)
        loss = 0.5 * ((right - 1).square().mean() + wrong.square().mean())
        self._learn(judge, ("judge-optimizer",), loss)
        return float(loss.item())

    def _verdict(self, judge: Judge, image: Tensor, contours: Tensor, batch: Batch) -> Tensor:
        """Ask the judge, with what no clinician drew hidden and counted as background."""
        drawn = batch.drawn.float().reshape(*batch.drawn.shape, *[1] * (contours.dim() - 2))
        seen = contours * drawn
        background = seen[:, :1] + (1 - seen.sum(dim=1, keepdim=True))
        shown = torch.cat([background, seen[:, 1:]], dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            verdict = judge(image, shown.contiguous(memory_format=self.memory))
        return verdict.float()

    def _learn(self, network: nn.Module, optimizers: tuple[str, ...], loss: Tensor) -> None:
        for name in optimizers:
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.recipe.clip_norm)
        for name in optimizers:
            self.optimizers[name].step()

    def _adamw(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            weights, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )


def kernels_of(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the convolution kernels inside a network, and its other weights.

    The head counts among the others: its rows are classes, which need not change alike.
    """
    named = dict(network.named_parameters())
    inside = [n for n, w in named.items() if w.dim() > 1 and not n.startswith("head.")]
    return [named[n] for n in inside], [w for n, w in named.items() if n not in inside]


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and statistics towards the new ones."""
    kept, new = average.state_dict(), network.state_dict()
    for name, value in kept.items():
        if value.is_floating_point():
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])
