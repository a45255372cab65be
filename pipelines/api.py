"""The seam that every pipeline stands behind: inputs in, derived objects with provenance out.

A pipeline is a plain function ``run(request) -> Outcome``. It reads the files that the request
names, writes DICOM files and a report folder under ``request.output``, and either returns or
raises a `PipelineError`. It knows nothing of networks, queues or databases, so the same code
serves the node, the command line and the tests. This module imports no image or learning library.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, TypeAlias

from pydantic import BaseModel

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What `json.dumps` takes without a custom encoder."""


class Role(StrEnum):
    """What an input is to a pipeline; one role may be filled by many instances."""

    CT = "CT"
    """Slices of the CT to be contoured, or of the CT that structures were drawn on."""
    IMAGE = "IMAGE"
    """Slices of the CT, synthetic CT or MR that structures were drawn on, as what is measured."""
    CBCT = "CBCT"
    """Slices of a cone-beam CT."""
    PLANNING_CT = "PLANNING_CT"
    """Slices of the patient's planning CT, as a prior for another image."""
    RTSTRUCT = "RTSTRUCT"
    RTPLAN = "RTPLAN"
    RTDOSE = "RTDOSE"
    REG = "REG"
    """Spatial registration between the frames of reference of two inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One stored instance, frozen by content."""

    role: Role
    path: Path
    sop_instance_uid: str
    sha256: str
    """Of transfer syntax UID + data set bytes, the node's content identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The frozen input set of one run."""

    files: tuple[InputFile, ...]

    def paths(self, role: Role) -> tuple[Path, ...]:
        """Return the paths that fill `role`, in no particular order."""
        return tuple(f.path for f in self.files if f.role is role)


class Severity(StrEnum):
    """What a finding means for the result."""

    INFO = "INFO"
    WARN = "WARN"
    """Deliver, flagged."""
    BLOCK = "BLOCK"
    """Hold: a person must look before anything is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation about an input or a result, in words a physicist understands."""

    code: str
    """Stable kebab-case name, e.g. ``roi-outside-dose``."""
    severity: Severity
    message: str
    roi: str | None = None
    value: float | None = None
    unit: str | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a result comes from; part of every derived object, UID and log line."""

    pipeline: str
    version: str
    settings_sha256: str
    sources: tuple[tuple[str, str], ...]
    """(SOP Instance UID, sha256) of every input, sorted."""
    model: str = "classical"
    """Name and version of the model pack, or the classical method."""
    model_sha256: str = ""
    revision: int = 0
    """0, unless a person forced a re-process of unchanged inputs."""

    def uid(self, kind: str, index: int | str = 0) -> str:
        """Return a UID that is the same for the same inputs, version, model and settings."""
        identity = [
            "rtnode-uid-v1",
            [f"{uid}:{sha}" for uid, sha in self.sources],
            self.pipeline,
            self.version,
            self.model_sha256,
            self.settings_sha256,
            self.revision,
            kind,
            index,
        ]
        return content_uid(identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything one run may depend on. Nothing else may influence the result."""

    inputs: Inputs
    settings: BaseModel
    """An instance of the `PipelineSpec.settings` of the pipeline, frozen."""
    provenance: Provenance
    output: Path
    """Existing empty folder. Derived ``*.dcm`` go here, pictures and tables to ``report/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedObject:
    """One DICOM file that a pipeline wrote and has read back."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    modality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run produced."""

    objects: tuple[DerivedObject, ...]
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Json] = field(default_factory=dict)
    """Key figures for logs, tables and the report page: plain JSON, units in the key."""


Run: TypeAlias = Callable[[Request], Outcome]
"""The one function a pipeline offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """What the node must know of a pipeline without importing it."""

    name: str
    version: str
    """Raise it whenever the same inputs may give other bytes."""
    trigger: Role
    """A complete series in this role asks for a run."""
    required: tuple[Role, ...]
    """Besides the trigger; the job waits until all are there."""
    optional: tuple[Role, ...]
    """Taken when there; never waited for."""
    settings: type[BaseModel]
    also: tuple[Role, ...] = ()
    """Series of these roles ask for a run, too, and stand in the trigger's role."""

    @property
    def starts_on(self) -> tuple[Role, ...]:
        """Return the kinds of series that ask for a run."""
        return (self.trigger, *self.also)


class PipelineError(Exception):
    """A pipeline could not produce a result.

    InputRejected        the input cannot give a right result          (final)
    ModelUnavailable     a model pack is missing, changed or unfit     (final)
    OutputInvalid        our own object failed its check               (final)
    ResourceExhausted    memory or time ran out                        (worth another try)

    `transient` and `hint` are all that a retry policy and an operator need; messages hold
    positions, counts and UIDs, never a name or an identifier of a patient.
    """

    transient: ClassVar[bool] = False
    hint: ClassVar[str] = "see the job's report"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])
        self.advice = hint or type(self).hint


class InputRejected(PipelineError):
    """The input cannot give a right result."""

    hint = "correct or re-send the input; a new revision starts by itself"


class ModelUnavailable(PipelineError):
    """A model pack is missing, was changed, or does not fit the input."""

    hint = "run `rtnode check`; re-install the model pack"


class OutputInvalid(PipelineError):
    """The object we wrote failed its own check; it is not sent."""

    hint = "keep the job for the developers: the output is in its work folder"


class ResourceExhausted(PipelineError):
    """Memory or time ran out."""

    transient = True
    hint = "raise the limits of the route, or give the node more memory"


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys and no spaces: one text for one meaning."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_uid(identity: object) -> str:
    """Return the UID that stands for `identity` and nothing else.

    ``2.25.<int of a version 8 UUID>`` (PS3.5 B.2; RFC 9562), at most 44 characters.
    """
    digest = hashlib.sha256(canonical_json(identity).encode()).digest()[:16]
    bits = int.from_bytes(digest, "big")
    bits = bits & ~(0xF << 76) | (8 << 76)  # version 8: custom
    bits = bits & ~(0x3 << 62) | (2 << 62)  # RFC 9562 variant
    return f"2.25.{uuid.UUID(int=bits).int}"


def settings_sha256(settings: BaseModel) -> str:
    """Return the SHA-256 of the canonical JSON of `settings`."""
    return hashlib.sha256(canonical_json(settings.model_dump(mode="json")).encode()).hexdigest()
