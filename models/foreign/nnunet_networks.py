"""The two networks that nnU-Net v2 trains, under the names of their weights there.

PlainConvUNet and ResidualEncoderUNet of the package `dynamic_network_architectures` (Isensee et
al., Apache-2.0), written anew for inference: no dropout, no deep supervision. Parameters bear the
same names, so that its checkpoints load; what those hold twice (`all_modules`, `decoder.encoder`)
is dropped before (`models.foreign.weights`).
"""

from collections.abc import Sequence
from typing import Final, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

CONVOLUTION: Final = {2: nn.Conv2d, 3: nn.Conv3d}
WIDENING: Final = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLING: Final = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMALIZATION: Final = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}
SLOPE: Final = 0.01
"""Of the leaky rectifier, where the plans do not say otherwise."""


class NnUNetShape(BaseModel):
    """What fixes the shape of a network, from its plans."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    dimensions: Literal[2, 3]
    inputs: PositiveInt = 1
    classes: PositiveInt
    features: tuple[PositiveInt, ...]
    """Channels of each stage, finest first."""
    kernels: tuple[tuple[PositiveInt, ...], ...]
    strides: tuple[tuple[PositiveInt, ...], ...]
    """Of the first convolution of each stage."""
    blocks: tuple[PositiveInt, ...]
    """Convolutions, or residual blocks, of each stage of the encoder."""
    decoder: tuple[PositiveInt, ...]
    """Convolutions of each stage of the decoder, coarsest first."""
    bias: bool = True
    norm: Literal["instance", "batch"] = "instance"
    epsilon: float = 1e-5
    slope: float = SLOPE

    @property
    def factors(self) -> tuple[int, ...]:
        """Return by how much each axis shrinks from the input to the coarsest stage."""
        shrunk = [1] * self.dimensions
        for stride in self.strides:
            shrunk = [a * b for a, b in zip(shrunk, stride, strict=True)]
        return tuple(shrunk)


class _Convolution(nn.Module):
    """Convolution, normalization and, unless `bare`, the rectifier."""

    def __init__(
        self, shape: NnUNetShape, inputs: int, outputs: int, kernel: Sequence[int],
        stride: Sequence[int] = (), *, bare: bool = False, bias: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = CONVOLUTION[shape.dimensions](
            inputs,
            outputs,
            tuple(kernel),
            tuple(stride) or 1,
            padding=tuple((k - 1) // 2 for k in kernel),
            bias=shape.bias if bias is None else bias,
        )
        self.norm = NORMALIZATION[shape.norm, shape.dimensions](
            outputs, eps=shape.epsilon, affine=True
        )
        self.rectify = nn.Identity() if bare else nn.LeakyReLU(shape.slope)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.rectify(self.norm(self.conv(x))))


class _Convolutions(nn.Module):
    """Several convolutions; the first may shrink the image."""

    def __init__(
        self, shape: NnUNetShape, count: int, inputs: int, outputs: int, kernel: Sequence[int],
        stride: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.convs = nn.Sequential(
            _Convolution(shape, inputs, outputs, kernel, stride),
            *(_Convolution(shape, outputs, outputs, kernel) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.convs(x))


class _Residual(nn.Module):
    """Two convolutions beside a skip of mean pooling and a 1 x 1 convolution (ResNet-D)."""

    def __init__(
        self, shape: NnUNetShape, inputs: int, outputs: int, kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = _Convolution(shape, inputs, outputs, kernel, stride)
        self.conv2 = _Convolution(shape, outputs, outputs, kernel, bare=True)
        steps: list[nn.Module] = []
        if any(s != 1 for s in stride):
            steps.append(POOLING[shape.dimensions](tuple(stride), tuple(stride)))
        if inputs != outputs:
            one = (1,) * shape.dimensions
            steps.append(_Convolution(shape, inputs, outputs, one, bare=True, bias=False))
        self.skip = nn.Sequential(*steps)
        self.rectify = nn.LeakyReLU(shape.slope)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.rectify(self.conv2(self.conv1(x)) + self.skip(x)))


class _Residuals(nn.Module):
    """Several residual blocks; the first may shrink the image."""

    def __init__(
        self, shape: NnUNetShape, count: int, inputs: int, outputs: int, kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        one = (1,) * shape.dimensions
        self.blocks = nn.Sequential(
            _Residual(shape, inputs, outputs, kernel, stride),
            *(_Residual(shape, outputs, outputs, kernel, one) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.blocks(x))


class _Encoder(nn.Module):
    def __init__(self, shape: NnUNetShape) -> None:
        super().__init__()
        residual = shape.family == "ResidualEncoderUNet"
        if residual:
            self.stem = _Convolutions(shape, 1, shape.inputs, shape.features[0], shape.kernels[0])
        inputs = (shape.features[0] if residual else shape.inputs, *shape.features[:-1])
        rows = zip(shape.blocks, inputs, shape.features, shape.kernels, shape.strides, strict=True)
        self.stages = nn.Sequential(
            *(
                _Residuals(shape, *row) if residual else nn.Sequential(_Convolutions(shape, *row))
                for row in rows
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the answer of every stage, finest first."""
        if hasattr(self, "stem"):
            x = self.stem(x)
        kept = []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        return kept


class _Decoder(nn.Module):
    def __init__(self, shape: NnUNetShape) -> None:
        super().__init__()
        transposed, convolution = WIDENING[shape.dimensions], CONVOLUTION[shape.dimensions]
        below, beside = shape.features[:0:-1], shape.features[-2::-1]
        self.transpconvs = nn.ModuleList(
            transposed(a, b, stride, stride, bias=shape.bias)
            for a, b, stride in zip(below, beside, shape.strides[:0:-1], strict=True)
        )
        self.stages = nn.ModuleList(
            _Convolutions(shape, count, 2 * b, b, kernel)
            for count, b, kernel in zip(shape.decoder, beside, shape.kernels[-2::-1], strict=True)
        )
        self.seg_layers = nn.ModuleList(convolution(b, shape.classes, 1) for b in beside)

    def forward(self, kept: list[Tensor]) -> Tensor:
        x = kept[-1]
        rows = zip(self.transpconvs, self.stages, kept[-2::-1], strict=True)
        for widen, stage, beside in rows:
            x = stage(torch.cat([widen(x), beside], dim=1))
        return cast("Tensor", self.seg_layers[-1](x))


class NnUNet(nn.Module):
    """The network: (N, inputs, [slice,] row, column) -> logits (N, classes, ...)."""

    def __init__(self, shape: NnUNetShape) -> None:
        super().__init__()
        self.encoder = _Encoder(shape)
        self.decoder = _Decoder(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits at the finest stage."""
        return cast("Tensor", self.decoder(self.encoder(x)))
