"""Deflated data sets (PS3.5 A.5) read as if they were not: by the piece, and never without end.

Deflate squeezes a run of zeros a thousand times, so 200 kB may claim 200 MB. Here the bytes are
inflated in small pieces and forgotten again; what a reader takes and what the whole grows to are
both bounded. The object itself is kept as it was received: whoever reads its pixels inflates it
within the limits of a child process.
"""

import io
import zlib
from typing import BinaryIO, Final

from node.errors import CannotUnderstand

FREE: Final = 64 << 20
"""Any data set may grow to so much. [bytes]"""
RATIO: Final = 200
"""Beyond that only to so many times its size: images reach 10, an empty dose grid 1000."""
MOST: Final = 512 << 20
"""And never beyond this, whatever its size. [bytes]"""
HEADER: Final = 32 << 20
"""Most that is taken out to be looked at; pixels are passed over. [bytes]"""
READS: Final = 1_000_000
"""In so many pieces: 20,000 contours take a quarter of it, a run of zeros would be four million
empty elements."""

_PACKED: Final = 16 * 1024
"""Bytes that are fed at once."""
_PLAIN: Final = 256 * 1024
"""Bytes that come out at once at most."""
_BACK: Final = 512 * 1024
"""How far a reader may go back, in bytes: it looks ahead by a quarter of that."""


def most_of(size: int) -> int:
    """Return how many bytes a deflated data set of `size` bytes may grow to."""
    return min(MOST, max(FREE, RATIO * size))


class Inflated:
    """The plain bytes of a deflated data set, with as much of a file as a parser needs.

    Parameters
    ----------
    stream : BinaryIO
        Stands where the data set begins.
    size : int
        Bytes of the data set as it is stored.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size
        self._most = most_of(size)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._window = bytearray()
        self._known = 0
        self._at = 0
        self._taken = 0
        self._reads = 0

    def tell(self) -> int:
        """Return the position in the plain data set."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, forward as far as you like; nothing is inflated before the next `read`."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known before it is reached")
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end.

        Raises
        ------
        CannotUnderstand
            The bytes are damaged, end early, or are more than the limits allow.
        """
        self._reads += 1
        if not 0 <= count <= HEADER - self._taken or self._reads > READS:
            raise CannotUnderstand(
                f"the header of the deflated data set is longer than {HEADER >> 20} MiB, or in"
                " too many pieces"
            )
        self._reach(self._at + count)
        begin = self._at - (self._known - len(self._window))
        if begin < 0:
            raise CannotUnderstand("the deflated data set cannot be read in one pass")
        with memoryview(self._window) as view:
            data = bytes(view[begin : begin + count])
        self._at += len(data)
        self._taken += len(data)
        return data

    def end(self) -> int:
        """Inflate to the end and return the size of the plain data set, in bytes.

        Raises
        ------
        CannotUnderstand
            As `read`.
        """
        self._window.clear()
        while piece := self._next():
            self._known += len(piece)
        return self._known

    def _reach(self, position: int) -> None:
        """Inflate up to `position`; keep what lies around the place where the reader stands."""
        while self._known < position and (piece := self._next()):
            self._window += piece
            self._known += len(piece)
            kept = self._known - max(self._at - _BACK, 0)
            if kept < len(self._window):
                del self._window[: len(self._window) - max(kept, 0)]

    def _next(self) -> bytes:
        """Return the next plain bytes, none at the end of the stream."""
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._stream.read(min(_PACKED, self._left))
                self._left -= len(packed)
            try:
                piece = self._inflater.decompress(packed, _PLAIN)
            except zlib.error as error:
                raise CannotUnderstand("the deflated data set is damaged") from error
            if self._known + len(piece) > self._most:
                raise CannotUnderstand(f"the deflated data set grows beyond {self._most >> 20} MiB")
            if piece:
                return piece
            if not packed and not self._inflater.eof:
                raise CannotUnderstand("the deflated data set ends early")
        return b""
