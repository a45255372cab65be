"""Fills the roles of a pipeline for one trigger: by UID references, else by frame of reference.

A dose names its plan, the plan its structure set, the structure set its images; a registration
names two frames of reference. Where nothing is named, exactly one candidate in the same frame of
reference is taken; two without a reference that decides between them are a question for a person.
Only objects of one patient are ever joined. Our own results count only where another object
names them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from node.config.match import Kind
from node.domain import Instance, JobInput
from node.routing.facts import Candidate
from pipelines.api import PipelineSpec, Role

IMAGES: Final = frozenset({Kind.CT, Kind.CBCT})
"""Kinds that structures for a dose may be drawn on."""
MEASURED: Final = frozenset({Kind.CT, Kind.CBCT, Kind.MR})
"""Kinds whose own values are measured inside structures."""
_WHOLE_DOSES: Final = frozenset({"PLAN", "MULTI_PLAN", "PLAN_OVERVIEW"})
"""DoseSummationType of a dose that stands for a whole treatment (PS3.3 C.8.8.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """All required roles are filled."""

    inputs: tuple[JobInput, ...]
    """Sorted by role and UID, so that the order of arrival leaves no trace."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A required input is not here yet; the next arrival may bring it."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguous:
    """Several inputs fit, or they contradict each other: a person must look."""

    reason: str
    hint: str


Selection = Selected | Missing | Ambiguous


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    instances: tuple[Instance, ...]
    reason: str = ""


_Role = _Found | Missing | Ambiguous


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What the fillers look at."""

    trigger: tuple[Instance, ...]
    patient: Sequence[Candidate]
    strangers: frozenset[str]
    chosen: dict[Role, tuple[Instance, ...]] = field(default_factory=dict)

    @property
    def frame(self) -> str | None:
        """Return the frame of reference of the trigger."""
        return self.trigger[0].header.frame_of_reference_uid

    def objects(self, *kinds: Kind) -> list[Instance]:
        """Return every object of these kinds."""
        return [i for c in self.patient if c.kind in kinds for i in c.instances]


def cases(spec: PipelineSpec, trigger: Candidate) -> tuple[tuple[Instance, ...], ...]:
    """Return the groups of objects of a trigger series that ask for one run each.

    All slices of an image series belong together; every structure set is a case. A planning
    system may put several doses into one series: each dose of a whole plan is a case; doses of
    single beams or fractions are parts and form a case only where no dose of the plan is beside
    them.
    """
    ordered = tuple(sorted(trigger.instances, key=lambda i: i.header.sop_instance_uid))
    if spec.trigger is Role.RTSTRUCT:
        return tuple((i,) for i in ordered)
    if spec.trigger is not Role.RTDOSE:
        return (ordered,)
    whole = tuple(i for i in ordered if i.header.keywords.get("DoseSummationType") in _WHOLE_DOSES)
    return tuple((i,) for i in whole) or (ordered,)


def only_case(spec: PipelineSpec, trigger: Candidate) -> tuple[Instance, ...] | Ambiguous:
    """Return the one case of a trigger series; several are a question for its sender."""
    groups = cases(spec, trigger)
    if len(groups) == 1:
        return groups[0]
    return Ambiguous(
        reason=f"the series holds {len(groups)} doses of whole plans",
        hint="send each dose in a series of its own",
    )


def select(
    spec: PipelineSpec,
    case: tuple[Instance, ...],
    patient: Sequence[Candidate],
    *,
    strangers: Collection[str] = (),
) -> Selection:
    """Return the inputs of one run, or why there are none.

    Parameters
    ----------
    spec
        The pipeline.
    case
        Objects of the trigger series, one element of `cases`.
    patient
        The series of the same patient, the trigger among them; any order.
    strangers
        SOP Instance UIDs that objects of this patient reference and another patient's objects
        bear.
    """
    keys = {i.header.patient_key for i in case}
    trigger = _Case(
        trigger=case,
        patient=[c for c in patient if {c.patient_key} == keys],
        strangers=frozenset(strangers),
    )
    trigger.chosen[spec.trigger] = case
    reasons = []
    wanted = {*spec.required, *spec.optional}
    for role, fill in _FILLERS.items():
        if role not in wanted or role is spec.trigger:
            continue
        answer = fill(trigger)
        if isinstance(answer, Ambiguous) or (isinstance(answer, Missing) and role in spec.required):
            return answer
        if isinstance(answer, Missing):
            reasons.append(f"without {role}: {answer.reason}")
            continue
        trigger.chosen[role] = answer.instances
        reasons.append(f"{role} {answer.reason}")
    return _frozen(trigger, "; ".join(reasons))


def inputs_of(chosen: Mapping[Role, Iterable[Instance]]) -> tuple[JobInput, ...]:
    """Return instances as inputs of a job, sorted so that the order of arrival leaves no trace."""
    inputs = [
        JobInput(
            role=role.value,
            sop_instance_uid=i.header.sop_instance_uid,
            sha256=i.sha256,
            path=i.path,
        )
        for role, instances in chosen.items()
        for i in instances
    ]
    return tuple(sorted(inputs, key=lambda i: (i.role, i.sop_instance_uid)))


def frames_of(structure_set: Instance, images: Iterable[Instance]) -> set[str]:
    """Return the frames of reference of a structure set: stated, listed, or of its images."""
    header = structure_set.header
    frames = {str(header.frame_of_reference_uid)} if header.frame_of_reference_uid else set()
    frames |= set(_named(structure_set, "FRAME"))
    drawn_on = set(_named(structure_set, "IMAGE"))
    frames |= {
        str(i.header.frame_of_reference_uid)
        for i in images
        if i.header.sop_instance_uid in drawn_on and i.header.frame_of_reference_uid
    }
    return frames


def _plan(case: _Case) -> _Role:
    """Return the plan that the dose names."""
    named = _all_named(case.trigger, "PLAN")
    if not named:
        return Missing(reason="the dose names no plan", hint="")
    return _by_uid(case, named, (Kind.RTPLAN,), "plan")


def _structure_set(case: _Case) -> _Role:
    """Return the structure set that dose or plan names, else the only one in the frame.

    For images, return the one that was drawn on them.
    """
    if Role.CT in case.chosen:
        return _drawn_on(case, Role.CT)
    if Role.CBCT in case.chosen:
        return _drawn_on(case, Role.PLANNING_CT)
    plan = _plan(case)
    plans = plan.instances if isinstance(plan, _Found) else ()
    named = _all_named(case.trigger, "STRUCTURE_SET") or _all_named(plans, "STRUCTURE_SET")
    if named:
        answer = _by_uid(case, named, (Kind.RTSTRUCT, Kind.POINTS), "structure set")
    else:
        answer = _structure_set_in_frame(case)
    if not isinstance(answer, _Found):
        return answer
    if case.strangers & set(_all_named(answer.instances, "IMAGE")):
        return Ambiguous(
            reason="the structure set references images of another patient",
            hint="correct the patient identity of the images or of the plan, and send them again",
        )
    return answer


def _drawn_on(case: _Case, role: Role) -> _Role:
    """Return the structure set of a person that names the images; never a reason to hold them.

    Of several, the one that a plan rests on.
    """
    images = {i.header.sop_instance_uid for i in case.chosen.get(role, ())}
    fitting = [
        i
        for c in case.patient
        if c.kind is Kind.RTSTRUCT and not c.ours
        for i in c.instances
        if images & set(_named(i, "IMAGE"))
    ]
    if role is Role.PLANNING_CT and len(fitting) > 1:
        planned = set(_all_named(case.objects(Kind.RTPLAN), "STRUCTURE_SET"))
        fitting = [i for i in fitting if i.header.sop_instance_uid in planned] or fitting
    if len(fitting) != 1:
        words = f"{len(fitting)} structure sets were" if fitting else "no structure set was"
        return Missing(reason=f"{words} drawn on these images", hint="")
    return _Found(instances=(fitting[0],), reason="drawn on these images")


def _structure_set_in_frame(case: _Case) -> _Role:
    if case.frame is None:
        return Missing(
            reason="the trigger names neither a structure set nor a frame of reference",
            hint="export dose, plan and structure set together",
        )
    images = case.objects(*IMAGES)
    fitting = [
        i
        for c in case.patient
        if c.kind is Kind.RTSTRUCT and not c.ours
        for i in c.instances
        if case.frame in frames_of(i, images)
    ]
    if len(fitting) > 1:
        return Ambiguous(
            reason=f"{len(fitting)} structure sets are in the frame of reference and none is named",
            hint="send the RTPLAN: it names the structure set",
        )
    if not fitting:
        return Missing(
            reason="no structure set of this patient is in the frame of reference of the trigger",
            hint="send the RTSTRUCT; the job starts by itself",
        )
    return _Found(instances=(fitting[0],), reason="the only one in the frame of reference")


def _measured_images(case: _Case) -> _Role:
    """Return the images, of whatever kind may be measured, that the structure set names."""
    if case.strangers & set(_all_named(case.chosen.get(Role.RTSTRUCT, ()), "IMAGE")):
        return Ambiguous(
            reason="the structure set references images of another patient",
            hint="correct the patient identity of the images or of the structures, and send them"
            " again",
        )
    return _contoured_images(case, MEASURED)


def _contoured_images(case: _Case, kinds: frozenset[Kind] = IMAGES) -> _Role:
    """Return the images that the chosen structure set was drawn on."""
    structure_sets = case.chosen.get(Role.RTSTRUCT, ())
    drawn_on = set(_all_named(structure_sets, "IMAGE"))
    usable = [c for c in case.patient if c.kind in kinds and c.complete]
    hits = {c.series_instance_uid: len(drawn_on & _uids(c)) for c in usable}
    fitting = [c for c in usable if hits[c.series_instance_uid]]
    if not fitting:
        return Missing(
            reason="the images it was drawn on are not here or not complete",
            hint="send the images that the structure set names; the job starts by itself",
        )
    most = max(hits.values())
    best = [c for c in fitting if hits[c.series_instance_uid] == most]
    if len(best) > 1:
        return Ambiguous(
            reason=f"the structure set references equally many images of {len(best)} series",
            hint="export the structure set on one image series",
        )
    return _Found(instances=best[0].instances, reason="by the images that the contours name")


def _planning_ct(case: _Case) -> _Role:
    """Return the CT that a registration links to the CBCT, else the one in its frame.

    Where neither is there, the one CT that the patient's plans rest on: the pipeline places it by
    the images themselves, and takes it only where both show the same.
    """
    frame = case.frame
    linked_frames = {f for reg in _registrations(case) for f in _named(reg, "FRAME")} - {frame}
    cts = [c for c in case.patient if c.kind is Kind.CT and c.complete and not c.ours]
    for reason, frames in (
        ("by the registration", linked_frames),
        ("in the frame of reference of the CBCT", {frame} - {None}),
    ):
        fitting = [c for c in cts if c.instances[0].header.frame_of_reference_uid in frames]
        fitting = _narrowed(case, fitting)
        if len(fitting) > 1:
            return Ambiguous(
                reason=f"{len(fitting)} CT series are linked to the CBCT and nothing decides"
                " which is the planning CT",
                hint="send the registration or the structure set that names the planning CT",
            )
        if fitting:
            return _Found(instances=fitting[0].instances, reason=reason)
    planned = _drawn_for_plans(case)
    fitting = [c for c in cts if planned & _uids(c)]
    if len(fitting) == 1 and not linked_frames:
        return _Found(instances=fitting[0].instances, reason="by the plan; nothing registers it")
    return Missing(reason="no complete CT is linked to the CBCT", hint="")


def _narrowed(case: _Case, cts: list[Candidate]) -> list[Candidate]:
    """Prefer the CT whose images a registration names, then the one that a plan rests on."""
    for named in (set(_all_named(_registrations(case), "IMAGE")), _drawn_for_plans(case)):
        kept = [c for c in cts if named & _uids(c)]
        if len(cts) > 1 and kept:
            cts = kept
    return cts


def _drawn_for_plans(case: _Case) -> set[str]:
    """Return the images that the structure sets of the patient's plans were drawn on."""
    planned = set(_all_named(case.objects(Kind.RTPLAN), "STRUCTURE_SET"))
    drawn = [i for i in case.objects(Kind.RTSTRUCT) if i.header.sop_instance_uid in planned]
    return set(_all_named(drawn, "IMAGE"))


def _registration(case: _Case) -> _Role:
    """Return the newest registration between the CBCT and the chosen planning CT."""
    planning = case.chosen.get(Role.PLANNING_CT, ())
    if not planning:
        return Missing(reason="there is no planning CT to register to", hint="")
    target = planning[0].header.frame_of_reference_uid
    if target == case.frame:
        return Missing(reason="both images share one frame of reference", hint="")
    fitting = [r for r in _registrations(case) if target in _named(r, "FRAME")]
    newest = max(map(_moment, fitting), default=("", ""))
    fitting = [r for r in fitting if _moment(r) == newest]
    if len(fitting) > 1:
        return Ambiguous(
            reason=f"{len(fitting)} registrations of the same time link the CBCT to its planning"
            " CT",
            hint="send the one registration that was used for treatment",
        )
    return _Found(instances=tuple(fitting), reason="between both frames of reference")


def _registrations(case: _Case) -> list[Instance]:
    """Return the registrations that name the frame of the trigger and another one."""
    return [
        reg
        for reg in case.objects(Kind.REG)
        if case.frame in (frames := set(_named(reg, "FRAME"))) and len(frames) > 1
    ]


_FILLERS: Final[Mapping[Role, Callable[[_Case], _Role]]] = MappingProxyType(
    {
        Role.PLANNING_CT: _planning_ct,
        Role.REG: _registration,
        Role.RTPLAN: _plan,
        Role.RTSTRUCT: _structure_set,
        Role.CT: _contoured_images,
        Role.IMAGE: _measured_images,
    }
)
"""In the order in which one role leads to the next."""


def _by_uid(case: _Case, named: Collection[str], kinds: tuple[Kind, ...], noun: str) -> _Role:
    found = tuple(i for i in case.objects(*kinds) if i.header.sop_instance_uid in named)
    if len(found) == 1:
        return _Found(instances=found, reason="by reference")
    if len(found) > 1:
        return Ambiguous(
            reason=f"the references name {len(found)} different {noun}s",
            hint=f"export each dose with its own {noun}",
        )
    if case.strangers & set(named):
        return Ambiguous(
            reason=f"the {noun} that is referenced belongs to another patient",
            hint="correct the patient identity of one of them and send it again",
        )
    return Missing(
        reason=f"the {noun} {' '.join(sorted(named))} that is referenced is not here",
        hint=f"send the {noun} to this node; the job starts by itself",
    )


def _frozen(case: _Case, reason: str) -> Selection:
    twice = {uid for c in case.patient for uid in c.conflicts}
    touched = sorted(
        i.header.sop_instance_uid
        for instances in case.chosen.values()
        for i in instances
        if i.header.sop_instance_uid in twice
    )
    if touched:
        return Ambiguous(
            reason=f"{len(touched)} inputs arrived twice with different content, the first"
            f" {touched[0]}",
            hint="find out which content is right; release the job to run with the first",
        )
    return Selected(inputs=inputs_of(case.chosen), reason=reason)


def _uids(candidate: Candidate) -> set[str]:
    return {i.header.sop_instance_uid for i in candidate.instances}


def _named(instance: Instance, kind: str) -> list[str]:
    return [r.uid for r in instance.header.references if r.kind == kind]


def _all_named(instances: Iterable[Instance], kind: str) -> list[str]:
    return [uid for i in instances for uid in _named(i, kind)]


def _moment(instance: Instance) -> tuple[str, str]:
    """Return when a registration was made, as it says itself."""
    keywords = instance.header.keywords
    return str(keywords.get("ContentDate") or ""), str(keywords.get("ContentTime") or "")
