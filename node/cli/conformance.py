"""Fill the generated tables of CONFORMANCE.md: ``python -m node.cli.conformance CONFORMANCE.md``.

The text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is printed from the tables that
the code obeys; a test runs the same and compares, so the statement cannot drift (PS3.2 annex N).
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from node.lifecycle import DELIVERY_TRANSITIONS, JOB_TRANSITIONS, SERIES_TRANSITIONS
from node.scp import contexts
from node.scp.commitment import STATUSES
from node.scp.status import FAILURES, SUCCESS
from node.scu.query import SERVICES
from node.scu.sender import VERDICTS
from node.scu.transaction import PUSH_MODEL
from node.store.commitments import REASONS
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipelines.catalog import PIPELINES

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def tables() -> dict[str, str]:
    """Return block name -> Markdown table, all from the running code."""
    return {
        "implementation": _table(
            ("Implementation Class UID", "Implementation Version Name"),
            [(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)],
        ),
        "sop-classes": _table(
            ("SOP class", "SOP Class UID", "role"),
            [
                ("Verification", contexts.VERIFICATION, "SCP, SCU"),
                ("Storage Commitment Push Model", PUSH_MODEL, "SCP, SCU"),
                *((name, uid, "SCU") for uid, name in SERVICES.items()),
                *((name, uid, "SCP") for uid, name in contexts.STORAGE_CLASSES.items()),
            ],
        ),
        "transfer-syntaxes": _table(
            ("transfer syntax, in order of preference", "UID"),
            [(name, uid) for uid, name in contexts.STORAGE_SYNTAXES.items()],
        ),
        "receive-status": _table(
            ("status", "meaning"),
            [
                (f"{SUCCESS:04X}", "Durable: file, folder and database row are synced to disk."),
                *((f"{answer.status:04X}", answer.meaning) for _, answer in FAILURES),
            ],
        ),
        "send-status": _table(
            ("status of the peer", "meaning to us", "what we do"),
            [
                (_span(v.lowest, v.highest), v.meaning, v.outcome.replace("_", " ").lower())
                for v in VERDICTS
            ],
        ),
        "commitment-status": _table(
            ("status", "meaning"),
            [(f"{status:04X}", meaning) for status, meaning in STATUSES.items()],
        ),
        "commitment-reasons": _table(
            ("failure reason", "meaning"),
            [(f"{reason:04X}", meaning) for reason, meaning in REASONS.items()],
        ),
        "pipelines": _table(
            ("pipeline", "version", "starts with", "needs", "takes if there"),
            [
                (p.name, p.version, p.trigger, _words(p.required), _words(p.optional))
                for p in PIPELINES.values()
            ],
        ),
        "series-states": _steps(SERIES_TRANSITIONS),
        "job-states": _steps(JOB_TRANSITIONS),
        "delivery-states": _steps(DELIVERY_TRANSITIONS),
    }


def filled(text: str) -> str:
    """Return `text` with the content of every block replaced.

    Raises
    ------
    KeyError
        If a block names no table.
    """
    made = tables()
    return re.sub(
        r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)",
        lambda found: f"{found[1]}{made[found[2]]}{found[3]}",
        text,
        flags=re.DOTALL,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _steps(transitions: Mapping[tuple[S, E], S]) -> str:
    return _table(
        ("from", "event", "to"),
        [
            (state, event.lower().replace("_", " "), to)
            for (state, event), to in transitions.items()
        ],
    )


def _span(lowest: int, highest: int) -> str:
    if (lowest, highest) == (0, 0xFFFF):
        return "any other"
    return f"{lowest:04X}" if lowest == highest else f"{lowest:04X}-{highest:04X}"


def _words(values: Iterable[str]) -> str:
    return ", ".join(values) or "-"


def main() -> None:
    """Rewrite the file named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
