"""``rtnode conformance``: the DICOM conformance statement of this node."""

from pathlib import Path

import click

from node.cli.common import config_option
from node.cli.conformance.statement import statement
from node.config.model import Config


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path), required=False)
@config_option
def conformance(config: Config, output: Path | None) -> None:
    """Print the DICOM conformance statement (PS3.2 annex N) of this configuration, as Markdown.

    It goes to OUTPUT where one is named, which is replaced; else to standard output. It names AE
    titles, addresses and ports of the peers, and no patient.
    """
    text = statement(config, source="the configuration of this node")
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}")
