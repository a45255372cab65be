"""What the running node says of itself, for whoever shows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from node.control.channel import NotRunning, Refused, request


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A node that answered."""

    facts: Mapping[str, JsonValue]
    """As `node.control.handlers` tells them: version, pid, started_at and more."""
    troubles: tuple[str, ...]
    """Parts of it that are ill."""


def ask_node(data_dir: Path, ask: Callable[..., JsonValue] = request) -> Live | None:
    """Ask the node that runs on `data_dir`; None when there is none that answers."""
    try:
        answer = ask(data_dir, "status")
    except (NotRunning, OSError):
        return None
    except Refused as error:
        return Live(facts={}, troubles=(str(error),))
    facts = answer if isinstance(answer, dict) else {}
    listed = facts.get("troubles")
    troubles = tuple(str(trouble) for trouble in listed) if isinstance(listed, list) else ()
    return Live(facts=facts, troubles=troubles)
