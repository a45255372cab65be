"""What a received file says of its own arrival: with its name on the disk, the proof of it.

An object is answered 0x0000 as soon as its file is synced: bytes, name and receipt are durable
together, with one flush. The row follows within a moment, and should the node die before, the next
start makes it from the receipt (`node.store.intake.Intake.take_over`). The receipt stands where
PS3.10 7.1 gives implementations room: Private Information (0002,0102) of the file meta
information, under a creator UID (0002,0100) of our own. It is written last, and its length does
not depend on the data set, so that the data set can be on its way to the disk before.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from node.domain import AETitle, Source

CREATOR_UID: Final = "2.25.302168014411379203655920193468262913301"
"""(0002,0100): whose Private Information it is."""

_CHECKSUM: Final = 64
"""Hexadecimal digits of the SHA-256 of the text behind them."""
_NO_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Who sent an object, when it was whole, and which bytes it has."""

    source: Source
    received_at: datetime
    sha256: str
    """Content identity, see `node.store.part10`."""
    size: int
    """Bytes of the data set."""

    def encode(self) -> bytes:
        """Return it as bytes, an even number of them."""
        text = json.dumps(
            [
                self.source.calling_ae_title,
                self.source.called_ae_title,
                self.source.address,
                self.source.association_id,
                self.received_at.astimezone(UTC).isoformat(timespec="microseconds"),
                self.sha256,
                f"{self.size:020d}",
            ]
        ).encode("ascii")
        text += b" " * (len(text) % 2)
        return hashlib.sha256(text).hexdigest().encode("ascii") + text


@lru_cache(maxsize=64)
def receipt_size(source: Source) -> int:
    """Return the length in bytes of every receipt for what comes from a source."""
    return len(
        Receipt(source=source, received_at=_NO_TIME, sha256="0" * _CHECKSUM, size=0).encode()
    )


def read_receipt(raw: bytes) -> Receipt | None:
    """Return a receipt; None for anything else, also for one that was not written to its end."""
    checksum, text = raw[:_CHECKSUM], raw[_CHECKSUM:]
    if hashlib.sha256(text).hexdigest().encode("ascii") != checksum:
        return None
    calling, called, address, association_id, received_at, sha256, size = json.loads(text)
    return Receipt(
        source=Source(
            calling_ae_title=AETitle(calling),
            called_ae_title=AETitle(called),
            address=address,
            association_id=association_id,
        ),
        received_at=datetime.fromisoformat(received_at),
        sha256=sha256,
        size=int(size),
    )
