"""Is a series whole? Evidence first, silence second; never a guess about what a peer still has.

An image series is whole when its slices form one equally spaced stack and the sender released its
association, or when every image that a structure set or registration references is here. Where
that decides nothing, a quiet period does, still on condition that the geometry is sound. A broken
association proves that something may be missing even when the slices that came lie side by side,
so such a series waits for a re-send or for a person.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node.config.match import Kind
from node.domain import Instance
from node.routing.facts import Arrival
from pipelines.geometry.stack import TOLD_GAPS, SlicePose, StackReport
from pipelines.geometry.stack import examine as examine_stack

STACKED: Final = frozenset({Kind.CT, Kind.CBCT, Kind.PT})
"""Kinds whose slices must form one stack."""
WHOLE_ALONE: Final = frozenset({Kind.RTSTRUCT, Kind.POINTS, Kind.RTPLAN, Kind.RTDOSE, Kind.REG})
"""Kinds whose every object is whole by itself."""
_MULTI_FRAME: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
        "1.2.840.10008.5.1.4.1.1.130",
        "1.2.840.10008.5.1.4.1.1.128.1",
    }
)
"""Enhanced and Legacy Converted Enhanced CT and PET: the positions are inside the one object."""
_ENOUGH_TO_SEE_A_SPACING: Final = 3
"""Two slices are always equally spaced."""


class Wholeness(StrEnum):
    """What the evidence says."""

    WHOLE = "WHOLE"
    WAIT = "WAIT"
    """More may come and put it right."""
    CONTRADICTION = "CONTRADICTION"
    """Nothing that may still come puts it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer and the sentence that is stored with the series."""

    wholeness: Wholeness
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long silence must last, in seconds."""

    after_release_s: float
    otherwise_s: float
    """While an association is open or was broken off."""
    moment_s: float = 0.3
    """After a release, before any evidence counts: a parallel association may follow at once."""


def examine(
    kind: Kind,
    instances: Sequence[Instance],
    arrival: Arrival,
    patience: Patience,
    *,
    referenced: Collection[str] = (),
    conflicts: int = 0,
) -> Verdict:
    """Return whether the series is whole now.

    Parameters
    ----------
    kind
        What the series was recognized as.
    instances
        Its objects, without scouts and without second contents of a taken UID; any order.
    arrival
        How and when they came in.
    patience
        The quiet periods.
    referenced
        SOP Instance UIDs of this series that other objects reference.
    conflicts
        How many of its UIDs arrived with a second content, which is set aside.

    Notes
    -----
    The sentence holds counts and positions only.
    """
    if arrival.open_associations and arrival.quiet_s < patience.otherwise_s:
        return _wait(f"{len(instances)} received, the association is still open")
    if arrival.quiet_s < patience.moment_s:
        return _wait(f"{len(instances)} received, the association has just ended")
    if mixed := _mixed_identity(kind, instances):
        return _settled(arrival, patience, mixed)
    if kind in WHOLE_ALONE:
        return _whole(f"{_count(len(instances), 'object')}, each whole by itself")
    if kind in STACKED and not all(i.header.sop_class_uid in _MULTI_FRAME for i in instances):
        return _stack(instances, arrival, patience, frozenset(referenced), conflicts)
    return _loose(instances, arrival, patience)


