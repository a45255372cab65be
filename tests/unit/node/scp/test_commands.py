"""Command sets: what is believed of them, and what comes back in an answer."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from node.scp.commands import (
    AFFECTED_SOP_CLASS,
    C_STORE_RQ,
    N_ACTION_RQ,
    read_command,
    response_to,
)
from node.scp.errors import ProtocolError


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def encode(elements: dict[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0, n, len(v)) + v for n, v in elements.items())


STORE = {
    0x0000: struct.pack("<L", 1),  # a wrong group length is nobody's problem
    0x0002: b"1.2.840.10008.5.1.4.1.1.2\0",
    0x0100: us(C_STORE_RQ),
    0x0110: us(7),
    0x0700: us(0),
    0x0800: us(1),
    0x1000: b"1.2.3\0",
}


def test_elements_may_come_in_any_order_and_with_any_group_length():
    for elements in (STORE, dict(reversed(STORE.items()))):
        command = read_command(encode(elements))

        assert (command.field, command.message_id) == (C_STORE_RQ, 7)
        assert command.has_data_set
        assert command.is_request
        assert command.uid(AFFECTED_SOP_CLASS) == "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode(STORE)[:-3],
        encode(STORE) + b"\0\0",
        encode(STORE | {0x0100: us(0x7777)}),
        encode({n: v for n, v in STORE.items() if n != 0x0800}),
        encode(STORE | {0x0800: b"\1"}),
        struct.pack("<HHL", 8, 0x0018, 0) + encode(STORE),
    ],
    ids=["nothing", "cut", "tail", "unknown", "no-type", "short-type", "other-group"],
)
def test_what_is_no_command_set_is_refused(data):
    with pytest.raises(ProtocolError):
        read_command(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_protocol_errors(data):
    with contextlib.suppress(ProtocolError):
        read_command(data)


def read(response: bytes):
    return read_dataset(DicomBytesIO(response), is_implicit_VR=True, is_little_endian=True)


def test_a_store_response_repeats_what_the_standard_says():
    """PS3.7 table 9.1-1, read by pydicom."""
    told = read(response_to(read_command(encode(STORE)), status=0xA700, comment="no room"))

    assert told.CommandField == 0x8001
    assert told.MessageIDBeingRespondedTo == 7
    assert told.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert told.AffectedSOPInstanceUID == "1.2.3"
    assert (told.Status, told.ErrorComment) == (0xA700, "no room")
    assert told.CommandDataSetType == 0x0101
    assert told.CommandGroupLength == len(response_to_body(told))


def response_to_body(told) -> bytes:
    return response_to(read_command(encode(STORE)), status=0xA700, comment="no room")[12:]


def test_an_action_response_names_the_class_that_was_requested_as_affected():
    """PS3.7 table 10.1-7."""
    request = {
        0x0003: b"1.2.840.10008.1.20.1\0\0",
        0x0100: us(N_ACTION_RQ),
        0x0110: us(9),
        0x0800: us(1),
        0x1001: b"1.2.840.10008.1.20.1.1",
        0x1008: us(1),
    }
    told = read(response_to(read_command(encode(request)), status=0, data_set=True))

    assert told.CommandField == 0x8130
    assert told.AffectedSOPClassUID == "1.2.840.10008.1.20.1"
    assert told.AffectedSOPInstanceUID == "1.2.840.10008.1.20.1.1"
    assert told.ActionTypeID == 1
    assert told.CommandDataSetType != 0x0101


def test_a_request_without_an_id_cannot_be_answered():
    anonymous = {n: v for n, v in STORE.items() if n != 0x0110}
    with pytest.raises(ValueError, match="message id"):
        response_to(read_command(encode(anonymous)), status=0)
