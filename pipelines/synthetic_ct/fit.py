"""`rtnode sct fit-simulator`: read a site's CBCTs, measure what its scanner does to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from models.cbct_sim import Fan
from models.sct_infer import AIR_HU
from models.training.sct_fit import LIBRARY, SiteScanner, fit_site, library
from models.training.sct_traits import traits
from pipelines.imaging.body import find_regions
from pipelines.synthetic_ct.site import read_cts

USUAL_IMAGES: Final = 20
"""Fewer CBCTs do not show how much a scanner varies."""
SEEN_SLICES: Final = 12
"""Of a CBCT, from its middle: enough to measure, and its ends are artefact."""
FULL_FAN_MM: Final = 300.0
"""A wider field of view is that of a half fan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one CBCT shows."""

    traits: dict[str, float]
    spacing: tuple[float, float]
    """(slice, pixel), mm."""
    fov_mm: float
    """Diameter of the field of view."""


def look(folder: Path, tell: Callable[[str], None]) -> list[Seen]:
    """Return what every CBCT below `folder` shows; `tell` hears of those left out."""
    found = []
    for ct in read_cts(folder):
        if isinstance(ct, str):
            tell(ct)
            continue
        first = max(0, (len(ct.hu) - SEEN_SLICES) // 2)
        hu = np.clip(ct.hu[first : first + SEEN_SLICES], AIR_HU, 3000.0).astype(np.float32)
        regions = find_regions(hu, ct.spacing)
        try:
            measured = traits(hu, regions.body, regions.fov, ct.spacing)
        except ValueError as error:
            tell(f"{ct.name} was left out: {error}")
            continue
        area = float(regions.fov.sum(axis=(1, 2)).max()) * ct.spacing[1] * ct.spacing[2]
        found.append(
            Seen(
                traits=measured,
                spacing=(ct.spacing[0], ct.spacing[2]),
                fov_mm=2 * float(np.sqrt(area / np.pi)),
            )
        )
        tell(f"{ct.name} measured")
    return found


def fitted(seen: list[Seen], region: str, *, count: int = LIBRARY, seed: int = 1) -> SiteScanner:
    """Return the scanner that makes images like those `seen`.

    Raises
    ------
    ValueError
        Without any CBCT.
    """
    if not seen:
        raise ValueError("no CBCT series that could be measured")
    slice_mm, pixel_mm = (float(v) for v in np.median([s.spacing for s in seen], axis=0))
    wide = float(np.median([s.fov_mm for s in seen])) > FULL_FAN_MM
    fan = Fan.HALF if wide else Fan.FULL
    regression = library(region, fan, (slice_mm, pixel_mm), count, seed=seed)
    return fit_site([(s.traits, s.spacing[1]) for s in seen], regression, region, fan)
