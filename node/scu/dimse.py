"""The few DIMSE messages that the node speaks as requestor, encoded and decoded by hand.

A command set is Implicit VR Little Endian whatever the data set is (PS3.7 6.3.1). It travels in
presentation data values, each with a control header that says command or data, last or not
(PS3.8 9.3.5.1, annex E).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from node.domain import AETitle, Uid

C_STORE_RQ: Final = 0x0001
C_GET_RQ: Final = 0x0010
C_FIND_RQ: Final = 0x0020
C_MOVE_RQ: Final = 0x0021
C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF
N_EVENT_REPORT_RQ: Final = 0x0100
N_ACTION_RQ: Final = 0x0130
RESPONSE: Final = 0x8000
"""Bit that turns the command field of a request into that of its response."""

_NO_DATA_SET: Final = 0x0101
_DATA_SET: Final = 0x0001
_MEDIUM: Final = 0x0000
_COMMAND: Final = 0x01
_LAST: Final = 0x02
_PDV_OVERHEAD: Final = 6
"""Bytes that a presentation data value spends beside its fragment: length, context, control."""

Elements: TypeAlias = Mapping[int, bytes]
"""Element number of group 0000 -> encoded value."""


class MalformedMessage(ValueError):
    """The peer sent bytes that are no DIMSE message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a peer answered to one request."""

    status: int
    comment: str = ""
    """(0000,0902) Error Comment; free text of the peer, so it goes to no technical log."""


def c_store_rq(*, message_id: int, sop_class_uid: Uid, sop_instance_uid: Uid) -> bytes:
    """Return the command set of a C-STORE request (PS3.7 table 9.3-1)."""
    return _command(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: struct.pack("<H", C_STORE_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0700: struct.pack("<H", _MEDIUM),
            0x0800: struct.pack("<H", _DATA_SET),
            0x1000: _uid(sop_instance_uid),
        }
    )


def c_echo_rq(*, message_id: int, sop_class_uid: Uid) -> bytes:
    """Return the command set of a C-ECHO request (PS3.7 table 9.3-12)."""
    return _command(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: struct.pack("<H", C_ECHO_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _NO_DATA_SET),
        }
    )


def c_find_rq(*, message_id: int, sop_class_uid: Uid) -> bytes:
    """Return the command set of a C-FIND request (PS3.7 table 9.3-3)."""
    return _retrieval(C_FIND_RQ, message_id, sop_class_uid)


def c_get_rq(*, message_id: int, sop_class_uid: Uid) -> bytes:
    """Return the command set of a C-GET request (PS3.7 table 9.3-6)."""
    return _retrieval(C_GET_RQ, message_id, sop_class_uid)


def c_move_rq(*, message_id: int, sop_class_uid: Uid, destination: AETitle) -> bytes:
    """Return the command set of a C-MOVE request (PS3.7 table 9.3-9)."""
    return _retrieval(C_MOVE_RQ, message_id, sop_class_uid, {0x0600: _text(destination)})


def c_cancel_rq(*, message_id: int) -> bytes:
    """Return the command set that cancels a C-FIND, C-GET or C-MOVE (PS3.7 table 9.3-5)."""
    return _command(
        {
            0x0100: struct.pack("<H", C_CANCEL_RQ),
            0x0120: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _NO_DATA_SET),
        }
    )


def n_action_rq(
    *, message_id: int, sop_class_uid: Uid, sop_instance_uid: Uid, action_type_id: int
) -> bytes:
    """Return the command set of an N-ACTION request with a data set (PS3.7 table 10.3-7)."""
    return _command(
        {
            0x0003: _uid(sop_class_uid),
            0x0100: struct.pack("<H", N_ACTION_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _DATA_SET),
            0x1001: _uid(sop_instance_uid),
            0x1008: struct.pack("<H", action_type_id),
        }
    )


def n_event_report_rq(
    *, message_id: int, sop_class_uid: Uid, sop_instance_uid: Uid, event_type_id: int
) -> bytes:
    """Return the command set of an N-EVENT-REPORT request with a data set (table 10.3-1)."""
    return _command(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: struct.pack("<H", N_EVENT_REPORT_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _DATA_SET),
            0x1000: _uid(sop_instance_uid),
            0x1002: struct.pack("<H", event_type_id),
        }
    )


def response_to(command: Elements, status: int) -> bytes:
    """Return the command set of a response without a data set to a request of the peer.

    Raises
    ------
    MalformedMessage
        If the request has no message id.
    """
    field, message_id = _number(command, 0x0100), _number(command, 0x0110)
    if field is None or message_id is None:
        raise MalformedMessage("a request without a message id")
    named = {element: command[element] for element in (0x0002, 0x1000) if element in command}
    return _command(
        {
            **named,
            0x0100: struct.pack("<H", field | RESPONSE),
            0x0120: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _NO_DATA_SET),
            0x0900: struct.pack("<H", status),
        }
    )


def read_command(data: bytes) -> Elements:
    """Decode a command set.

    Raises
    ------
    MalformedMessage
        If an element is cut off or of another group.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise MalformedMessage("an element header is cut off")
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise MalformedMessage("an element does not fit the command set")
        elements[element] = data[at : at + length]
        at += length
    return elements


