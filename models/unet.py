"""U-Net in two or three dimensions: image in, one logit a class and place out.

After Ronneberger et al. 2015 (arXiv 1505.04597) and Çiçek et al. 2016 (arXiv 1606.06650), with
strided convolutions on the way down and leaky rectifiers as in nnU-Net (Isensee et al. 2021,
doi 10.1038/s41592-020-01008-z). In two dimensions the neighbouring slices are channels and the
answer is that of the middle slice (2.5D); in three the answer is a volume.

Batch normalization, not instance normalization: its statistics are fixed after training, so the
answer at a place does not depend on how much else is in the field of view, windows can be blended
without seams, and the exported network has no normalization left to compute.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, cast

import torch
from torch import Tensor, nn

CONVOLUTION: Final = {2: nn.Conv2d, 3: nn.Conv3d}
WIDENING: Final = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMALIZATION: Final = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MEMORY: Final = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Layout in which processors with matrix units (AMX) compute bf16 convolutions four times faster;
without them it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """What fixes the network's shape."""

    dimensions: Literal[2, 3]
    inputs: int
    """Input channels."""
    classes: int
    """Output classes, background first."""
    channels: tuple[int, ...]
    """Feature channels a level, finest first; each level has half the resolution of the last."""
    fold: tuple[int, ...] = ()
    """Voxels a side ([slice,] row, column) that enter as the channels of one place and leave as
    its answers; empty: one each. See `UNet`."""

    @property
    def block(self) -> tuple[int, ...]:
        """Return the voxels a side that the finest level sees as one place."""
        return self.fold or (1,) * self.dimensions


class _Block(nn.Module):
    """Two times convolution, normalization, leaky rectifier; the first may halve the size."""

    def __init__(self, dimensions: int, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        convolution, normalization = CONVOLUTION[dimensions], NORMALIZATION[dimensions]
        self.layers = nn.Sequential(
            convolution(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            normalization(outputs),
            nn.LeakyReLU(0.01, inplace=True),
            convolution(outputs, outputs, 3, padding=1, bias=False),
            normalization(outputs),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.layers(x))


class UNet(nn.Module):
    """The network; every size must be a multiple of ``2 ** (levels - 1)`` blocks.

    With ``fold`` a block of voxels becomes channels before the first level and the head answers
    for each of its voxels (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158): nothing is
    left out of what is seen, the answer stays as fine, and the dearest level costs a fraction.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, n = config.channels, config.dimensions
        fold = math.prod(config.block)
        inputs = (config.inputs * fold, *widths[:-1])
        self.down = nn.ModuleList(
            _Block(n, a, b, stride=2 if level else 1)
            for level, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.widen = nn.ModuleList(WIDENING[n](b, a, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(n, 2 * a, a) for a in widths[:-1])
        self.head = CONVOLUTION[n](widths[0], config.classes * fold, 1)
        self.to(memory_format=MEMORY[n])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes, [slice,] row, column) of (N, inputs, [slice,] row, column)."""
        x = folded(x, self.config.block)
        kept: list[Tensor] = []
        for block in self.down:
            x = block(x)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([kept[level], self.widen[level](x)], dim=1))
        return unfolded(self.head(x), self.config.block)


def folded(x: Tensor, block: tuple[int, ...]) -> Tensor:
    """Return (N, channels * voxels of a block, sizes / block) of (N, channels, sizes)."""
    if math.prod(block) == 1:
        return x
    n, channels, *sizes = x.shape
    split = [part for size, b in zip(sizes, block, strict=True) for part in (size // b, b)]
    places, inside = range(2, 2 + len(split), 2), range(3, 3 + len(split), 2)
    turned = x.reshape(n, channels, *split).permute(0, 1, *inside, *places)
    return turned.reshape(n, -1, *split[::2])


def unfolded(x: Tensor, block: tuple[int, ...]) -> Tensor:
    """Undo `folded`."""
    if math.prod(block) == 1:
        return x
    n, channels, *places = x.shape
    rank = len(block)
    turns = [axis for k in range(rank) for axis in (2 + rank + k, 2 + k)]
    split = x.reshape(n, channels // math.prod(block), *block, *places).permute(0, 1, *turns)
    return split.reshape(n, -1, *(p * b for p, b in zip(places, block, strict=True)))
