"""How an image enters an image quality network and comes out: the one rule for pack and node.

Slices are shown whole, filled to even numbers of rows and columns with their edge; edge slices are
repeated. Values are HU / 1000, clipped to the contract; what lies outside it stays as it is.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.pack import ImageQualityManifest
from models.quality_net import MULTIPLE
from models.sct_infer import neighbours

Hu = NDArray[np.float32]
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, slices, row, column) -> (N, factor, row, column), HU / 1000."""

AT_ONCE: Final = 2
"""Slices in one call."""


def improved(hu: Hu, network: Network, manifest: ImageQualityManifest) -> Hu:
    """Return what the network makes of `hu` (slices, rows, columns): `factor` times the slices."""
    depth, rows, columns = hu.shape
    fill = [(0, 0), (0, -rows % MULTIPLE), (0, -columns % MULTIPLE)]
    low, high = manifest.contract.hu
    shown = np.pad(np.clip(hu, low, high), fill, mode="edge").astype(np.float32) / np.float32(1000)
    made = np.empty((depth, manifest.factor, rows, columns), dtype=np.float32)
    for start in range(0, depth, AT_ONCE):
        centres = range(start, min(start + AT_ONCE, depth))
        stacks = np.stack([shown[neighbours(depth, k, manifest.slices)] for k in centres])
        made[start : start + len(stacks)] = 1000 * network(stacks)[:, :, :rows, :columns]
    beyond = (hu < low) | (hu > high)
    made = np.where(beyond[:, None], hu[:, None], made)
    return made.reshape(depth * manifest.factor, rows, columns)
