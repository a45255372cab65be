"""``multipart/related`` as it comes off a connection (RFC 2046 5.1): part by part, piece by piece.

Nothing but the headers of a part is ever held. A server that stops in the middle, sends no
boundary, or drips is cut.
"""

import re
import time
from collections.abc import Iterator
from typing import Final, Protocol

from node.errors import PeerUnreachable

_BLOCK: Final = 128 * 1024
"""Bytes taken off the connection at a time, at most."""
_LONGEST_HEADERS: Final = 16 * 1024
_LONGEST_PREAMBLE: Final = 64 * 1024
"""Bytes in front of the first boundary that are passed over."""
_LEAST_BROUGHT: Final = 64 * 1024
"""Bytes that must come in each time-out, while there is more."""
_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))""", re.IGNORECASE)


class Stream(Protocol):
    """A response body (`http.client.HTTPResponse`)."""

    def read1(self, n: int, /) -> bytes:
        """Return what there is, at most `n` bytes; nothing at the end."""
        ...


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type names, None where it is no multipart."""
    if not content_type.strip().lower().startswith("multipart/related"):
        return None
    found = _BOUNDARY.search(content_type)
    return (found[1] or found[2]).encode("latin_1") if found else None


class Parts:
    """The parts of one body, in order; each is to be read to its end before the next.

    Parameters
    ----------
    stream : Stream
    boundary : bytes
    timeout_s : float
        Within which `_LEAST_BROUGHT` must come.
    largest : int
        Most bytes of one part.
    """

    def __init__(self, stream: Stream, boundary: bytes, *, timeout_s: float, largest: int) -> None:
        self._stream = stream
        self._largest = largest
        self._mark = b"\r\n--" + boundary
        self._timeout_s = timeout_s
        self._buffer = bytearray(b"\r\n")  # the first boundary has no line in front of it
        self._brought = 0
        self._deadline = time.monotonic() + timeout_s

    def __iter__(self) -> Iterator[Iterator[memoryview]]:
        """Yield each part as the pieces of its content; a piece is valid until the next.

        Raises
        ------
        PeerUnreachable
            The body is cut off, too slow, or no multipart.
        """
        for _ in self._until_mark(_LONGEST_PREAMBLE):
            pass
        while not self._at_end():
            self._skip_headers()
            content = self._until_mark(self._largest)
            yield content
            for _ in content:
                pass

    def _until_mark(self, most: int) -> Iterator[memoryview]:
        """Yield what comes in front of the next boundary, and take that out as well."""
        passed = 0
        keep = len(self._mark) - 1
        while True:
            at = self._buffer.find(self._mark)
            ready = at if at >= 0 else max(0, len(self._buffer) - keep)
            passed += ready
            if passed > most:
                raise PeerUnreachable("the answer goes on and on without a boundary")
            if ready:
                piece = bytes(self._buffer[:ready])
                del self._buffer[:ready]
                yield memoryview(piece)
            if at >= 0:
                del self._buffer[: len(self._mark)]
                return
            self._more()

    def _at_end(self) -> bool:
        while len(self._buffer) < 2:  # noqa: PLR2004 - two hyphens or a line end
            self._more()
        return self._buffer[:2] == b"--"

    def _skip_headers(self) -> None:
        """Take out the headers of a part; it may have none."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEADERS:
                raise PeerUnreachable("a part of the answer has no end of its headers")
            self._more()
        del self._buffer[: at + 4]

    def _more(self) -> None:
        got = self._stream.read1(_BLOCK)
        if not got:
            raise PeerUnreachable("the answer ends in the middle of a part")
        self._buffer += got
        self._brought += len(got)
        now = time.monotonic()
        if self._brought >= _LEAST_BROUGHT:
            self._brought, self._deadline = 0, now + self._timeout_s
        elif now > self._deadline:
            raise PeerUnreachable("the answer comes too slowly")
