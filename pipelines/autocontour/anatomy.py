"""Whether learned organs look and lie as in other patients: shape, values, place among each other.

`limits` knows an organ by its name; this module knows it from patients. For each region of the body
a table (`anatomy.json`, made by ``python -m benchmarks.organ_checks fit``) holds the range of every
trait in patients whose organs a clinician drew, and how each organ lies relative to every other.
The place of an organ is judged by the middle of what all the others say, so that one wrong organ
is blamed and its neighbors are not. All of this tells gross failures; a contour inside every range
may still be wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from models.training.cases import ELONGATED
from pipelines.api import Finding, Severity
from pipelines.autocontour.evidence import radius_step_mm
from pipelines.autocontour.morphology import bounding_box
from pipelines.geometry.stack import Floats
from pipelines.imaging.grid import Mask, WorkImage

TABLE_FILE: Final = Path(__file__).with_name("anatomy.json")
AIR_HU: Final = -300.0
BONE_HU: Final = 250.0
END_MM: Final = 10.0
"""Of an elongated organ, from its head end on: its other end is where the contouring stopped."""
TWINS: Final = (("_L", "_R"), ("_R", "_L"))
PLACE: Final = "place"
"""Distance from the usual place, in standard deviations: the median over the other organs."""
LEAST_PARTNERS: Final = 2
"""Other organs that must be there before a place is judged."""
WORDS: Final[Mapping[str, str]] = {
    "volume_ml": "it has {value:.1f} ml",
    "length_mm": "it is {value:.0f} mm long, head to feet",
    "width_mm": "it is {value:.0f} mm wide",
    "depth_mm": "it is {value:.0f} mm deep, front to back",
    "gap_mm": "{value:.0f} mm of slices are missing in its middle",
    "jump_mm": "its radius changes by {value:.1f} mm from a slice to the next",
    "apart": "{percent:.0f} % of it is apart from the largest part",
    "air": "{percent:.0f} % of it is air",
    "bone": "{percent:.0f} % of it has the HU of bone",
    "mean_hu": "its mean is {value:.0f} HU",
    "twin": "it has {value:.2f} times the volume of its counterpart",
    PLACE: "it lies {value:.1f} standard deviations from its usual place among the other organs",
}
"""In the order of the table; each ends with the usual range."""
WHOLE_ONLY: Final = frozenset({"twin"})
"""Says nothing of an organ that the image cuts."""


class Usual(BaseModel):
    """What is usual for the organs of one region of the body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: int
    ranges: dict[str, dict[str, tuple[float, float]]]
    """Organ -> trait -> lowest and highest."""
    places: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]]
    """Organ -> other organ -> mean and standard deviation [mm, patient LPS] of the way from the
    other's anchor to its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One organ by itself."""

    traits: Mapping[str, float]
    anchor: Floats
    """Patient LPS [mm] relative to voxel (0, 0, 0): the center, or the head end."""


@lru_cache(maxsize=1)
def usual() -> Mapping[str, Usual]:
    """Return what is known, by region of the body."""
    found = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    return {region: Usual.model_validate(entry) for region, entry in found.items()}


def shape_of(organ: str, mask: Mask, image: WorkImage) -> Shape:
    """Return the traits of one organ.

    Parameters
    ----------
    organ
    mask : ndarray, bool, shape of `image`
        Not empty.
    """
    box = bounding_box(mask)
    part, hu = mask[box], image.hu[box][mask[box]]
    corner = np.array([s.start for s in box])
    points = ((np.argwhere(part) + corner) * np.array(image.spacing)) @ image.directions
    step = np.abs(image.directions.T @ np.diag(image.spacing)).max(axis=1)
    extent = np.ptp(points, axis=0) + step
    used = part.any(axis=(1, 2))
    labels, count = ndimage.label(part, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    top = points[:, 2] >= points[:, 2].max() - END_MM
    return Shape(
        traits={
            "volume_ml": len(points) * image.voxel_ml,
            "length_mm": float(extent[2]),
            "width_mm": float(extent[0]),
            "depth_mm": float(extent[1]),
            "gap_mm": float(np.count_nonzero(~used)) * image.spacing[0],
            "jump_mm": radius_step_mm(part, image.spacing),
            "apart": 1.0 - float(sizes.max()) / len(points) if count > 1 else 0.0,
            "air": float(np.mean(hu < AIR_HU)),
            "bone": float(np.mean(hu > BONE_HU)),
            "mean_hu": float(hu.mean()),
        },
        anchor=points[top].mean(axis=0) if organ in ELONGATED else points.mean(axis=0),
    )


def relations(organ: str, shapes: Mapping[str, Shape], known: Usual) -> dict[str, float]:
    """Return the traits of an organ that need the others: place, and volume by its counterpart's.

    Parameters
    ----------
    organ
        One of `shapes`.
    shapes
        All organs that were found.
    """
    mine = shapes[organ]
    found: dict[str, float] = {}
    for end, other in TWINS:
        twin = organ.removesuffix(end) + other
        if organ.endswith(end) and twin in shapes:
            found["twin"] = mine.traits["volume_ml"] / shapes[twin].traits["volume_ml"]
    partners = known.places.get(organ, {}).items()
    off = [
        (mine.anchor - shapes[name].anchor - np.array(mean)) / np.array(deviation)
        for name, (mean, deviation) in partners
        if name in shapes
    ]
    if len(off) >= LEAST_PARTNERS:
        found[PLACE] = float(np.abs(np.median(off, axis=0)).max())
    return found


def unusual(
    organ: str, shapes: Mapping[str, Shape], known: Usual, *, cut: bool = False
) -> tuple[Finding, ...]:
    """Return a finding for each trait of an organ that is beyond its usual range.

    Parameters
    ----------
    cut
        The image ends inside the organ: it may be small and its center elsewhere.
    """
    if organ not in shapes:
        return ()
    ranges = known.ranges.get(organ, {})
    traits = {**shapes[organ].traits, **relations(organ, shapes, known)}
    skipped = WHOLE_ONLY | ({PLACE} if organ not in ELONGATED else set()) if cut else frozenset()
    findings = []
    for trait, words in WORDS.items():
        if trait not in traits or trait not in ranges or trait in skipped:
            continue
        value, (low, high) = traits[trait], ranges[trait]
        if (value >= low or (cut and trait.endswith(("_ml", "_mm")))) and value <= high:
            continue
        share = 100.0 if "{percent" in words else 1.0
        findings.append(
            Finding(
                code=f"roi-unusual-{trait.partition('_')[0]}",
                severity=Severity.WARN,
                message=f"{organ}: {words.format(value=value, percent=100 * value)}; "
                f"usual: {share * low:.3g} to {share * high:.3g}",
                roi=organ,
                value=round(value, 4),
                limit=low if value < low else high,
            )
        )
    return tuple(findings)
