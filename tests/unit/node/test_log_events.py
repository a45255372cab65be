"""docs/log.md names every event that the node can log, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.routing.decisions import _ACTIONS

ROOT = Path(__file__).resolve().parents[3]
TELLERS = frozenset({"event", "_tell", "_tell_seldom", "_warn"})
"""Functions that take the name of an event, or hand it on."""
WEB = frozenset({"login", "logout", "login_refused"})
"""Names that `node.web.pages.login` hands on with ``web_`` before them."""
NAME = re.compile(r"[a-z]+(_[a-z]+)*")


def literals(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression may be: constants and both sides of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def logged() -> set[str]:
    """Return the names in calls of `TELLERS`, and in what is chosen as ``action`` for them."""
    found = {f"series_{done}" for done in _ACTIONS.values()}
    for path in (ROOT / "node").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'"event=(\w+)', source))  # the store's own lines
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in TELLERS:
                    found |= {text for arg in node.args for text in literals(arg)}
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "action":
                found |= set(literals(node.value))
    return {f"web_{name}" if name in WEB else name for name in found}


def documented() -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/log.md").read_text("utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_table_names_every_event_that_is_logged() -> None:
    names = {name for name in logged() if NAME.fullmatch(name)}

    assert names - documented() - {"next"} == set()


def test_the_table_names_no_event_that_is_never_logged() -> None:
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "node").rglob("*.py"))
    never = {name for name in documented() - logged() if f'"{name}"' not in source}

    assert never == set()


@pytest.mark.parametrize("name", ["association_ended", "job_finished"])
def test_the_canonical_lines_are_events(name: str) -> None:
    assert name in logged()
