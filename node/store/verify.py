"""Comparing rows, files and hashes: what `rtnode check` runs and every fault test ends with."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select

from node.errors import CannotUnderstand
from node.store import schema
from node.store.base import LedgerPart
from node.store.dialect import damage
from node.store.part10 import split


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that must not be."""

    kind: str
    """database, missing, changed or unknown."""
    subject: str
    """Name of the file or table, relative to the data folder."""
    detail: str


class Verification(LedgerPart):
    """Checks that cost time: every byte is read."""

    def verify(self) -> list[Problem]:
        """Return what is wrong; an empty list means rows, files and hashes agree.

        Files that arrive while it runs may show as unknown: repeat, or stop receiving.
        """
        problems = [
            Problem(kind="database", subject="ledger", detail=line)
            for line in self._database.read(damage)
        ]
        for row in self._database.read(lambda c: c.execute(select(schema.blob)).all()):
            problems += _file_problems(row, self._files.absolute(row.path))
        problems += [
            Problem(kind="unknown", subject=name, detail="the file has no row")
            for name in self._without_row()
        ]
        return problems

    def sweep(self) -> tuple[int, tuple[str, ...]]:
        """Set files without a row aside; return (how many, names of rows without a file).

        Only the node that owns the data folder may do this, before it receives anything.
        """
        orphans = list(self._without_row())
        for name in orphans:
            self._files.set_aside(name)
        held = sum(len(names) for _, names in self._files.names())
        rows = self._database.read(
            lambda c: c.execute(select(func.count(schema.blob.c.sha256))).scalar_one()
        )
        return len(orphans), () if rows == held else tuple(self._without_file())

    def _without_row(self) -> Iterator[str]:
        for bucket, names in self._files.names():
            known = self._database.read(partial(_names_in, bucket=bucket))
            yield from (f"{bucket}/{n}" for n in names if f"{bucket}/{n}" not in known)

    def _without_file(self) -> list[str]:
        paths = self._database.read(lambda c: c.execute(select(schema.blob.c.path)).scalars().all())
        return [path for path in paths if not self._files.absolute(path).is_file()]


def _names_in(connection: Connection, *, bucket: str) -> set[str]:
    path = schema.blob.c.path
    query = select(path).where(path > f"{bucket}/", path < f"{bucket}0")  # "0" follows "/"
    return set(connection.execute(query).scalars())


def _file_problems(row: Row[Any], path: Path) -> list[Problem]:
    try:
        content = split(path.read_bytes())
    except FileNotFoundError:
        return [Problem(kind="missing", subject=row.path, detail="the row has no file")]
    except (OSError, CannotUnderstand) as error:
        return [Problem(kind="changed", subject=row.path, detail=f"unreadable: {error}")]
    if content.sha256() != row.sha256 or len(content.data) != row.size:
        return [Problem(kind="changed", subject=row.path, detail="the bytes are not those stored")]
    return []
