"""``rtnode contour``: a contouring network from a site's own patients, and contours of a 4DCT.

The learning libraries are loaded by the command that needs them: imports inside a function, as in
`node.cli.run`.
"""

from pathlib import Path
from typing import Literal

import click

from node.cli.exits import Exit
from pipelines.api import PipelineError
from pipelines.catalog import PIPELINES


@click.group("contour")
def contour() -> None:
    """Train networks that draw contours; contour a 4DCT."""


def _aliases(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[
    str, tuple[str, ...]
]:  # fmt: skip
    found = {}
    for word in given:
        name, _, others = word.partition("=")
        found[name.strip()] = tuple(o.strip() for o in others.split("|") if o.strip())
    return found


@contour.command("train")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder with CT and RTSTRUCT files at any depth, or a tar of npz files.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; give it again to go on where the training stopped.",
)
@click.option("--mode", type=click.Choice(["2.5d", "3d"]), default="2.5d", show_default=True)
@click.option("--gan", is_flag=True, help="Let a discriminator judge image and contours together.")
@click.option("--minutes", type=click.FloatRange(min=0.01), default=60.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--folds",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Parts of the cross-validation, which share the minutes; 1 holds one patient in five out.",
)
@click.option(
    "--organ",
    "aliases",
    multiple=True,
    callback=_aliases,
    metavar="NAME[=OTHER|OTHER]",
    help="TG-263 name and other names in the structure sets; repeatable. Default: all known.",
)
@click.option("--no-mirror", is_flag=True, help="Do not learn from mirrored patients as well.")
@click.option("--name", default="site-contour", show_default=True, help="Id of the pack.")
@click.option("--region", default="unnamed region", show_default=True, help="Body region.")
@click.option(
    "--licence", default="not stated", show_default=True, help="Licence of data and pack."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def train(  # noqa: PLR0913 - one parameter an option
    data: Path, out: Path, mode: Literal["2.5d", "3d"], *, gan: bool, minutes: float, seed: int,
    folds: int, aliases: dict[str, tuple[str, ...]], no_mirror: bool, name: str, region: str,
    licence: str, threads: int,
) -> None:  # fmt: skip
    """Train a contouring network and write it as a model pack with its report.

    OUT receives pack/ (model, card, measured accuracy), index.html, curve.png, sample-*.png and
    metrics.json. An organ that was not drawn in a patient is left out of the loss there, not
    taken as background.
    """
    from models.training.contour_recipe import Recipe  # noqa: PLC0415 - see the module
    from pipelines.autocontour.train_run import Order, run  # noqa: PLC0415 - see the module

    order = Order(
        data=data,
        out=out,
        recipe=Recipe(mode=mode, gan=gan, seed=seed, mirror=not no_mirror),
        minutes=minutes,
        folds=folds,
        aliases=aliases,
        name=name,
        body_region=region,
        data_licence=licence,
        threads=threads,
    )
    try:
        pack = run(order, lambda text: click.echo(text, err=True))
    except PipelineError as refusal:
        click.echo(f"{type(refusal).__name__}: {refusal}", err=True)
        click.echo(f"hint: {refusal.advice}", err=True)
        click.get_current_context().exit(Exit.FAILED)
    click.echo(f"written to {out}: {pack.name}, index.html, metrics.json")


@contour.command("4d")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the autocontour pipeline; repeatable.",
)
def four_d(folder: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Contour every breathing phase in FOLDER, and what each structure covers in all of them.

    OUT, a new folder, receives a folder for each phase, rtstruct-4d.dcm with the unions on the
    reference image (the average where there is one, else the phase of middle ventilation), and
    4d.json with volumes and motion.
    """
    from node.config.overrides import settings_from  # noqa: PLC0415 - see the module
    from node.errors import ConfigError  # noqa: PLC0415 - see the module
    from pipelines.autocontour.four_d import UNION_NAME  # noqa: PLC0415 - see the module
    from pipelines.autocontour.four_d_folder import contour_folder  # noqa: PLC0415 - see the module

    spec = PIPELINES["autocontour"]
    pairs = dict(word.partition("=")[::2] for word in overrides)
    try:
        settings = settings_from(spec.settings, pairs)
        contour_folder(folder, out, settings, spec.version, click.echo)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--set") from error
    except PipelineError as refusal:
        click.echo(f"{type(refusal).__name__}: {refusal} ({refusal.advice})", err=True)
        click.get_current_context().exit(Exit.FAILED)
    click.echo(f"written below {out}: {UNION_NAME} and a structure set for each phase")
