"""From the bodies of P-DATA PDUs to messages: each fragment in its place, or the peer is wrong.

A message is a command set and, where that says so, a data set, both cut into presentation data
values on one presentation context. Several values may share a PDU and a message may span many;
a value of zero bytes is legal (PS3.8 9.3.5 and annex E).
"""

import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple, TypeAlias

from node.scp.commands import Command, read_command
from node.scp.errors import ProtocolError

COMMAND_LIMIT: Final = 64 * 1024
"""Longest command set of one message, in bytes."""

_PDV: Final = struct.Struct(">LBB")
_OVERHEAD: Final = 2
"""Bytes of a value's length that are context id and control header."""
_COMMAND: Final = 0x01
_LAST: Final = 0x02


class Begun(NamedTuple):
    """A message begins: its command set is complete."""

    context_id: int
    command: Command


class Fragment(NamedTuple):
    """A piece of the data set of the message that began last."""

    data: memoryview
    """Valid until the next PDU is read."""
    last: bool


Part: TypeAlias = Begun | Fragment


class Reassembly:
    """The message that is being received, as far as it has come.

    Parameters
    ----------
    accepted : collection of int
        Ids of the presentation contexts that were accepted.
    data_set_limit : int
        Longest data set of one message, in bytes.
    """

    def __init__(self, accepted: Collection[int], data_set_limit: int) -> None:
        self._accepted = frozenset(accepted)
        self._data_set_limit = data_set_limit
        self._context_id: int | None = None
        self._command = bytearray()
        self._in_data_set = False
        self._data_bytes = 0

    @property
    def under_way(self) -> bool:
        """Whether a message has begun whose end has not been seen."""
        return self._context_id is not None

    def feed(self, body: memoryview) -> Iterator[Part]:
        """Yield what the values of one P-DATA PDU bring, in order.

        Raises
        ------
        ProtocolError
            A length points outside the PDU, contexts or kinds of fragments are mixed, the command
            set is none, or the message outgrows its limit.
        """
        at, size = 0, len(body)
        while at < size:
            if at + _PDV.size > size:
                raise ProtocolError("a presentation data value is cut off")
            length, context_id, control = _PDV.unpack_from(body, at)
            end = at + 4 + length
            if length < _OVERHEAD or end > size:
                raise ProtocolError("a presentation data value does not fit its PDU")
            self._require_context(context_id)
            fragment, last = body[at + _PDV.size : end], bool(control & _LAST)
            if not control & _COMMAND:
                yield self._data(fragment, last=last)
            elif (begun := self._command_set(fragment, context_id, last=last)) is not None:
                yield begun
            at = end

    def _command_set(self, fragment: memoryview, context_id: int, *, last: bool) -> Begun | None:
        if self._in_data_set:
            raise ProtocolError("a command set inside a data set")
        self._command += fragment
        if len(self._command) > COMMAND_LIMIT:
            raise ProtocolError("the command set is too long")
        if not last:
            return None
        command = read_command(bytes(self._command))
        self._command.clear()
        self._in_data_set = command.has_data_set
        if not command.has_data_set:
            self._context_id = None
        return Begun(context_id, command)

    def _data(self, fragment: memoryview, *, last: bool) -> Fragment:
        if not self._in_data_set:
            raise ProtocolError("a data set before its command set")
        self._data_bytes += len(fragment)
        if self._data_bytes > self._data_set_limit:
            raise ProtocolError("the data set is longer than the configured limit")
        if last:
            self._context_id = None
            self._in_data_set = False
            self._data_bytes = 0
        return Fragment(fragment, last)

    def _require_context(self, context_id: int) -> None:
        if context_id not in self._accepted:
            raise ProtocolError("a presentation context that was not accepted")
        if self._context_id is None:
            self._context_id = context_id
        elif self._context_id != context_id:
            raise ProtocolError("one message on two presentation contexts")
