"""The network of an image quality pack on a CT: contract, then slice by slice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.engine import load_network
from models.pack import PACKS, ImageQualityManifest, Pack, PackRefused, load_pack
from models.quality_infer import Network, improved
from pipelines.api import ModelUnavailable

Hu = NDArray[np.float32]
Vector = tuple[float, float, float]

DEFAULT_PACKS: Final = {"noise_reduction": "ct-noise", "super_resolution": "ct-detail"}
"""Task -> the pack that comes with the node."""
SQUARE: Final = 0.01
"""Relative difference of row and column spacing that still counts as square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A pack ready to run."""

    pack: Pack[ImageQualityManifest]
    network: Network

    def broken(self, spacing: Vector, factor: int) -> str:
        """Return what of the image is outside the pack's contract, or nothing."""
        manifest = self.pack.manifest
        if factor != manifest.factor:
            return f"it makes {manifest.factor} slices of one, {factor} are wanted"
        low, high = manifest.contract.slice_mm
        if not low <= spacing[0] <= high:
            return f"the slices are {spacing[0]:.2f} mm apart, trained on {low:g} to {high:g} mm"
        low, high = manifest.contract.pixel_mm
        if not low <= min(spacing[1:]) <= max(spacing[1:]) <= high:
            return f"the pixels are {spacing[2]:.2f} mm, trained on {low:g} to {high:g} mm"
        if abs(spacing[1] - spacing[2]) > SQUARE * spacing[2]:
            return "the pixels are not square"
        return ""

    def apply(self, hu: Hu) -> Hu:
        """Return the network's image; `factor` slices of each one."""
        return improved(hu, self.network, self.pack.manifest)


def open_pack(name: str | None, task: str) -> Learned:
    """Return an installed pack for `task`, checked, and its network.

    Parameters
    ----------
    name : str or None
        Folder name under `models.pack.PACKS`, or an absolute path; None: what comes with the node.
    task : str
        A key of `DEFAULT_PACKS`.

    Raises
    ------
    ModelUnavailable
        Where the pack is missing, changed, for another task, or does not run here.
    """
    try:
        pack = load_pack(PACKS / Path(name or DEFAULT_PACKS[task]), ImageQualityManifest)
        network = load_network(pack)
    except PackRefused as error:
        raise ModelUnavailable(str(error)) from error
    if pack.manifest.kind != task.replace("_", "-"):
        raise ModelUnavailable(f"{pack.manifest.id} is a pack for {pack.manifest.kind}")
    return Learned(pack=pack, network=network)
