"""Hot folder: files that appear complete enter through the same door as C-STORE.

A file is taken when its size and time stayed the same for a while, nobody has it open for writing,
and its name is not one that copying programs give to unfinished files. Its content decides what it
is; its name is never used and never logged, because people put patients' names into file names.
The objects that come in one go form a pseudo-association, which ends when the folder is quiet, so
that the same rules decide whether a series is whole.
"""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from typing_extensions import override
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from node.config.model import AfterIntake, HotFolder
from node.domain import Accepted, AETitle, Clock, Source
from node.engine.bell import Bell
from node.errors import NodeError
from node.log import event
from node.store.files import SystemFileOps

_log = logging.getLogger(__name__)

_UNFINISHED: Final = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp")
"""Endings that copying programs give to files they still write."""
_TICK_S: Final = 0.5
"""Time between looks at files that are settling."""
_RESCAN_S: Final = 30.0
"""Time between looks at the whole folder where no event came: network mounts send none."""
_RETRY_S: Final = 10.0
"""Pause before a file is tried again that disk or database refused."""
_ADDRESS: Final = "folder"


class Door(Protocol):
    """What the inbox needs of the intake."""

    def accept_file(self, path: Path, source: Source) -> Accepted:
        """Return when the file is durable; raise a `NodeError` when it is not."""
        ...

    def association_opened(self, source: Source) -> None:
        """Record that a source can deliver from now on."""
        ...

    def association_ended(
        self, association_id: str, *, end: str, received: int, refused: int
    ) -> None:
        """Record the end of a source."""
        ...


@dataclass(frozen=True, slots=True)
class _Version:
    """What tells one state of a file from another."""

    size: int
    modified_ns: int
    inode: int


@dataclass(slots=True)
class _Batch:
    """The pseudo-association that is open."""

    source: Source
    last_at: float
    received: int = 0
    refused: int = 0


