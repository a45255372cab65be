"""CycleGAN and Pix2Pix for the synthetic CT network, as tasks of the one trainer.

CycleGAN (Zhu et al. 2017, arXiv 1703.10593) adapts a simulation-trained generator to a site's own
CBCT and CT, which need not show the same patients. Left alone it drifts in HU, so four terms hold
it: structure (the correlation of image gradients before and after), HU anchoring (`Anchor`), a tie
of the low frequencies to the generator it started from, brought to the CTs' level (`Levels`), and
identity. The way back is a function and makes no noise; what it leaves of the real CBCTs is their
noise, and is added to the CBCTs that it makes, so that the way there never learns on clean ones.
Pix2Pix (Isola et al. 2017, arXiv 1611.07004) takes pairs.
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
from models.training.sct_anchor import (
    BLUR_PX,
    Anchor,
    Levels,
    blurred,
    body_quantiles,
    edge_loss,
    read_quantiles,
    scattered,
    tie_loss,
)
from models.training.sct_sampling import Batch, PairSampler
from models.training.sct_tasks import averaged, centre, follow, set_rate, weighted_difference

BODY_WEIGHT: Final = 1.0
"""Weights of a batch from here on are body."""
GRAIN_PX: Final = 5
"""Side of the box that takes the grain: the cycle must not ask the CT to carry it."""
KEPT_AT: Final = (0.4, 0.55, 0.7, 0.85)
"""Shares of the run at which the averaged generator is kept, to choose from."""
KEPT_STEPS: Final = 25
LOSSES: Final = ("fool", "cycle", "identity", "structure", "anchor", "tie", "critic")
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
    way_back: float = 0.15
    """Share of the run in which only the way back learns."""
    way_back_speed: float = 10.0
    """Its learning rate over that of the others: it starts from nothing."""
    fool: float = 0.1
    """Small: what looks real need not be right."""
    cycle: float = 5.0
    identity: float = 5.0
    structure: float = 1.0
    anchor: float = 5.0
    """Of the distance of the histograms."""
    tie: float = 10.0
    """Of the low frequencies to the first generator at the CTs' level; falls to a quarter over the
    run. It outweighs the anchor, whose level also follows the share of fat in other patients."""
    grain: float = 0.4
    """Most that the noise of a CBCT may add, HU / 1000."""
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
        """Return a score for each patch; soft tissue is stretched, and half the resolution seen.

        Tissue and shading must look real; the grain of a CT is noise that nobody wants back.
        """
        coarse = functional.avg_pool2d(x, 2)
        return cast("Tensor", self.layers(((coarse + 0.1) * 2.5).clamp(-2.25, 2.25)))


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
    """Unpaired adaptation (`--mode cyclegan`); the sampler draws CBCT and CT of different images.

    For the first `AdversarialRecipe.way_back` of the run only the way back learns, on what the
    first generator makes of the CBCTs: a way back that is still the identity would pull the way
    there towards the CBCT.
    """

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
        self.kept = nn.ModuleList(averaged(self.to_ct) for _ in KEPT_AT)
        real = body_quantiles(sampler)
        self.anchor = Anchor(real).to(device)
        self.levels = Levels(read_quantiles(averaged(start), sampler), real).to(device)
        self.networks: Mapping[str, nn.Module] = {
            "to-ct": self.to_ct,
            "to-cbct": self.to_cbct,
            "says-ct": self.says_ct,
            "says-cbct": self.says_cbct,
            "first": self.first,
            "average": self.average,
            "anchor": self.anchor,
            "levels": self.levels,
            "kept": self.kept,
        }
        critics = nn.ModuleList([self.says_ct, self.says_cbct])
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "to-ct-optimizer": _adam(self.to_ct, recipe),
            "to-cbct-optimizer": _adam(self.to_cbct, recipe, recipe.way_back_speed),
            "critics-optimizer": _adam(critics, recipe),
        }

    def step(self, rate: float, share: float) -> dict[str, float]:  # noqa: ARG002 (own schedule)
        """Take one step of both generators and both critics."""
        recipe, batch = self.recipe, _moved(self.sampler.batch(), self.device)
        fall = decay(recipe.hold, share)
        for name, optimizer in self.optimizers.items():
            speed = recipe.way_back_speed if name == "to-cbct-optimizer" else 1.0
            set_rate(optimizer, recipe.learning_rate * speed * fall)
        with torch.no_grad(), _bf16(self.device):
            first = self.levels(self.first(batch.cbct).float())
        self._keep(share)
        self.steps += 1
        if share < recipe.way_back:
            losses = self._way_back(batch, first)
        else:
            losses = self._round_trip(
                batch, first, (share - recipe.way_back) / (1 - recipe.way_back)
            )
        return dict.fromkeys(LOSSES, 0.0) | {k: float(v.item()) for k, v in losses.items()}

    def _keep(self, share: float) -> None:
        if self.steps % KEPT_STEPS == 0:
            for kept, until in zip(self.kept, KEPT_AT, strict=True):
                if share <= until:
                    follow(kept, self.average, 0.0)

    @property
    def choices(self) -> list[SctNet]:
        """Return the averaged generators of the run, the last one last."""
        return [*(cast("SctNet", net) for net in self.kept), self.average]

    def _way_back(self, batch: Batch, first: Tensor) -> dict[str, Tensor]:
        """Teach the way back what the scanner makes of a CT; remember what the start reads."""
        body = batch.weight >= BODY_WEIGHT
        self.anchor.remember(first, body)
        with _bf16(self.device):
            back = self.to_cbct(restacked(batch.cbct, first)).float()
        loss = _l1(back, centre(batch.cbct))
        _descend(self.optimizers["to-cbct-optimizer"], loss, self.recipe.clip_norm)
        return {"cycle": loss}

    def _round_trip(self, batch: Batch, first: Tensor, share: float) -> dict[str, Tensor]:
        a, b = batch.cbct, batch.ct
        with _bf16(self.device):
            made_ct, made_cbct = self.to_ct(a).float(), self.to_cbct(b).float()
        grain = self._grain(a, first)
        losses = self._generator_losses(batch, (made_ct, made_cbct), (first, grain), share)
        for name in ("to-ct-optimizer", "to-cbct-optimizer"):
            self.optimizers[name].zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        for network, name in ((self.to_ct, "to-ct-optimizer"), (self.to_cbct, "to-cbct-optimizer")):
            nn.utils.clip_grad_norm_(network.parameters(), self.recipe.clip_norm)
            self.optimizers[name].step()
        critic = (
            _real(self.says_ct(centre(b)))
            + _fake(self.says_ct(made_ct.detach()))
            + _real(self.says_cbct(centre(a)))
            + _fake(self.says_cbct((made_cbct + grain[:, :1]).detach()))
        ) / 2
        _descend(self.optimizers["critics-optimizer"], critic, self.recipe.clip_norm)
        follow(self.average, self.to_ct, min(self.recipe.ema, self.steps / (9 + self.steps)))
        return losses | {"critic": critic}

    @torch.no_grad()
    def _grain(self, cbct: Tensor, first: Tensor) -> Tensor:
        """Return noise for every slice: what the way back does not explain of the real CBCTs."""
        with _bf16(self.device):
            clean = self.to_cbct(restacked(cbct, first)).float()
        most = self.recipe.grain
        return scattered((centre(cbct) - clean).clamp(-most, most), cbct.shape[1])

    def _generator_losses(
        self,
        batch: Batch,
        made: tuple[Tensor, Tensor],
        known: tuple[Tensor, Tensor],
        share: float,
    ) -> dict[str, Tensor]:
        """Return all terms; `known`: what the start makes of the CBCTs, and their noise."""
        r, a, b, (made_ct, made_cbct) = self.recipe, batch.cbct, batch.ct, made
        first, grain = known
        with _bf16(self.device):
            back_cbct = self.to_cbct(restacked(a, made_ct)).float()
            back_ct = self.to_ct(restacked(b, made_cbct) + grain).float()
            same_ct = self.to_ct(b).float()
        there = _l1(blurred(back_cbct, GRAIN_PX), blurred(centre(a), GRAIN_PX))
        return {
            "fool": r.fool
            * (_real(self.says_ct(made_ct)) + _real(self.says_cbct(made_cbct + grain[:, :1]))),
            "cycle": r.cycle * (there + _l1(back_ct, centre(b))),
            "identity": r.identity * _l1(same_ct, centre(b)),
            "structure": r.structure
            * (edge_loss(centre(a), made_ct) + edge_loss(centre(b), made_cbct)),
            "anchor": r.anchor * self.anchor(made_ct, batch.weight >= BODY_WEIGHT),
            "tie": r.tie * (1 - 0.75 * share) * tie_loss(made_ct, first),
        }


def restacked(stack: Tensor, made: Tensor) -> Tensor:
    """Return `stack` with its centre slice replaced, its neighbours changed alike but smoothly.

    The generators take neighbouring slices and give one; what shading they changed in the middle
    is changed next to it, too, so that the way back sees one kind of image.
    """
    middle = stack.shape[1] // 2
    change = blurred(made - centre(stack), BLUR_PX)
    parts = [stack[:, i : i + 1] + change for i in range(stack.shape[1])]
    parts[middle] = made
    return torch.cat(parts, 1)


def decay(hold: float, share: float) -> float:
    """Return the share of the learning rate: full until `hold`, then linearly to 0."""
    return max(0.0, min(1.0, (1 - share) / (1 - hold)))


def _bf16(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean()


def _real(score: Tensor) -> Tensor:
    return ((score - 1) ** 2).mean()


def _fake(score: Tensor) -> Tensor:
    return (score**2).mean()


def _adam(
    module: nn.Module, recipe: AdversarialRecipe, speed: float = 1.0
) -> torch.optim.Optimizer:
    rate = speed * recipe.learning_rate
    return torch.optim.Adam(module.parameters(), lr=rate, betas=recipe.betas)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor | int, clip: float) -> None:
    """Take one step down `loss`, a tensor."""
    optimizer.zero_grad(set_to_none=True)
    cast("Tensor", loss).backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], clip)
    optimizer.step()


def _moved(batch: Batch, device: str) -> Batch:
    return Batch(cbct=batch.cbct.to(device), ct=batch.ct.to(device), weight=batch.weight.to(device))
