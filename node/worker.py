"""Where pipelines run: the child process of the engine, and ``rtnode process`` without a node.

The child reads one JSON line per job on its standard input and answers one JSON line on what was
its standard output; libraries that print find standard error there instead. It has no database
and no network. A job may use `memory_mb` of address space; the child dies with the node.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, cast

import click

from node.config.match import DEFAULT_CBCT
from node.config.model import ImportSection
from node.config.overrides import settings_from
from node.engine.confined import address_space, die_with, go_first, take_standard_output
from node.errors import ConfigError
from node.log import configure, describe, event
from node.routing.folder import Found, scan, strangers
from node.routing.selection import Selected, cases, select
from pipelines.api import (
    InputFile,
    Inputs,
    Json,
    Outcome,
    PipelineError,
    PipelineSpec,
    Provenance,
    Request,
    ResourceExhausted,
    Role,
    settings_sha256,
)
from pipelines.catalog import PIPELINES
from pipelines.registry import load

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serve jobs until standard input ends.

    Parameters
    ----------
    arguments
        Process id of the node, then the pipelines whose libraries are loaded before the first job.
    """
    die_with(int(arguments[0]))
    go_first()
    answers = take_standard_output()
    configure("json", "INFO", sys.stderr)
    for name in arguments[1:]:
        _preload(name)
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, answer(json.loads(line)))
    return 0


