"""``rtnode drift``: how approved contours agree with the drafts of each model."""

import csv
import io
from collections.abc import Sequence

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import at, table
from node.clock import SystemClock
from node.config.model import Config
from node.drift.chart import BASELINE, HINT, MEASURES, Alarm, Chart, alarms, charts
from node.store.acceptance import ScoreLine
from node.store.store import open_reader

_COLUMNS = ("at", "job", "route", "shadow", "approved", "model", "version", "organ", "theirs",
            "unchanged", *MEASURES, "volume_ml", "volume_theirs_ml")  # fmt: skip


@click.command()
@config_option
@json_option
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print every score as a row, for a spreadsheet."
)
@click.option(
    "--measure",
    type=click.Choice(list(MEASURES)),
    default="dice",
    show_default=True,
    help="What the table shows.",
)
def drift(config: Config, *, as_json: bool, as_csv: bool, measure: str) -> None:
    """Show how approved structure sets agree with our drafts, by model and organ.

    Approved sets that come back from the planning system are compared by themselves. Limits are
    those of the first values of a model; see docs/drift.md. The exit code is 1 when the newest
    value of an organ is beyond its limits.
    """
    node = config.node
    ledger = open_reader(node.data_dir, clock=SystemClock(), url=node.database_url)
    lines = ledger.acceptance_scores()
    raised = alarms(lines)
    if as_csv:
        click.echo(_csv(lines), nl=False)
    elif as_json:
        echo_json({"charts": [_told(c) for m in MEASURES for c in charts(lines, m)],
                   "alarms": [_alarm(alarm) for alarm in raised]})  # fmt: skip
    else:
        _show(charts(lines, measure), raised, measure)
    if raised:
        click.get_current_context().exit(Exit.FAILED)


def _show(found: Sequence[Chart], raised: Sequence[Alarm], measure: str) -> None:
    if not found:
        click.echo("no approved structure set has come back for one of our drafts yet")
        return
    kind = MEASURES[measure]
    rows = [
        (
            chart.organ,
            chart.model,
            chart.version,
            "shadow" if chart.shadow else "",
            len(chart.values),
            chart.unchanged,
            f"{chart.values[-1]:.3f}",
            f"{chart.limits.lower:.3f} to {chart.limits.upper:.3f}"
            if chart.limits
            else f"after {BASELINE}",
            "OUTSIDE" if chart.drifting else "",
        )
        for chart in found
    ]
    head = ("organ", "model", "version", "", "sets", "unchanged",
            f"newest {kind.name}{kind.unit and ' [' + kind.unit + ']'}", "limits", "")  # fmt: skip
    for line in table(head, rows):
        click.echo(line)
    for alarm in raised:
        click.echo(f"\n{alarm.words}, {at(alarm.at)}\nhint: {HINT}")


def _told(chart: Chart) -> dict[str, object]:
    return {
        "model": chart.model,
        "version": chart.version,
        "shadow": chart.shadow,
        "organ": chart.organ,
        "measure": chart.measure,
        "values": chart.values,
        "unchanged": chart.unchanged,
        "limits": chart.limits,
        "outside": chart.outside,
    }


def _alarm(alarm: Alarm) -> dict[str, object]:
    return {"model": alarm.model, "version": alarm.version, "shadow": alarm.shadow,
            "organ": alarm.organ, "measure": alarm.measure, "value": alarm.value,
            "limits": alarm.limits, "worse": alarm.worse, "at": alarm.at}  # fmt: skip


def _csv(lines: Sequence[ScoreLine]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in lines:
        score = line.score
        writer.writerow(
            (line.at.isoformat(timespec="seconds"), line.job_id, line.route, int(line.shadow),
             line.sop_instance_uid, score.model, score.version, score.organ,
             _plain(score.theirs),
             int(score.unchanged), *(f"{m.value(line):.6g}" for m in MEASURES.values()),
             f"{score.volume_ml:.6g}", f"{score.volume_theirs_ml:.6g}")
        )  # fmt: skip
    return text.getvalue()


def _plain(name: str) -> str:
    """Return a foreign name as text that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t")) else name
