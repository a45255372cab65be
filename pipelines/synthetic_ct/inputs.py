"""Read and judge the inputs: the CBCT, and the planning CT where it can be trusted."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, InputRejected, Inputs, Role, Severity
from pipelines.dicom.read import read_dataset, text
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.imaging.body import Mask, Regions, find_regions
from pipelines.synthetic_ct.methods import TRUNCATED_CM3
from pipelines.synthetic_ct.register import Prior, Source, align

LEAST_SLICES: Final = 5
"""Fewer slices are no volume."""
USUAL_SLICES: Final = 20
LEAST_BODY_CM3: Final = 200.0
ROUND_RATIO: Final = 1.04
"""Long over short axis of a cross-section; below, it is a circle. Patients are above 1.1."""
EVEN_AREA: Final = 0.02
"""Relative SD of the cross-sections along the stack; below, it is a cylinder."""
METAL_HU: Final = 2500.0
"""Above it is no bone."""
LEAST_METAL_CM3: Final = 0.5
UNEVEN_MM: Final = 0.01
"""Slice steps that differ more are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The inputs, judged."""

    cbct: CtVolume
    regions: Regions
    planning: CtVolume | None
    """The planning CT, where it was read; may be unusable, then `prior` is None."""
    prior: Prior | None
    findings: tuple[Finding, ...]

    @property
    def hu(self) -> NDArray[np.float32]:
        """The CBCT, float32 HU."""
        return np.asarray(self.cbct.hu, dtype=np.float32)


def read_inputs(inputs: Inputs) -> Read:
    """Return the inputs in place.

    Raises
    ------
    InputRejected
        If the CBCT cannot give a right result: no volume, no frame of reference, no patient in it.
        A planning CT or registration that is unfit is a WARN, and is not used.
    """
    cbct = read_volume(inputs.paths(Role.CBCT))
    findings = list(cbct.findings)
    _check_slices(cbct, findings)
    if not cbct.frame_of_reference_uid:
        raise InputRejected("the CBCT states no frame of reference")
    regions = find_regions(
        np.asarray(cbct.hu, dtype=np.float32),
        cbct.geometry.spacing,
        padded=cbct.padded,
        diameter_mm=_diameter(cbct),
    )
    _check_patient(regions.body, cbct)
    if regions.truncated_cm3 > TRUNCATED_CM3:
        findings.append(
            Finding(
                code="fov-truncation",
                severity=Severity.WARN,
                message=f"the field of view cuts the body: {regions.truncated_cm3:.0f} cm3 lie in "
                "the outermost 3 mm; dose near the cut is wrong",
                value=regions.truncated_cm3,
                unit="cm3",
                limit=TRUNCATED_CM3,
            )
        )
    _check_metal(cbct, regions.body, findings)
    planning, prior = _prior(inputs, cbct, regions, findings)
    return Read(
        cbct=cbct, regions=regions, planning=planning, prior=prior, findings=tuple(findings)
    )


def _check_slices(cbct: CtVolume, findings: list[Finding]) -> None:
    count = cbct.geometry.shape[0]
    if count < LEAST_SLICES:
        raise InputRejected(f"the CBCT has {count} slices; {LEAST_SLICES} are the least")
    if not cbct.geometry.uniform:
        raise InputRejected("the CBCT's slices are unevenly spaced; no planning system takes them")
    if count < USUAL_SLICES:
        findings.append(
            Finding(
                code="few-slices",
                severity=Severity.WARN,
                message=f"the CBCT has only {count} slices; planning systems want more",
                value=float(count),
                limit=float(USUAL_SLICES),
            )
        )
    spread = float(np.ptp(cbct.geometry.steps))
    if spread > UNEVEN_MM:
        findings.append(
            Finding(
                code="uneven-slices",
                severity=Severity.WARN,
                message=f"the slice distances differ by {spread:.3f} mm; import may be refused",
                value=spread,
                unit="mm",
                limit=UNEVEN_MM,
            )
        )


def _check_metal(cbct: CtVolume, body: Mask, findings: list[Finding]) -> None:
    """Warn of metal: no method here mends its streaks, nor what they hide."""
    metal = float((body & (cbct.hu > METAL_HU)).sum()) * cbct.geometry.voxel_ml
    if metal < LEAST_METAL_CM3:
        return
    findings.append(
        Finding(
            code="metal",
            severity=Severity.WARN,
            message=f"{metal:.1f} cm3 of the body read above {METAL_HU:.0f} HU: metal; values "
            "around it are wrong and stay wrong",
            value=round(metal, 2),
            unit="cm3",
            limit=LEAST_METAL_CM3,
        )
    )


def _diameter(cbct: CtVolume) -> float | None:
    """Return ReconstructionDiameter where it fits the image, mm."""
    try:
        stated = float(text(cbct.headers[0], "ReconstructionDiameter"))
    except ValueError:
        return None
    extent = cbct.geometry.rows * cbct.geometry.pixel_spacing[0]
    return stated if 0.4 * extent < stated < 1.5 * extent else None


def _check_patient(body: Mask, cbct: CtVolume) -> None:
    """Refuse air and test cylinders: their synthetic CT would look plausible and mean nothing."""
    volume = float(body.sum()) * cbct.geometry.voxel_ml
    if volume < LEAST_BODY_CM3:
        raise InputRejected(
            f"there is no body in the CBCT: {volume:.0f} cm3 of tissue in one piece",
            hint="send a CBCT of a patient with Hounsfield units",
        )
    areas = body.sum(axis=(1, 2)).astype(np.float64)
    middle = areas[len(areas) // 4 : -(len(areas) // 4) or None]
    even = middle.std() / max(middle.mean(), 1) < EVEN_AREA
    plane = body[int(areas.argmax())]
    if even and _axis_ratio(plane, cbct.geometry.pixel_spacing) < ROUND_RATIO:
        raise InputRejected(
            "the CBCT shows a cylinder of constant round cross-section: a test phantom",
            hint="quality assurance scans have no synthetic CT; route them elsewhere",
        )


def _axis_ratio(plane: Mask, spacing: tuple[float, float]) -> float:
    points = np.argwhere(plane) * spacing
    small, large = np.linalg.eigvalsh(np.cov(points.T))
    return float(np.sqrt(large / max(small, 1e-9)))


def _prior(
    inputs: Inputs, cbct: CtVolume, regions: Regions, findings: list[Finding]
) -> tuple[CtVolume | None, Prior | None]:
    """Return the planning CT and its place; unfit ones are left out with a WARN."""
    paths = inputs.paths(Role.PLANNING_CT)
    if not paths:
        return None, None

    def unused(code: str, why: str) -> None:
        findings.append(
            Finding(
                code=code,
                severity=Severity.WARN,
                message=f"the planning CT was not used: {why}",
            )
        )

    try:
        planning = read_volume(paths)
    except InputRejected as error:
        unused("planning-ct-unreadable", str(error))
        return None, None
    ids = [text(v.headers[0], "PatientID").strip() for v in (cbct, planning)]
    if all(ids) and ids[0] != ids[1]:
        unused("planning-ct-of-another-patient", "its patient ID is not that of the CBCT")
        return None, None
    if not planning.geometry.uniform:
        unused("planning-ct-uneven", "its slices are unevenly spaced")
        return planning, None
    try:
        registrations = [read_dataset(p) for p in inputs.paths(Role.REG)]
        prior = align(cbct, regions, planning, registrations)
    except InputRejected as error:
        unused("registration-unfit", str(error))
        return planning, None
    _judge(prior, findings)
    return planning, prior if prior.fits else None


def _judge(prior: Prior, findings: list[Finding]) -> None:
    numbers = (
        f"body overlap {prior.body_dice:.2f}, edge correlation {prior.gradient_correlation:.2f}, "
        f"covers {100 * prior.coverage:.0f} % of the CBCT's body"
    )
    if not prior.fits:
        findings.append(
            Finding(
                code="planning-ct-does-not-fit",
                severity=Severity.WARN,
                message=f"the planning CT was not used: placed by {prior.source}, it does not show "
                f"what the CBCT shows ({numbers})",
                value=prior.gradient_correlation,
            )
        )
        return
    own = prior.source is Source.IMAGE
    findings.append(
        Finding(
            code="planning-ct-placed",
            severity=Severity.WARN if own else Severity.INFO,
            message=f"the planning CT was placed by {prior.source} ({numbers})",
            value=prior.gradient_correlation,
        )
    )
