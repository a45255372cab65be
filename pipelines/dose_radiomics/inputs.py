"""From input files to one consistent set: dose, structures, plan, slice spacing; or a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.api import Finding, InputRejected, Inputs, Role, Severity
from pipelines.dicom.read import text, tolerant
from pipelines.dicom.rtdose import DoseGrid, read_dose
from pipelines.dicom.rtstruct import StructureSet, read_structure_set
from pipelines.dose_radiomics.plan import Plan, read_plan
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.radiomics.contours import FLAT_MM

COURSE = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW", "")
"""Dose summation types that stand for a whole course, best first; empty: not stated."""
_SAME_GRID_MM = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that one evaluation is made of."""

    dose: DoseGrid
    """With the axis first that the contours are drawn across."""
    dose_sources: tuple[DoseGrid, ...]
    """The objects that the dose was taken from: one, or all beams."""
    structures: StructureSet
    plan: Plan | None
    image_paths: tuple[Path, ...]
    """Slices of the image that the structures were drawn on, where they are among the inputs."""
    image_spacing_mm: float | None
    """Slice spacing of that image."""
    findings: tuple[Finding, ...]


def read_case(inputs: Inputs, settings: DoseRadiomicsSettings) -> Case:
    """Read and cross-check the inputs.

    Raises
    ------
    InputRejected
        If there is no dose or structure set to be used, or they do not belong together.
    """
    findings: list[Finding] = []
    plans = [read_plan(path) for path in sorted(inputs.paths(Role.RTPLAN))]
    doses = _doses(inputs.paths(Role.RTDOSE))
    dose, sources, plan = _choose_dose(doses, plans, settings)
    structures = _choose_structures(inputs.paths(Role.RTSTRUCT), plan)
    _same_patient([source.dataset for source in sources], structures, plan)
    _same_frame(dose, structures, findings)
    if not dose.summation_type:
        findings.append(_warn("summation-type-missing", "the dose does not state whether it is "
                              "the dose of a plan; taken as one"))  # fmt: skip
    if plan and plan.structure_set_uid not in {"", structures.sop_instance_uid}:
        findings.append(
            _warn("plan-names-other-structures", "the plan was made on another structure set")
        )
    images = _images(inputs, structures)
    return Case(
        dose=_facing_contours(dose, structures),
        dose_sources=sources,
        structures=structures,
        plan=plan,
        image_paths=images,
        image_spacing_mm=_image_spacing(images),
        findings=tuple(findings),
    )


def _doses(paths: Sequence[Path]) -> list[DoseGrid]:
    """Return the doses that can be read; if none can, refuse with the reason of the first."""
    found, refusals = [], []
    for path in sorted(paths):
        try:
            found.append(read_dose(path))
        except InputRejected as refusal:
            refusals.append(refusal)
    if found:
        return sorted(found, key=lambda dose: dose.sop_instance_uid)
    if refusals:
        raise refusals[0]
    raise InputRejected("there is no RT Dose among the inputs")


def _choose_dose(
    doses: Sequence[DoseGrid], plans: Sequence[Plan], settings: DoseRadiomicsSettings
) -> tuple[DoseGrid, tuple[DoseGrid, ...], Plan | None]:
    """Return the dose of the course, what it was taken from, and its plan."""
    for kind in COURSE:
        fitting = [dose for dose in doses if dose.summation_type == kind]
        if len(fitting) > 1:
            raise InputRejected(
                f"{len(fitting)} doses of summation type {kind or '(none)'}: send only one"
            )
        if fitting:
            return fitting[0], (fitting[0],), _plan_of(fitting[0], plans)
    beams = [dose for dose in doses if dose.summation_type == "BEAM"]
    if not beams:
        kinds = ", ".join(sorted({dose.summation_type for dose in doses}))
        raise InputRejected(f"only doses of type {kinds}: none of them is the dose of a course")
    if not settings.sum_beams:
        raise InputRejected(
            f"{len(beams)} BEAM doses and no PLAN dose",
            hint="send the plan dose, or set sum_beams to add the beams up",
        )
    plan = _plan_of(beams[0], plans)
    return _sum(beams, plan), tuple(beams), plan


