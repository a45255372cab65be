"""2.5D residual U-Net that corrects a CBCT: neighbouring slices in, the CT's centre slice out.

After Ronneberger et al. 2015 (arXiv 1505.04597) with residual blocks (He et al. 2016), instance
normalization (Ulyanov et al. 2016) and a pixel-unshuffle stem (Shi et al. 2016). What is new is
the head: the output is the input plus a *bounded* correction,

    y = x + F + D,    |F| <= 400 HU, smooth over 16 pixels,    |D| <= b(x + F),

with b = 150 HU in soft tissue, opening to 600 HU in bone and air. The network can correct shading,
noise and the tissue values; a dense mass in fat, or bone in muscle, is beyond its reach by
construction. Values are HU / 1000. The network starts as the identity.

Instance normalization makes the result depend on the field that is shown. Training and inference
therefore show the body's box with `MARGIN_PX` around, in one piece (`sct_infer`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SOFT_EDGES: Final = (-0.4, 0.2)
"""Between these smoothed values [HU / 1000] the correction is bounded tightly."""
EDGE_WIDTH: Final = 0.04
"""Over which the bound opens, HU / 1000."""
MULTIPLE: Final = 16
"""Rows and columns must be multiples of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SctNetConfig:
    """What fixes the network's shape and its bounds."""

    slices: int = 5
    """Neighbouring slices, odd."""
    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels a level; the finest has half the resolution of the image."""
    head: int = 8
    """Feature channels at full resolution."""
    refine: int = 16
    """Hidden channels of the refine head."""
    field_bound: float = 0.4
    """Of the smooth field F, HU / 1000."""
    soft_bound: float = 0.15
    """Of the detail D in soft tissue, HU / 1000."""
    wide_bound: float = 0.6
    """Of the detail D in bone and air, HU / 1000."""


def config_of(stated: Mapping[str, Any]) -> SctNetConfig:
    """Return the configuration that a training record or manifest states."""
    frozen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stated.items()}
    return SctNetConfig(**frozen)


class _Block(nn.Module):
    """Two convolutions with instance normalization, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs, affine=True),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.layers(x))


class SctNet(nn.Module):
    """The network; see the module."""

    def __init__(self, config: SctNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.stem = nn.Conv2d(4 * config.slices, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _Block(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.widen = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        self.field = _zeroed(nn.Conv2d(widths[-2], 1, 1))
        self.head = nn.Conv2d(widths[0], 4 * config.head, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(config.head + config.slices, config.refine, 3, padding=1),
            nn.ReLU(inplace=True),
            _zeroed(nn.Conv2d(config.refine, 1, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the corrected centre slice (N, 1, row, column) of (N, slices, row, column)."""
        centre = x[:, self.config.slices // 2 : self.config.slices // 2 + 1]
        features = self.stem(functional.pixel_unshuffle(x, 2))  # (N, c0, row/2, column/2)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.avg_pool2d(features, 2))
            kept.append(features)
        coarse = features
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([kept[level], self.widen[level](features)], 1))
            if level == len(self.up) - 1:
                coarse = features  # (N, c2, row/8, column/8)
        smooth = self._field(coarse)
        detail = functional.pixel_shuffle(self.head(features), 2)  # (N, head, row, column)
        raw = self.refine(torch.cat([detail, x], 1))
        return centre + smooth + self._bound(centre + smooth.detach()) * torch.tanh(raw)

    def _field(self, coarse: Tensor) -> Tensor:
        """Return F (N, 1, row, column): bounded at 1/8 of the resolution, then enlarged."""
        small = self.config.field_bound * torch.tanh(self.field(coarse))
        blurred = functional.avg_pool2d(
            functional.pad(small, (1, 1, 1, 1), mode="replicate"), 3, stride=1
        )
        return cast(
            "Tensor",
            functional.interpolate(blurred, scale_factor=8.0, mode="bilinear", align_corners=False),
        )

    def _bound(self, centre: Tensor) -> Tensor:
        """Return b (N, 1, row, column): tight in soft tissue, wide in bone and air."""
        padded = functional.pad(centre, (1, 1, 1, 1), mode="replicate")
        mean = functional.avg_pool2d(padded, 3, stride=1)
        low, high = SOFT_EDGES
        share = torch.sigmoid((mean - high) / EDGE_WIDTH) + torch.sigmoid((low - mean) / EDGE_WIDTH)
        return self.config.soft_bound + (self.config.wide_bound - self.config.soft_bound) * share


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Return `layer` with zero weights, so that the network starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
