"""``rtnode explain``: the whole story of a study, series, object, result or job."""

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.story import Step, tell
from node.cli.text import at, tallied
from node.clock import SystemClock
from node.config.model import Config
from node.lifecycle import DeliveryState, JobState
from node.store.ledger import Ledger
from node.store.records import EventLine, JobDetail
from node.store.store import open_reader


@click.command()
@click.argument("what")
@config_option
@json_option
def explain(what: str, config: Config, *, as_json: bool) -> None:
    """Tell the story of WHAT: the UID of a study, series, object or result, or a job's number.

    What arrived and when it counted as complete, which route took it and why, what the job did,
    where its results are, and what is left to do.
    """
    ledger = open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)
    events = _of_job(ledger, int(what)) if what.isdecimal() else ledger.explain(what)
    steps = tell(events)
    jobs = _jobs(ledger, steps)
    if as_json:
        echo_json({"what": what, "events": events, "jobs": jobs})
    else:
        for step in steps:
            click.echo(_line(step))
        for job in jobs:
            click.echo("")
            for line in _now(job):
                click.echo(line)
    if not events:
        click.echo(
            f"nothing is known of {what}; `rtnode status` lists the last associations and whether"
            " they were refused",
            err=True,
        )
        click.get_current_context().exit(Exit.FAILED)


def _of_job(ledger: Ledger, number: int) -> list[EventLine]:
    """Return what happened to a job, and to its trigger series before it."""
    job = ledger.job(number)
    if job is None:
        return []
    of_series = [
        event
        for event in ledger.explain(job.series_instance_uid)
        if event.kind == "series" and event.detail.get("job", number) == number
    ]
    return sorted([*ledger.explain(f"job:{number}"), *of_series], key=lambda event: event.at)


def _jobs(ledger: Ledger, steps: list[Step]) -> list[JobDetail]:
    numbers = sorted({int(s.who.removeprefix("job ")) for s in steps if s.who.startswith("job ")})
    found = (ledger.job_detail(number) for number in numbers)
    return [job for job in found if job is not None]


def _line(step: Step) -> str:
    many = f"  ({step.count} times, until {at(step.until)})" if step.count > 1 else ""
    return f"{at(step.at)}  {step.who:<12} {step.what}{many}"


def _now(detail: JobDetail) -> list[str]:
    """Return how a job stands, and what a person can do about it."""
    job = detail.job
    lines = [f"job {job.id}: {job.state}   route {job.route}   {job.pipeline}"]
    if job.reason:
        lines.append(f"  reason: {job.reason}")
    if job.state is JobState.HELD:
        lines.append(f"  hint: {job.hint}; then `rtnode retry {job.id}`")
    if detail.superseded_by is not None:
        lines.append(f"  a newer revision of its series replaced it: {detail.superseded_by}")
    states: dict[str, dict[str, int]] = {}
    for delivery in detail.deliveries:
        counts = states.setdefault(delivery.destination, {})
        counts[delivery.state] = counts.get(delivery.state, 0) + 1
    lines += [f"  to {name}: {tallied(counts)}" for name, counts in states.items()]
    troubled = [d for d in detail.deliveries if d.state is DeliveryState.HELD]
    lines += sorted({f"  held: {d.reason}; hint: {d.hint}" for d in troubled})
    return lines
