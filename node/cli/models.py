"""``rtnode models``: which networks are installed, whether they are whole, and bringing new ones.

Loading a network takes the inference library: imported by the command that needs it.
"""

from pathlib import Path

import click

from models.install import install_pack, installed_packs
from models.pack import PACKS, Pack, PackManifest, PackRefused, load_pack
from node.cli.common import echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import table


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
    from models.engine import load_network  # noqa: PLC0415 - see the module

    folders = [PACKS / Path(name) for name in names] or installed_packs()
    refused = False
    for folder in folders:
        try:
            pack: Pack[PackManifest] = load_pack(folder, PackManifest)
            load_network(pack, threads=1)
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
