"""``rtnode replay``: run a recorded job again, beside the node, and compare with what it made."""

from pathlib import Path
from typing import Final

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.clock import SystemClock
from node.config.model import Config
from node.store.part10 import sha256_of_file
from node.store.records import JobDetail
from node.store.store import open_reader
from pipelines.api import InputFile, Outcome, PipelineError, Role
from pipelines.catalog import PIPELINES

_SAME: Final = "identical"
_DIFFERENT: Final = "DIFFERENT"
_NEW: Final = "not made before"
_GONE: Final = "not made again"


@click.command()
@click.argument("job", type=int)
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@config_option
@json_option
def replay(job: int, output: Path, config: Config, *, as_json: bool) -> None:
    """Run JOB again on its recorded inputs; the results go to OUTPUT, a new folder.

    Nothing is delivered and the ledger is not touched. Each object is compared with the one that
    the job made: with the same version and settings the bytes are the same. The exit code is 0
    when a result was made and nothing differs, or the job had made nothing.
    """
    from node.worker import importable, make_request, run_request  # noqa: PLC0415 - loads the pipelines

    ledger = open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)
    detail = ledger.job_detail(job)
    if detail is None:
        raise click.BadParameter(f"there is no job {job}", param_hint="JOB")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise click.BadParameter(f"{output} is not empty", param_hint="OUTPUT")
    output.mkdir(parents=True, exist_ok=True)
    recorded = detail.job
    spec = PIPELINES[recorded.pipeline]
    files = [
        InputFile(
            role=Role(i.role), path=i.path, sop_instance_uid=i.sop_instance_uid, sha256=i.sha256
        )
        for i in recorded.inputs
    ]
    request = make_request(spec, recorded.settings_json, files, output, recorded.revision)
    try:
        outcome = run_request(request, recorded.pipeline)
        sections = config.import_profiles().items()
        profiles = {n: s.model_dump(mode="json") for n, s in sections if n in recorded.destinations}
        outcome, _ = importable(outcome, profiles)
    except PipelineError as error:
        click.echo(f"{type(error).__name__}: {error} ({error.advice})", err=True)
        click.get_current_context().exit(Exit.FAILED)
    verdicts = _compared(detail, outcome)
    if as_json:
        echo_json({"job": job, "version": spec.version, "objects": verdicts})
    else:
        for uid, verdict in verdicts.items():
            click.echo(f"{verdict:<15} {uid}")
        if spec.version != recorded.pipeline_version:
            click.echo(
                f"the job ran with {recorded.pipeline} {recorded.pipeline_version},"
                f" this is {spec.version}: other UIDs are expected"
            )
    differs = bool(detail.results) and set(verdicts.values()) != {_SAME}
    click.get_current_context().exit(Exit.FAILED if differs else Exit.DONE)


def _compared(detail: JobDetail, outcome: Outcome) -> dict[str, str]:
    """Return SOP Instance UID -> how the object compares with the recorded one."""
    before = {str(result.sop_instance_uid): result.sha256 for result in detail.results}
    verdicts = {}
    for derived in outcome.objects:
        uid = str(derived.sop_instance_uid)
        known = before.pop(uid, None)
        if known is None:
            verdicts[uid] = _NEW
        else:
            verdicts[uid] = _SAME if sha256_of_file(derived.path) == known else _DIFFERENT
    return verdicts | dict.fromkeys(before, _GONE)
