"""Small residual networks for image quality: less noise, or two thin slices out of a thick one.

After SRCNN (Dong et al. 2016, arXiv 1501.00092) and VDSR (Kim et al. 2016, arXiv 1511.04587): a
few convolutions learn the *residual* of a simple answer; the pixel-unshuffle stem and the lack of
normalization are those of FFDNet (Zhang et al. 2018, arXiv 1710.04026). Neighbouring slices go in
(2.5D); values are HU / 1000. Without normalization over the field a voxel's answer depends on
what lies within `reach_px` of it alone, so that images may be shown in pieces. Both heads are
bounded, and both networks start as their simple answer:

    noise reduction      y = x + D,               |D| <= bound
    super-resolution     y = x - d, x + d,        d = linear + D,
                         |D| <= bound + range / 2

where `linear` is the slope between the neighbouring slices, and `range` how far these three slices
differ at the voxel. The two thin slices average to the thick one whatever the weights say, and
where the neighbours agree, nothing can be painted in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

NOISE_BOUND, DETAIL_BOUND = 0.1, 0.02
"""Usual bounds of the two tasks, HU / 1000."""
MULTIPLE: Final = 2
"""Rows and columns must be multiples of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityNetConfig:
    """What fixes the network's shape and its bound."""

    factor: int = 1
    """1: noise reduction; 2: two thin slices out of each thick one."""
    slices: int = 5
    """Neighbouring slices, odd."""
    channels: int = 48
    """Feature channels, at half the resolution of the image."""
    blocks: int = 3
    """Residual blocks of two convolutions."""
    bound: float = NOISE_BOUND
    """Of the residual D, HU / 1000."""

    @property
    def reach_px(self) -> int:
        """Return how far a pixel's answer looks, pixels."""
        return 2 * (2 * self.blocks + 2)


def config_of(stated: Mapping[str, Any]) -> QualityNetConfig:
    """Return the configuration that a training record or manifest states."""
    return QualityNetConfig(**stated)


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.layers(x))


class QualityNet(nn.Module):
    """The network; see the module."""

    def __init__(self, config: QualityNetConfig) -> None:
        super().__init__()
        if config.factor not in (1, 2):
            raise ValueError("the network makes one or two slices of one")
        self.config = config
        self.stem = nn.Conv2d(4 * config.slices, config.channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(config.channels) for _ in range(config.blocks)))
        self.head = nn.Conv2d(config.channels, 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, factor, row, column) of (N, slices, row, column)."""
        middle = self.config.slices // 2
        centre = x[:, middle : middle + 1]
        features = functional.relu(self.stem(functional.pixel_unshuffle(x, 2)))
        raw = functional.pixel_shuffle(self.head(self.blocks(features)), 2)  # (N, 1, row, column)
        if self.config.factor == 1:
            return centre + self.config.bound * torch.tanh(raw / self.config.bound)
        near = x[:, middle - 1 : middle + 2]
        bound = self.config.bound + (near.amax(1, keepdim=True) - near.amin(1, keepdim=True)) / 2
        linear = (near[:, 2:] - near[:, :1]) / 8  # a quarter step up a slope over two steps
        detail = linear + bound * torch.tanh(raw / bound)
        return torch.cat([centre - detail, centre + detail], 1)