def _sum(beams: Sequence[DoseGrid], plan: Plan | None) -> DoseGrid:
    """Return the sum of BEAM doses, if all beams of the plan are there once, on one grid."""
    if plan is None:
        raise InputRejected("beams can be added up only with the plan that lists them")
    numbers = [number for beam in beams for number in beam.beam_numbers]
    if sorted(numbers) != sorted(plan.beams):
        missing = sorted(set(plan.beams) - set(numbers))
        raise InputRejected(f"the BEAM doses are not those of the plan; missing: {missing}")
    first = beams[0]
    for other in beams[1:]:
        same = (
            other.dose.shape == first.dose.shape
            and np.allclose(other.origin, first.origin, rtol=0, atol=_SAME_GRID_MM)
            and np.allclose(other.axes, first.axes, rtol=0, atol=_SAME_GRID_MM)
            and all(
                np.allclose(a, b, rtol=0, atol=_SAME_GRID_MM)
                for a, b in zip(other.positions, first.positions, strict=True)
            )
        )
        if not same or other.dose_type != first.dose_type:
            raise InputRejected("the BEAM doses do not lie on one grid")
    total = np.sum([beam.dose for beam in beams], axis=0)
    return replace(first, dose=total, beam_numbers=tuple(sorted(numbers)))


def _plan_of(dose: DoseGrid, plans: Sequence[Plan]) -> Plan | None:
    """Return the plan that the dose names."""
    return next((plan for plan in plans if plan.sop_instance_uid in dose.plan_uids), None)


def _choose_structures(paths: Sequence[Path], plan: Plan | None) -> StructureSet:
    """Return the structure set that the plan names, else the only one."""
    if not paths:
        raise InputRejected("there is no RT Structure Set for the dose")
    found = [read_structure_set(path) for path in sorted(paths)]
    if len(found) == 1:
        return found[0]
    named = [s for s in found if plan and s.sop_instance_uid == plan.structure_set_uid]
    if not named:
        raise InputRejected(f"{len(found)} structure sets, and no plan says which one counts")
    return named[0]


def _same_patient(doses: Sequence[Dataset], structures: StructureSet, plan: Plan | None) -> None:
    """Refuse to mix patients; with an empty patient ID the study must be the same."""
    for dataset in (*doses, *([plan.dataset] if plan else [])):
        patient = text(dataset, "PatientID").strip()
        other = text(structures.dataset, "PatientID").strip()
        study = text(dataset, "StudyInstanceUID") == structures.study_instance_uid
        if patient != other or (not patient and not study):
            raise InputRejected("dose or plan and structures are of different patients")


def _same_frame(dose: DoseGrid, structures: StructureSet, findings: list[Finding]) -> None:
    """Refuse structures of another frame of reference; tell where one is not stated."""
    ours, theirs = dose.frame_of_reference_uid, structures.frame_of_reference_uid
    if not ours or not theirs:
        findings.append(
            _warn(
                "frame-of-reference-missing",
                "dose or structures do not state their frame of reference; taken as the same",
            )
        )
    elif ours != theirs:
        raise InputRejected(
            "dose and structures have different frames of reference: positions cannot be compared"
        )


def _facing_contours(dose: DoseGrid, structures: StructureSet) -> DoseGrid:
    """Return the dose with the axis first that the contours are drawn across."""
    spread = [
        np.ptp(dose.to_axes(loop.points), axis=0) < FLAT_MM
        for roi in structures.rois
        for loop in roi.closed
    ]
    if not spread:
        raise InputRejected(
            "no ROI of the structure set encloses a volume: it holds points or open contours only"
        )
    flat = np.sum(spread, axis=0)
    if not flat.any():
        raise InputRejected("the contours are oblique to the dose grid")
    axis = int(np.argmax(flat))
    return dose if axis == 0 else dose.facing(axis)


def _images(inputs: Inputs, structures: StructureSet) -> tuple[Path, ...]:
    """Return the images that the structures were drawn on."""
    wanted = set(structures.referenced_image_uids)
    found = (f for f in inputs.files if f.role is Role.CT and f.sop_instance_uid in wanted)
    return tuple(f.path for f in found)


def _image_spacing(paths: Sequence[Path]) -> float | None:
    """Return the slice spacing of images [mm]."""
    heights, normal = [], None
    for path in paths:
        with tolerant():
            image = dcmread(
                path,
                force=True,
                stop_before_pixels=True,
                specific_tags=["ImagePositionPatient", "ImageOrientationPatient"],
            )
            position = np.array(image.get("ImagePositionPatient") or [], dtype=np.float64)
            directions = np.array(image.get("ImageOrientationPatient") or [], dtype=np.float64)
        if position.size != 3 or directions.size != 6:  # noqa: PLR2004 - PS3.3 C.7.6.2
            continue
        if normal is None:
            normal = np.cross(directions[:3], directions[3:])
        heights.append(float(position @ normal))
    steps = np.diff(np.unique(np.round(heights, 3)))
    return float(np.median(steps)) if len(steps) else None


def _warn(code: str, message: str) -> Finding:
    """Return a finding that flags the whole result."""
    return Finding(code=code, severity=Severity.WARN, message=message)
