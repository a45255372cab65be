"""2.5D U-Net: a stack of neighbouring slices in, the classes of the centre slice out.

After Ronneberger et al. 2015 (arXiv 1505.04597), with instance normalization (Ulyanov et al.
2016) and leaky rectifiers as in nnU-Net (Isensee et al. 2021). Instance normalization makes the
result depend on the field of view, so the field of view is part of the model: training and
inference use the same size in millimeters (see `models.window`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet25Config:
    """What fixes the network's shape."""

    slices: int = 7
    """Neighbouring slices in the soft-tissue window, odd."""
    classes: int = 8
    """Output classes, background first."""
    channels: tuple[int, ...] = (32, 64, 128, 208)
    """Feature channels a level, finest first; every level but the last is halved in plane."""

    @property
    def inputs(self) -> int:
        """Return the number of input channels: the soft slices and the wide centre slice."""
        return self.slices + 1


class _Block(nn.Module):
    """Two times convolution, instance normalization, leaky rectifier."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.layers(x))


class UNet25(nn.Module):
    """The network; rows and columns must be multiples of ``2 ** (levels - 1)``."""

    def __init__(self, config: UNet25Config) -> None:
        super().__init__()
        widths = config.channels
        self.down = nn.ModuleList(
            _Block(a, b) for a, b in zip((config.inputs, *widths[:-1]), widths, strict=True)
        )
        self.widen = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(widths[0], config.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes, row, column) for input (N, slices + 1, row, column)."""
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([kept[level], self.widen[level](x)], dim=1))
        return cast("Tensor", self.head(x))
