"""The only code that writes below the data folder's ``blobs``, ``quarantine`` and ``orphans``.

Publishing is: write a new file (never an existing one), fsync it, hand its folder to the
committer, which fsyncs the folder and commits the row. **Only the committed row makes the file
valid**, so no rename is needed; a twin that arrives at the same moment writes its own file, and
whatever lies here without a row after a crash is set aside into ``orphans``. A failed fsync is
final: the kernel may have dropped the pages, so the file is discarded and never synced again.
Names are content hashes; no DICOM value ever enters a path.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from node.errors import OutOfResources
from node.store.part10 import Buffer, Encoded, prefix

FILES_PER_BUCKET: Final = 4096
"""A new folder every few thousand files: a batch then syncs one folder, not dozens."""
_PIECE: Final = 64 * 1024
"""Bytes of one write call. For larger ones Linux looks for large pages: measured for a slice of
512 KiB, ext4, Linux 6.18: 2.0 ms of CPU time in pieces of 128 KiB and above, 0.4 ms in these."""


class FileOps(Protocol):
    """The system calls that durability rests on; tests record, fail and forget them."""

    def write_new(self, path: Path, chunks: Sequence[Buffer]) -> None:
        """Create `path`, which must not exist, write all chunks and fsync the file."""
        ...

    def make_directory(self, path: Path) -> None:
        """Create `path` and fsync its parent; fine if it exists."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Fsync the entries of a folder."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def move(self, old: Path, new: Path) -> None:
        """Move a file within the data folder and fsync the folder that receives it."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Return the bytes that an unprivileged user may still write."""
        ...


class SystemFileOps:
    """`FileOps` by the operating system."""

    def write_new(self, path: Path, chunks: Sequence[Buffer]) -> None:
        """Create, write, fsync; the descriptor is closed in every case."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest[:_PIECE]) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path) -> None:
        """Create the folder and make its entry durable."""
        path.mkdir(mode=0o750, exist_ok=True)
        self.sync_directory(path.parent)

    def sync_directory(self, path: Path) -> None:
        """Fsync through a descriptor of the folder."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Unlink the file."""
        path.unlink()

    def move(self, old: Path, new: Path) -> None:
        """Rename the file; its content was synced when it was written, or is worthless."""
        old.replace(new)
        self.sync_directory(new.parent)

    def free_bytes(self, path: Path) -> int:
        """Read the free space."""
        figures = os.statvfs(path)
        return figures.f_bavail * figures.f_frsize


