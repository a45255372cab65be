"""``rtnode check``: is the configuration right, and what would run; or are objects importable."""

from pathlib import Path

import click

from node.cli.common import echo_json, json_option, plain
from node.cli.exits import Exit
from node.cli.importable import check_objects, print_rules
from node.cli.text import table
from node.config.load import load
from node.config.model import Config
from node.errors import ConfigError, LedgerError
from node.store.store import refuse_remote
from node.tls import problems as tls_problems
from node.tls import valid_until
from pipelines.catalog import PIPELINES
from pipelines.dicom.import_profiles import TpsProfile


@click.command()
@click.argument("objects", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in TpsProfile]),
    help="Check OBJECTS, DICOM files or folders of them, by the import rules of this system;"
    " without OBJECTS print its rules.",
)
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("config.yaml"),
    envvar="RTNODE_CONFIG",
    show_default=True,
    show_envvar=True,
    help="Configuration file.",
)
@json_option
def check(objects: tuple[Path, ...], profile: str | None, path: Path, *, as_json: bool) -> None:
    """Check the configuration whole: every problem with file and line, or what would run.

    With --profile check DICOM OBJECTS instead: could this planning system import them. The exit
    code is then 1 when it would not get one of them.
    """
    if profile is not None:
        _check_objects(objects, TpsProfile(profile), as_json=as_json)
        return
    if objects:
        raise click.UsageError("name the system whose rules count: --profile")
    config: Config | None = None
    problems: tuple[str, ...] = ()
    try:
        config = load(path)
        refuse_remote(config.node.data_dir)
        _refuse_credentials(path, config)
    except ConfigError as error:
        config, problems = None, error.problems
    except LedgerError as error:
        config, problems = None, (f"{path}: node.data_dir: {error}; {error.advice}",)
    if as_json:
        routes = [] if config is None else [_told(config, i) for i in range(len(config.routes))]
        echo_json({"ok": config is not None, "problems": problems, "routes": routes})
    elif config is None:
        for problem in problems:
            click.echo(problem, err=True)
        noun = "problem" if len(problems) == 1 else "problems"
        click.echo(f"{len(problems)} {noun}; nothing was started", err=True)
    else:
        _summarize(path, config)
    if config is None:
        click.get_current_context().exit(Exit.USAGE)


def _check_objects(objects: tuple[Path, ...], system: TpsProfile, *, as_json: bool) -> None:
    if not objects:
        print_rules(system, as_json=as_json)
    elif not check_objects(objects, system, as_json=as_json):
        click.get_current_context().exit(Exit.FAILED)


def _refuse_credentials(path: Path, config: Config) -> None:
    """Refuse certificates and keys that a start would refuse."""
    found = [
        f"{path}: {name}.{problem}"
        for name, section in (("node.tls", config.node.tls), ("audit", config.audit))
        if section is not None
        for problem in tls_problems(section.credentials())
    ]
    if found:
        raise ConfigError(found)


def _summarize(path: Path, config: Config) -> None:
    node = config.node
    senders = [
        f"{peer.ae_title} ({', '.join(str(network) for network in peer.addresses)})"
        for peer in config.peers.values()
        if peer.receive
    ]
    click.echo(f"{path}: ok")
    click.echo(f"listens on    {node.host}:{node.port} as {', '.join(node.ae_titles)}")
    if node.tls is not None:
        until = valid_until(node.tls.credentials()).date().isoformat()
        click.echo(f"              {node.host}:{node.tls.port} over TLS; certificate until {until}")
    click.echo(f"data          {node.data_dir}")
    anybody = config.receive.unknown_peers.value == "accept"
    click.echo(f"receives from {'anybody' if anybody else ', '.join(senders) or 'nobody'}")
    for folder in config.hot_folders:
        click.echo(f"watches       {folder.path}")
    click.echo("")
    rows = [
        (
            route.name if route.enabled else f"({route.name})",
            route.pipeline,
            PIPELINES[route.pipeline].version,
            route.priority,
            "(shadow: nothing is sent)" if route.shadow else ", ".join(route.destinations),
        )
        for route in config.routes
    ]
    for line in table(("route", "pipeline", "version", "priority", "destinations"), rows):
        click.echo(line)
    if not rows:
        click.echo("no routes: objects are received and kept, nothing runs")


def _told(config: Config, index: int) -> dict[str, object]:
    route = config.routes[index]
    return {
        "name": route.name,
        "enabled": route.enabled,
        "pipeline": route.pipeline,
        "version": PIPELINES[route.pipeline].version,
        "settings": plain(route.pipeline_settings().model_dump(mode="json")),
        "priority": route.priority,
        "destinations": list(route.destinations),
    }
