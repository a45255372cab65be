"""The command ``rtnode``.

Exit codes are those of `node.cli.exits`: 0 done, 1 failed or no result, 2 command line or
configuration wrong, 3 node or peer not reachable, 130 interrupted.
"""

import importlib.metadata
import platform
import sqlite3
import sys
from typing import Final

import click

from node.cli.backup import backup, rebuild_index, restore
from node.cli.check import check
from node.cli.common import Commands
from node.cli.completion import completion
from node.cli.conformance.command import conformance
from node.cli.contour import contour
from node.cli.doctor import doctor
from node.cli.dose import dose_stability
from node.cli.drift import drift
from node.cli.explain import explain
from node.cli.jobs import cancel, jobs, retry
from node.cli.metrics import metrics
from node.cli.models import models
from node.cli.names import names
from node.cli.network import echo, send
from node.cli.purge import purge
from node.cli.replay import replay
from node.cli.routes import routes
from node.cli.run import process, serve
from node.cli.sct import sct
from node.cli.settings import config
from node.cli.status import status
from node.cli.verify import verify
from node.cli.web import web
from node.log import configure
from pipelines.catalog import PIPELINES

_LIBRARIES: Final = (
    "pydicom",
    "pynetdicom",
    "highdicom",
    "numpy",
    "SimpleITK",
    "SQLAlchemy",
    "torch",
)
"""Whose version changes what the node does; asked by name, not loaded."""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 failed or no result; 2 command line or configuration wrong;"
    " 3 node or peer not reachable.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _param, asked: _print_versions(ctx) if asked else None,
    help="Print the versions that a bug report needs, and exit.",
)
def main() -> None:
    """DICOM node for radiotherapy: receive, contour, synthesize, measure, send back."""
    configure("people", "WARNING", sys.stderr)


def _print_versions(ctx: click.Context) -> None:
    click.echo(f"rtnode {_installed('rtnode')}")
    for spec in PIPELINES.values():
        click.echo(f"  pipeline {spec.name} {spec.version}")
    click.echo(f"  Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    for library in _LIBRARIES:
        click.echo(f"  {library} {_installed(library)}")
    ctx.exit()


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed as a package)"


_COMMANDS: Final = (
    serve,
    check,
    doctor,
    status,
    jobs,
    explain,
    retry,
    cancel,
    replay,
    routes,
    config,
    conformance,
    metrics,
    drift,
    verify,
    backup,
    restore,
    rebuild_index,
    purge,
    web,
    process,
    dose_stability,
    contour,
    models,
    names,
    sct,
    send,
    echo,
    completion,
)
for command in _COMMANDS:
    main.add_command(command)
