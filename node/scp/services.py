"""What the receiver does with a request: a table of services, each a row with its operations.

A request becomes an *exchange*: it takes the fragments of the data set as they arrive, and turns
into a reply when the last one is there. Storage streams into the intake; the small services
(DIMSE-N) get their data set whole. What no row serves is drained and answered with a status, so
that one bad request never ends the batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from node.domain import Source, Uid
from node.scp.commands import Command, Elements

SMALL_DATA_SET: Final = 4 * 1024 * 1024
"""Longest data set of a DIMSE-N request, in bytes: it names objects and carries no pixels."""

TOO_LARGE: Final = 0x0213
"""Resource limitation (PS3.7 C.5.15): the data set of the request is longer than we take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request is answered with."""

    status: int
    comment: str = ""
    """(0000,0902), at most 64 characters of ASCII; names no patient."""
    data: bytes = b""
    """Data set of the response, in the transfer syntax of the request; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request of a DIMSE-N service with its whole data set."""

    elements: Elements
    """Of the command set: element number of group 0000 -> encoded value."""
    data: bytes
    transfer_syntax_uid: Uid
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A SOP class of DIMSE-N services that is offered beside storage, with its operations.

    ``Receiver(..., services=(one, another))`` offers it: the class is negotiated, and a request
    is handed to its operation in the thread of the association. What an operation raises is
    answered 0x0110 and logged; what it returns has been done, durably, before it returns.
    """

    sop_class_uid: Uid
    name: str
    transfer_syntaxes: tuple[Uid, ...]
    """In order of preference."""
    operations: Mapping[int, Callable[[Message], Reply]]
    """Command field of the request -> what answers it, e.g. `commands.N_ACTION_RQ`."""
    we_are_scp: bool = True
    """Role that a peer may propose for us (PS3.7 D.3.3.4)."""
    we_are_scu: bool = False
    """For reports that come to a requestor: N-EVENT-REPORT of storage commitment."""


class Exchange(Protocol):
    """A request that is being received."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set; they are valid during the call only."""
        ...

    def finish(self) -> Reply:
        """Return the answer; called once, after the last fragment."""
        ...

    def discard(self) -> None:
        """Forget the request: it will not be completed."""
        ...


@dataclass(slots=True)
class Answered:
    """A request whose answer is known from the start; its data set is drained."""

    reply: Reply

    def write(self, fragment: memoryview) -> None:
        """Drop the bytes."""

    def finish(self) -> Reply:
        """Return what was known."""
        return self.reply

    def discard(self) -> None:
        """Nothing to forget."""


@dataclass(slots=True)
class Small:
    """A DIMSE-N request: collected in memory, then handed to its operation."""

    operation: Callable[[Message], Reply]
    command: Command
    transfer_syntax_uid: Uid
    source: Source
    _data: bytearray = field(default_factory=bytearray)
    _too_large: bool = False

    def write(self, fragment: memoryview) -> None:
        """Keep the bytes, up to the limit."""
        self._too_large = self._too_large or len(self._data) + len(fragment) > SMALL_DATA_SET
        if self._too_large:
            self._data.clear()
        else:
            self._data += fragment

    def finish(self) -> Reply:
        """Let the operation answer."""
        if self._too_large:
            return Reply(status=TOO_LARGE, comment="the data set is longer than this node takes")
        return self.operation(
            Message(
                elements=self.command.elements,
                data=bytes(self._data),
                transfer_syntax_uid=self.transfer_syntax_uid,
                source=self.source,
            )
        )

    def discard(self) -> None:
        """Drop the bytes."""
        self._data.clear()
