"""``rtnode backup``, ``restore`` and ``rebuild-index``: the database can be had back."""

from pathlib import Path

import click

from node.cli.common import config_option, echo_json, json_option
from node.clock import SystemClock
from node.config.model import Config
from node.domain import AETitle
from node.store import backup as copies
from node.store.rebuild import rebuild
from node.store.store import StoreOptions, open_store


@click.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@json_option
def backup(target: Path, config: Config, *, as_json: bool) -> None:
    """Copy the database to the new file TARGET while the node runs, and check the copy.

    The objects are files that never change: copy the `blobs` folder afterwards with any tool.
    """
    size = copies.backup(config.node.data_dir, target, url=config.node.database_url)
    if as_json:
        echo_json({"file": target, "bytes": size})
    else:
        click.echo(f"{target}: {size / 1e6:.1f} MB, checked; now copy {config.node.data_dir}/blobs")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@config_option
@json_option
def restore(source: Path, config: Config, *, as_json: bool) -> None:
    """Put the backup SOURCE in the place of the database of a stopped node.

    The old database is put aside, not deleted.
    """
    aside = copies.restore(config.node.data_dir, source, url=config.node.database_url)
    if as_json:
        echo_json({"restored": source, "put_aside": aside})
        return
    click.echo(f"restored {source}")
    if aside is not None:
        click.echo(f"the old database is {aside}")
    click.echo("next: `rtnode rebuild-index` takes in what came after the backup")


@click.command(name="rebuild-index")
@config_option
@json_option
def rebuild_index(config: Config, *, as_json: bool) -> None:
    """Take files without a row into the index again, while the node is down.

    For a database that is lost or older than its files. Who sent them is not known any more: they
    count as sent by REBUILT.
    """
    options = StoreOptions(
        database_url=config.node.database_url,
        max_object_bytes=config.receive.max_object_mb * 1024 * 1024,
    )
    with open_store(
        config.node.data_dir, clock=SystemClock(), options=options, rebuilding=True
    ) as store:
        found = rebuild(store, AETitle(config.node.ae_titles[0]))
    if as_json:
        echo_json(found)
    else:
        click.echo(
            f"{found.restored} objects restored, {found.known} known already,"
            f" {found.unreadable} unreadable (left in the folder orphans)"
        )
