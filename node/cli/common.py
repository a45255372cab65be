"""What the commands share: options, output, and errors turned into exit codes."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from pydantic import JsonValue
from typing_extensions import override

from node.cli.exits import Exit
from node.config.load import load
from node.control.channel import NotRunning
from node.errors import AssociationRejected, ConfigError, NodeError, PeerUnreachable
from node.lifecycle import IllegalTransition
from node.log import event

_EXITS: Final[tuple[tuple[type[Exception], Exit], ...]] = (
    (ConfigError, Exit.USAGE),
    (NotRunning, Exit.UNREACHABLE),
    (PeerUnreachable, Exit.UNREACHABLE),
    (AssociationRejected, Exit.UNREACHABLE),
    (NodeError, Exit.FAILED),
    (IllegalTransition, Exit.FAILED),
)
"""Error -> exit code, first match wins."""

logger = logging.getLogger(__name__)
C = TypeVar("C", bound=Callable[..., None])


class Commands(click.Group):
    """A group whose commands may raise our errors: message, hint and exit code follow."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the last edge of the command line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends quietly when a reader such as `head` has seen enough
        except (NodeError, IllegalTransition) as error:
            _tell(error)
            code = next(code for kind, code in _EXITS if isinstance(error, kind))
            ctx.exit(code)
        except Exception as error:  # noqa: BLE001 - the edge: logged without foreign texts
            event(logger, "command_failed", level=logging.ERROR, error=error)
            click.echo("failed: a mistake of rtnode; the log above says where", err=True)
            ctx.exit(Exit.FAILED)


def _tell(error: NodeError | IllegalTransition) -> None:
    click.echo(str(error), err=True)
    advice = getattr(error, "advice", "")
    if advice:
        click.echo(f"hint: {advice}", err=True)


def config_option(command: C) -> C:
    """Add ``-c FILE``, read and checked before the command runs."""
    return click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(path_type=Path),
        default=Path("config.yaml"),
        envvar="RTNODE_CONFIG",
        show_default=True,
        show_envvar=True,
        callback=lambda _ctx, _param, path: load(path),
        help="Configuration file.",
    )(command)


def json_option(command: C) -> C:
    """Add ``--json``: one JSON document on standard output, for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def echo_json(value: object) -> None:
    """Print `value` as indented JSON."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: object) -> JsonValue:
    """Return dataclasses, enums, paths and times as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
