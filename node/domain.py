"""Value objects of the node: frozen, keyword-only, named in the standard's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NewType, Protocol

from node.lifecycle import JobState, SeriesState

AETitle = NewType("AETitle", str)
"""Application entity title, 1-16 characters, no backslash (PS3.5 6.2), spaces trimmed."""
Uid = NewType("Uid", str)
"""Unique identifier as received; longer than 64 characters or odd ones exist in the wild."""


class Clock(Protocol):
    """Wall time for records, monotonic time for waiting; injected, so that tests can bend it."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who handed an object over."""

    calling_ae_title: AETitle
    called_ae_title: AETitle
    address: str
    """IP address, or ``folder`` for the hot folder."""
    association_id: str
    """Our correlation id: eight hex digits, in every log line of the association."""


class Kept(StrEnum):
    """What became of an accepted object; each one is answered 0x0000."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    """The same bytes were durable already."""
    CONFLICT = "CONFLICT"
    """The SOP Instance UID was there with other content; both are kept, the new one flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An object that is durable: bytes, name, and a receipt or a row are synced."""

    kept: Kept
    sha256: str
    sop_instance_uid: Uid
    series_instance_uid: Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A UID that an instance points to."""

    kind: str
    """IMAGE, STRUCTURE_SET, PLAN, DOSE, SERIES or FRAME."""
    uid: Uid
    within: Uid | None = None
    """The series that the reference names around an IMAGE, where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the node reads of a data set; no pixels, no full iteration."""

    sop_class_uid: Uid
    sop_instance_uid: Uid
    study_instance_uid: Uid
    series_instance_uid: Uid
    transfer_syntax_uid: Uid
    frame_of_reference_uid: Uid | None
    modality: str
    patient_key: str
    """Hash of PatientID and its issuer; of the study UID where PatientID is empty."""
    keywords: Mapping[str, str | float | int | list[str] | list[float] | None]
    """DICOM keyword -> value, for routing and geometry; holds no patient identity."""
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A stored instance; exists only as a committed row whose file is synced."""

    header: Header
    path: Path
    """Absolute path of the DICOM file; its name is a content hash."""
    sha256: str
    size: int
    """Bytes of the data set."""
    source: Source
    received_at: datetime
    conflict: bool
    """True for content that arrived under a UID that was already taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series as the ledger sees it."""

    series_instance_uid: Uid
    study_instance_uid: Uid
    patient_key: str
    modality: str
    state: SeriesState
    revision: int
    """Raised by each new instance that arrives after the series was COMPLETE or INCOMPLETE."""
    count: int
    reason: str
    """Why it is COMPLETE or INCOMPLETE."""
    first_received_at: datetime
    last_received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """One frozen input of a job."""

    role: str
    sop_instance_uid: Uid
    sha256: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be inserted, at most once by its `dedupe` key."""

    route: str
    pipeline: str
    pipeline_version: str
    settings_json: str
    """Canonical JSON of the pipeline settings, complete with defaults."""
    destinations: tuple[str, ...]
    priority: int
    series_instance_uid: Uid
    """The trigger."""
    series_revision: int
    inputs: tuple[JobInput, ...]
    revision: int = 0
    """Raised when a person forces a re-process of unchanged inputs."""
    start_reason: str
    """The evidence that started it."""
    correlation: str
    """Association id of the trigger's last instance."""
    held: tuple[str, str] | None = None
    """(reason, hint) when it must not run but must be seen."""
    max_attempts: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger sees it."""

    id: int
    route: str
    pipeline: str
    pipeline_version: str
    settings_json: str
    destinations: tuple[str, ...]
    priority: int
    series_instance_uid: Uid
    series_revision: int
    revision: int
    state: JobState
    reason: str
    hint: str
    attempt: int
    max_attempts: int
    token: int
    """Fence: every write of a worker names the token of its claim."""
    start_reason: str
    correlation: str
    created_at: datetime
    not_before: datetime | None
    inputs: tuple[JobInput, ...] = ()

    def log_context(self) -> dict[str, str | int]:
        """Return the fields that every log line about this job carries."""
        return {
            "job": self.id,
            "assoc": self.correlation,
            "pipeline": self.pipeline,
            "route": self.route,
            "attempt": self.attempt,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A derived object that a worker left in its work folder, checked and ready to publish."""

    path: Path
    sop_class_uid: Uid
    sop_instance_uid: Uid
    series_instance_uid: Uid
    modality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One object on its way to one destination."""

    id: int
    job_id: int
    destination: str
    sop_class_uid: Uid
    sop_instance_uid: Uid
    transfer_syntax_uid: Uid
    path: Path
    attempt: int
    created_at: datetime | None = None
    """When it was queued: past the limit of `delivery.give_up_after_days` a person is asked."""
    correlation: str = ""
    doubtful: bool = False
    """An earlier attempt ended without an answer: the peer may hold the object already."""
    report: Path | None = None
    """Folder of the job's report, with its tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentDelivery:
    """What a peer answered to a delivery that it keeps."""

    delivery_id: int
    status: int | None
    """Of the response; None where it was sent and not answered."""
    note: str = ""
    """A warning that came with the status."""


class Arrival(Protocol):
    """An object on its way in."""

    def write(self, fragment: memoryview, /) -> None:
        """Take the next bytes of the data set; they are valid during the call only.

        Never raises for lack of room: `accept` tells, and the sender gets its answer.
        """
        ...

    def accept(self) -> Accepted:
        """Return when the object is durable; raise a `NodeError` when it is not."""
        ...

    def discard(self) -> None:
        """Forget the object: its sender gave up. Harmless after `accept`."""
        ...


class Door(Protocol):
    """Where objects come in (`node.routing.door.Door`): all that a receiver needs of the node."""

    def receive(
        self,
        *,
        transfer_syntax_uid: Uid,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        source: Source,
    ) -> Arrival:
        """Begin to take in the object that a request names."""
        ...

    def association_opened(self, source: Source) -> None:
        """Record that an association can deliver from now on."""
        ...

    def association_ended(
        self, association_id: str, *, end: str, received: int, refused: int
    ) -> None:
        """Record how an association ended: RELEASED, ABORTED or LOST."""
        ...
