"""The network of a model pack on a CBCT: contract, likeness to the training images, correction.

A CBCT that breaks the pack's contract or looks unlike everything it was trained on is refused
before the network runs; the classical methods then take over. Nothing here knows DICOM.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.engine import load_network
from models.pack import PACKS, InputContract, Pack, PackRefused, SyntheticCtManifest, load_pack
from models.sct_infer import AIR_HU, Network, correct
from models.sct_ood import Likeness, features, likeness
from pipelines.api import Finding, ModelUnavailable, Severity

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]

SECOND_OPINION_STEP: Final = 8
"""Every n-th slice is asked twice, once upside down."""
SQUARE: Final = 0.01
"""Relative difference of row and column spacing that still counts as square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the network made of a CBCT."""

    hu: Hu
    disagreement: Hu
    """|first - second opinion| of every `SECOND_OPINION_STEP`-th slice, HU."""
    body: Mask
    """The body on these slices."""

    @property
    def disagreement_p95(self) -> float:
        """Return the 95th percentile of the disagreement in the body, HU."""
        values = self.disagreement[self.body]
        return float(np.percentile(values, 95)) if values.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A pack ready to run."""

    pack: Pack[SyntheticCtManifest]
    network: Network

    @property
    def manifest(self) -> SyntheticCtManifest:
        """Return what the pack says of itself."""
        return self.pack.manifest

    def opinion(self, cbct: Hu, body: Mask, spacing: Vector) -> tuple[bool, list[Finding]]:
        """Return whether the network may run on this CBCT, and why not.

        Parameters
        ----------
        cbct : ndarray, shape (slices, rows, columns), HU
        body : ndarray of bool, same shape
        spacing : (slice, row, column), mm
        """
        broken = _broken(self.manifest.contract, spacing)
        if broken:
            return False, [_refused("outside-contract", broken)]
        familiar = self.manifest.familiar
        shown, mask, steps = self._shown(cbct, body, spacing)
        found = likeness(features(shown, mask, steps), familiar)
        if not math.isfinite(found.distance) or found.distance > familiar.refuse:
            return False, [_refused("unfamiliar-image", _words(found), found, familiar.refuse)]
        if found.distance > familiar.warn:
            unusual = _refused("unusual-image", _words(found), found, familiar.warn)
            message = f"the network ran, but the CBCT is unusual: {_words(found)}"
            return True, [replace(unusual, message=message)]
        return True, []

    def apply(self, cbct: Hu, body: Mask, spacing: Vector) -> Answer:
        """Return the network's synthetic CT on the grid of `cbct`; arguments as for `opinion`."""
        shown, mask, _ = self._shown(cbct, body, spacing)
        slices = self.manifest.slices
        made = correct(shown, mask, self.network, slices)
        again = correct(shown, mask, self.network, slices, step=SECOND_OPINION_STEP, flip=True)
        hu = made if made.shape == cbct.shape else _resized(made, cbct.shape)
        return Answer(
            hu=hu,
            disagreement=np.abs(made[::SECOND_OPINION_STEP] - again),
            body=mask[::SECOND_OPINION_STEP],
        )

    def _shown(self, cbct: Hu, body: Mask, spacing: Vector) -> tuple[Hu, Mask, Vector]:
        """Return the CBCT as the network takes it: clipped, pixels within the contract."""
        contract = self.manifest.contract
        hu = np.clip(np.where(np.isfinite(cbct), cbct, AIR_HU), *contract.hu).astype(np.float32)
        pixel = float(np.clip(spacing[2], *contract.pixel_mm))
        if _square(spacing) and pixel == spacing[2]:
            return hu, body, spacing
        rows, columns = (
            max(8, round(n * s / pixel)) for n, s in zip(hu.shape[1:], spacing[1:], strict=True)
        )
        shape = (hu.shape[0], rows, columns)
        if pixel > spacing[2]:
            blur = [0.0, *(0.4 * max(0.0, pixel / s - 1) for s in spacing[1:])]
            hu = ndimage.gaussian_filter(hu, blur)
        mask = _resized(body.astype(np.float32), shape) > 0.5  # noqa: PLR2004 (half)
        return _resized(hu, shape), mask, (spacing[0], pixel, pixel)


def open_pack(name: str) -> Learned:
    """Return an installed pack, checked, and its network.

    Parameters
    ----------
    name : str
        Folder name under `models.pack.PACKS`, or an absolute path.

    Raises
    ------
    ModelUnavailable
        Where the pack is missing, changed, of another kind, or does not run here.
    """
    try:
        pack = load_pack(PACKS / Path(name), SyntheticCtManifest)
        return Learned(pack=pack, network=load_network(pack))
    except PackRefused as error:
        raise ModelUnavailable(str(error)) from error


def _broken(contract: InputContract, spacing: Vector) -> str:
    """Return what is outside the contract, or nothing."""
    low, high = contract.slice_mm
    if not low <= spacing[0] <= high:
        return f"its slices are {spacing[0]:.2f} mm apart, trained on {low:g} to {high:g} mm"
    low, high = contract.pixel_mm
    if not low / 3 <= spacing[2] <= high * 1.5:
        return f"its pixels are {spacing[2]:.2f} mm, trained on {low:g} to {high:g} mm"
    return ""


def _square(spacing: Vector) -> bool:
    return abs(spacing[1] - spacing[2]) <= SQUARE * spacing[2]


def _words(found: Likeness) -> str:
    return f"distance {found.distance:.0f}, mostly {', '.join(found.largest)}"


def _refused(
    code: str, why: str, found: Likeness | None = None, limit: float | None = None
) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARN,
        message=f"the network was not run: {why}",
        value=None if found is None else round(found.distance, 1),
        limit=limit,
    )


def _resized(image: Hu, shape: tuple[int, ...]) -> Hu:
    """Return `image` with other rows and columns, linear, borders of the field kept in place."""
    factors = [n / m for n, m in zip(shape, image.shape, strict=True)]
    resized = ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(resized, dtype=np.float32)
