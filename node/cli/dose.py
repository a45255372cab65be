"""``rtnode dose-stability``: how much features of a dose depend on grid and algorithm.

The libraries of the pipeline are loaded by the command that needs them: imports inside a function,
as in `node.cli.run`.
"""

from pathlib import Path

import click

from node.cli.exits import Exit
from node.cli.text import table
from pipelines.api import PipelineError


@click.command("dose-stability")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="ROI",
    help="Name, glob pattern or expression such as 'Lungs - GTV'; repeatable. Default: all ROIs.",
)
def dose_stability(source: Path, output: Path, rois: tuple[str, ...]) -> None:
    """Tell how stable the features of a dose are.

    SOURCE holds RTDOSE and RTSTRUCT (RTPLAN and CT if there). All features are computed again
    on other grid spacings, grid phases and with another interpolation, and, where it holds
    several doses of one plan, on each of them. OUTPUT, a new folder, receives stability.csv,
    values.csv, stability.png and index.html.
    """
    if output.exists() and any(output.iterdir()):
        raise click.BadParameter("is not empty; name a new folder", param_hint="OUTPUT")
    from pipelines.dose_radiomics.stability_run import run  # noqa: PLC0415 - see the module

    try:
        lines = run(source, output, rois, lambda text: click.echo(text, err=True))
    except PipelineError as refusal:
        click.echo(f"{type(refusal).__name__}: {refusal}", err=True)
        click.echo(f"hint: {refusal.advice}", err=True)
        click.get_current_context().exit(Exit.FAILED)
    head = ("family", "stable", "limited", "unstable", "largest CV")
    for line in table(head, lines):
        click.echo(line)
    click.echo(f"written to {output}: index.html, stability.csv, values.csv, stability.png")
