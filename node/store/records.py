"""What the ledger answers, beside the value objects of `node.domain`: all plain, all frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from node.domain import AETitle, Job, Uid
from node.lifecycle import DeliveryState
from pipelines.api import Json


class DecisionState(StrEnum):
    """What a route made of a series."""

    WAITING = "WAITING"
    """A required input is not here yet; looked at again with each arrival."""
    JOB = "JOB"
    """A job was started."""
    HELD = "HELD"
    """Ambiguous, or waited too long: a held job shows it to a person."""
    NONE = "NONE"
    """Nothing is to be done with this series."""
    UNJUDGED = "UNJUDGED"
    """A mistake of the node: shown to a person, judged again at each start and with news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a route made of one revision of a series."""

    series_instance_uid: Uid
    series_revision: int
    route: str
    """Empty where no route matched."""
    state: DecisionState
    reason: str
    first_at: datetime
    job_id: int | None
    created: bool = False
    """True when recording it inserted a new job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationInfo:
    """An association, as far as it concerns a series."""

    association_id: str
    calling_ae_title: AETitle
    called_ae_title: AETitle
    address: str
    opened_at: datetime
    ended_at: datetime | None
    """None while it is open. A source without associations, e.g. a folder, ends with its last
    object."""
    end: str
    """RELEASED, ABORTED or LOST; empty while it is open."""
    instances: int = 0
    """Objects of the series that came on it first; repeated ones do not count."""
    refused: int = 0
    """Objects of any series that it brought and that were not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationLine:
    """An association as people look at it."""

    association_id: str
    calling_ae_title: AETitle
    called_ae_title: AETitle
    address: str
    opened_at: datetime
    ended_at: datetime | None
    end: str
    """RELEASED, ABORTED or LOST; empty while it is open."""
    received: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """One claim of a job."""

    number: int
    owner: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    """The `JobEvent` that ended it; empty while it runs."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLine:
    """A derived object that is stored."""

    sop_instance_uid: Uid
    sop_class_uid: Uid
    series_instance_uid: Uid
    modality: str
    sha256: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """A delivery as people look at it."""

    id: int
    destination: str
    sop_instance_uid: Uid
    state: DeliveryState
    attempt: int
    status: int | None
    """Last DIMSE status of the peer."""
    reason: str
    hint: str
    not_before: datetime | None
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One thing that happened."""

    at: datetime
    action: str
    kind: str
    """instance, series, job, delivery or node."""
    subject: str
    correlation: str
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """Everything the ledger knows of a job."""

    job: Job
    changed_at: datetime
    finished_at: datetime | None
    superseded_by: int | None
    """Newer revision of the trigger series."""
    findings: Json
    figures: Json
    report: str
    """Folder of the report, as the engine named it."""
    attempts: tuple[AttemptLine, ...]
    results: tuple[ResultLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    events: tuple[EventLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much there is, by state."""

    series: Mapping[str, int]
    jobs: Mapping[str, int]
    deliveries: Mapping[str, Mapping[str, int]]
    """Destination -> state -> count."""
    instances: int
    conflicts: int
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """Work that waits: jobs by pipeline, deliveries by destination."""

    kind: str
    """job or delivery."""
    name: str
    waiting: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldItem:
    """Something that a person must look at."""

    kind: str
    """job, delivery or series."""
    id: str
    """Number of the job or delivery; UID of the series."""
    subject: str
    """What it is about: route and pipeline, destination and UID, modality."""
    reason: str
    hint: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An object that we could not understand."""

    id: int
    sha256: str
    path: Path | None
    """None where the quarantine was full."""
    size: int
    reason: str
    calling_ae_title: AETitle
    association_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a start found and put right."""

    jobs_rescheduled: int = 0
    jobs_held: int = 0
    """Their attempts were spent: the node itself may have died of them."""
    deliveries_pending: int = 0
    associations_lost: int = 0
    taken_over: int = 0
    """Objects that were answered and had no row yet."""
    orphans: int = 0
    """Files without a row, set aside."""
    missing: tuple[str, ...] = ()
    """Rows without a file: must be impossible; each is an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that must not be."""

    kind: str
    """A kind of `node.store.invariants.QUESTIONS`, or of a file: missing, changed or unknown."""
    subject: str
    """A UID, a job, a delivery, or a file name relative to the data folder."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a whole verification found."""

    problems: tuple[Problem, ...]
    files: int
    """Files whose every byte was read."""
    bytes: int
    purged: int
    """Files that retention removed; their rows stay."""
    open_work: Mapping[str, int]
    """Series, decisions, jobs and deliveries that have not come to their end."""
