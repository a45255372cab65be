"""CycleGAN and Pix2Pix for the synthetic CT network, as tasks of the one trainer.

CycleGAN (Zhu et al. 2017, arXiv 1703.10593) adapts a simulation-trained generator to a site's own
CBCT and CT, which need not show the same patients. Left alone it drifts in HU, so four terms hold
it: structure (the correlation of image gradients before and after), HU anchoring (the distance of
the body's histogram from that of real CTs), a tie of the low frequencies to the generator it
started from, and identity. Pix2Pix (Isola et al. 2017, arXiv 1611.07004) takes pairs.
Reference page, section 7. Values are HU / 1000.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sct_net import SctNet
from models.training.sct_sampling import Batch, PairSampler
from models.training.sct_tasks import averaged, centre, follow, set_rate, weighted_difference

BODY_WEIGHT: Final = 1.0
"""Weights of a batch from here on are body."""
QUANTILES: Final = 65
"""Points at which histograms are compared."""
BLUR_PX: Final = 15
"""Side of the box that leaves the low frequencies."""
PATCHES: Final[Sequence[tuple[int, int]]] = ((96, 4), (128, 2))
"""(pixels, patches) of a batch: two generators and two critics want smaller ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialRecipe:
    """Every number that shapes an adversarial run."""

    seed: int = 1
    learning_rate: float = 5e-5
    betas: tuple[float, float] = (0.5, 0.999)
    clip_norm: float = 1.0
    ema: float = 0.999
    hold: float = 0.6
    """Share of the run at the full rate; then linearly to 0."""
    cycle: float = 10.0
    identity: float = 5.0
    structure: float = 2.0
    anchor: float = 10.0
    """Of the distance of the histograms."""
    tie: float = 10.0
    """Of the low frequencies to the first generator; falls to 0 over the run."""
    paired: float = 100.0
    """Of the weighted difference, Pix2Pix only."""


