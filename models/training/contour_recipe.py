"""Every number that shapes the training of a contouring network, and the networks it can train."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np

from models.unet import UNetConfig
from models.window import Frame

Mode: TypeAlias = Literal["2.5d", "3d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A network and what it sees."""

    frame: Frame
    channels: tuple[int, ...]
    batch: int
    """Patches a step."""
    fold: tuple[int, ...] = ()
    """See `models.unet.UNet`."""


# The default's training data has a median of 2.5 x 3.9 x 3.9 mm; its labels, brought to either
# voxels and back, keep a Dice of 0.98 and more. 286 x 234 mm hold every organ and 25 mm around it.
DESIGNS: Final[Mapping[Mode, Design]] = MappingProxyType(
    {
        "2.5d": Design(
            frame=Frame(
                dimensions=2,
                voxel_mm=(2.5, 3.25, 3.25),
                patch=(1, 88, 72),
                field=(88, 72),
                offsets=(-16, -11, -7, -4, -2, -1, 0, 1, 2, 4, 7, 11, 16),
            ),
            channels=(24, 48, 96, 160),
            batch=16,
        ),
        "3d": Design(
            frame=Frame(dimensions=3, voxel_mm=(2.5, 3.9, 3.9), patch=(48, 80, 64), field=(80, 64)),
            channels=(32, 64, 128, 192),
            batch=2,
            fold=(1, 2, 2),
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run."""

    mode: Mode = "2.5d"
    gan: bool = False
    """Whether a discriminator judges image and contours together."""
    seed: int = 1
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.995
    """Share of the averaged weights that one step keeps."""
    organ_share: float = 0.88
    """Share of patches that are centred near a slice of a random organ; organs count alike."""
    mirror: bool = True
    """Whether half of the patches are mirrored, with left and right organs exchanged."""
    rotation_rad: float = 0.25
    """About the patient's long axis."""
    tilt_rad: float = 0.12
    """About the other two axes."""
    scale: float = 0.25
    """Log-uniform isotropic scale within +-25 %."""
    anisotropy: float = 0.08
    shift_mm: float = 30.0
    """Of the patch against the middle of the body, in plane."""
    offset_hu: float = 25.0
    gain: float = 0.15
    noise_hu: float = 25.0
    organ_weights: tuple[float, float] = (5.0, 1.5)
    """Cross-entropy weight of an organ's voxel against one of the background, at first and in the
    end. Where it is low from the start small organs are never found (esophagus, 3,250 steps with
    2); where it stays high all come out too large (by 15 to 60 % with 5)."""
    settling: tuple[float, float] = (0.6, 0.8)
    """Shares of the run between which the weight goes from the first to the last value."""
    adversarial: float = 0.02
    """Weight of the discriminator's verdict in the loss of the network."""

    @property
    def design(self) -> Design:
        """Return the network of this run."""
        return DESIGNS[self.mode]

    @property
    def frame(self) -> Frame:
        """Return what the network of this run sees."""
        return self.design.frame

    def organ_weight(self, share: float) -> float:
        """Return the weight of an organ's voxel after `share` of the run."""
        return float(np.interp(share, self.settling, self.organ_weights))

    def network(self, organs: int) -> UNetConfig:
        """Return the network's shape for a number of organs."""
        return UNetConfig(
            dimensions=self.frame.dimensions,
            inputs=self.frame.channels,
            classes=organs + 1,
            channels=self.design.channels,
            fold=self.design.fold,
        )
