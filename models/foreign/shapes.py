"""The networks that can be imported: from what fixes their shape to the network itself."""

from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from models.foreign.monai_networks import MonaiUNet, SegResNet, SegResNetShape, UNetShape
from models.foreign.nnunet_networks import NnUNet, NnUNetShape

Shape: TypeAlias = Annotated[
    NnUNetShape | UNetShape | SegResNetShape, Field(discriminator="family")
]


def build(shape: NnUNetShape | UNetShape | SegResNetShape) -> nn.Module:
    """Return the network of a shape, with weights of no meaning."""
    if isinstance(shape, NnUNetShape):
        return NnUNet(shape).eval()
    if isinstance(shape, UNetShape):
        return MonaiUNet(shape).eval()
    return SegResNet(shape).eval()
