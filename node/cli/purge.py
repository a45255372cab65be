"""``rtnode purge``: what the retention rules remove, and why."""

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import at, table
from node.clock import SystemClock
from node.config.model import Config
from node.housekeeping import Choice, choose
from node.store.store import open_reader

_SHOWN = 20


@click.command()
@click.option(
    "--dry-run",
    is_flag=True,
    help="Needed: the running node removes by itself, this command only tells what it will do.",
)
@config_option
@json_option
def purge(config: Config, *, dry_run: bool, as_json: bool) -> None:
    """Tell which files the retention rules would remove now; removes nothing itself.

    Rules are `retention.keep_days` and `retention.keep_gb`; the running node keeps them once an
    hour. What is not delivered never goes, whatever the rules say.
    """
    if not dry_run:
        raise click.UsageError("the running node removes by itself; look with --dry-run")
    clock = SystemClock()
    ledger = open_reader(config.node.data_dir, clock=clock, url=config.node.database_url)
    try:
        chosen = list(choose(ledger, config.retention, clock))
    finally:
        ledger.close()
    size = sum(choice.file.size for choice in chosen)
    if as_json:
        echo_json({"files": len(chosen), "bytes": size, "chosen": chosen})
        return
    rules = config.retention
    if not (rules.keep_days or rules.keep_gb):
        click.echo("no rule is set: files stay for ever (retention.keep_days, retention.keep_gb)")
        click.get_current_context().exit(Exit.DONE)
    _show(chosen, size)


def _show(chosen: list[Choice], size: int) -> None:
    click.echo(f"{len(chosen)} files of finished work would go, {size / 1e9:.2f} GB")
    rows = [(at(c.file.created_at), c.file.size, c.file.name, c.reason) for c in chosen[:_SHOWN]]
    if rows:
        for line in table(("came", "bytes", "file", "why"), rows):
            click.echo(line)
    if len(chosen) > _SHOWN:
        click.echo(f"and {len(chosen) - _SHOWN} more: --json lists all")
