"""What holds an unpaired synthetic CT network: HU anchoring, structure, low frequencies.

Reference page "CBCT -> synthetic CT", section 7. Values are HU / 1000.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.sct_sampling import PairSampler

QUANTILES: Final = 65
LEVELS: Final = (0.01, 0.99)
"""Points at which histograms are compared: so many, between these."""
REMEMBERED: Final = 131_072
DRAWN: Final = 4096
"""Values that the anchor remembers in all, and of one batch."""
LEAST_VALUES: Final = 64
REACH: Final = 0.06
"""Distance beyond which a value is another tissue, HU / 1000."""
BLUR_PX: Final = 15
"""Side of the box that leaves the low frequencies."""


class Anchor(nn.Module):
    """HU anchoring: the body's histogram over the last batches, held against that of real CTs.

    A value is pulled to the CTs' value of the same rank. Ranks are taken among the values of many
    patches: in one patch alone, another share of fat would look like another level. For the same
    reason a distance beyond `REACH` does not pull: so far apart stand two tissues, not two levels.
    """

    bank: Tensor
    recent: Tensor
    filled: Tensor

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)
        self.register_buffer("recent", torch.zeros(REMEMBERED))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, made: Tensor, body: Tensor) -> Tensor:
        """Return the mean distance of the body's values in `made`, HU / 1000."""
        values = _thinned(made[body], DRAWN)
        if values.numel() < LEAST_VALUES:
            return made.sum() * 0
        known = self.recent[: int(self.filled)]
        with torch.no_grad():
            everything = torch.cat([known, values]).sort().values
            rank = torch.searchsorted(everything, values.contiguous()) / len(everything)
            place = ((rank - LEVELS[0]) / (LEVELS[1] - LEVELS[0])).clamp(0, 1) * (QUANTILES - 1)
            low = place.long().clamp(max=QUANTILES - 2)
            goal = self.bank[low] + (place - low) * (self.bank[low + 1] - self.bank[low])
        distance = (values - goal).abs().clamp(max=REACH).mean()
        self.remember(made.detach(), body)
        return distance

    @torch.no_grad()
    def remember(self, made: Tensor, body: Tensor) -> None:
        """Keep some values of `made` in place of the oldest."""
        values = _thinned(made[body], DRAWN)
        self.recent.copy_(torch.cat([values, self.recent])[:REMEMBERED])
        self.filled.add_(len(values)).clamp_(max=REMEMBERED)


class Levels(nn.Module):
    """The start's answers at the CTs' level: each tissue is moved by what all its voxels are off.

    A start that meets a new scanner reads all fat too high and all muscle too low. Where a value
    stands among all values of all patches says which tissue it is; the map is one curve for the
    whole site, so that no patient is given another one's share of fat.
    """

    source: Tensor
    goal: Tensor

    def __init__(self, source: Tensor, goal: Tensor) -> None:
        super().__init__()
        self.register_buffer("source", source.cummax(0).values)
        self.register_buffer("goal", goal)

    def forward(self, image: Tensor) -> Tensor:
        """Return `image` with its values moved; beyond the outermost levels all alike."""
        high = torch.searchsorted(self.source, image.contiguous()).clamp(1, QUANTILES - 1)
        low = high - 1
        width = (self.source[high] - self.source[low]).clamp_min(1e-6)
        share = ((image - self.source[low]) / width).clamp(0, 1)
        inside = self.goal[low] + share * (self.goal[high] - self.goal[low])
        return inside + image - image.clamp(self.source[0], self.source[-1])


@torch.no_grad()
def read_quantiles(network: nn.Module, sampler: PairSampler, batches: int = 40) -> Tensor:
    """Return the quantiles of the body in what `network` makes of the sampler's CBCTs, HU / 1000.

    The sampler's random state is left as it was.
    """
    before, found = sampler.state(), []
    for _ in range(batches):
        batch = sampler.batch()
        found.append(_thinned(network(batch.cbct)[batch.weight >= 1], DRAWN))
    sampler.restore(before)
    return torch.quantile(torch.cat(found), torch.linspace(*LEVELS, QUANTILES))


def scattered(grain: Tensor, slices: int) -> Tensor:
    """Return `grain` (N, 1, row, row) for `slices` slices, (N, slices, row, row), each another.

    Noise of neighbouring slices is independent: every slice takes it from another patch, turned.
    """
    turned = [
        torch.rot90(grain.roll(k, 0), k % 4, (2, 3)).flip(3) if k % 2 else grain.roll(k, 0)
        for k in range(slices)
    ]
    return torch.cat(turned, 1)


def edge_loss(before: Tensor, after: Tensor) -> Tensor:
    """Return 1 - the correlation of the in-plane gradients of two images (N, 1, row, column)."""
    total = before.new_zeros(())
    for axis in (2, 3):
        x, y = before.diff(dim=axis).flatten(1), after.diff(dim=axis).flatten(1)
        total = total + functional.cosine_similarity(x, y, dim=1).mean()
    return 1 - total / 2


def tie_loss(made: Tensor, first: Tensor) -> Tensor:
    """Return the mean difference of the low frequencies of two images, their level included."""
    return blurred(made - first, BLUR_PX).abs().mean()


def body_quantiles(sampler: PairSampler) -> Tensor:
    """Return the quantiles of the body over all CTs of the sampler, HU / 1000."""
    values = torch.cat(
        [torch.from_numpy(p.ct[p.body][::31].astype("float32")) for p in sampler.cts]
    )
    step = max(1, values.numel() // 2_000_000)
    return torch.quantile(values[::step], torch.linspace(*LEVELS, QUANTILES)) / 1000


def blurred(image: Tensor, side: int) -> Tensor:
    """Return the mean of `image` (N, 1, row, column) over boxes of `side` pixels."""
    pad = side // 2
    padded = functional.pad(image, (pad, pad, pad, pad), mode="replicate")
    return functional.avg_pool2d(padded, side, stride=1)


def _thinned(values: Tensor, most: int) -> Tensor:
    return values[:: max(1, -(-values.numel() // most))]
