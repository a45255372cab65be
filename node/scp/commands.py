"""DIMSE command sets: Implicit VR Little Endian of group 0000, read and written by hand (PS3.7).

A command set is the only part of a message that the receiver must understand by itself, and it
comes from whoever got in. So nothing is believed but lengths that fit, and what is answered is
built from a table of which request element comes back in the response.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from node.domain import Uid
from node.scp.errors import ProtocolError

Elements: TypeAlias = Mapping[int, bytes]
"""Element number of group 0000 -> encoded value."""

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
N_EVENT_REPORT_RQ: Final = 0x0100
N_ACTION_RQ: Final = 0x0130
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000
"""Bit that turns the command field of a request into that of its response (PS3.7 E.1)."""

_C_REQUESTS: Final = (C_STORE_RQ, 0x0010, 0x0020, 0x0021, C_ECHO_RQ)
_N_REQUESTS: Final = (N_EVENT_REPORT_RQ, 0x0110, 0x0120, N_ACTION_RQ, 0x0140, 0x0150)
N_REQUESTS: Final = frozenset(_N_REQUESTS)
_KNOWN: Final = frozenset(
    [*_C_REQUESTS, *_N_REQUESTS, *(r | RESPONSE for r in (*_C_REQUESTS, *_N_REQUESTS)), C_CANCEL_RQ]
)

AFFECTED_SOP_CLASS: Final = 0x0002
REQUESTED_SOP_CLASS: Final = 0x0003
AFFECTED_SOP_INSTANCE: Final = 0x1000
REQUESTED_SOP_INSTANCE: Final = 0x1001
EVENT_TYPE: Final = 0x1002
ACTION_TYPE: Final = 0x1008
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_RESPONDED_TO: Final = 0x0120
_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_NO_DATA_SET: Final = 0x0101
_DATA_SET: Final = 0x0001

_COMES_BACK: Final = {
    AFFECTED_SOP_CLASS: AFFECTED_SOP_CLASS,
    REQUESTED_SOP_CLASS: AFFECTED_SOP_CLASS,
    AFFECTED_SOP_INSTANCE: AFFECTED_SOP_INSTANCE,
    REQUESTED_SOP_INSTANCE: AFFECTED_SOP_INSTANCE,
    EVENT_TYPE: EVENT_TYPE,
    ACTION_TYPE: ACTION_TYPE,
}
"""Element of a request -> element of its response that repeats it (PS3.7 9.3 and 10.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command set that was received."""

    field: int
    """(0000,0100): which message this is."""
    has_data_set: bool
    elements: Elements

    @property
    def is_request(self) -> bool:
        """Whether it asks for something: neither a response nor a C-CANCEL."""
        return not self.field & RESPONSE and self.field != C_CANCEL_RQ

    @property
    def message_id(self) -> int | None:
        """(0000,0110), None where the request lacks it."""
        return number(self.elements, _MESSAGE_ID)

    def uid(self, element: int) -> Uid:
        """Return a UID, empty where it is absent."""
        return Uid(self.elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace"))


def read_command(data: bytes) -> Command:
    """Decode a command set.

    Raises
    ------
    ProtocolError
        If it is not Implicit VR Little Endian of group 0000, or names no known message.
    """
    elements: dict[int, bytes] = {}
    at, size = 0, len(data)
    while at < size:
        if at + 8 > size:
            raise ProtocolError("the command set is cut off")
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if group != 0 or at + length > size:
            raise ProtocolError("an element does not fit the command set")
        elements[element] = data[at : at + length]
        at += length
    field, data_set = number(elements, _COMMAND_FIELD), number(elements, _DATA_SET_TYPE)
    if field is None or field not in _KNOWN or data_set is None:
        raise ProtocolError("the command set names no command")
    return Command(field=field, has_data_set=data_set != _NO_DATA_SET, elements=elements)


def response_to(
    request: Command, *, status: int, comment: str = "", data_set: bool = False
) -> bytes:
    """Return the command set that answers `request`.

    Parameters
    ----------
    request : Command
        With a message id.
    status : int
    comment : str
        (0000,0902), at most 64 characters of ASCII; names no patient.
    data_set : bool
        Whether a data set follows.
    """
    message_id = request.message_id
    if message_id is None:
        raise ValueError("a request without a message id cannot be answered")
    elements = {
        _COMES_BACK[element]: value
        for element, value in request.elements.items()
        if element in _COMES_BACK
    }
    elements[_COMMAND_FIELD] = struct.pack("<H", request.field | RESPONSE)
    elements[_RESPONDED_TO] = struct.pack("<H", message_id)
    elements[_DATA_SET_TYPE] = struct.pack("<H", _DATA_SET if data_set else _NO_DATA_SET)
    elements[_STATUS] = struct.pack("<H", status)
    if comment:
        elements[_ERROR_COMMENT] = comment.encode("ascii") + b" " * (len(comment) % 2)
    body = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in sorted(elements.items())
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def number(elements: Elements, element: int) -> int | None:
    """Return an unsigned short, None where it is absent or has another length."""
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None  # noqa: PLR2004 - US
