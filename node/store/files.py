"""The only code that writes below the data folder's ``blobs``, ``quarantine`` and ``orphans``.

Publishing is: write a new file (never an existing one), fsync it, hand its folder to the
committer, which fsyncs the folder and commits the row. **Only the committed row makes a file of
``blobs`` valid**, so no rename is needed; a twin that arrives at the same moment writes its own
file, and whatever lies here without a row after a crash is set aside into ``orphans``.

What is received is written into ``blobs/arrivals`` under a name whose entry was synced beforehand,
a few dozen names at a time. One fdatasync then makes bytes, name and receipt durable, and the
object may be answered. The file gets the name of its content by a link, and loses the first one
when its row is committed; what a dead node left in ``arrivals`` the next one takes over.

A failed fsync is final: the kernel may have dropped the pages, so the file is discarded and never
synced again. Names are content hashes or random; no DICOM value ever enters a path.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from node.errors import OutOfResources
from node.store.part10 import Buffer, Encoded, prefix, received
from node.store.receipt import Receipt
from node.store.volume import Disk, DiskState, judge

FILES_PER_BUCKET: Final = 4096
"""A new folder every few thousand files: a batch then syncs one folder, not dozens."""
PART: Final = ".part"
"""Ends the name of a large file that an earlier release was writing in its folder."""
ARRIVALS: Final = "arrivals"
"""Folder of what arrives; within ``blobs``, which may be a volume of its own."""
_PREPARED: Final = 32
"""Names in ``arrivals`` that are made, and synced, at once."""
_SPACE_STEP: Final = 16 << 20
"""A growing file looks for free space again after so many bytes."""
_PIECE: Final = 64 * 1024
"""Bytes of one write call. For larger ones Linux looks for large pages: measured for a slice of
512 KiB, ext4, Linux 6.18: 2.0 ms of CPU time in pieces of 128 KiB and above, 0.4 ms in these."""


class FileOps(Protocol):
    """The system calls that durability rests on; tests record, fail and forget them."""

    def write_new(self, path: Path, chunks: Iterable[Buffer]) -> None:
        """Create `path`, which must not exist, write all chunks and fsync the file."""
        ...

    def create(self, path: Path) -> int:
        """Create `path`, which must not exist; return a descriptor that reads and writes."""
        ...

    def open_prepared(self, path: Path) -> int:
        """Open a file that was created before; return a descriptor that reads and writes."""
        ...

    def write_at(self, descriptor: int, data: Buffer, position: int) -> None:
        """Write all of `data` from `position` on."""
        ...

    def sync_data(self, descriptor: int) -> None:
        """Make the content of a file durable, its length included."""
        ...

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name, which must not exist."""
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

    def write_new(self, path: Path, chunks: Iterable[Buffer]) -> None:
        """Create, write, fsync; the descriptor is closed in every case."""
        descriptor = self.create(path)
        position = 0
        try:
            for chunk in chunks:
                self.write_at(descriptor, chunk, position)
                position += len(chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def create(self, path: Path) -> int:
        """Open for reading and writing, exclusively."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def open_prepared(self, path: Path) -> int:
        """Open for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write_at(self, descriptor: int, data: Buffer, position: int) -> None:
        """Write in pieces."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest[:_PIECE], position)
            rest, position = rest[written:], position + written

    def sync_data(self, descriptor: int) -> None:
        """Fdatasync, which syncs a new length too."""
        os.fdatasync(descriptor)

    def link(self, old: Path, new: Path) -> None:
        """Link, which never replaces a file."""
        os.link(old, new)

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
    arrival: Path | None = None
    """Its first name, which is durable already; only of what was received."""


@dataclass(slots=True, kw_only=True)
class Part:
    """A file that is being written; nothing knows it yet, and the next start removes it."""

    path: Path
    descriptor: int
    prefix: int
    """Bytes of preamble and meta information before the data set."""
    size: int = 0
    """Bytes of the data set so far."""

    def close(self) -> None:
        """Give the descriptor back, once: its number may be another file's by then."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


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
        self._arrivals = data_dir / "blobs" / ARRIVALS
        self._blobs = data_dir / "blobs"
        self._quarantine = data_dir / "quarantine"
        self._orphans = data_dir / "orphans"
        self._limits = limits
        self._bucket_prefix = bucket_prefix
        self._ops: FileOps = ops or SystemFileOps()
        self._lock = threading.Lock()
        self._quarantine_lock = threading.Lock()
        self._prepared: list[Path] = []
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
            for folder in (self._blobs, self._arrivals, self._quarantine, self._orphans):
                self._ops.make_directory(folder)
        self._quarantined = sum(entry.stat().st_size for entry in self._quarantine.iterdir())

    def disk(self) -> Disk:
        """Return the state of the data volume."""
        try:
            free = self._ops.free_bytes(self.data_dir)
        except OSError as error:
            return Disk(free_bytes=0, state=DiskState.FULL, trouble=_cause(error))
        limits = self._limits
        state = judge(free, min_free=limits.min_free, warn_free=limits.warn_free)
        if self._trouble:
            state = DiskState.FULL
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
            name=f"blobs/{path.parent.name}/{path.name}",
            size=size,
            transfer_syntax_uid=content.transfer_syntax_uid,
        )

    def begin(self, prefix_size: int) -> Part:
        """Begin a file for an object that arrives.

        Parameters
        ----------
        prefix_size : int
            Bytes to leave at its beginning, for what `finish` gets.

        Raises
        ------
        OutOfResources
            Nothing remains.
        """
        self.require_space()
        path = self._take_prepared()
        with self._guard("write to"):
            return Part(path=path, descriptor=self._ops.open_prepared(path), prefix=prefix_size)

    def extend(self, part: Part, data: Buffer) -> None:
        """Write the next bytes of the data set.

        Raises
        ------
        OutOfResources
            The file is removed; nothing remains.
        """
        end = part.size + len(data)
        try:
            if end // _SPACE_STEP != part.size // _SPACE_STEP:
                self.require_space()
            with self._guard("write to"):
                self._ops.write_at(part.descriptor, data, part.prefix + part.size)
        except OutOfResources:
            self.drop(part)
            raise
        part.size = end

    def finish(
        self, part: Part, head: Buffer, *, sha256: str, transfer_syntax_uid: str
    ) -> Published:
        """Sync the file, which makes it durable, and link it; its row comes next.

        Raises
        ------
        OutOfResources
            The file is removed; nothing remains.
        """
        try:
            with self._guard("write to"):
                self._ops.write_at(part.descriptor, head, 0)
                self._ops.sync_data(part.descriptor)
            path = self._link(part.path, sha256)
        except OutOfResources:
            self.drop(part)
            raise
        part.close()
        self._trouble = ""
        return Published(
            sha256=sha256,
            path=path,
            name=f"blobs/{path.parent.name}/{path.name}",
            size=part.size,
            transfer_syntax_uid=transfer_syntax_uid,
            arrival=part.path,
        )

    def drop(self, part: Part) -> None:
        """Remove a file that will not be finished; the next start does it if that fails."""
        part.close()
        self.forget_arrival(part.path)

    def arrivals(self) -> list[Path]:
        """Return what a dead node left: objects without a row, halves of them, unused names."""
        return sorted(Path(entry.path) for entry in os.scandir(self._arrivals))

    def whole_arrival(self, arrival: Path) -> tuple[Receipt, str, int] | None:
        """Return receipt, transfer syntax UID and begin of the data set of a file that is whole.

        Raises
        ------
        OutOfResources
            It cannot be read.
        """
        with self._guard("read a file of"), arrival.open("rb") as file:
            found = received(file.read(_PIECE))
            if found is None:
                return None
            receipt, transfer_syntax_uid, begin = found
            digest = hashlib.sha256(transfer_syntax_uid.encode("ascii", "replace"))
            file.seek(begin)
            while piece := file.read(_PIECE):
                digest.update(piece)
        return found if digest.hexdigest() == receipt.sha256 else None

    def adopt(self, arrival: Path, receipt: Receipt, transfer_syntax_uid: str) -> Published:
        """Link a whole file that a dead node received; its row comes next.

        It was answered: its first name goes with `forget_arrival` when the row is there, and in
        no other case.

        Raises
        ------
        OutOfResources
            It is left where it is.
        """
        path = self._link(arrival, receipt.sha256)
        return Published(
            sha256=receipt.sha256,
            path=path,
            name=f"blobs/{path.parent.name}/{path.name}",
            size=receipt.size,
            transfer_syntax_uid=transfer_syntax_uid,
        )

    def forget_arrival(self, arrival: Path | None) -> None:
        """Remove a name in ``arrivals``: its object has a row, or was never answered."""
        if arrival is not None:
            with suppress(OSError):
                self._ops.remove(arrival)

    def close(self) -> None:
        """Remove the names that were prepared and are not needed now."""
        with self._lock:
            prepared, self._prepared = self._prepared, []
        for path in prepared:
            self.forget_arrival(path)

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
        self.forget_arrival(published.arrival)

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

    def keep_in_quarantine(self, sha256: str, pieces: Iterable[Buffer], size: int) -> str:
        """Keep bytes that we could not understand; return their name, empty when there is no room.

        The quarantine is bounded: a peer that sends rubbish must not fill the disk.
        """
        path = self._quarantine / f"{sha256}.bin"
        with self._quarantine_lock:
            if path.exists():
                there = path.stat().st_size
                if there == size:
                    return str(path.relative_to(self.data_dir))
                with self._guard("remove a file of"):  # torn by a kill
                    self._ops.remove(path)
                self._quarantined -= there
            if self._quarantined + size > self._limits.quarantine:
                return ""
            self.require_space(size)
            self._write(path, pieces)
            self._quarantined += size
        self.sync_directory(self._quarantine)
        return str(path.relative_to(self.data_dir))

    def buckets(self) -> list[str]:
        """Return the folders of files, relative to the data folder."""
        if not self._blobs.exists():
            return []
        names = (entry.name for entry in os.scandir(self._blobs))
        return sorted(f"blobs/{name}" for name in names if name != ARRIVALS)

    def names_in(self, bucket: str) -> list[str]:
        """Return the names of the finished files of a folder."""
        entries = (entry.name for entry in os.scandir(self.data_dir / bucket))
        return sorted(name for name in entries if not name.endswith(PART))

    def changed_at(self, bucket: str) -> int:
        """Return the time in nanoseconds at which an entry of a folder last came or went."""
        return (self.data_dir / bucket).stat().st_mtime_ns

    def remove_parts(self, bucket: str) -> None:
        """Remove what a dead node was writing into a folder."""
        with self._guard("remove a file of"):
            for part in (self.data_dir / bucket).glob(f"*{PART}"):
                self._ops.remove(part)

    def names(self) -> Iterator[tuple[str, list[str]]]:
        """Yield (bucket, file names), with the path of the bucket relative to the data folder."""
        for bucket in self.buckets():
            yield bucket, self.names_in(bucket)

    def is_arrival(self, name: str) -> bool:
        """Return whether a file of ``blobs`` has its first name still, in ``arrivals``."""
        with suppress(FileNotFoundError):
            return self.absolute(name).stat().st_nlink > 1
        return False

    def set_aside(self, name: str) -> None:
        """Move a file without a row into the orphan area, where a person may look at it."""
        old = self.absolute(name)
        with self._guard("move a file of"):
            self._ops.move(old, self._orphans / old.name)

    def orphans(self) -> list[Path]:
        """Return the files that were set aside."""
        return sorted(self._orphans.iterdir()) if self._orphans.exists() else []

    def forget_orphan(self, path: Path) -> None:
        """Remove a file that was set aside and has its row now."""
        if path.parent != self._orphans:
            raise ValueError("only what was set aside can be forgotten")
        with self._guard("remove a file of"):
            self._ops.remove(path)

    def remove(self, name: str) -> None:
        """Remove the file of a row that says so; fine when it is gone.

        Raises
        ------
        OutOfResources
            It is still there; call again.
        """
        with self._guard("remove a file of"), suppress(FileNotFoundError):
            self._ops.remove(self.absolute(name))

    def _take_prepared(self) -> Path:
        """Return a name in ``arrivals`` whose entry is durable."""
        with self._lock:
            if not self._prepared:
                self._prepared = self._prepare_names()
            return self._prepared.pop()

    def _prepare_names(self) -> list[Path]:
        made: list[Path] = []
        try:
            with self._guard("make files on"):
                for _ in range(_PREPARED):
                    path = self._arrivals / secrets.token_hex(16)
                    os.close(self._ops.create(path))
                    made.append(path)
                self._ops.sync_directory(self._arrivals)
        except OutOfResources:
            for path in made:
                self.forget_arrival(path)
            raise
        return made

    def _link(self, arrival: Path, sha256: str) -> Path:
        """Give a received file the first free name of its content."""
        bucket = self._take_place()
        for path in _names(bucket, sha256):
            with suppress(FileExistsError), self._guard("write to"):
                self._ops.link(arrival, path)
                return path
        raise AssertionError("names never end")

    def _write_unique(self, sha256: str, chunks: Sequence[Buffer]) -> Path:
        """Write under the first free name of this content: a twin may be on its way too."""
        for path in _names(self._take_place(), sha256):
            with suppress(FileExistsError):
                self._write(path, chunks)
                return path
        raise AssertionError("names never end")

    def _write(self, path: Path, chunks: Iterable[Buffer]) -> None:
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

    def _guard(self, doing: str) -> "_Guard":
        """Turn an error of the file system into `OutOfResources`, and remember its cause."""
        return _Guard(doing, self._remember)

    def _remember(self, trouble: str) -> None:
        self._trouble = trouble


class _Guard:
    """Around system calls; a class, because a dozen of them stand on the way of each slice."""

    __slots__ = ("_doing", "_tell")

    def __init__(self, doing: str, tell: Callable[[str], None]) -> None:
        self._doing = doing
        self._tell = tell

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileExistsError):
            self._tell(_cause(error))
            raise OutOfResources(
                f"cannot {self._doing} the data volume: {_cause(error)}"
            ) from error


def _names(bucket: Path, sha256: str) -> Iterator[Path]:
    """Yield names for a content without end: a twin may be on its way too."""
    yield bucket / f"{sha256}.dcm"
    yield from (bucket / f"{sha256}-{number}.dcm" for number in count(1))


def publish_whole(part: Path, path: Path) -> None:
    """Make a written file durable, then give it its final name, which it may take over.

    Raises
    ------
    OSError
        It still has its first name.
    """
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)
    SystemFileOps().sync_directory(path.parent)


def _cause(error: OSError) -> str:
    """Return the system's words for an error, without the path."""
    return error.strerror or type(error).__name__
