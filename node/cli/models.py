"""``rtnode models``: which networks are installed, whether they are whole, and bringing new ones.

Loading a network takes the inference library, importing one the learning library: imported by the
commands that need them.
"""

from pathlib import Path
from typing import get_args

import click

from models.install import install_pack, installed_packs
from models.pack import PACKS, Pack, PackManifest, PackRefused, load_pack
from node.cli.common import echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import table
from pipelines.autocontour.template import LearnedName


@click.group()
def models() -> None:
    """List, verify and install model packs."""


@models.command("list")
@json_option
def list_packs(*, as_json: bool) -> None:
    """List the installed packs; a pack that is not whole is shown as REFUSED."""
    rows = [_row(folder) for folder in installed_packs()]
    head = ("name", "version", "kind", "region", "licence", "sha256")
    if as_json:
        echo_json([dict(zip(head, row, strict=True)) for row in rows])
        return
    for line in table(head, rows) if rows else ["no packs are installed"]:
        click.echo(line)


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check every byte of packs and repeat their self-test.

    NAMES are installed packs or folders; without any, all that are installed. The exit code is 1
    when one is refused.
    """
    from models.engine import load_members  # noqa: PLC0415 - see the module

    folders = [PACKS / Path(name) for name in names] or installed_packs()
    refused = False
    for folder in folders:
        try:
            pack: Pack[PackManifest] = load_pack(folder, PackManifest)
            load_members(pack, threads=1)
            click.echo(f"ok       {pack.label}  {pack.sha256[:12]}")
        except PackRefused as error:
            refused = True
            click.echo(f"REFUSED  {error}")
    if refused:
        click.get_current_context().exit(Exit.FAILED)


@models.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--replace", is_flag=True, help="Take the place of a pack of the same name.")
def install(source: Path, *, replace: bool) -> None:
    """Install the pack in SOURCE, a folder or a zip or tar archive, after checking it.

    Nothing is switched on: routes choose their pack by name.
    """
    try:
        pack = install_pack(source, replace=replace)
    except PackRefused as error:
        click.echo(f"refused: {error}", err=True)
        click.get_current_context().exit(Exit.FAILED)
    click.echo(f"installed {pack.label} in {pack.folder}; check it with `rtnode models verify`")


@models.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: names, licence, use, orientation. Without it, a draft to fill in is printed.",
)
@click.option("--out", type=click.Path(path_type=Path), help="New folder of the pack.")
@click.option("--fold", "folds", multiple=True, help="nnU-Net fold; several are averaged.")
@click.option("--configuration", default="", help="nnU-Net configuration, such as 3d_fullres.")
@click.option("--trust", is_flag=True, help="Open checkpoints that hold more than numbers.")
@click.option("--memory-gb", type=click.IntRange(1), default=24, show_default=True)
@click.option("--minutes", type=click.IntRange(1), default=15, show_default=True)
def import_model(  # noqa: PLR0913 - one parameter an option
    folder: Path, *, labels: Path | None, out: Path | None, folds: tuple[str, ...],
    configuration: str, trust: bool, memory_gb: int, minutes: int,
) -> None:  # fmt: skip
    """Make a model pack of FOLDER, a trained nnU-Net v2 or a MONAI bundle.

    The checkpoint is opened in a process without network that may write to the new pack only.
    Nothing is installed: look at the pack's CARD.md, then `rtnode models install`.
    """
    from models.foreign import importing  # noqa: PLC0415 - see the module
    from models.foreign.draft import draft  # noqa: PLC0415 - see the module
    from models.foreign.source import ForeignRefused  # noqa: PLC0415 - see the module
    from pipelines.dicom.nomenclature import suggest  # noqa: PLC0415 - see the module

    known = get_args(LearnedName)
    try:
        if labels is None or out is None:
            click.echo(draft(folder, known, suggest), nl=False)
            return
        pack = importing.import_model(
            folder, labels, out, known, trust=trust, folds=folds, configuration=configuration,
            bounds=importing.Bounds(memory_gb=memory_gb, seconds=60 * minutes),
        )  # fmt: skip
    except ForeignRefused as refusal:
        click.echo(f"refused: {refusal}", err=True)
        click.get_current_context().exit(Exit.FAILED)
    rows = [(str(o.index), o.name) for o in pack.manifest.outputs]
    for line in table(("class", "structure"), rows):
        click.echo(line)
    click.echo(
        f"wrote {pack.label} to {pack.folder}; read its CARD.md, then "
        f"`rtnode models install {pack.folder}`"
    )


def _row(folder: Path) -> tuple[str, ...]:
    try:
        pack = load_pack(folder, PackManifest)
    except PackRefused as error:
        return folder.name, "REFUSED", str(error), "", "", ""
    told = pack.manifest
    return (
        told.id,
        told.version,
        told.kind,
        told.body_region,
        told.weights_licence,
        pack.sha256[:12],
    )
