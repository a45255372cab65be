"""Comparing rows, files and hashes: what ``rtnode verify`` runs and every fault test ends with.

Read-only, beside a running node or without one. The questions to the ledger alone are in
`node.store.invariants`; here each file is held against its row, byte for byte.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from node.errors import CannotUnderstand
from node.store import schema
from node.store.base import LedgerPart
from node.store.dialect import damage
from node.store.header import parse_header
from node.store.invariants import open_work, violations
from node.store.marks import Marks, read_marks, write_marks
from node.store.part10 import split
from node.store.records import Problem, Verdict

_LOOKS_S: Final = 0.5
"""Pause between two looks at files that may still be on their way to their row."""
_B: Final = schema.blob.c
_NEWEST_EVENT: Final = select(func.coalesce(func.max(schema.event.c.id), 0))


class Verification(LedgerPart):
    """Checks that cost time: every byte is read."""

    def verify(self, *, grace_s: float = 0.0, contents: bool = True) -> list[Problem]:
        """Return what is wrong; an empty list means rows, files, hashes and states agree.

        Parameters
        ----------
        grace_s
            How long a file may be on its way to its row beside a running node. [s]
        contents
            False reads no file: only names and sizes are compared.
        """
        return list(self.verdict(grace_s=grace_s, contents=contents).problems)

    def verdict(self, *, grace_s: float = 0.0, contents: bool = True) -> Verdict:
        """Return everything that a verification found; parameters as `verify`."""
        problems, work = self._database.read(lambda c: (violations(c), open_work(c)))
        rows = self._database.read(lambda c: c.execute(_blobs()).all())
        kept = [row for row in rows if row.purged_at is None]
        for row in kept:
            found = _file_problems(row, self._files.absolute(row.path), contents=contents)
            if found and not self._purged_meanwhile(row.sha256):
                problems += found
        problems += [
            Problem(kind="not purged", subject=row.path, detail="the file was to be removed")
            for row in rows
            if row.purged_at is not None and self._files.absolute(row.path).exists()
        ]
        problems += [
            Problem(kind="unknown", subject=name, detail="the file has no row")
            for name in self._stray(grace_s)
        ]
        problems += self._quarantine_problems()
        return Verdict(
            problems=tuple(problems),
            files=len(kept) if contents else 0,
            bytes=sum(row.size for row in kept) if contents else 0,
            purged=len(rows) - len(kept),
            open_work=work,
        )

    def open_work(self) -> dict[str, int]:
        """Return what has not come to its end yet, by kind; cheap."""
        return self._database.read(open_work)

    def database_damage(self) -> list[str]:
        """Return what the database finds wrong with itself; reads all of it."""
        return self._database.read(damage)

    def sweep(self) -> tuple[int, tuple[str, ...]]:
        """Set files without a row aside; return (how many, names of rows without a file).

        Only folders that changed since the last sweep are looked at. Only the node that owns the
        data folder may do this, before it receives anything.
        """
        files = self._files
        newest = self._database.read(lambda c: c.execute(_NEWEST_EVENT).scalar_one())
        marks = read_marks(files.data_dir, newest).changed_at
        swept: dict[str, int] = {}
        orphans = 0
        missing: list[str] = []
        buckets = files.buckets()
        for bucket in buckets:
            at = files.changed_at(bucket)
            if marks.get(bucket) != at:
                aside, gone = self._sweep_one(bucket)
                orphans += aside
                missing += gone
                at = files.changed_at(bucket) if not gone else 0
            swept[bucket] = at
        for bucket in sorted(self._database.read(_buckets_of_rows) - set(buckets)):
            missing += sorted(self._database.read(partial(_kept_in, bucket=bucket)))
        write_marks(files.data_dir, Marks(event=newest, changed_at=swept))
        return orphans, tuple(missing)

    def _sweep_one(self, bucket: str) -> tuple[int, list[str]]:
        """Compare one folder with its rows; what is half written or half purged goes."""
        self._files.remove_parts(bucket)
        names = {f"{bucket}/{name}" for name in self._files.names_in(bucket)}
        known = self._database.read(partial(_names_in, bucket=bucket))
        kept = self._database.read(partial(_kept_in, bucket=bucket))
        strays = names - known
        arrivals = {name for name in strays if self._files.is_arrival(name)}
        for name in sorted(strays - arrivals):
            self._files.set_aside(name)
        for name in sorted(arrivals | (names & known - kept)):
            self._files.remove(name)  # the intake takes an arrival over by its first name
        return len(strays - arrivals), sorted(kept - names)

    def _stray(self, grace_s: float) -> list[str]:
        """Return the files without a row, after those that are being written had time to get one.

        A node writes the file first and commits its row then, so a look may fall between. What is
        durable under its first name waits for its row, however long, and is no problem.
        """
        deadline = time.monotonic() + grace_s
        stray = list(self._without_row())
        while stray and time.monotonic() < deadline:
            time.sleep(min(_LOOKS_S, grace_s))
            again = set(self._without_row())
            stray = [name for name in stray if name in again]
        return stray

    def _without_row(self) -> Iterator[str]:
        for bucket, names in self._files.names():
            known = self._database.read(partial(_names_in, bucket=bucket))
            for name in (f"{bucket}/{n}" for n in names):
                if name not in known and not self._files.is_arrival(name):
                    yield name

    def _purged_meanwhile(self, sha256: str) -> bool:
        query = select(_B.purged_at).where(_B.sha256 == sha256)
        return self._database.read(lambda c: c.execute(query).scalar_one_or_none()) is not None

    def _quarantine_problems(self) -> list[Problem]:
        q = schema.quarantine.c
        query = select(q.path).where(q.path != "")
        paths = self._database.read(lambda c: c.execute(query).scalars().all())
        return [
            Problem(kind="missing", subject=path, detail="the quarantined bytes are gone")
            for path in paths
            if not self._files.absolute(path).is_file()
        ]


def _blobs() -> Any:  # noqa: ANN401 - a SELECT of five columns
    """Return the query of all files with the UIDs of the objects that they hold."""
    i, r = schema.instance.c, schema.result.c
    uid = func.coalesce(
        select(func.min(i.sop_instance_uid)).where(i.sha256 == _B.sha256).scalar_subquery(),
        select(func.min(r.sop_instance_uid)).where(r.sha256 == _B.sha256).scalar_subquery(),
    )
    return select(_B.sha256, _B.path, _B.size, _B.purged_at, uid.label("uid")).order_by(_B.path)


def _names_in(connection: Connection, *, bucket: str) -> set[str]:
    query = select(_B.path).where(_B.path > f"{bucket}/", _B.path < f"{bucket}0")  # "0" after "/"
    return set(connection.execute(query).scalars())


def _buckets_of_rows(connection: Connection) -> set[str]:
    """Return the folders that rows name: one step along the index for each folder."""
    found: set[str] = set()
    after = ""
    while True:
        first = connection.execute(
            select(_B.path).where(_B.path > after).order_by(_B.path).limit(1)
        ).scalar_one_or_none()
        if first is None:
            return found
        bucket = first.rpartition("/")[0]
        found.add(bucket)
        after = f"{bucket}0"


def _kept_in(connection: Connection, *, bucket: str) -> set[str]:
    """Return the names of a folder that must have a file."""
    query = select(_B.path).where(
        _B.path > f"{bucket}/", _B.path < f"{bucket}0", _B.purged_at.is_(None)
    )
    return set(connection.execute(query).scalars())


def _file_problems(row: Row[Any], path: Path, *, contents: bool) -> list[Problem]:
    if not contents:
        there = path.is_file() and path.stat().st_size >= row.size
        return [] if there else [_wrong("missing", row, "the row has no whole file")]
    try:
        content = split(path.read_bytes())
    except FileNotFoundError:
        return [_wrong("missing", row, "the row has no file")]
    except (OSError, CannotUnderstand) as error:
        return [_wrong("changed", row, f"unreadable: {error}")]
    if content.sha256() != row.sha256 or len(content.data) != row.size:
        return [_wrong("changed", row, "the bytes are not those stored")]
    if row.uid is None:
        return [_wrong("unknown", row, "no instance and no result has this content")]
    held = parse_header(content.data, content.transfer_syntax_uid).sop_instance_uid
    if held != row.uid:
        return [_wrong("changed", row, "the object bears another UID than its row")]
    return []


def _wrong(kind: str, row: Row[Any], detail: str) -> Problem:
    return Problem(kind=kind, subject=row.path, detail=detail)