def answer(job: Mapping[str, Json]) -> dict[str, Json]:
    """Run one job of the child protocol and return what to answer; never raises."""
    number = job.get("job")
    try:
        with address_space(job.get("memory_mb")):
            outcome = run_request(_request(job), str(job["pipeline"]))
            outcome, held = importable(outcome, cast("Mapping[str, Json]", job.get("profiles", {})))
    except PipelineError as error:
        event(_log, "pipeline_refused", level=logging.WARNING, error=error)
        return _failure(number, error, type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the edge: a mistake of ours must not end the child unsaid
        event(_log, "pipeline_failed", level=logging.ERROR, error=error)
        if _out_of_memory(error):
            return _failure(number, ResourceExhausted("memory ran out"), "ResourceExhausted")
        return {
            "job": number,
            "ok": False,
            "error": type(error).__name__,
            "transient": False,
            "message": f"the pipeline failed: {describe(error)}",
            "hint": "keep the job for the developers; the log holds the traceback",
        }
    return {"job": number, "ok": True, **outcome_json(outcome), "held": held}


def run_request(request: Request, pipeline: str) -> Outcome:
    """Run `pipeline`; a `PipelineError` says why there is no result."""
    return load(pipeline)(request)


def importable(outcome: Outcome, profiles: Mapping[str, Json]) -> tuple[Outcome, dict[str, Json]]:
    """Return an outcome as its destinations can import it, and what is held for which of them.

    Parameters
    ----------
    outcome
        Of the pipeline; files that are fixed are replaced.
    profiles
        Destination -> its `ImportSection` as JSON; without any nothing is looked at.
    """
    if not profiles:
        return outcome, {}
    from pipelines.dicom.import_prepare import prepare  # noqa: PLC0415 - image libraries

    sections = {
        name: ImportSection.model_validate_json(json.dumps(section)).resolved()
        for name, section in profiles.items()
    }
    prepared = prepare(outcome.objects, sections)
    findings = (*outcome.findings, *prepared.findings)
    held: dict[str, Json] = {name: list(why) for name, why in prepared.held.items()}
    return replace(outcome, objects=prepared.objects, findings=findings), held


def make_request(
    spec: PipelineSpec, settings_json: str, files: Sequence[InputFile], output: Path, revision: int
) -> Request:
    """Return the request of one run; settings and provenance follow from the arguments alone."""
    settings = spec.settings.model_validate_json(settings_json)
    return Request(
        inputs=Inputs(files=tuple(files)),
        settings=settings,
        provenance=Provenance(
            pipeline=spec.name,
            version=spec.version,
            settings_sha256=settings_sha256(settings),
            sources=tuple(sorted({(f.sop_instance_uid, f.sha256) for f in files})),
            revision=revision,
        ),
        output=output,
    )


def outcome_json(outcome: Outcome, *, below: Path | None = None) -> dict[str, Json]:
    """Return an outcome as plain JSON, the form of the protocol and of ``report/outcome.json``.

    Paths are absolute, or relative to `below`.
    """
    return {
        "objects": [
            {
                "path": str(o.path if below is None else o.path.relative_to(below)),
                "sop_class_uid": o.sop_class_uid,
                "sop_instance_uid": o.sop_instance_uid,
                "series_instance_uid": o.series_instance_uid,
                "modality": o.modality,
            }
            for o in outcome.objects
        ],
        "findings": [
            {
                "code": f.code,
                "severity": f.severity.value,
                "message": f.message,
                "roi": f.roi,
                "value": f.value,
                "unit": f.unit,
                "limit": f.limit,
            }
            for f in outcome.findings
        ],
        "figures": dict(outcome.figures),
    }


def process_folder(
    pipeline: str, input_dir: Path, output_dir: Path, overrides: Mapping[str, str]
) -> int:
    """Run `pipeline` on a folder of DICOM files, without a node; return the exit code.

    Parameters
    ----------
    pipeline
        Name of the pipeline.
    input_dir
        Read recursively; it must hold exactly one case for the pipeline.
    output_dir
        New or empty; receives the derived ``*.dcm``, ``report/`` and ``report/outcome.json``.
    overrides
        ``--set`` words: setting -> value as written.

    Returns
    -------
    int
        0 only when a result was written; 1 where there is none; 2 for a wrong command line.
    """
    spec = PIPELINES.get(pipeline)
    if spec is None:
        return _refuse(f"there is no pipeline '{pipeline}': take one of {', '.join(PIPELINES)}", 2)
    try:
        settings = settings_from(spec.settings, overrides)
    except ConfigError as error:
        return _refuse(str(error), 2)
    if not input_dir.is_dir():
        return _refuse(f"{input_dir} is not a folder", 2)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        return _refuse(f"{output_dir} is not empty; name a new folder for the results", 2)

    chosen = _only_case(spec, scan(input_dir, DEFAULT_CBCT))
    if isinstance(chosen, str):
        return _refuse(chosen, 1)
    files = [
        InputFile(
            role=Role(i.role), path=i.path, sop_instance_uid=i.sop_instance_uid, sha256=i.sha256
        )
        for i in chosen.inputs
    ]
    output_dir.mkdir(parents=True, exist_ok=True)
    request = make_request(spec, settings.model_dump_json(), files, output_dir, revision=0)
    _tell(f"{pipeline}: {_counted(files)}{'; ' + chosen.reason if chosen.reason else ''}")
    try:
        outcome = run_request(request, pipeline)
    except PipelineError as error:
        return _refuse(f"{type(error).__name__}: {error} ({error.advice})", 1)
    return _write_outcome(request, outcome)


def _only_case(spec: PipelineSpec, found: Found) -> Selected | str:
    """Return the one case that the folder holds, or the sentence that says why there is none."""
    selected: list[Selected] = []
    refused: list[str] = []
    for trigger in found.candidates:
        if trigger.kind.value not in {r.value for r in spec.starts_on} or trigger.ours:
            continue
        if not trigger.complete:
            verdict = found.verdicts[trigger.series_instance_uid]
            refused.append(f"series {trigger.series_instance_uid}: {verdict.sentence}")
            continue
        others = strangers(found.candidates, trigger.patient_key)
        for case in cases(spec, trigger):
            answer = select(spec, case, found.candidates, strangers=others)
            if isinstance(answer, Selected):
                selected.append(answer)
            else:
                refused.append(
                    f"series {trigger.series_instance_uid}: {answer.reason} ({answer.hint})"
                )
    if len(selected) == 1:
        return selected[0]
    if selected:
        return f"the folder holds {len(selected)} cases for {spec.name}; give one that holds one"
    if refused:
        return "; ".join(refused)
    kinds = sorted({candidate.kind.value for candidate in found.candidates})
    held = f"it holds {', '.join(kinds)}" if kinds else "it holds no DICOM object"
    wanted = " or ".join(role.value for role in spec.starts_on)
    return f"{spec.name} needs a {wanted} series; {held}"


def _write_outcome(request: Request, outcome: Outcome) -> int:
    if not outcome.objects:
        return _refuse("the pipeline wrote no object", 1)
    provenance = request.provenance
    record: dict[str, Json] = {
        "pipeline": provenance.pipeline,
        "version": provenance.version,
        "settings": request.settings.model_dump(mode="json"),
        "inputs": [{"role": f.role.value, "sop_instance_uid": f.sop_instance_uid,
                    "sha256": f.sha256} for f in request.inputs.files],
        **outcome_json(outcome, below=request.output),
    }  # fmt: skip
    report = request.output / "report"
    report.mkdir(exist_ok=True)
    (report / "outcome.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for finding in outcome.findings:
        named = finding.roi is None or finding.roi in finding.message
        where = "" if named else f"{finding.roi}: "
        _tell(f"{finding.severity.value}: {where}{finding.message}")
    for derived in outcome.objects:
        _tell(f"wrote {derived.path}")
    return 0


def _preload(name: str) -> None:
    """Load the libraries of a pipeline; where that fails its jobs fail, and nobody else's."""
    try:
        load(name)
    except Exception as error:  # noqa: BLE001 - a missing library or model must not stop the others
        event(_log, "pipeline_unloadable", level=logging.ERROR, error=error, pipeline=name)


def _request(job: Mapping[str, Json]) -> Request:
    """Return the request that a line of the child protocol describes."""
    given = cast("list[Mapping[str, str]]", job["inputs"])
    files = [
        InputFile(
            role=Role(i["role"]),
            path=Path(i["path"]),
            sop_instance_uid=i["sop_instance_uid"],
            sha256=i["sha256"],
        )
        for i in given
    ]
    return make_request(
        PIPELINES[str(job["pipeline"])],
        json.dumps(job["settings"]),
        files,
        Path(str(job["output"])),
        revision=int(cast("int", job["revision"])),
    )


def _failure(number: Json, error: PipelineError, name: str) -> dict[str, Json]:
    return {
        "job": number,
        "ok": False,
        "error": name,
        "transient": error.transient,
        "message": str(error),
        "hint": error.advice,
    }


def _out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out; torch and ITK say so in a RuntimeError."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error).lower()


def _say(answers: TextIO, line: Mapping[str, Json]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _counted(files: Sequence[InputFile]) -> str:
    counts = Counter(f.role.value for f in files)
    return ", ".join(f"{count} {role}" for role, count in sorted(counts.items()))


def _tell(line: str) -> None:
    click.echo(line)


def _refuse(line: str, code: int) -> int:
    click.echo(line, err=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
