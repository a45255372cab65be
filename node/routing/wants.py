"""What a pipeline lacks and an archive may hold: named objects, image series, frames of reference.

The same chain that `node.routing.selection` follows, read backwards: where it ends at an object
that is not here, that object is wanted. Pure; another patient's objects are never wanted, because
only UIDs that this patient's objects name are, and the search is by this patient.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.config.match import Kind
from node.domain import Instance, Uid
from node.routing.facts import Candidate
from pipelines.api import PipelineSpec, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is lacking for one run of a pipeline."""

    patient_key: str
    study_instance_uid: Uid
    trigger: Path
    """A stored object of the same patient: it holds the identity to search by."""
    instances: frozenset[Uid] = frozenset()
    """Plans and structure sets, by SOP Instance UID."""
    series: frozenset[Uid] = frozenset()
    """Image series that contours were drawn on."""
    frames: frozenset[Uid] = frozenset()
    """Frames of reference of which a CT would do."""
    registrations: bool = False
    """Whether registrations of the patient would help to find the CT."""

    def __bool__(self) -> bool:
        return bool(self.instances or self.series or self.frames)


def wanted(spec: PipelineSpec, case: tuple[Instance, ...], patient: Sequence[Candidate]) -> Want:
    """Return what the roles of `spec` lack for `case`; empty where nothing can be named.

    Parameters
    ----------
    spec
        The pipeline.
    case
        Objects of the trigger series, as for `node.routing.selection.select`.
    patient
        The series of the same patient.
    """
    roles = {*spec.required, *spec.optional}
    own = [c for c in patient if c.patient_key == case[0].header.patient_key]
    instances = _instances(roles, case, own)
    if {Role.PLANNING_CT, Role.RTSTRUCT} <= roles:
        instances |= _planned(own)
    frames = _frames(case, own) if Role.PLANNING_CT in roles else frozenset()
    registrations = [i for c in own if c.kind is Kind.REG for i in c.instances]
    return Want(
        patient_key=case[0].header.patient_key,
        study_instance_uid=case[0].header.study_instance_uid,
        trigger=case[0].path,
        instances=instances,
        series=_series(case, own) if roles & {Role.CT, Role.IMAGE} else frozenset(),
        frames=frames,
        registrations=bool(frames) and Role.REG in roles and not registrations,
    )


def _instances(
    roles: Collection[Role], case: Iterable[Instance], patient: Sequence[Candidate]
) -> frozenset[Uid]:
    here = _by_uid(patient)
    plans = _named(case, "PLAN") if Role.RTPLAN in roles or Role.RTSTRUCT in roles else set()
    structure_sets: set[Uid] = set()
    if Role.RTSTRUCT in roles:
        of_plans = _named([here[p] for p in plans if p in here], "STRUCTURE_SET")
        structure_sets = _named(case, "STRUCTURE_SET") or of_plans
    return frozenset((plans | structure_sets) - here.keys())


def _planned(patient: Sequence[Candidate]) -> frozenset[Uid]:
    """Return the structure sets that plans of the patient rest on and that are not here."""
    plans = [i for c in patient if c.kind is Kind.RTPLAN for i in c.instances]
    return frozenset(_named(plans, "STRUCTURE_SET") - _by_uid(patient).keys())


def _series(case: Iterable[Instance], patient: Sequence[Candidate]) -> frozenset[Uid]:
    """Return the series that the structure set of the case was drawn on and that are not here."""
    here = _by_uid(patient)
    plans = [here[p] for p in _named(case, "PLAN") if p in here]
    sets = _named(case, "STRUCTURE_SET") or _named(plans, "STRUCTURE_SET")
    structure_sets = [here[uid] for uid in sets if uid in here]
    structure_sets += [i for i in case if i.header.modality == "RTSTRUCT"]
    drawn_on = {
        r.within
        for i in structure_sets
        for r in i.header.references
        if r.kind == "IMAGE" and r.within
    }
    return frozenset(drawn_on - {c.series_instance_uid for c in patient})


def _frames(case: Sequence[Instance], patient: Sequence[Candidate]) -> frozenset[Uid]:
    """Return the frames linked to the trigger, unless a CT in one of them is here."""
    frame = case[0].header.frame_of_reference_uid
    if frame is None:
        return frozenset()
    frames = {frame}
    for candidate in patient:
        for registration in candidate.instances if candidate.kind is Kind.REG else ():
            named = _named([registration], "FRAME")
            if frame in named:
                frames |= named
    present = {
        i.header.frame_of_reference_uid
        for c in patient
        if c.kind is Kind.CT and not c.ours
        for i in c.instances
    }
    return frozenset() if present & frames else frozenset(frames)


def _by_uid(patient: Iterable[Candidate]) -> dict[Uid, Instance]:
    return {i.header.sop_instance_uid: i for c in patient for i in c.instances}


def _named(instances: Iterable[Instance], kind: str) -> set[Uid]:
    return {r.uid for i in instances for r in i.header.references if r.kind == kind}
