"""The bytes of one data set while they arrive: hashed at once, on their way to the disk at once.

Each arrival has a file of its own whose name is durable before its first byte, so that one flush
makes all of it durable. Only the beginning, which holds what is read of it, is kept in memory: an
object of gigabytes takes no more than a slice.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO, Final

from node.domain import Header, Source
from node.store.files import BlobFiles, Part, Published
from node.store.header import HEAD, parse_head, parse_stream
from node.store.part10 import prefix
from node.store.receipt import Receipt, receipt_size

_POOLED: Final = 64
"""Buffers that are kept for the next object."""
_PIECE: Final = 64 * 1024
"""Bytes that are read at once."""


class Heads:
    """Memory for the beginnings of data sets that is used again; shared between threads."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def lend(self) -> bytearray:
        """Return a buffer of `HEAD` bytes with anything in it."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(HEAD)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer that nobody looks into any more."""
        if len(self._free) < _POOLED:
            self._free.append(buffer)


class Spool:
    """A data set that is arriving; used by one thread.

    Parameters
    ----------
    files : BlobFiles
    heads : Heads
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        For the meta information of the file.
    source : Source
        For its receipt.
    """

    def __init__(
        self,
        files: BlobFiles,
        heads: Heads,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        source: Source,
    ) -> None:
        self._files = files
        self._heads = heads
        self._transfer_syntax_uid = transfer_syntax_uid
        self._source = source
        self._prefix = prefix(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            receipt=bytes(receipt_size(source)),  # which stands at its end
        )
        self._digest = hashlib.sha256(transfer_syntax_uid.encode("ascii", "replace"))
        self._head: bytearray | None = heads.lend()
        self._part: Part | None = None
        self.size = 0
        """Bytes so far."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        OutOfResources
            The file could not be written; nothing remains of it.
        """
        if self._part is None:
            self._part = self._files.begin(len(self._prefix))
        self._files.extend(self._part, data)
        self._digest.update(data)
        begin, self.size = self.size, self.size + len(data)
        if self._head is not None and begin < HEAD:
            end = min(self.size, HEAD)
            self._head[begin:end] = data[: end - begin]

    def sha256(self) -> str:
        """Return the content identity of what was written."""
        return self._digest.hexdigest()

    def header(self, extra_keywords: Collection[str]) -> Header:
        """Return the header of what was written; raises as `header.parse_header`."""
        syntax = self._transfer_syntax_uid
        with memoryview(self._head or b"")[: self.size] as head:
            found = parse_head(head, self.size, syntax, extra_keywords)
        if found is not None:
            return found
        with self._stream() as stream:
            return parse_stream(stream, self.size, syntax, extra_keywords)

    def pieces(self) -> Iterator[bytes]:
        """Yield the data set from its beginning."""
        if self._part is None:
            return
        with self._stream() as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def publish(self, received_at: datetime) -> Published:
        """Sync the file with its receipt: from here on the object is durable.

        Raises
        ------
        OutOfResources
            Nothing remains.
        """
        part, self._part = self._part, None
        if part is None:
            raise RuntimeError("there is nothing to publish")
        receipt = Receipt(
            source=self._source, received_at=received_at, sha256=self.sha256(), size=self.size
        )
        proof = receipt.encode()
        return self._files.finish(
            part,
            self._prefix[: -len(proof)] + proof,
            sha256=receipt.sha256,
            transfer_syntax_uid=self._transfer_syntax_uid,
        )

    def close(self) -> None:
        """Give memory back and remove what was not published; harmless when that was done."""
        if self._part is not None:
            self._files.drop(self._part)
            self._part = None
        if self._head is not None:
            self._heads.give_back(self._head)
            self._head = None

    @contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        """Lend the file, positioned at the data set."""
        if self._part is None:
            raise RuntimeError("nothing was written")
        with os.fdopen(os.dup(self._part.descriptor), "rb") as file:
            file.seek(self._part.prefix)
            yield file
