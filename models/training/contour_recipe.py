"""Every number that shapes the training of a contouring network, and the networks it can train."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from models.unet import UNetConfig
from models.window import Frame

Mode: TypeAlias = Literal["2.5d", "3d"]

VOXEL_MM: Final = (2.5, 3.25, 3.25)
"""A little finer than the training data of the default (median 2.5 x 3.9 x 3.9 mm)."""
FIELD: Final = (88, 72)
"""286 x 234 mm: every organ of the default in every training patient, and 25 mm around them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A network and what it sees."""

    frame: Frame
    channels: tuple[int, ...]
    batch: int
    """Patches a step."""


DESIGNS: Final[Mapping[Mode, Design]] = MappingProxyType(
    {
        "2.5d": Design(
            frame=Frame(
                dimensions=2,
                voxel_mm=VOXEL_MM,
                patch=(1, *FIELD),
                field=FIELD,
                offsets=(-16, -11, -7, -4, -2, -1, 0, 1, 2, 4, 7, 11, 16),
            ),
            channels=(24, 48, 96, 160),
            batch=16,
        ),
        "3d": Design(
            frame=Frame(dimensions=3, voxel_mm=VOXEL_MM, patch=(48, *FIELD), field=FIELD),
            channels=(16, 32, 64, 128),
            batch=2,
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
    organ_weight: float = 5.0
    """Cross-entropy weight of an organ's voxel against one of the background; with 2 the esophagus
    was never found (3,250 steps)."""
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

    def network(self, organs: int) -> UNetConfig:
        """Return the network's shape for a number of organs."""
        return UNetConfig(
            dimensions=self.frame.dimensions,
            inputs=self.frame.channels,
            classes=organs + 1,
            channels=self.design.channels,
        )
