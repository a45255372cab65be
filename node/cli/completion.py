"""``rtnode completion``: the script that lets a shell complete commands, options and choices."""

from typing import Final

import click
from click.shell_completion import get_completion_class

_VARIABLE: Final = "_RTNODE_COMPLETE"
"""What the script sets when it asks the program; click's own name for it."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the completion script for SHELL.

    \b
    bash:  rtnode completion bash > /etc/bash_completion.d/rtnode
    zsh:   rtnode completion zsh > "${fpath[1]}/_rtnode"
    fish:  rtnode completion fish > ~/.config/fish/completions/rtnode.fish

    A new shell then completes commands, options and their values with the tabulator key.
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    click.echo(script(root, {}, "rtnode", _VARIABLE).source())
