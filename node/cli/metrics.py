"""``rtnode metrics``: the node's numbers for Prometheus."""

import click

from node.cli.common import config_option
from node.clock import SystemClock
from node.config.model import Config
from node.metrics import prometheus, snapshot
from node.store.store import open_reader


@click.command()
@config_option
def metrics(config: Config) -> None:
    """Print the node's numbers in the Prometheus text format.

    For the textfile collector of node_exporter; the web page serves the same at /metrics.
    """
    ledger = open_reader(config.node.data_dir, clock=SystemClock(), url=config.node.database_url)
    click.echo(prometheus(snapshot(config, ledger)), nl=False)