class PatchDiscriminator(nn.Module):
    """Says of every patch of an image whether it is real (PatchGAN, Isola et al. 2017)."""

    def __init__(self, inputs: int = 1, width: int = 48) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each patch; soft tissue is stretched first."""
        return cast("Tensor", self.layers(((x + 0.1) * 2.5).clamp(-2.25, 2.25)))


class Pix2Pix:
    """Pairs with a discriminator that sees CBCT and CT together (`--mode pix2pix`)."""

    def __init__(
        self, sampler: PairSampler, start: SctNet, recipe: AdversarialRecipe, device: str = "cpu"
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.sampler, self.recipe, self.device, self.steps = sampler, recipe, device, 0
        self.generator = copy.deepcopy(start).to(device)
        self.critic = PatchDiscriminator(2).to(device)
        self.average = averaged(self.generator)
        self.networks: Mapping[str, nn.Module] = {
            "generator": self.generator,
            "critic": self.critic,
            "average": self.average,
        }
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "generator-optimizer": _adam(self.generator, recipe),
            "critic-optimizer": _adam(self.critic, recipe),
        }

    def step(self, rate: float, share: float) -> dict[str, float]:  # noqa: ARG002 (own schedule)
        """Take one step of generator and critic."""
        for optimizer in self.optimizers.values():
            set_rate(optimizer, self.recipe.learning_rate * decay(self.recipe.hold, share))
        batch = _moved(self.sampler.batch(), self.device)
        truth, seen = centre(batch.ct), centre(batch.cbct)
        made = self.generator(batch.cbct)
        plain, mae = weighted_difference(made, truth, batch.weight, 0.2)
        fool = _real(self.critic(torch.cat([seen, made], 1)))
        _descend(
            self.optimizers["generator-optimizer"],
            self.recipe.paired * plain + fool,
            self.recipe.clip_norm,
        )
        real = _real(self.critic(torch.cat([seen, truth], 1)))
        fake = _fake(self.critic(torch.cat([seen, made.detach()], 1)))
        _descend(self.optimizers["critic-optimizer"], (real + fake) / 2, self.recipe.clip_norm)
        self.steps += 1
        follow(self.average, self.generator, min(self.recipe.ema, self.steps / (9 + self.steps)))
        return {
            "weighted_mae_hu": 1000 * mae,
            "fool": float(fool.item()),
            "critic": float((real + fake).item() / 2),
        }


class CycleGan:
    """Unpaired adaptation (`--mode cyclegan`); the sampler draws CBCT and CT of different pairs."""

    def __init__(
        self, sampler: PairSampler, start: SctNet, recipe: AdversarialRecipe, device: str = "cpu"
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.sampler, self.recipe, self.device, self.steps = sampler, recipe, device, 0
        self.first = averaged(start).to(device)
        self.to_ct = copy.deepcopy(start).to(device)
        self.to_cbct = SctNet(start.config).to(device)  # starts as the identity
        self.says_ct = PatchDiscriminator().to(device)
        self.says_cbct = PatchDiscriminator().to(device)
        self.average = averaged(self.to_ct)
        self.bank = body_quantiles(sampler).to(device)
        self.networks: Mapping[str, nn.Module] = {
            "to-ct": self.to_ct,
            "to-cbct": self.to_cbct,
            "says-ct": self.says_ct,
            "says-cbct": self.says_cbct,
            "first": self.first,
            "average": self.average,
        }
        generators = nn.ModuleList([self.to_ct, self.to_cbct])
        critics = nn.ModuleList([self.says_ct, self.says_cbct])
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "generators-optimizer": _adam(generators, recipe),
            "critics-optimizer": _adam(critics, recipe),
        }

    def step(self, rate: float, share: float) -> dict[str, float]:  # noqa: ARG002 (own schedule)
        """Take one step of both generators and both critics."""
        for optimizer in self.optimizers.values():
            set_rate(optimizer, self.recipe.learning_rate * decay(self.recipe.hold, share))
        batch = _moved(self.sampler.batch(), self.device)
        a, b = batch.cbct, batch.ct
        made_ct, made_cbct = self.to_ct(a), self.to_cbct(b)
        losses = self._generator_losses(batch, made_ct, made_cbct, share)
        _descend(
            self.optimizers["generators-optimizer"], sum(losses.values()), self.recipe.clip_norm
        )
        critic = (
            _real(self.says_ct(centre(b)))
            + _fake(self.says_ct(made_ct.detach()))
            + _real(self.says_cbct(centre(a)))
            + _fake(self.says_cbct(made_cbct.detach()))
        ) / 2
        _descend(self.optimizers["critics-optimizer"], critic, self.recipe.clip_norm)
        self.steps += 1
        follow(self.average, self.to_ct, min(self.recipe.ema, self.steps / (9 + self.steps)))
        return {k: float(v.item()) for k, v in losses.items()} | {"critic": float(critic.item())}

    def _generator_losses(
        self, batch: Batch, made_ct: Tensor, made_cbct: Tensor, share: float
    ) -> dict[str, Tensor]:
        r, a, b = self.recipe, batch.cbct, batch.ct
        body = batch.weight >= BODY_WEIGHT
        back_cbct = self.to_cbct(restacked(a, made_ct))
        back_ct = self.to_ct(restacked(b, made_cbct))
        with torch.no_grad():
            first = self.first(a)
        return {
            "fool": _real(self.says_ct(made_ct)) + _real(self.says_cbct(made_cbct)),
            "cycle": r.cycle * (_l1(back_cbct, centre(a)) + _l1(back_ct, centre(b))),
            "identity": r.identity
            * (_l1(self.to_ct(b), centre(b)) + _l1(self.to_cbct(a), centre(a))),
            "structure": r.structure
            * (edge_loss(centre(a), made_ct) + edge_loss(centre(b), made_cbct)),
            "anchor": r.anchor * anchor_loss(made_ct, body, self.bank),
            "tie": r.tie * (1 - share) * _l1(_blurred(made_ct), _blurred(first)),
        }


def restacked(stack: Tensor, made: Tensor) -> Tensor:
    """Return `stack` with its centre slice replaced, its neighbours changed alike but smoothly.

    The generators take neighbouring slices and give one; what shading they changed in the middle
    is changed next to it, too, so that the way back sees one kind of image.
    """
    middle = stack.shape[1] // 2
    change = _blurred(made - centre(stack))
    parts = [stack[:, i : i + 1] + change for i in range(stack.shape[1])]
    parts[middle] = made
    return torch.cat(parts, 1)


def edge_loss(before: Tensor, after: Tensor) -> Tensor:
    """Return 1 - the correlation of the in-plane gradients of two images (N, 1, row, column)."""
    total = before.new_zeros(())
    for axis in (2, 3):
        x, y = before.diff(dim=axis).flatten(1), after.diff(dim=axis).flatten(1)
        total = total + functional.cosine_similarity(x, y, dim=1).mean()
    return 1 - total / 2


def anchor_loss(made: Tensor, body: Tensor, bank: Tensor) -> Tensor:
    """Return the mean distance of the body's quantiles in `made` from those of real CTs."""
    values = made[body]
    if values.numel() < QUANTILES:
        return made.sum() * 0
    levels = torch.linspace(0.01, 0.99, QUANTILES, device=made.device)
    step = max(1, values.numel() // 8192)
    return (torch.quantile(values[::step], levels) - bank).abs().mean()


def body_quantiles(sampler: PairSampler) -> Tensor:
    """Return the quantiles of the body over all CTs of the sampler, HU / 1000."""
    values = torch.cat(
        [torch.from_numpy(p.ct[p.body][::31].astype("float32")) for p in sampler.others]
    )
    step = max(1, values.numel() // 2_000_000)
    levels = torch.linspace(0.01, 0.99, QUANTILES)
    return torch.quantile(values[::step], levels) / 1000


def decay(hold: float, share: float) -> float:
    """Return the share of the learning rate: full until `hold`, then linearly to 0."""
    return max(0.0, min(1.0, (1 - share) / (1 - hold)))


def _blurred(image: Tensor) -> Tensor:
    pad = BLUR_PX // 2
    padded = functional.pad(image, (pad, pad, pad, pad), mode="replicate")
    return functional.avg_pool2d(padded, BLUR_PX, stride=1)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean()


def _real(score: Tensor) -> Tensor:
    return ((score - 1) ** 2).mean()


def _fake(score: Tensor) -> Tensor:
    return (score**2).mean()


def _adam(module: nn.Module, recipe: AdversarialRecipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=recipe.learning_rate, betas=recipe.betas)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor | int, clip: float) -> None:
    """Take one step down `loss`, a tensor."""
    optimizer.zero_grad(set_to_none=True)
    cast("Tensor", loss).backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], clip)
    optimizer.step()


def _moved(batch: Batch, device: str) -> Batch:
    return Batch(cbct=batch.cbct.to(device), ct=batch.ct.to(device), weight=batch.weight.to(device))
