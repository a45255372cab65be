"""What must have come back, and how far it may be from the truth of the phantom.

The limits are wide on purpose: they catch a mirrored, shifted or empty result at once, and leave
the measuring of quality to the tests on real data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from demo import readback
from demo.grid import Grid
from demo.patient import Patient
from demo.readback import ABSORBED_DOSE, MEAN, Measurement, Received

LEAST_DICE: Final[Mapping[str, float]] = {
    "External": 0.97, "Lung_L": 0.95, "Lung_R": 0.95, "Lungs": 0.95, "Bones": 0.6,
    "SpinalCanal": 0.6,
}  # fmt: skip
"""ROI -> the least Dice coefficient against the phantom; the lungs' includes the tumor there."""
LARGEST_SCT_ERROR: Final = 0.75
"""The mean absolute error of the sCT must be below this share of the raw CBCT's."""
DOSE_TOLERANCE_GY: Final = 0.4
VOLUME_TOLERANCE_PERCENT: Final = 1.5
"""Contours are drawn on voxels of 3 mm: the SR follows the contour, the truth counts voxels."""
LEAST_FEATURES: Final = 30
"""Numbers of one ROI in the SR."""
DOSE_ROIS: Final = ("GTV", "PTV", "Lung_L", "Lung_R", "Heart")
V20: Final = "V20Gy[%]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the demo's table."""

    item: str
    """The object."""
    what: str
    found: str
    wanted: str
    passed: bool


def check_all(received: Received, patient: Patient) -> list[Check]:
    """Return every check; all must pass."""
    checks = [_only_expected(received, patient)]
    for structure_set in received.structure_sets[:1]:
        checks += _contours(structure_set, patient)
    for slices in list(received.images.values())[:1]:
        checks += _synthetic_ct(slices, patient)
    for report in received.reports[:1]:
        checks += _dose(report, patient)
    return checks


def truth_masks(patient: Patient) -> dict[str, NDArray[np.bool_]]:
    """Return what autocontour should find; air-filled lung, as it cannot know the tumor's edge."""
    labels = patient.ct.labels
    both = labels["Lung_L"] | labels["Lung_R"]
    return {**labels, "Lungs": both}


def ct_grid(patient: Patient) -> Grid:
    """Return the grid of the planning CT."""
    s, r, c = patient.ct.hu.shape
    return Grid(shape=(s, r, c), spacing=patient.ct.spacing, origin=patient.ct.origin)


def evaluated(patient: Patient) -> NDArray[np.bool_]:
    """Return the voxels of the CBCT that count: body inside the field of view."""
    return patient.treatment.labels["External"] & (patient.cbct > -1000)


def _only_expected(received: Received, patient: Patient) -> Check:
    wanted = 2 + len(patient.modality["CBCT"])
    counts = (
        f"{len(received.structure_sets)} RTSTRUCT, {len(received.images)} CT series, "
        f"{len(received.reports)} SR, {len(received.others)} other"
    )
    complete = (
        len(received.structure_sets) == len(received.images) == len(received.reports) == 1
        and received.count() == wanted
    )
    return Check(
        item="archive",
        what=f"{received.count()} objects",
        found=counts,
        wanted=f"1, 1, 1, 0 ({wanted} objects)",
        passed=complete,
    )


def _contours(structure_set: Dataset, patient: Patient) -> list[Check]:
    item = "RTSTRUCT"
    grid, truth = ct_grid(patient), truth_masks(patient)
    checks = [
        _mark(item, "approval", structure_set.get("ApprovalStatus"), "UNAPPROVED"),
        _uid(item, structure_set),
    ]
    names = readback.roi_names(structure_set)
    for name, least in LEAST_DICE.items():
        if name not in names:
            checks.append(Check(item=item, what=name, found="-", wanted="present", passed=False))
            continue
        drawn = readback.mask(structure_set, name, grid)
        score = readback.dice(drawn, truth[name])
        volume = float(drawn.sum() * np.prod(grid.spacing)) / 1000
        checks.append(
            Check(
                item=item,
                what=f"{name}, {volume:.0f} cm³",
                found=f"Dice {score:.3f}",
                wanted=f">= {least:g}",
                passed=score >= least,
            )
        )
    return checks


