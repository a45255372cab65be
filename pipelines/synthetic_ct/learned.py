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
from pipelines.imaging.grid import WorkImage
from pipelines.imaging.region import regions

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]
Directions = NDArray[np.float64]

SECOND_OPINION_STEP: Final = 8
"""Every n-th slice is asked twice, once upside down."""
CERTAIN_MM: Final = 40.0
"""Length of other parts of the body from which the network is refused."""
SOFT_HU: Final = 400.0
SOFT_MEDIAN_HU: Final = -10.0
"""Values nearer to 0 than the first are soft tissue; its median in a usual body, HU."""
AXIAL: Final = np.eye(3)[::-1]
"""Head first, supine: slices along z, rows along y, columns along x."""
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

    def opinion(
        self, cbct: Hu, body: Mask, spacing: Vector, directions: Directions = AXIAL
    ) -> tuple[bool, list[Finding]]:
        """Return whether the network may run on this CBCT, and why not.

        Parameters
        ----------
        cbct : ndarray, shape (slices, rows, columns), HU
        body : ndarray of bool, same shape
        spacing : (slice, row, column), mm
        directions : ndarray, shape (3, 3)
            Unit vectors, patient LPS, along the (slice, row, column) index.
        """
        contract = self.manifest.contract
        broken = _broken(contract, spacing)
        if broken:
            return False, [_refused("outside-contract", broken)]
        elsewhere = _elsewhere(contract.regions, cbct, body, spacing, directions)
        if elsewhere:
            return False, [_refused("wrong-body-region", elsewhere)]
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


def _elsewhere(
    wanted: tuple[str, ...], cbct: Hu, body: Mask, spacing: Vector, directions: Directions
) -> str:
    """Return which other part of the body the CBCT shows for certain, or nothing.

    Cross-sections tell it, with soft tissue brought to where a CT has it: a CBCT may read 200 HU
    too low, and bone and lung are told by their HU.
    """
    if not wanted or not body.any():
        return ""
    values = cbct[body]
    soft = values[np.abs(values) < SOFT_HU]
    level = SOFT_MEDIAN_HU - float(np.median(soft)) if soft.size else 0.0
    slices, rows, columns = cbct.shape
    image = WorkImage(
        hu=cbct + np.float32(level),
        spacing=spacing,
        directions=directions,
        centers=(np.arange(slices * 1.0), np.arange(rows * 1.0), np.arange(columns * 1.0)),
        fine_shape=(slices, rows, columns),
    )
    seen = regions(image, body)
    own = sum(mm for region, mm in seen.items() if region in wanted)
    others = sum(seen.values()) - own
    if others < CERTAIN_MM or others <= own:
        return ""
    told = ", ".join(f"{region} {mm:.0f} mm" for region, mm in seen.items())
    return f"it is for {' and '.join(wanted)}, and the CBCT shows {told}"


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