def read_response(command: Elements, *, request: int, message_id: int) -> Response:
    """Return what `command` answers to the request of this field and message id.

    Raises
    ------
    MalformedMessage
        If it answers another message, or says no status.
    """
    if _number(command, 0x0100) != request | RESPONSE:
        raise MalformedMessage("another message than the response")
    if _number(command, 0x0120) != message_id:
        raise MalformedMessage("a response to a message that was not sent")
    status = _number(command, 0x0900)
    if status is None:
        raise MalformedMessage("a response without a status")
    comment = command.get(0x0902, b"").decode("ascii", "replace").strip(" \0")
    return Response(status=status, comment=comment)


def number(command: Elements, element: int) -> int:
    """Return an element of two bytes.

    Raises
    ------
    MalformedMessage
        If it is not there.
    """
    value = _number(command, element)
    if value is None:
        raise MalformedMessage(f"a command without element (0000,{element:04X})")
    return value


def count(command: Elements, element: int) -> int:
    """Return an element of two bytes that may be left out: a number of sub-operations."""
    return _number(command, element) or 0


def uid(command: Elements, element: int) -> Uid:
    """Return a UID of a command set, empty where it is not there."""
    return Uid(command.get(element, b"").decode("ascii", "replace").strip(" \0"))


def has_data_set(command: Elements) -> bool:
    """Tell whether a data set follows this command."""
    return _number(command, 0x0800) not in (None, _NO_DATA_SET)


def p_data(
    context_id: int, fragment: bytes | memoryview, *, command: bool, last: bool
) -> list[bytes | memoryview]:
    """Return one P-DATA-TF PDU with one presentation data value, ready for ``sendmsg``."""
    control = (_COMMAND if command else 0) | (_LAST if last else 0)
    header = struct.pack(
        ">BBLLBB",
        0x04,
        0,
        len(fragment) + _PDV_OVERHEAD,
        len(fragment) + 2,
        context_id,
        control,
    )
    return [header, fragment]


def fragment_length(maximum_pdu_length: int, *, ours: int) -> int:
    """Return how many bytes one fragment may carry.

    Parameters
    ----------
    maximum_pdu_length : int
        What the peer announced; 0 means no limit (PS3.8 D.1).
    ours : int
        Our own limit, used where the peer has none or a larger one.
    """
    limit = min(maximum_pdu_length, ours) if maximum_pdu_length else ours
    if limit <= _PDV_OVERHEAD:
        raise MalformedMessage("the peer takes no data: its maximum PDU length is too small")
    return limit - _PDV_OVERHEAD


class Fragment(NamedTuple):
    """One presentation data value."""

    context_id: int
    command: bool
    last: bool
    data: memoryview


def fragments(body: bytes) -> list[Fragment]:
    """Return the presentation data values of one P-DATA-TF body.

    Raises
    ------
    MalformedMessage
        If a length points outside the body.
    """
    found: list[Fragment] = []
    view = memoryview(body)
    at = 0
    while at < len(body):
        if at + _PDV_OVERHEAD > len(body):
            raise MalformedMessage("a presentation data value is cut off")
        length, context_id, control = struct.unpack_from(">LBB", body, at)
        if length < 2 or at + 4 + length > len(body):  # noqa: PLR2004 - context and control
            raise MalformedMessage("a presentation data value does not fit its PDU")
        data = view[at + 6 : at + 4 + length]
        found.append(Fragment(context_id, bool(control & _COMMAND), bool(control & _LAST), data))
        at += 4 + length
    return found


def _retrieval(
    field: int, message_id: int, sop_class_uid: Uid, more: Elements | None = None
) -> bytes:
    return _command(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: struct.pack("<H", field),
            0x0110: struct.pack("<H", message_id),
            0x0700: struct.pack("<H", _MEDIUM),
            0x0800: struct.pack("<H", _DATA_SET),
            **(more or {}),
        }
    )


def _command(elements: Elements) -> bytes:
    body = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in sorted(elements.items())
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(value: Uid) -> bytes:
    raw = value.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)


def _text(value: str) -> bytes:
    raw = value.encode("ascii")
    return raw + b" " * (len(raw) % 2)


def _number(command: Elements, element: int) -> int | None:
    raw = command.get(element)
    if raw is None or len(raw) != 2:  # noqa: PLR2004 - US has two bytes
        return None
    return int.from_bytes(raw, "little")
