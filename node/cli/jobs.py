"""``rtnode jobs``, ``rtnode retry`` and ``rtnode cancel``: look at jobs, and decide about them."""

from collections.abc import Mapping

import click
from pydantic import JsonValue

from node.cli.common import config_option, echo_json, json_option
from node.cli.text import at, table
from node.clock import SystemClock
from node.config.model import Config
from node.control.channel import NotRunning, request
from node.control.handlers import ALL_HELD, operator_handlers
from node.lifecycle import JobState
from node.store.store import StoreOptions, open_reader, open_store

_STATES = {state.name: state for state in JobState}
"""Word on the command line -> state; IN PROGRESS is IN_PROGRESS there."""


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(list(_STATES), case_sensitive=False),
    help="Only jobs in this state; repeatable.",
)
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Newest jobs to show.",
)
@config_option
@json_option
def jobs(states: tuple[str, ...], limit: int, config: Config, *, as_json: bool) -> None:
    """List jobs, newest first."""
    ledger = open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)
    wanted = [_STATES[word] for word in states] or None
    found = ledger.jobs(wanted, limit)
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            job.id,
            job.state,
            job.pipeline,
            job.route,
            f"{job.attempt}/{job.max_attempts}",
            at(job.created_at),
            job.series_instance_uid,
        )
        for job in found
    ]
    head = ("job", "state", "pipeline", "route", "attempt", "created", "series")
    for line in table(head, rows):
        click.echo(line)
    for job in found:
        if job.state is JobState.HELD:
            click.echo(f"\njob {job.id} is held: {job.reason}\n  hint: {job.hint}")


@click.command()
@click.argument("job")
@config_option
@json_option
def retry(job: str, config: Config, *, as_json: bool) -> None:
    """Release what is held: JOB is a job number (the job and its deliveries) or `all-held`."""
    result = _ask(config, "retry", {"job": ALL_HELD if job == ALL_HELD else _number(job)})
    if as_json:
        echo_json(result)
        return
    released = result if isinstance(result, dict) else {}
    for kind in ("jobs", "deliveries"):
        numbers = released.get(kind)
        if isinstance(numbers, list) and numbers:
            click.echo(f"released {kind}: {', '.join(str(number) for number in numbers)}")
    if not any(released.values()):
        click.echo("nothing is held")


@click.command()
@click.argument("job", type=int)
@click.option(
    "--reason",
    default="canceled by the operator",
    show_default=True,
    help="Kept with the job; no patient data.",
)
@config_option
@json_option
def cancel(job: int, reason: str, config: Config, *, as_json: bool) -> None:
    """Cancel JOB; what it delivered already stays delivered."""
    result = _ask(config, "cancel", {"job": job, "reason": reason})
    if as_json:
        echo_json(result)
    else:
        click.echo(f"job {job} is canceled")


def _ask(config: Config, command: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Ask the running node; without one, take the lock of the data folder and do it here."""
    try:
        return request(config.node.data_dir, command, **arguments)
    except NotRunning:
        if not config.node.data_dir.is_dir():
            raise
    options = StoreOptions(database_url=config.node.database_url)
    with open_store(config.node.data_dir, clock=SystemClock(), options=options) as store:
        return operator_handlers(store.ledger)[command](arguments)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise click.BadParameter(f"'{text}' is neither a job number nor {ALL_HELD}")
    return int(text)
