"""The bytes of one data set while they arrive: hashed at once, in memory or in a file.

A slice fits into memory and is written when it is whole, under its final name. What grows beyond
that goes into a file of the blob folder as it comes, so that an object of gigabytes takes no more
memory than a slice. Buffers are lent by a pool: fresh memory costs more than the copy into it.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from node.store.files import BlobFiles, Part, Published
from node.store.part10 import Buffer

IN_MEMORY: Final = 1 << 20
"""Longest data set that is held in memory, in bytes: a CT slice has half of it."""
_POOLED: Final = 64
"""Buffers that are kept for the next object."""


class Buffers:
    """Memory that is used again; shared between threads."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def lend(self) -> bytearray:
        """Return a buffer of `IN_MEMORY` bytes with anything in it."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(IN_MEMORY)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer that nobody looks into any more."""
        if len(self._free) < _POOLED:
            self._free.append(buffer)


class Spool:
    """A data set that is arriving; used by one thread.

    Parameters
    ----------
    files : BlobFiles
    buffers : Buffers
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        For the meta information of the file.
    """

    def __init__(
        self,
        files: BlobFiles,
        buffers: Buffers,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
    ) -> None:
        self._files = files
        self._buffers = buffers
        self._sop_class_uid = sop_class_uid
        self._sop_instance_uid = sop_instance_uid
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = hashlib.sha256(transfer_syntax_uid.encode("ascii", "replace"))
        self._buffer: bytearray | None = buffers.lend()
        self._part: Part | None = None
        self.size = 0
        """Bytes so far."""

    @property
    def in_memory(self) -> bool:
        """Whether the bytes are held in memory."""
        return self._part is None

    def write(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        OutOfResources
            The file could not be written; nothing remains of it.
        """
        self._digest.update(data)
        begin, self.size = self.size, self.size + len(data)
        if self._part is None and self._buffer is not None and self.size <= IN_MEMORY:
            self._buffer[begin : self.size] = data
            return
        if self._part is None:
            self._spill(begin)
        if self._part is not None:
            self._files.extend(self._part, data)

    def sha256(self) -> str:
        """Return the content identity of what was written."""
        return self._digest.hexdigest()

    @contextmanager
    def content(self) -> Iterator[Buffer]:
        """Lend the whole data set, from memory or mapped; not to be used afterwards."""
        if self._part is None:
            with memoryview(self._buffer or b"")[: self.size] as view:
                yield view
            return
        # unmapped with its last view: an error's traceback may hold one for a while
        mapped = mmap.mmap(self._part.descriptor, 0, access=mmap.ACCESS_READ)
        with memoryview(mapped)[self._part.prefix :] as view:
            yield view

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Lend the file, positioned at the data set; only where it is not held in memory."""
        if self._part is None:
            raise RuntimeError("the data set is in memory")
        with os.fdopen(os.dup(self._part.descriptor), "rb") as file:
            file.seek(self._part.prefix)
            yield file

    def publish(self) -> Published:
        """Sync the file of a data set that is not in memory; see `BlobFiles.finish`.

        Raises
        ------
        OutOfResources
            Nothing remains.
        """
        if self._part is None:
            raise RuntimeError("the data set is in memory")
        part, self._part = self._part, None
        return self._files.finish(
            part, sha256=self.sha256(), transfer_syntax_uid=self._transfer_syntax_uid
        )

    def close(self) -> None:
        """Give memory back and remove what was not published; harmless when that was done."""
        if self._part is not None:
            self._files.drop(self._part)
            self._part = None
        if self._buffer is not None:
            self._buffers.give_back(self._buffer)
            self._buffer = None

    def _spill(self, size: int) -> None:
        """Move what is in memory into a file."""
        self._part = self._files.begin(
            sop_class_uid=self._sop_class_uid,
            sop_instance_uid=self._sop_instance_uid,
            transfer_syntax_uid=self._transfer_syntax_uid,
        )
        if self._buffer is not None:
            with memoryview(self._buffer)[:size] as view:
                self._files.extend(self._part, view)
            self._buffers.give_back(self._buffer)
            self._buffer = None
