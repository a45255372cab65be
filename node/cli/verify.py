"""``rtnode verify``: does everything that was acknowledged lie where the ledger says, explained."""

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import table
from node.clock import SystemClock
from node.config.model import Config
from node.control.channel import NotRunning, Refused, request
from node.store.records import Verdict
from node.store.store import open_reader

_GRACE_S = 15.0
"""How long a running node may need from a file to its row: its database waits for 10 s. [s]"""
_SHOWN = 50


@click.command()
@click.option("--quick", is_flag=True, help="Compare names and sizes; read no file.")
@config_option
@json_option
def verify(config: Config, *, quick: bool, as_json: bool) -> None:
    """Compare every row, file and hash, and every state with the tables; changes nothing.

    Beside a running node or without one. The exit code is 1 when anything is wrong.
    """
    ledger = open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)
    try:
        grace_s = _GRACE_S if _is_running(config) else 0.0
        verdict = ledger.verdict(grace_s=grace_s, contents=not quick)
    finally:
        ledger.close()
    if as_json:
        echo_json({"ok": not verdict.problems, **_told(verdict)})
    else:
        _show(verdict)
    click.get_current_context().exit(Exit.FAILED if verdict.problems else Exit.DONE)


def _is_running(config: Config) -> bool:
    try:
        request(config.node.data_dir, "status")
    except NotRunning:
        return False
    except Refused:
        return True
    return True


def _told(verdict: Verdict) -> dict[str, object]:
    return {
        "problems": verdict.problems,
        "files": verdict.files,
        "bytes": verdict.bytes,
        "purged": verdict.purged,
        "open_work": verdict.open_work,
    }


def _show(verdict: Verdict) -> None:
    read = f"{verdict.files} files read, {verdict.bytes / 1e9:.2f} GB"
    click.echo(f"{read}; {verdict.purged} purged by retention")
    waiting = ", ".join(f"{many} {name}" for name, many in verdict.open_work.items() if many)
    click.echo(f"under way: {waiting or 'nothing'}")
    if not verdict.problems:
        click.echo("ok: every row has its file, every byte its hash, every state its reason")
        return
    click.echo(f"{len(verdict.problems)} problems")
    rows = [(p.kind, p.subject, p.detail) for p in verdict.problems[:_SHOWN]]
    for line in table(("kind", "about", "what is wrong"), rows):
        click.echo(line)
    if len(verdict.problems) > _SHOWN:
        click.echo(f"and {len(verdict.problems) - _SHOWN} more: `rtnode verify --json` lists all")
    click.echo("hint: stop the node, keep the data folder as it is, and restore a backup")