def _synthetic_ct(slices: list[Dataset], patient: Patient) -> list[Check]:
    item = "synthetic CT"
    hu, grid = readback.volume(slices)
    expected = np.subtract(patient.treatment.origin, patient.treatment.target)
    offset = float(np.abs(np.subtract(grid.origin, expected)).max())
    cbct = patient.modality["CBCT"][0]
    frame = slices[0].FrameOfReferenceUID == cbct.FrameOfReferenceUID
    placed = hu.shape == patient.cbct.shape and offset < 0.01 and frame
    checks = [
        _uid(item, slices[0]),
        Check(
            item=item, what=f"{len(slices)} slices", found=f"{offset:.3f} mm off",
            wanted="grid and frame of the CBCT", passed=placed,
        ),
    ]  # fmt: skip
    if placed:
        inside = evaluated(patient)
        truth = patient.treatment.hu[inside]
        before = float(np.abs(patient.cbct[inside] - truth).mean())
        after = float(np.abs(hu[inside] - truth).mean())
        bias = float((hu[inside] - truth).mean())
        checks.append(
            Check(
                item=item,
                what=f"HU error in the body, CBCT {before:.0f}",
                found=f"MAE {after:.0f}, bias {bias:+.0f} HU",
                wanted=f"MAE < {LARGEST_SCT_ERROR * before:.0f}",
                passed=after < LARGEST_SCT_ERROR * before,
            )
        )
    return checks


def _dose(report: Dataset, patient: Patient) -> list[Check]:
    item = "SR"
    groups = readback.measurements(report)
    checks = [_mark(item, "verification", report.get("VerificationFlag"), "UNVERIFIED")]
    checks.append(_uid(item, report))
    for name in DOSE_ROIS:
        numbers = groups.get(name, [])
        inside = patient.structures[name]
        dose = patient.dose_gy[inside]
        checks.append(
            _close(item, f"{name} mean dose", _mean(numbers), float(dose.mean()),
                   DOSE_TOLERANCE_GY, "Gy")
        )  # fmt: skip
        share = float((dose >= 20).mean()) * 100
        checks.append(
            _close(item, f"{name} V20Gy", _named(numbers, V20), share,
                   VOLUME_TOLERANCE_PERCENT, "%")
        )  # fmt: skip
    features = min(len(groups.get(name, [])) for name in DOSE_ROIS)
    checks.append(
        Check(
            item=item, what=f"{len(groups)} ROIs", found=f"{features} numbers or more each",
            wanted=f">= {LEAST_FEATURES}", passed=features >= LEAST_FEATURES,
        )
    )  # fmt: skip
    return checks


def _mean(numbers: list[Measurement]) -> float | None:
    return next(
        (m.value for m in numbers if m.code == ABSORBED_DOSE and m.derivation == MEAN), None
    )


def _named(numbers: list[Measurement], code: str) -> float | None:
    return next((m.value for m in numbers if code in (m.code, m.meaning)), None)


def _close(
    item: str, what: str, found: float | None, wanted: float, tolerance: float, unit: str
) -> Check:
    return Check(
        item=item,
        what=what,
        found="-" if found is None else f"{found:.2f} {unit}",
        wanted=f"{wanted:.2f} ± {tolerance:g} {unit}",
        passed=found is not None and abs(found - wanted) <= tolerance,
    )


def _mark(item: str, what: str, found: object, wanted: str) -> Check:
    return Check(item=item, what=what, found=str(found), wanted=wanted, passed=found == wanted)


def _uid(item: str, ds: Dataset) -> Check:
    """UIDs follow from the inputs: 2.25.<integer>, never from a clock or a random number."""
    uid = str(ds.SOPInstanceUID)
    return Check(
        item=item, what="deterministic UID", found=f"{uid[:12]}…", wanted="2.25.…",
        passed=uid.startswith("2.25."),
    )  # fmt: skip