class Inbox:
    """Watches one folder in a thread of its own.

    Parameters
    ----------
    folder
        What to watch, and what becomes of files that were taken.
    called_ae_title
        AE title of the node that the objects count as sent to.
    door
        Makes files durable.
    clock
        Its monotonic time measures how long a file stayed the same.
    """

    def __init__(
        self, folder: HotFolder, called_ae_title: AETitle, door: Door, clock: Clock
    ) -> None:
        self._folder = folder
        self._called = called_ae_title
        self._door = door
        self._clock = clock
        self._ops = SystemFileOps()
        self._settling: dict[Path, tuple[_Version, float]] = {}
        self._done: dict[Path, _Version] = {}
        self._batch: _Batch | None = None
        self._bell = Bell()
        self._observer = Observer()
        self._thread = threading.Thread(target=self._run, name="inbox")

    def start(self) -> None:
        """Begin to watch; what lies in the folder already is taken too."""
        self._folder.path.mkdir(parents=True, exist_ok=True)
        self._observer.schedule(_Ring(self._bell), str(self._folder.path), recursive=True)
        self._observer.start()
        self._thread.start()

    def stop(self) -> None:
        """Finish the file that is being taken, and end."""
        self._bell.close()
        if self._thread.ident is not None:
            self._observer.stop()
            self._thread.join()
            self._observer.join()

    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def look(self) -> bool:
        """Take every file that is complete now; return whether any is settling."""
        now = self._clock.monotonic()
        present = dict(self._files())
        self._done = {p: v for p, v in self._done.items() if present.get(p) == v}
        self._settling = {p: s for p, s in self._settling.items() if p in present}
        for path, version in present.items():
            if self._done.get(path) == version:
                continue
            seen, since = self._settling.get(path, (None, now))
            if seen != version:
                self._settling[path] = (version, now)
            elif now - since >= self._folder.settle_s and not _is_being_written(path):
                del self._settling[path]
                self._take(path, version)
                if self._bell.closed:
                    break
        self._end_batch_when_quiet()
        return bool(self._settling) or self._batch is not None

    def _run(self) -> None:
        while not self._bell.closed:
            rings = self._bell.rings
            try:
                busy = self.look()
            except (NodeError, OSError) as error:
                event(_log, "hot_folder_failed", level=logging.ERROR, error=error)
                busy = False
            if busy:
                self._bell.pause(_TICK_S)
            else:
                self._bell.wait(_RESCAN_S, since=rings)
        with contextlib.suppress(NodeError):
            self._end_batch()

    def _files(self) -> Iterator[tuple[Path, _Version]]:
        """Yield the files that may be taken; hidden and unfinished ones are passed over."""
        done_dir = self._folder.done_dir
        for place, folders, names in os.walk(self._folder.path):
            folders[:] = [
                f for f in folders if not f.startswith(".") and Path(place, f) != done_dir
            ]
            for name in names:
                if name.startswith((".", "~")) or name.lower().endswith(_UNFINISHED):
                    continue
                path = Path(place, name)
                try:
                    status = path.stat()
                except OSError:
                    continue  # renamed or removed since
                if path.is_file():
                    yield path, _Version(status.st_size, status.st_mtime_ns, status.st_ino)

    def _take(self, path: Path, version: _Version) -> None:
        batch = self._open_batch()
        batch.last_at = self._clock.monotonic()
        try:
            accepted = self._door.accept_file(path, batch.source)
        except NodeError as error:
            event(_log, "file_refused", level=logging.WARNING, assoc=batch.source.association_id,
                  bytes=version.size, reason=str(error), hint=error.advice)  # fmt: skip
            self._leave(batch, path, version, again=error.transient)
            return
        except Exception as error:  # noqa: BLE001 - one file must not end the watch over all others
            event(_log, "file_not_taken", level=logging.ERROR, error=error,
                  assoc=batch.source.association_id, bytes=version.size)  # fmt: skip
            self._leave(batch, path, version, again=False)
            return
        batch.received += 1
        event(_log, "file_taken", level=logging.DEBUG, assoc=batch.source.association_id,
              sop=accepted.sop_instance_uid, kept=accepted.kept.value)  # fmt: skip
        self._put_away(path, version)

    def _leave(self, batch: _Batch, path: Path, version: _Version, *, again: bool) -> None:
        """Leave a file that was not taken where it is; try it once more later if that may help."""
        batch.refused += 1
        if again:
            later = self._clock.monotonic() + _RETRY_S - self._folder.settle_s
            self._settling[path] = (version, later)
        else:
            self._done[path] = version

    def _put_away(self, path: Path, version: _Version) -> None:
        """Keep, delete or move a file that is durable in the node."""
        try:
            if self._folder.after is AfterIntake.DELETE:
                self._ops.remove(path)
            elif self._folder.after is AfterIntake.MOVE and self._folder.done_dir is not None:
                target = self._folder.done_dir / path.relative_to(self._folder.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                while target.exists():
                    target = target.with_name(f"{secrets.token_hex(4)}-{path.name}")
                self._ops.move(path, target)
            else:
                self._done[path] = version
        except OSError as error:
            self._done[path] = version
            event(_log, "file_not_put_away", level=logging.ERROR, reason=error.strerror,
                  after=self._folder.after.value)  # fmt: skip

    def _open_batch(self) -> _Batch:
        if self._batch is None:
            source = Source(
                calling_ae_title=self._folder.calling_ae_title,
                called_ae_title=self._called,
                address=_ADDRESS,
                association_id=secrets.token_hex(4),
            )
            self._door.association_opened(source)
            self._batch = _Batch(source=source, last_at=self._clock.monotonic())
        return self._batch

    def _end_batch_when_quiet(self) -> None:
        batch = self._batch
        if batch is None or self._settling:
            return
        if self._clock.monotonic() - batch.last_at >= self._folder.settle_s:
            self._end_batch()

    def _end_batch(self) -> None:
        batch = self._batch
        if batch is None:
            return
        self._door.association_ended(
            batch.source.association_id,
            end="RELEASED",
            received=batch.received,
            refused=batch.refused,
        )
        self._batch = None
        event(_log, "folder_quiet", assoc=batch.source.association_id,
              calling=batch.source.calling_ae_title, received=batch.received,
              refused=batch.refused)  # fmt: skip


class _Ring(FileSystemEventHandler):  # type: ignore[misc] # watchdog is not followed by mypy
    """Rings the bell whenever something in the folder changes."""

    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell

    @override
    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring; opening and reading change nothing, our own reading among them."""
        if event.event_type in {"created", "modified", "moved", "closed"}:
            self._bell.ring()


def _is_being_written(path: Path) -> bool:
    """Tell whether anybody has the file open for writing.

    A read lease is granted only where nobody has (fcntl(2)); file systems and owners that allow
    no lease leave the question to the time that the file stayed the same.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True  # gone or not readable: look again
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
