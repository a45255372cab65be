"""Syslog over TLS: one frame a message (RFC 5424, RFC 5425), and a farewell that proves arrival.

RFC 5425 knows no acknowledgement. So a batch has a connection of its own that we end by
``close_notify``, and only a receiver that then ends its side in order has read everything: one
that died or hangs resets or times out, and the batch is sent again. A message may come twice
then, and none is lost.
"""

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from node.audit.message import Outcome
from node.tls import handshake

LARGEST: Final = 32_768
"""Octets that a receiver of DICOM audit messages must take (PS3.15 A.6)."""
_AUTHPRIV: Final = 10
_NOTICE, _WARNING = 5, 4
_MSGID: Final = "DICOM+RFC3881"
"""PS3.15 A.6: what the message holds."""
_BOM: Final = b"\xef\xbb\xbf"
"""In front of UTF-8 (RFC 5424 6.4)."""
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A syslog server over TLS."""

    host: str
    port: int
    name: str
    """In its certificate."""
    context: ssl.SSLContext

    def deliver(self, frames: Sequence[bytes]) -> None:
        """Return when the server has read all `frames`.

        Raises
        ------
        OSError
            It may not have read all of them.
        """
        plain = socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S)
        with handshake(plain, self.context, seconds=_TIMEOUT_S, host=self.name) as secure:
            secure.settimeout(_TIMEOUT_S)
            for frame in frames:
                secure.sendall(frame)
            _farewell(secure)


def frame(xml: str, *, at: datetime, host: str, app: str, outcome: Outcome) -> bytes:
    """Return one message as it goes over the wire: its length, a space, the message.

    Parameters
    ----------
    xml
        The audit message.
    at
        When it happened; aware.
    host, app
        HOSTNAME and APP-NAME; printable ASCII.

    Raises
    ------
    ValueError
        It is longer than receivers must take.
    """
    severity = _NOTICE if outcome is Outcome.SUCCESS else _WARNING
    time = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{_AUTHPRIV * 8 + severity}>1 {time} {_word(host, 255)} {_word(app, 48)}"
    header += f" {os.getpid()} {_MSGID} - "
    text = header.encode("ascii") + _BOM + xml.encode()
    if len(text) > LARGEST:
        raise ValueError(f"an audit message of {len(text)} octets")
    return b"%d %b" % (len(text), text)


def _word(text: str, longest: int) -> str:
    """Return a header field: printable ASCII without spaces, `-` for nothing (RFC 5424 6)."""
    kept = "".join(c for c in text if "!" <= c <= "~")
    return kept[:longest] or "-"


def _farewell(secure: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait until the receiver has read to there."""
    try:
        plain = secure.unwrap()
    except ssl.SSLEOFError:  # it closed TCP in order without its own close_notify: as good
        return
    with suppress(OSError):
        plain.close()
