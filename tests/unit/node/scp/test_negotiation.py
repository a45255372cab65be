"""What is answered to an A-ASSOCIATE-RQ, item by item, and which requests are none."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC

from node.domain import Uid
from node.scp.errors import ProtocolError
from node.scp.negotiation import (
    APPLICATION_CONTEXT_NOT_SUPPORTED,
    MAXIMUM_PDU_LENGTH,
    PROTOCOL_VERSION_NOT_SUPPORTED,
    Negotiation,
    flaw,
    read_request,
    reject,
)
from node.scp.services import Reply, Service
from tests.wire_kit import CT, EXPLICIT, VERIFICATION, associate_request, item

IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
COMMITMENT = Uid("1.2.840.10008.1.20.1")


def body_of(**request) -> bytes:
    return associate_request(**request)[6:]


def answered(negotiation: Negotiation, **request):
    """Return the decoded acceptance and the accepted contexts."""
    pdu, contexts = negotiation.accept(read_request(body_of(**request)))
    answer = A_ASSOCIATE_AC()
    answer.decode(pdu)
    return answer, contexts


def commitment(**roles) -> Service:
    return Service(
        sop_class_uid=COMMITMENT,
        name="Storage Commitment Push Model",
        transfer_syntaxes=(Uid(EXPLICIT),),
        operations={0x0130: lambda _message: Reply(status=0)},
        **roles,
    )


def test_titles_are_trimmed_and_the_peers_limit_is_known():
    request = read_request(body_of(called="RTNODE", calling="CTSIM1", maximum=4096))

    assert (request.called_ae_title, request.calling_ae_title) == ("RTNODE", "CTSIM1")
    assert request.maximum_length == 4096


def test_each_context_is_accepted_or_refused_with_its_reason():
    answer, contexts = answered(
        Negotiation(),
        proposals=[
            (1, CT, [IMPLICIT, EXPLICIT]),
            (3, VERIFICATION, [IMPLICIT]),
            (5, "1.2.3.4", [EXPLICIT]),
            (7, CT, ["1.2.3.4.5"]),
            (9, CT, [DEFLATED]),
        ],
    )

    assert [i.result for i in answer.presentation_context] == [0, 0, 3, 4, 0]
    agreed = {n: c.transfer_syntax for n, c in contexts.items()}
    assert agreed == {1: EXPLICIT, 3: IMPLICIT, 9: DEFLATED}
    assert answer.user_information.maximum_length == MAXIMUM_PDU_LENGTH


def test_asynchronous_operations_are_not_answered_so_that_the_window_stays_one():
    answer, _ = answered(Negotiation(), more=item(0x53, struct.pack(">HH", 0, 0)))

    assert answer.user_information.async_ops_window is None


@pytest.mark.parametrize(
    "more",
    [
        item(0x55, b"SOME_VERSION"),
        item(0x56, struct.pack(">H", len(CT)) + CT.encode() + b"\1\1\1"),
        item(0x58, b"\1\0" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 0)),
        item(0x53, struct.pack(">HH", 5, 5)) + item(0x55, b"V"),
    ],
    ids=["version-name", "extended", "user-identity", "several"],
)
def test_further_items_of_user_information_do_no_harm(more):
    _, contexts = answered(Negotiation(), more=more)

    assert set(contexts) == {1, 3}


@pytest.mark.parametrize(
    ("ours", "proposed", "agreed"),
    [
        ({}, (1, 1), (1, 0)),
        ({"we_are_scu": True}, (1, 1), (1, 1)),
        ({"we_are_scu": True, "we_are_scp": False}, (0, 1), (0, 1)),
    ],
    ids=["we-serve", "both", "we-use"],
)
def test_roles_of_a_service_are_agreed_as_its_row_says(ours, proposed, agreed):
    """PS3.7 D.3.3.4: the roles are those of the requestor."""
    role = struct.pack(">H", len(COMMITMENT)) + COMMITMENT.encode() + bytes(proposed)
    answer, contexts = answered(
        Negotiation([commitment(**ours)]),
        proposals=[(1, COMMITMENT, [EXPLICIT])],
        more=item(0x54, role),
    )

    (said,) = answer.user_information.role_selection.values()
    assert (said.scu_role, said.scp_role) == agreed
    assert set(contexts) == {1}


def test_a_service_without_role_selection_is_ours_to_serve():
    _, contexts = answered(Negotiation([commitment()]), proposals=[(1, COMMITMENT, [EXPLICIT])])

    assert contexts[1].abstract_syntax == COMMITMENT


@pytest.mark.parametrize(
    ("request_", "rejection"),
    [
        ({"version": 2}, PROTOCOL_VERSION_NOT_SUPPORTED),
        ({"application": "1.2.840.10008.3.1.1.2"}, APPLICATION_CONTEXT_NOT_SUPPORTED),
        ({"version": 3}, None),  # bit 0 is ours; others are for versions to come
        ({}, None),
    ],
)
def test_what_nobody_could_accept_is_told(request_, rejection):
    body = body_of(**request_)

    assert flaw(read_request(body), body) == rejection


def test_a_rejection_is_the_pdu_of_the_standard():
    assert reject((1, 1, 7)) == bytes.fromhex("030000000004") + bytes([0, 1, 1, 7])


@pytest.mark.parametrize(
    "proposals",
    [
        [],
        [(2, CT, [EXPLICIT])],
        [(1, CT, [EXPLICIT]), (1, VERIFICATION, [EXPLICIT])],
        [(1, CT, [])],
    ],
    ids=["none", "even-id", "same-id-twice", "no-transfer-syntax"],
)
def test_contexts_that_cannot_be_negotiated_are_no_request(proposals):
    with pytest.raises(ProtocolError):
        read_request(body_of(proposals=proposals))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_protocol_errors(data):
    with contextlib.suppress(ProtocolError):
        read_request(data)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_request_with_one_wrong_byte_is_read_or_refused_and_can_be_answered(at, value):
    body = bytearray(body_of())
    body[at % len(body)] = value

    with contextlib.suppress(ProtocolError):
        Negotiation().accept(read_request(bytes(body)))
