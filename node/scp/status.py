"""The status that answers each error of a C-STORE, as one ordered table.

The first class that the error is an instance of wins. 0x0000 is not in the table: it is written
in one place, after the intake has said that the object is durable (PS3.4 B.2.3, PS3.7 annex C).
The comment goes to the peer as (0000,0902) Error Comment, LO, so it is at most 64 characters and
names no patient.
"""

from dataclasses import dataclass
from typing import Final

from node.errors import (
    CannotUnderstand,
    InstanceMismatch,
    LedgerError,
    NotAuthorized,
    OutOfResources,
)

SUCCESS: Final = 0x0000
"""Durable: the object and all that its row will say are synced in its file."""

SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
"""A request on a context of another SOP class, or a service the node does not offer."""

UNRECOGNIZED_OPERATION: Final = 0x0211
"""A DIMSE-N request; the node offers none yet."""

CANNOT_UNDERSTAND: Final = 0xC000
"""The request lacks a UID or its data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the peer is told."""

    status: int
    comment: str
    """At most 64 characters."""
    meaning: str
    """For CONFORMANCE.md."""


FAILURES: Final[tuple[tuple[type[Exception], Answer], ...]] = (
    (
        OutOfResources,
        Answer(
            status=0xA700,
            comment="no room on the data volume; send again later",
            meaning="The data volume is full, below its floor, or failing; nothing was kept.",
        ),
    ),
    (
        LedgerError,
        Answer(
            status=0xA700,
            comment="the index is not available; send again later",
            meaning="The database refused or did not answer in time; nothing was acknowledged.",
        ),
    ),
    (
        NotAuthorized,
        Answer(
            status=0x0124,
            comment="not authorized for this node",
            meaning="The peer may not store this object.",
        ),
    ),
    (
        InstanceMismatch,
        Answer(
            status=0xA900,
            comment="data set and request name different objects",
            meaning="SOP class or instance UID of the data set differ from the request.",
        ),
    ),
    (
        CannotUnderstand,
        Answer(
            status=0xC000,
            comment="the data set cannot be read, or a UID is missing",
            meaning="The data set cannot be parsed, or lacks a UID that identifies it.",
        ),
    ),
    (
        Exception,
        Answer(
            status=0x0110,
            comment="processing failure; see the log of the node",
            meaning="An error of the node itself; the object was not kept.",
        ),
    ),
)
"""Error class -> answer, most specific first; the last row catches everything."""


def answer(error: Exception) -> Answer:
    """Return what the peer is told about `error`: never success."""
    return next(row for kind, row in FAILURES if isinstance(error, kind))
