"""Command sets by hand, checked against pynetdicom's own encoder and decoder."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import (
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RQ,
    C_STORE_RSP,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    DIMSEMessage,
)
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from node.domain import AETitle, Uid
from node.scu import dimse


def decoded(command: bytes) -> DIMSEMessage:
    primitive = P_DATA()
    primitive.presentation_data_value_list = [[1, b"\x03" + command]]
    message = DIMSEMessage()
    message.decode_msg(primitive)
    return message


def test_pynetdicom_reads_our_store_request():
    command = dimse.c_store_rq(
        message_id=513, sop_class_uid=Uid("1.2.3"), sop_instance_uid=Uid("1.2.3.4")
    )

    message = decoded(command)

    assert isinstance(message, C_STORE_RQ)
    ds = message.command_set
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == ("1.2.3", "1.2.3.4")
    assert (ds.MessageID, ds.Priority, ds.CommandDataSetType) == (513, 0, 1)
    assert ds.CommandGroupLength == len(command) - 12


def test_pynetdicom_reads_our_echo_request():
    message = decoded(dimse.c_echo_rq(message_id=1, sop_class_uid=Uid("1.2.840.10008.1.1")))

    assert isinstance(message, C_ECHO_RQ)
    assert message.command_set.CommandDataSetType == 0x0101


@pytest.mark.parametrize(
    ("command", "kind", "values"),
    [
        (dimse.c_find_rq(message_id=7, sop_class_uid=Uid("1.2.3")), C_FIND_RQ, {"Priority": 0}),
        (dimse.c_get_rq(message_id=7, sop_class_uid=Uid("1.2.3")), C_GET_RQ, {"Priority": 0}),
        (
            dimse.c_move_rq(
                message_id=7, sop_class_uid=Uid("1.2.3"), destination=AETitle("RTNODE1")
            ),
            C_MOVE_RQ,
            {"MoveDestination": "RTNODE1"},
        ),
        (
            dimse.n_action_rq(
                message_id=7,
                sop_class_uid=Uid("1.2.3"),
                sop_instance_uid=Uid("1.2.3.4"),
                action_type_id=1,
            ),
            N_ACTION_RQ,
            {"RequestedSOPInstanceUID": "1.2.3.4", "ActionTypeID": 1},
        ),
        (
            dimse.n_event_report_rq(
                message_id=7,
                sop_class_uid=Uid("1.2.3"),
                sop_instance_uid=Uid("1.2.3.4"),
                event_type_id=2,
            ),
            N_EVENT_REPORT_RQ,
            {"AffectedSOPInstanceUID": "1.2.3.4", "EventTypeID": 2},
        ),
    ],
    ids=["find", "get", "move", "action", "event-report"],
)
def test_pynetdicom_reads_our_requests_with_a_data_set(command, kind, values):
    message = decoded(command)

    assert isinstance(message, kind)
    ds = message.command_set
    assert {k: ds[k].value for k in values} == values
    assert (ds.MessageID, ds.CommandDataSetType) == (7, 1)
    assert "1.2.3" in (ds.get("AffectedSOPClassUID"), ds.get("RequestedSOPClassUID"))


def test_a_request_without_a_message_id_is_not_answered():
    with pytest.raises(dimse.MalformedMessage):
        dimse.response_to({0x0100: b"\x01\x00"}, 0)


def test_our_answer_names_what_it_answers():
    request = dimse.read_command(
        dimse.n_event_report_rq(
            message_id=7,
            sop_class_uid=Uid("1.2.3"),
            sop_instance_uid=Uid("1.2.3.4"),
            event_type_id=2,
        )
    )

    command = dimse.read_command(dimse.response_to(request, 0x0115))

    response = dimse.read_response(command, request=dimse.N_EVENT_REPORT_RQ, message_id=7)
    assert response.status == 0x0115
    assert dimse.uid(command, 0x1000) == "1.2.3.4"


def test_we_read_the_response_of_pynetdicom():
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo = 7
    primitive.AffectedSOPClassUID = "1.2.3"
    primitive.AffectedSOPInstanceUID = "1.2.3.4"
    primitive.Status = 0xA700
    primitive.ErrorComment = "full"
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    (pdata,) = message.encode_msg(1, 16384)
    command = dimse.read_command(pdata.presentation_data_value_list[0][1][1:])

    response = dimse.read_response(command, request=dimse.C_STORE_RQ, message_id=7)

    assert response == dimse.Response(status=0xA700, comment="full")
    assert not dimse.has_data_set(command)


@given(st.binary(max_size=120))
def test_random_bytes_are_read_or_refused_as_malformed(data):
    try:
        command = dimse.read_command(data)
        dimse.read_response(command, request=dimse.C_STORE_RQ, message_id=1)
    except dimse.MalformedMessage:
        pass


@given(st.binary(max_size=120))
def test_random_bodies_are_cut_or_refused_as_malformed(data):
    with contextlib.suppress(dimse.MalformedMessage):
        dimse.fragments(data)


@pytest.mark.parametrize(
    ("announced", "fragment"),
    [(0, 131066), (16384, 16378), (131072, 131066), (10_000_000, 131066), (7, 1)],
)
def test_fragments_fit_what_the_peer_announced(announced, fragment):
    assert dimse.fragment_length(announced, ours=131072) == fragment


def test_a_peer_that_takes_no_data_is_refused():
    with pytest.raises(dimse.MalformedMessage):
        dimse.fragment_length(6, ours=131072)


def test_a_pdu_tells_its_lengths():
    header, fragment = dimse.p_data(3, b"abcd", command=False, last=True)

    assert struct.unpack(">BBLLBB", header) == (4, 0, 10, 6, 3, 2)
    assert fragment == b"abcd"
