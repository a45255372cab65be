"""What the last start found in each folder of files, so that the next one looks only at changes.

A folder's modification time changes with every entry that comes or goes, and a node never adds to
a folder that an earlier one began. So a folder with the same time holds what the last sweep found
there, and a start costs what came since, not what was ever received. The marks are a shortcut and
no truth: without them, or beside a database that does not know them, everything is looked at.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.store.files import publish_whole

_NAME: Final = "swept.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Folders that agreed with the ledger when it stood at an event."""

    event: int = 0
    """Number of the last event: a ledger that has fewer is another or an older one."""
    changed_at: Mapping[str, int] = field(default_factory=dict)
    """Folder, relative to the data folder -> its modification time in nanoseconds."""


def read_marks(data_dir: Path, event: int) -> Marks:
    """Return the marks of the last sweep, none where they do not belong to the ledger."""
    try:
        told = json.loads((data_dir / _NAME).read_text(encoding="utf-8"))
        marks = Marks(
            event=int(told["event"]),
            changed_at={str(name): int(at) for name, at in told["changed_at"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Marks()
    return marks if marks.event <= event else Marks()


def write_marks(data_dir: Path, marks: Marks) -> None:
    """Keep the marks for the next start; a disk that refuses costs that start its shortcut."""
    part = data_dir / f"{_NAME}.part"
    told = {"event": marks.event, "changed_at": dict(marks.changed_at)}
    with suppress(OSError):
        part.write_text(json.dumps(told), encoding="utf-8")
        publish_whole(part, data_dir / _NAME)


def forget_marks(data_dir: Path) -> None:
    """Let the next start look at everything: its database comes from elsewhere."""
    (data_dir / _NAME).unlink(missing_ok=True)
