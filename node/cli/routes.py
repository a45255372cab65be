"""``rtnode routes test``: what the routes would do with a folder, and why."""

from collections.abc import Iterator
from pathlib import Path

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.config.model import Config
from node.domain import AETitle
from node.routing.facts import Origin
from node.routing.folder import scan
from node.routing.rehearsal import Rehearsal, RouteAnswer, SeriesAnswer, rehearse


@click.group()
def routes() -> None:
    """Try the routes of the configuration."""


@routes.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--from", "calling", metavar="AET", default="MODALITY", show_default=True,
    help="AE title that would send it.",
)  # fmt: skip
@click.option(
    "--to", "called", metavar="AET", default=None,
    help="AE title of the node it would be sent to; its first one unless given.",
)  # fmt: skip
@config_option
@json_option
def test(folder: Path, calling: str, called: str | None, config: Config, *, as_json: bool) -> None:
    """Tell what would happen with the DICOM files below FOLDER, and why; nothing is done.

    Every series is listed: what it counts as, whether it is whole, which route takes it or why
    none does, and which inputs are found or missing. The exit code is 0 when at least one job
    would start.
    """
    origin = Origin(
        calling_ae_title=AETitle(calling),
        called_ae_title=AETitle(called or config.node.ae_titles[0]),
    )
    found = scan(folder, config.recognize.cbct, config.matched_keywords())
    rehearsal = rehearse(config, found, origin)
    if as_json:
        echo_json(rehearsal)
    else:
        for line in _told(rehearsal):
            click.echo(line)
    starts = any(route.runs for series in rehearsal.series for route in series.routes)
    click.get_current_context().exit(Exit.DONE if starts else Exit.FAILED)


def _told(rehearsal: Rehearsal) -> Iterator[str]:
    patients = _counted(len({series.patient for series in rehearsal.series}), "patient")
    yield (
        f"{rehearsal.instances} objects in {len(rehearsal.series)} series of {patients};"
        f" {rehearsal.skipped} files are not DICOM"
    )
    for series in rehearsal.series:
        yield ""
        yield from _of_series(series)


def _of_series(series: SeriesAnswer) -> Iterator[str]:
    yield f"{series.kind}   {_counted(series.count, 'object')}   patient {series.patient}"
    yield f"  series   {series.series_instance_uid}"
    yield f"  whole    {'yes' if series.whole else 'NO'}: {series.why_whole}"
    if series.ours:
        yield "  routes   none: it is a result of rtnode and starts nothing"
    elif not series.routes:
        yield "  routes   none is enabled"
    for route in series.routes:
        yield from _of_route(route)


def _of_route(route: RouteAnswer) -> Iterator[str]:
    if not route.taken:
        yield f"  {route.route}: no; {route.reason}"
        return
    verdict = "RUNS" if route.runs else "would wait or be HELD"
    yield f"  {route.route}: {verdict}   {route.pipeline}; {route.reason}"
    if route.runs:
        inputs = ", ".join(f"{count} {role}" for role, count in route.inputs)
        places = (
            f"go to {', '.join(route.destinations)}" if route.destinations else "are kept (shadow)"
        )
        yield f"      with {inputs}; results {places}"
    if route.hint:
        yield f"      hint: {route.hint}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
