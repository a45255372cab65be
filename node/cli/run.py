"""``rtnode serve`` and ``rtnode process``: the two commands that load more than they show.

The receiving process and the pipelines must not load each other's libraries, so each is imported
by the one command that needs it: the only imports inside functions.
"""

import sys
from pathlib import Path

import click

from node.cli.common import config_option
from node.cli.exits import Exit
from node.config.model import Config
from node.log import configure
from pipelines.catalog import PIPELINES


@click.command()
@config_option
def serve(config: Config) -> None:
    """Run the node in the foreground until SIGTERM or Ctrl-C."""
    from node.service import run  # noqa: PLC0415 - see the module

    configure(config.log.format.value, config.log.level.value, sys.stdout)
    click.get_current_context().exit(run(config))


@click.command()
@click.argument("pipeline", type=click.Choice(list(PIPELINES)))
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the pipeline, as under `settings` in the configuration; repeatable.",
)
def process(pipeline: str, source: Path, output: Path, settings: tuple[str, ...]) -> None:
    """Run PIPELINE on the DICOM files under SOURCE; its results go to OUTPUT, a new folder.

    No node and no network are needed. The exit code is 0 only when a result was written.
    """
    from node.worker import process_folder  # noqa: PLC0415 - see the module

    overrides: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"'{text}' is not KEY=VALUE", param_hint="--set")
        if key in overrides:
            raise click.BadParameter(f"'{key}' is given twice", param_hint="--set")
        overrides[key] = value
    configure("people", "INFO", sys.stderr)
    code = process_folder(pipeline, source, output, overrides)
    click.get_current_context().exit(Exit(code))
