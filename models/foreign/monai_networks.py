"""Two networks of MONAI bundles, under the names of their weights there: UNet and SegResNet.

After the classes of these names in MONAI (Apache-2.0), written anew for inference without dropout.
Only the options that published CT bundles use are known; another one is refused by its name.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

CONVOLUTION: Final = {2: nn.Conv2d, 3: nn.Conv3d}
WIDENING: Final = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE: Final = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH: Final = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR: Final = {2: "bilinear", 3: "trilinear"}


class UNetShape(BaseModel):
    """Arguments of MONAI's UNet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["UNet"] = "UNet"
    spatial_dims: Literal[2, 3]
    in_channels: PositiveInt = 1
    out_channels: PositiveInt
    channels: tuple[PositiveInt, ...]
    strides: tuple[PositiveInt, ...]
    kernel_size: Literal[3] = 3
    up_kernel_size: Literal[3] = 3
    num_res_units: int = 0
    act: Literal["PRELU"] = "PRELU"
    norm: Literal["INSTANCE", "BATCH"] = "INSTANCE"
    bias: bool = True

    @property
    def factors(self) -> tuple[int, ...]:
        """Return by how much each axis shrinks from the input to the coarsest level."""
        total = 1
        for stride in self.strides:
            total *= stride
        return (total,) * self.spatial_dims


class SegResNetShape(BaseModel):
    """Arguments of MONAI's SegResNet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["SegResNet"] = "SegResNet"
    spatial_dims: Literal[2, 3] = 3
    init_filters: PositiveInt = 8
    in_channels: PositiveInt = 1
    out_channels: PositiveInt = 2
    num_groups: PositiveInt = 8
    blocks_down: tuple[PositiveInt, ...] = (1, 2, 2, 4)
    blocks_up: tuple[PositiveInt, ...] = (1, 1, 1)
    upsample_mode: Literal["nontrainable", "deconv"] = "nontrainable"

    @property
    def factors(self) -> tuple[int, ...]:
        """Return by how much each axis shrinks from the input to the coarsest level."""
        return (2 ** (len(self.blocks_down) - 1),) * self.spatial_dims


class _AfterConvolution(nn.Module):
    """Normalization `N` and activation `A`."""

    def __init__(self, shape: UNetShape, channels: int) -> None:
        super().__init__()
        kind = INSTANCE if shape.norm == "INSTANCE" else BATCH
        self.N = kind[shape.spatial_dims](channels)
        self.A = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.A(self.N(x)))


class _Convolution(nn.Module):
    """A convolution, `bare` or with what follows; `widening` doubles instead of halving."""

    def __init__(
        self, shape: UNetShape, inputs: int, outputs: int, stride: int, *, bare: bool = False,
        widening: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if widening:
            self.conv = WIDENING[shape.spatial_dims](
                inputs, outputs, 3, stride, 1, output_padding=stride - 1, bias=shape.bias
            )
        else:
            self.conv = CONVOLUTION[shape.spatial_dims](
                inputs, outputs, 3, stride, 1, bias=shape.bias
            )
        if not bare:
            self.adn = _AfterConvolution(shape, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return cast("Tensor", self.adn(x)) if hasattr(self, "adn") else x


class _ResidualUnit(nn.Module):
    """Convolutions beside a shortcut."""

    def __init__(
        self, shape: UNetShape, inputs: int, outputs: int, stride: int, count: int, *,
        last_bare: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Sequential()
        for unit in range(count):
            bare = last_bare and unit == count - 1
            part = _Convolution(shape, inputs if unit == 0 else outputs, outputs,
                                stride if unit == 0 else 1, bare=bare)  # fmt: skip
            self.conv.add_module(f"unit{unit}", part)
        self.residual: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            kernel, padding = (1, 0) if stride == 1 else (3, 1)
            convolution = CONVOLUTION[shape.spatial_dims]
            self.residual = convolution(inputs, outputs, kernel, stride, padding, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x) + self.residual(x))


class _Beside(nn.Module):
    """What lies below, joined to its input."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.submodule(x)], dim=1)


