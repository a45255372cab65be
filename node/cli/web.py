"""``rtnode web``: the web page, and who may log in to it.

The page is loaded only by the command that serves it, as in `node.cli.run`.
"""

import sys

import click

from node.cli.common import Commands, config_option, echo_json, json_option
from node.cli.text import table
from node.config.model import Config
from node.log import configure


@click.group(cls=Commands, invoke_without_command=True)
@config_option
@click.pass_context
def web(context: click.Context, config: Config) -> None:
    """Serve the web page until SIGTERM or Ctrl-C, or manage its users.

    It is off without a `web:` section. Without TLS it listens on this machine alone, and nobody
    gets in without a user: `rtnode web user add NAME`.
    """
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    from node.web.server import run  # noqa: PLC0415 - see the module

    configure(config.log.format.value, config.log.level.value, sys.stdout)
    context.exit(run(config))


@web.group(cls=Commands)
def user() -> None:
    """Manage who may log in."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator"]),
    default="viewer",
    show_default=True,
    help="A viewer looks; an operator may also retry, cancel, send again, declare complete.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.pass_obj
def add(config: Config, name: str, role: str, *, password_stdin: bool) -> None:
    """Add user NAME, or give NAME another role and password."""
    from node.web.server import users_of  # noqa: PLC0415 - see the module
    from node.web.users import Role  # noqa: PLC0415 - see the module

    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    users_of(config).put(name, Role(role), password)
    click.echo(f"{name} may log in as {role}")


@user.command("remove")
@click.argument("name")
@click.pass_obj
def remove(config: Config, name: str) -> None:
    """Remove user NAME; open sessions end at once."""
    from node.web.server import users_of  # noqa: PLC0415 - see the module

    users_of(config).remove(name)
    click.echo(f"{name} may not log in any more")


@user.command("list")
@json_option
@click.pass_obj
def list_users(config: Config, *, as_json: bool) -> None:
    """List the users."""
    from node.web.server import users_of  # noqa: PLC0415 - see the module

    rows = [(user.name, user.role.value) for user in users_of(config).all().values()]
    if as_json:
        echo_json([{"name": name, "role": role} for name, role in rows])
        return
    for line in table(("user", "role"), rows):
        click.echo(line)
