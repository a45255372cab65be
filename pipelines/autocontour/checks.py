"""What is looked at before a contour is written: is it plausible, is it whole, is it on its side.

A structure that fails is left out with the reason; it never holds the others back. What only
deserves a look is written, flagged.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipelines.api import Finding, Severity
from pipelines.autocontour.limits import WRONG_SIDE
from pipelines.autocontour.names import TABLE, Organ
from pipelines.imaging.grid import Mask, Values, WorkImage

ASYMMETRY: Final = 3.0
"""A lung that many times larger than the other is worth a look (collapse, or a leak)."""
EDGE_SLICES_SHARE: Final = 0.05
"""Share of slices in which the body may touch the image edge before it is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the checks say about one structure."""

    organ: Organ
    write: bool
    cut: bool
    """The image ends inside the organ."""
    findings: tuple[Finding, ...]

    @property
    def remark(self) -> str:
        """The verdict in a line, for the object itself."""
        if not self.findings:
            return "PASS: automatic plausibility checks; not reviewed"
        return "WARN: " + "; ".join(f.message for f in self.findings)


def check(
    organ: Organ,
    surface: Values,
    image: WorkImage,
    seen: Mask,
    volume_ml: tuple[float, float] | None = None,
) -> Verdict:
    """Judge one structure.

    Parameters
    ----------
    organ : Organ
    surface : ndarray, float32, shape of the work grid
        Its 0.5 level is the surface.
    image : WorkImage
    seen : ndarray, bool, same shape
        Voxels inside the reconstructed field of view.
    volume_ml : tuple of float, optional
        Plausible range; default: that of the table of names.
    """
    mask = surface >= 0.5  # noqa: PLR2004 (the surface)
    entry = TABLE[organ]
    volume = float(np.count_nonzero(mask)) * image.voxel_ml
    cut = is_cut(mask, seen)
    low, high = volume_ml or entry.volume_ml
    if volume > high or volume < (0 if cut else low) or not mask.any():
        finding = Finding(
            code="roi-implausible-volume",
            severity=Severity.WARN,
            message=f"{organ} was left out: {volume:.0f} ml is outside {low:g} to {high:g} ml",
            roi=organ.value,
            value=round(volume, 1),
            unit="ml",
            limit=high if volume > high else low,
        )
        return Verdict(organ=organ, write=False, cut=cut, findings=(finding,))
    findings = []
    if cut and entry.whole_organ:
        findings.append(
            Finding(
                code="roi-cut-by-image",
                severity=Severity.WARN,
                message=f"{organ} reaches the end of the image; it is named as a part",
                roi=organ.value,
            )
        )
    if organ is Organ.EXTERNAL and (share := edge_share(mask, seen)) > EDGE_SLICES_SHARE:
        findings.append(
            Finding(
                code="body-truncated",
                severity=Severity.WARN,
                message=f"the body touches the edge of the image on {100 * share:.0f} % of slices",
                roi=organ.value,
                value=round(share, 3),
                limit=EDGE_SLICES_SHARE,
            )
        )
    return Verdict(organ=organ, write=True, cut=cut, findings=tuple(findings))


def with_evidence(verdict: Verdict, findings: tuple[Finding, ...]) -> Verdict:
    """Return a verdict with what the image says; what lies on the wrong side is not written."""
    return dataclasses.replace(
        verdict,
        write=verdict.write and all(f.code != WRONG_SIDE for f in findings),
        findings=(*verdict.findings, *findings),
    )


def check_pair(left: Values, right: Values, image: WorkImage) -> tuple[Finding, ...]:
    """Judge left against right lung: sizes."""
    volumes = [float(np.count_nonzero(s >= 0.5)) * image.voxel_ml for s in (left, right)]  # noqa: PLR2004 (the surface)
    ratio = max(volumes) / max(min(volumes), 1.0)
    if ratio <= ASYMMETRY:
        return ()
    return (
        Finding(
            code="lungs-unequal",
            severity=Severity.WARN,
            message=f"one lung is {ratio:.1f} times as large as the other",
            roi="Lungs",
            value=round(ratio, 2),
            limit=ASYMMETRY,
        ),
    )


def is_cut(mask: Mask, seen: Mask) -> bool:
    """Return whether the organ reaches the first or last image or the edge of the image."""
    return bool(mask[0].any() or mask[-1].any()) or edge_share(mask, seen) > 0


def edge_share(mask: Mask, seen: Mask) -> float:
    """Return the share of the organ's slices on which it touches the edge of what was seen."""
    edge = ~seen
    inner = np.zeros(seen.shape, np.bool_)
    inner[:, 1:-1, 1:-1] = (
        seen[:, :-2, 1:-1] & seen[:, 2:, 1:-1] & seen[:, 1:-1, :-2] & seen[:, 1:-1, 2:]
    )
    touched = (mask & (edge | ~inner)).any(axis=(1, 2))
    slices = int(np.count_nonzero(mask.any(axis=(1, 2))))
    return float(np.count_nonzero(touched)) / max(slices, 1)