def _stack(
    instances: Sequence[Instance],
    arrival: Arrival,
    patience: Patience,
    referenced: frozenset[str],
    conflicts: int,
) -> Verdict:
    """Judge slices that must form one stack."""
    poses = [pose for pose in map(pose_of, instances) if pose is not None]
    if len(poses) < len(instances):
        homeless = len(instances) - len(poses)
        return _settled(
            arrival,
            patience,
            f"{homeless} of {_count(len(instances), 'slice')} state no position, orientation or"
            " pixel spacing",
        )
    report = examine_stack(poses)
    if report.problems:
        sentence = f"{_count(len(poses), 'slice')}: {'; '.join(report.problems)}"
        if conflicts:
            sentence += f"; {_count(conflicts, 'UID')} of it came again with other content"
        only_gaps = len(report.problems) == min(len(report.gaps), TOLD_GAPS + 1)
        curable = only_gaps or len(poses) == 1
        return _wait(sentence) if curable else _settled(arrival, patience, sentence)

    here = {i.header.sop_instance_uid for i in instances}
    if missing := referenced - here:
        return _wait(
            f"{len(missing)} of {len(referenced)} images that other objects reference are missing"
        )
    told = _told(report)
    if referenced and referenced == here:
        return _whole(f"{told}; all images that other objects reference are here")
    if arrival.interrupted:
        return _wait(
            f"{told}; but an association broke off, or brought objects that were refused, and"
            " nothing says that these are all: re-send"
        )
    telling = report.uniform and len(poses) >= _ENOUGH_TO_SEE_A_SPACING
    if telling and not arrival.open_associations and not arrival.one_by_one:
        return _whole(f"{told}; the association was released")
    return _quiet(arrival, patience, told)


def _loose(instances: Sequence[Instance], arrival: Arrival, patience: Patience) -> Verdict:
    """Judge objects that need not form one stack; only the end of the transfer speaks."""
    told = _count(len(instances), "object")
    if arrival.interrupted:
        return _wait(
            f"{told}; but an association broke off, or brought objects that were refused, and"
            " nothing says that these are all: re-send"
        )
    if not arrival.open_associations and not arrival.one_by_one:
        return _whole(f"{told}; the association was released")
    return _quiet(arrival, patience, told)


def _quiet(arrival: Arrival, patience: Patience, told: str) -> Verdict:
    needed = patience.otherwise_s if arrival.open_associations else patience.after_release_s
    if arrival.quiet_s < needed:
        return _wait(f"{told}; waiting for {needed:g} s of silence")
    return _whole(f"{told}; silent for {needed:g} s")


def _settled(arrival: Arrival, patience: Patience, sentence: str) -> Verdict:
    """Return a contradiction once the transfer is over; until then the picture may be partial."""
    over = not arrival.open_associations or arrival.quiet_s >= patience.otherwise_s
    if over and arrival.quiet_s >= patience.after_release_s:
        return Verdict(wholeness=Wholeness.CONTRADICTION, sentence=sentence)
    return _wait(sentence)


def _mixed_identity(kind: Kind, instances: Sequence[Instance]) -> str:
    frames = {i.header.frame_of_reference_uid for i in instances} if kind in STACKED else set()
    for what, values in (
        ("patients", {i.header.patient_key for i in instances}),
        ("studies", {i.header.study_instance_uid for i in instances}),
        ("frames of reference", frames),
    ):
        if len(values) > 1:
            return f"the objects of this one series belong to {len(values)} different {what}"
    return ""


def pose_of(instance: Instance) -> SlicePose | None:
    """Return where a slice lies, or None where its header does not say it."""
    header = instance.header.keywords
    position = _numbers(header.get("ImagePositionPatient"), 3)
    cosines = _numbers(header.get("ImageOrientationPatient"), 6)
    spacing = _numbers(header.get("PixelSpacing"), 2)
    rows, columns = header.get("Rows"), header.get("Columns")
    if not (
        position and cosines and spacing and isinstance(rows, int) and isinstance(columns, int)
    ):
        return None
    return SlicePose(
        position=(position[0], position[1], position[2]),
        row_direction=(cosines[0], cosines[1], cosines[2]),
        column_direction=(cosines[3], cosines[4], cosines[5]),
        spacing=(spacing[0], spacing[1]),
        rows=rows,
        columns=columns,
    )


def _numbers(value: object, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(isinstance(v, int | float) for v in value):
        return None
    return [float(v) for v in value]


def _told(report: StackReport) -> str:
    count = _count(len(report.positions), "slice")
    if report.uniform:
        return f"{count}, {report.spacing:.2f} mm apart, no gap"
    return f"{count}, uneven steps around {report.spacing:.2f} mm, no gap"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wait(sentence: str) -> Verdict:
    return Verdict(wholeness=Wholeness.WAIT, sentence=sentence)


def _whole(sentence: str) -> Verdict:
    return Verdict(wholeness=Wholeness.WHOLE, sentence=sentence)
