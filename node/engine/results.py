"""What a worker left behind is looked at once more before any of it becomes a result.

The pipelines check their own objects in depth. The node asks only what it can ask cheaply and
must never get wrong: is each file the object that the answer names, and does it belong to the
patient and study of the inputs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from node.domain import Job, ResultFile
from node.engine.child import Line
from node.errors import CannotUnderstand, NodeError
from node.store.header import read_header
from pipelines.api import Json, Severity


class NotOurResult(NodeError):
    """What the worker left is not what it said, or not of the patient and study of the inputs."""

    hint = "keep the job for the developers: nothing was sent, the output is in its work folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An answer that may be recorded."""

    results: tuple[ResultFile, ...]
    findings: list[Json]
    figures: Json
    hold: tuple[str, str] | None
    """(reason, hint) when a finding forbids to send the results before a person looked."""
    held: Mapping[str, tuple[str, str]]
    """Destination -> (reason, hint) where its import profile forbids to send them."""


def check(job: Job, answer: Line, output: Path) -> Checked:
    """Return the results of a successful answer.

    Raises
    ------
    NotOurResult
        With the position of the object in the answer, never with an identifier of a patient.
    """
    objects = cast("list[dict[str, str]]", answer.get("objects") or [])
    if not objects:
        raise NotOurResult("the pipeline reported success and wrote no object")
    results = tuple(_described(o, number, output) for number, o in enumerate(objects, start=1))
    if len({r.sop_instance_uid for r in results}) < len(results):
        raise NotOurResult("two objects bear the same SOP Instance UID")
    _same_patient_and_study(job, results)
    findings = cast("list[Json]", answer.get("findings") or [])
    held = cast("dict[str, list[str]]", answer.get("held") or {})
    return Checked(
        results=results,
        findings=findings,
        figures=answer.get("figures") or {},
        hold=_hold(findings),
        held={name: (why[0], why[1]) for name, why in held.items()},
    )


def _described(described: dict[str, str], number: int, output: Path) -> ResultFile:
    """Return the result file that object `number` of the answer describes, compared with it."""
    path = Path(described["path"])
    if not path.resolve().is_relative_to(output.resolve()):
        raise NotOurResult(f"object {number} lies outside the work folder")
    try:
        header = read_header(path)
    except (CannotUnderstand, OSError) as error:
        raise NotOurResult(f"object {number} cannot be read: {type(error).__name__}") from error
    for keyword, said, written in (
        ("SOPClassUID", described["sop_class_uid"], header.sop_class_uid),
        ("SOPInstanceUID", described["sop_instance_uid"], header.sop_instance_uid),
        ("SeriesInstanceUID", described["series_instance_uid"], header.series_instance_uid),
        ("Modality", described["modality"], header.modality),
    ):
        if said != written:
            raise NotOurResult(f"object {number} has another {keyword} than the answer says")
    return ResultFile(
        path=path,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        modality=header.modality,
    )


def _same_patient_and_study(job: Job, results: Iterable[ResultFile]) -> None:
    """Compare each result with the inputs of the job, from the stored bytes of both."""
    firsts = {i.role: i.path for i in reversed(job.inputs)}
    inputs = [read_header(path) for path in firsts.values()]
    studies = {header.study_instance_uid for header in inputs}
    patients = {header.patient_key for header in inputs}
    taken = {i.sop_instance_uid for i in job.inputs}
    for number, result in enumerate(results, start=1):
        header = read_header(result.path)
        if header.study_instance_uid not in studies:
            raise NotOurResult(f"object {number} is in another study than the inputs")
        if {header.patient_key} != patients:
            raise NotOurResult(f"object {number} is of another patient than the inputs")
        if header.sop_instance_uid in taken:
            raise NotOurResult(f"object {number} bears the UID of an input")


def _hold(findings: list[Json]) -> tuple[str, str] | None:
    blocking = [
        str(f.get("message") or f.get("code"))
        for f in findings
        if isinstance(f, dict) and f.get("severity") == Severity.BLOCK
    ]
    if not blocking:
        return None
    return "; ".join(
        blocking
    ), "look at the report; release the job to send the results all the same"