class MonaiUNet(nn.Module):
    """The network: (N, channels, ...) -> logits (N, classes, ...)."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self._shape = shape
        self.model = self._level(shape.in_channels, shape.out_channels, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return cast("Tensor", self.model(x))

    def _level(self, inputs: int, outputs: int, level: int) -> nn.Module:
        shape = self._shape
        width, stride = shape.channels[level], shape.strides[level]
        if level + 2 < len(shape.channels):
            below, joined = self._level(width, width, level + 1), 2 * width
        else:
            deepest = shape.channels[level + 1]
            below, joined = self._down(width, deepest, 1), width + deepest
        up = self._up(joined, outputs, stride, top=level == 0)
        return nn.Sequential(self._down(inputs, width, stride), _Beside(below), up)

    def _down(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        if self._shape.num_res_units:
            return _ResidualUnit(self._shape, inputs, outputs, stride, self._shape.num_res_units)
        return _Convolution(self._shape, inputs, outputs, stride)

    def _up(self, inputs: int, outputs: int, stride: int, *, top: bool) -> nn.Module:
        units = self._shape.num_res_units
        widen = _Convolution(
            self._shape, inputs, outputs, stride, bare=top and not units, widening=True
        )
        if not units:
            return widen
        unit = _ResidualUnit(self._shape, outputs, outputs, 1, 1, last_bare=top)
        return nn.Sequential(widen, unit)


class _Bare(nn.Module):
    """A convolution under the name `conv`, as MONAI wraps it."""

    def __init__(self, shape: SegResNetShape, widths: Sequence[int], *, kernel: int = 3,
                 stride: int = 1, bias: bool = False) -> None:  # fmt: skip
        super().__init__()
        inputs, outputs = widths
        self.conv = CONVOLUTION[shape.spatial_dims](
            inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x))


class _ResBlock(nn.Module):
    """Twice normalization, rectifier and convolution, beside a shortcut."""

    def __init__(self, shape: SegResNetShape, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(shape.num_groups, width)
        self.norm2 = nn.GroupNorm(shape.num_groups, width)
        self.conv1 = _Bare(shape, (width, width))
        self.conv2 = _Bare(shape, (width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return cast("Tensor", self.conv2(torch.relu(self.norm2(y))) + x)


class _Upsample(nn.Module):
    """Twice the size, by interpolation or by a transposed convolution."""

    def __init__(self, shape: SegResNetShape, width: int) -> None:
        super().__init__()
        if shape.upsample_mode == "deconv":
            self.deconv = WIDENING[shape.spatial_dims](width, width, 2, 2)
        else:
            self.upsample = nn.Upsample(
                scale_factor=2, mode=LINEAR[shape.spatial_dims], align_corners=False
            )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.deconv(x) if hasattr(self, "deconv") else self.upsample(x))


class SegResNet(nn.Module):
    """The network: (N, channels, ...) -> logits (N, classes, ...)."""

    def __init__(self, shape: SegResNetShape) -> None:
        super().__init__()
        first = shape.init_filters
        widths = [first * 2**level for level in range(len(shape.blocks_down))]
        self.convInit = _Bare(shape, (shape.in_channels, first))
        self.down_layers = nn.ModuleList()
        for level, (width, count) in enumerate(zip(widths, shape.blocks_down, strict=True)):
            halve = _Bare(shape, (width // 2, width), stride=2) if level else nn.Identity()
            blocks = (_ResBlock(shape, width) for _ in range(count))
            self.down_layers.append(nn.Sequential(halve, *blocks))
        self.up_samples, self.up_layers = nn.ModuleList(), nn.ModuleList()
        for (wide, narrow), count in zip(pairwise(reversed(widths)), shape.blocks_up, strict=True):
            narrowed = _Bare(shape, (wide, narrow), kernel=1)
            self.up_samples.append(nn.Sequential(narrowed, _Upsample(shape, narrow)))
            self.up_layers.append(nn.Sequential(*(_ResBlock(shape, narrow) for _ in range(count))))
        head = _Bare(shape, (first, shape.out_channels), kernel=1, bias=True)
        self.conv_final = nn.Sequential(nn.GroupNorm(shape.num_groups, first), nn.ReLU(), head)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.convInit(x)
        kept = []
        for down in self.down_layers:
            x = down(x)
            kept.append(x)
        rows = zip(self.up_samples, self.up_layers, reversed(kept[:-1]), strict=True)
        for widen, blocks, beside in rows:
            x = blocks(widen(x) + beside)
        return cast("Tensor", self.conv_final(x))