class DiskState(StrEnum):
    """What the data volume allows."""

    OK = "OK"
    LOW = "LOW"
    """Below the warning level: everything goes on, somebody should look."""
    FULL = "FULL"
    """Below the floor, or the last write failed: objects are refused with 0xA700."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The data volume as `status` shows it."""

    free_bytes: int
    state: DiskState
    trouble: str
    """Cause of the last failed write; empty since the last one that worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A synced file that waits for its row."""

    sha256: str
    path: Path
    name: str
    """Path relative to the data folder, as the row keeps it."""
    size: int
    """Bytes of the data set."""
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the node may write, in bytes."""

    min_free: int = 5 << 30
    """Floor of the data volume: below it nothing is written."""
    warn_free: int = 20 << 30
    """Level of the alarm."""
    quarantine: int = 1 << 30
    """Most that is kept of what we could not understand."""


class BlobFiles:
    """Files named by content below ``<data folder>/blobs/<bucket>``.

    Parameters
    ----------
    data_dir : Path
        Existing folder on a local disk.
    bucket_prefix : callable
        Begins the name of a new bucket, e.g. today's date: for people, never parsed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        limits: Limits,
        bucket_prefix: Callable[[], str],
        ops: FileOps | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._blobs = data_dir / "blobs"
        self._quarantine = data_dir / "quarantine"
        self._orphans = data_dir / "orphans"
        self._limits = limits
        self._bucket_prefix = bucket_prefix
        self._ops: FileOps = ops or SystemFileOps()
        self._lock = threading.Lock()
        self._bucket: Path | None = None
        self._in_bucket = 0
        self._trouble = ""
        self._quarantined = 0

    def prepare(self) -> None:
        """Make the folders; called once by the node that owns the data folder.

        Raises
        ------
        OutOfResources
            The data volume cannot be written to.
        """
        with self._guard("make folders on"):
            for folder in (self._blobs, self._quarantine, self._orphans):
                self._ops.make_directory(folder)
        self._quarantined = sum(entry.stat().st_size for entry in self._quarantine.iterdir())

    def disk(self) -> Disk:
        """Return the state of the data volume."""
        try:
            free = self._ops.free_bytes(self.data_dir)
        except OSError as error:
            return Disk(free_bytes=0, state=DiskState.FULL, trouble=_cause(error))
        if self._trouble or free < self._limits.min_free:
            state = DiskState.FULL
        else:
            state = DiskState.LOW if free < self._limits.warn_free else DiskState.OK
        return Disk(free_bytes=free, state=state, trouble=self._trouble)

    def require_space(self, size: int = 0) -> None:
        """Refuse when `size` more bytes would bring the volume below its floor.

        Raises
        ------
        OutOfResources
            Nothing was written.
        """
        with self._guard("look at"):
            free = self._ops.free_bytes(self.data_dir)
        if free - size < self._limits.min_free:
            raise OutOfResources(
                f"the data volume has {free >> 20} MiB free, its floor is"
                f" {self._limits.min_free >> 20} MiB"
            )

    def publish(
        self, content: Encoded, *, sha256: str, sop_class_uid: str, sop_instance_uid: str
    ) -> Published:
        """Write and sync a new file; syncing its folder and committing its row come next.

        Raises
        ------
        OutOfResources
            The partial file is removed; nothing remains.
        """
        size = len(content.data)
        self.require_space(size)
        head = prefix(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=content.transfer_syntax_uid,
        )
        path = self._write_unique(sha256, (head, content.data))
        return Published(
            sha256=sha256,
            path=path,
            name=str(path.relative_to(self.data_dir)),
            size=size,
            transfer_syntax_uid=content.transfer_syntax_uid,
        )

    def sync_directory(self, path: Path) -> None:
        """Sync the entries of `path`; the committer calls it before it commits.

        Raises
        ------
        OutOfResources
            The entries may be lost: the rows that name them must not be committed.
        """
        with self._guard("sync a folder of"):
            self._ops.sync_directory(path)

    def discard(self, published: Published) -> None:
        """Remove a file that got no row; the next start sets it aside if that fails."""
        with suppress(OSError):
            self._ops.remove(published.path)

    def read(self, path: Path) -> bytes:
        """Return the bytes of a file that another process left for us.

        Raises
        ------
        OutOfResources
            The file cannot be read.
        """
        try:
            return path.read_bytes()
        except OSError as error:
            raise OutOfResources(f"cannot read a result file: {_cause(error)}") from error

    def absolute(self, name: str) -> Path:
        """Return the absolute path of a name that a row holds."""
        return self.data_dir / name

    def keep_in_quarantine(self, sha256: str, data: Buffer) -> str:
        """Keep bytes that we could not understand; return their name, empty when there is no room.

        The quarantine is bounded: a peer that sends rubbish must not fill the disk.
        """
        size = len(data)
        path = self._quarantine / f"{sha256}.bin"
        with self._lock:
            if path.exists():
                return str(path.relative_to(self.data_dir))
            if self._quarantined + size > self._limits.quarantine:
                return ""
            self.require_space(size)
            self._write(path, (data,))
            self._quarantined += size
        self.sync_directory(self._quarantine)
        return str(path.relative_to(self.data_dir))

    def names(self) -> Iterator[tuple[str, list[str]]]:
        """Yield (bucket, file names), with the path of the bucket relative to the data folder."""
        for bucket in sorted(self._blobs.iterdir()) if self._blobs.exists() else ():
            yield f"blobs/{bucket.name}", sorted(entry.name for entry in os.scandir(bucket))

    def set_aside(self, name: str) -> None:
        """Move a file without a row into the orphan area, where a person may look at it."""
        old = self.absolute(name)
        with self._guard("move a file of"):
            self._ops.move(old, self._orphans / old.name)

    def _write_unique(self, sha256: str, chunks: Sequence[Buffer]) -> Path:
        """Write under the first free name of this content: a twin may be on its way too."""
        bucket = self._take_place()
        attempt = 0
        while True:
            path = bucket / (f"{sha256}-{attempt}.dcm" if attempt else f"{sha256}.dcm")
            try:
                self._write(path, chunks)
            except FileExistsError:
                attempt += 1
            else:
                return path

    def _write(self, path: Path, chunks: Sequence[Buffer]) -> None:
        with self._guard("write to"):
            try:
                self._ops.write_new(path, chunks)
            except FileExistsError:
                raise
            except OSError:
                with suppress(OSError):
                    self._ops.remove(path)
                raise
        self._trouble = ""

    def _take_place(self) -> Path:
        """Return the bucket for one more file, a new one when the current one is full."""
        with self._lock:
            if self._bucket is None or self._in_bucket >= FILES_PER_BUCKET:
                self._bucket = self._new_bucket()
                self._in_bucket = 0
            self._in_bucket += 1
            return self._bucket

    def _new_bucket(self) -> Path:
        stem = self._bucket_prefix()
        number = 0
        while (bucket := self._blobs / f"{stem}-{number:04d}").exists():
            number += 1
        with self._guard("make a folder on"):
            self._ops.make_directory(bucket)
        return bucket

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Turn an error of the file system into `OutOfResources`, and remember its cause."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            self._trouble = _cause(error)
            raise OutOfResources(f"cannot {doing} the data volume: {self._trouble}") from error


def _cause(error: OSError) -> str:
    """Return the system's words for an error, without the path."""
    return error.strerror or type(error).__name__
