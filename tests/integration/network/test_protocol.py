"""The acceptor's half of PS3.8, spoken to PDU by PDU: every legal shape, and ends at any point."""

import struct
import time

import pytest

from node.domain import Uid
from node.scp.commands import N_ACTION_RQ
from node.scp.services import SMALL_DATA_SET, Message, Reply, Service
from tests.integration.network.support import FakeDoor, receiving, until
from tests.wire_kit import (
    ABORT,
    CT,
    EXPLICIT,
    RELEASE,
    STORAGE_AND_ECHO,
    VERIFICATION,
    RawPeer,
    associate_request,
    c_echo,
    c_store,
    command,
    item,
    p_data,
    pdu,
    pdv,
    uid,
    us,
)

COMMITMENT = "1.2.840.10008.1.20.1"
CONTENT = bytes(range(256)) * 40


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fragments(data: bytes, size: int) -> list[bytes]:
    """Return the values of a data set, the last one marked."""
    pieces = chopped(data, size)
    return [pdv(2 if n == len(pieces) - 1 else 0, piece) for n, piece in enumerate(pieces)]


SHAPES = {
    "one-value-a-pdu": [p_data(pdv(3, c_store())), *map(p_data, fragments(CONTENT, 4000))],
    "all-values-in-one-pdu": [p_data(pdv(3, c_store()), *fragments(CONTENT, 999))],
    "odd-sizes": [p_data(pdv(3, c_store())), *map(p_data, fragments(CONTENT, 333))],
    "values-of-one-byte": [
        p_data(pdv(3, c_store())),
        *map(p_data, fragments(CONTENT[:300], 1)),
    ],
    "values-of-no-byte": [
        p_data(pdv(1, b""), pdv(1, c_store()), pdv(3, b"")),
        p_data(pdv(0, b""), pdv(0, CONTENT), pdv(0, b"")),
        p_data(pdv(2, b"")),
    ],
    "a-command-in-pieces": [
        *(p_data(pdv(1, piece)) for piece in chopped(c_store(), 7)),
        p_data(pdv(3, b"")),
        p_data(pdv(2, CONTENT)),
    ],
    "pdus-of-no-value": [p_data(), p_data(pdv(3, c_store())), p_data(), p_data(pdv(2, CONTENT))],
    "larger-than-announced": [p_data(pdv(3, c_store())), p_data(pdv(2, CONTENT * 90))],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_arrives_whole_however_it_is_cut(shape):
    door = FakeDoor()
    sent = {"values-of-one-byte": CONTENT[:300], "larger-than-announced": CONTENT * 90}
    with receiving(door) as receiver, RawPeer.associated(receiver.port) as peer:
        peer.send(*SHAPES[shape])

        assert peer.status() == 0
    assert door.stored[0].dataset == sent.get(shape, CONTENT)
    assert door.stored[0].sop_instance_uid == "2.25.7"


def test_bytes_that_drip_into_the_socket_make_the_same_object():
    door = FakeDoor()
    wire = p_data(pdv(3, c_store()), *fragments(CONTENT[:500], 100))
    with receiving(door) as receiver, RawPeer.associated(receiver.port) as peer:
        for byte in wire:
            peer.send(bytes([byte]))

        assert peer.status() == 0
    assert door.stored[0].dataset == CONTENT[:500]


def test_a_peer_that_proposes_asynchronous_operations_and_does_not_wait_is_answered_in_order():
    door = FakeDoor()
    window = item(0x53, struct.pack(">HH", 0, 0))
    with (
        receiving(door) as receiver,
        RawPeer.associated(receiver.port, more=window) as peer,
    ):
        for number in range(1, 21):
            peer.send(p_data(pdv(3, c_store(f"2.25.{number}", number))), p_data(pdv(2, CONTENT)))
        answers = [peer.answer() for _ in range(20)]

    assert [int.from_bytes(a[0x0120], "little") for a in answers] == list(range(1, 21))
    assert [s.sop_instance_uid for s in door.stored] == [f"2.25.{n}" for n in range(1, 21)]


POINTS = {
    "before-the-request": [],
    "in-the-request": [associate_request()[:40]],
    "after-the-request": [associate_request()],
    "in-a-pdu-header": [associate_request(), p_data(pdv(3, c_store()))[:3]],
    "in-the-command-set": [associate_request(), p_data(pdv(1, c_store()[:20]))],
    "before-the-data-set": [associate_request(), p_data(pdv(3, c_store()))],
    "in-the-data-set": [associate_request(), p_data(pdv(3, c_store()), pdv(0, CONTENT))],
    "in-a-fragment": [
        associate_request(),
        p_data(pdv(3, c_store())),
        p_data(pdv(0, CONTENT))[:500],
    ],
}


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
@pytest.mark.parametrize("point", POINTS)
def test_an_end_at_any_point_leaves_nothing_behind(point, how):
    door = FakeDoor()
    with receiving(door) as receiver:
        peer = RawPeer(receiver.port)
        peer.send(*POINTS[point])
        time.sleep(0.05)
        if how == "abort":
            peer.send(ABORT)
        if how == "reset":
            peer.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close by RST
        peer.socket.close()
        until(lambda: not receiver._connections)
        assert receiver.associations == 0
        with RawPeer.associated(receiver.port) as other:
            other.send(p_data(pdv(3, c_echo(), 3)))
            assert other.status() == 0
    until(lambda: len(door.ended) == len(door.opened))

    assert door.stored == []
    begun = point in {"before-the-data-set", "in-the-data-set", "in-a-fragment"}
    assert door.discarded == int(begun)


@pytest.mark.parametrize("point", ["in-the-command-set", "in-the-data-set"])
def test_a_release_in_the_middle_of_a_message_is_answered_and_the_message_forgotten(point):
    door = FakeDoor()
    with receiving(door) as receiver, RawPeer(receiver.port) as peer:
        peer.send(*POINTS[point])
        assert peer.read()[0] == 2
        peer.send(RELEASE)
        assert peer.read() == (6, bytes(4))
        assert peer.read()[0] == 0
    until(lambda: door.ended)

    assert door.stored == []
    assert door.ended[0][1:] == ("ABORTED", 0, 0)  # an object is missing, so nothing is whole


WRONG = {
    "a-second-request": (associate_request(), 2),
    "an-acceptance": (pdu(2, bytes(68)), 2),
    "a-release-answer": (pdu(6, bytes(4)), 2),
    "no-pdu": (pdu(0x55, b"abcd"), 1),
    "a-response": (p_data(pdv(3, command({0x0100: us(0x8001), 0x0120: us(1),
                                          0x0800: us(0x0101), 0x0900: us(0)}))), 2),
    "a-request-without-an-id": (p_data(pdv(3, command({0x0100: us(0x30), 0x0800: us(0x0101)}),
                                           3)), 6),
    "an-unknown-context": (p_data(pdv(3, c_store(), 9)), 6),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_belong_there_is_answered_with_an_abort_that_says_why(name):
    """PS3.8 table 9-26: source 2 (provider), and the reason."""
    wrong, reason = WRONG[name]
    with receiving(FakeDoor()) as receiver, RawPeer.associated(receiver.port) as peer:
        peer.send(wrong)

        assert peer.read() == (7, bytes([0, 0, 2, reason]))
        assert peer.read()[0] == 0


def test_a_cancel_is_ignored():
    with receiving(FakeDoor()) as receiver, RawPeer.associated(receiver.port) as peer:
        peer.send(p_data(pdv(3, command({0x0100: us(0x0FFF), 0x0120: us(1), 0x0800: us(0x0101)}))))
        peer.send(p_data(pdv(3, c_echo(5), 3)))

        assert int.from_bytes(peer.answer()[0x0120], "little") == 5


def test_an_idle_association_is_aborted_and_a_message_that_stalls_sooner():
    with (
        receiving(FakeDoor(), idle_timeout_s=0.6, pdu_timeout_s=0.2) as receiver,
        RawPeer.associated(receiver.port) as idle,
    ):
        begun = time.monotonic()
        assert idle.read()[0] == 7
        assert time.monotonic() - begun > 0.5
    with (
        receiving(FakeDoor(), idle_timeout_s=600.0, pdu_timeout_s=0.2) as receiver,
        RawPeer.associated(receiver.port) as stalled,
    ):
        stalled.send(p_data(pdv(3, c_store()), pdv(0, CONTENT)))
        assert stalled.read()[0] == 7


def test_our_own_slowness_aborts_nobody():
    """A commit that takes longer than every timeout of the receiver is answered all the same."""
    door = FakeDoor(before=lambda: time.sleep(0.8))
    with (
        receiving(door, idle_timeout_s=0.3, pdu_timeout_s=0.2) as receiver,
        RawPeer.associated(receiver.port) as peer,
    ):
        peer.send(p_data(pdv(3, c_store())), p_data(pdv(2, CONTENT)))

        assert peer.status() == 0


def test_verification_is_no_storage_class():
    verification = c_store(sop_class=VERIFICATION)
    door = FakeDoor()
    with receiving(door) as receiver, RawPeer.associated(receiver.port) as peer:
        peer.send(p_data(pdv(3, verification, 3)), p_data(pdv(2, CONTENT, 3)))

        assert peer.status() == 0x0122
    assert door.stored == []


@pytest.mark.parametrize(
    ("request_", "rejection"),
    [
        ({"version": 2}, (1, 2, 2)),
        ({"application": "1.2.3"}, (1, 1, 2)),
        ({"called": "NOBODY"}, (1, 1, 7)),
    ],
)
def test_a_request_that_cannot_be_is_rejected_with_its_reason(request_, rejection):
    with receiving(FakeDoor()) as receiver, RawPeer(receiver.port) as peer:
        peer.send(associate_request(**request_))

        assert peer.read() == (3, bytes([0, *rejection]))


def test_hundreds_of_idle_connections_do_not_keep_a_peer_out():
    """Fault B2: a scanner holds what it gets; whoever associates at once is served."""
    with receiving(FakeDoor(), max_associations=4, max_per_address=500) as receiver:
        idle = [RawPeer(receiver.port) for _ in range(200)]
        begun = time.monotonic()
        with RawPeer.associated(receiver.port) as peer:
            peer.send(p_data(pdv(3, c_echo(), 3)))
            assert peer.status() == 0
        assert time.monotonic() - begun < 3
        for connection in idle:
            connection.socket.close()


# -- services of DIMSE-N --------------------------------------------------------------------------

ACTION = {
    0x0003: uid(COMMITMENT), 0x0100: us(N_ACTION_RQ), 0x0110: us(11), 0x0800: us(1),
    0x1001: uid("1.2.840.10008.1.20.1.1"), 0x1008: us(1),
}  # fmt: skip


class Desk:
    """A service that writes down what it is asked."""

    def __init__(self, reply: Reply | Exception) -> None:
        self.reply = reply
        self.messages: list[Message] = []

    def answer(self, message: Message) -> Reply:
        self.messages.append(message)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def service(self) -> Service:
        return Service(
            sop_class_uid=Uid(COMMITMENT),
            name="Storage Commitment Push Model",
            transfer_syntaxes=(Uid(EXPLICIT),),
            operations={N_ACTION_RQ: self.answer},
        )


def asked(desk: Desk, *pieces: bytes) -> tuple[dict[int, bytes], int]:
    """Send an N-ACTION with a data set in pieces; return its answer and that of an echo after."""
    door = FakeDoor()
    with (
        receiving(door, services=(desk.service(),)) as receiver,
        RawPeer.associated(
            receiver.port, proposals=[(1, COMMITMENT, [EXPLICIT]), *STORAGE_AND_ECHO[1:]]
        ) as peer,
    ):
        peer.send(p_data(pdv(3, command(ACTION))))
        for n, piece in enumerate(pieces, 1):
            peer.send(p_data(pdv(2 if n == len(pieces) else 0, piece)))
        answer = peer.answer()
        peer.send(p_data(pdv(3, c_echo(12), 3)))
        return answer, peer.status()


def status_of(answer: dict[int, bytes]) -> int:
    return int.from_bytes(answer[0x0900], "little")


def test_a_service_gets_its_request_whole_and_its_reply_is_the_answer():
    desk = Desk(Reply(status=0))

    answer, echo = asked(desk, b"one", b"two")

    (message,) = desk.messages
    assert (message.data, message.transfer_syntax_uid) == (b"onetwo", EXPLICIT)
    assert message.elements[0x1008] == us(1)
    assert message.source.calling_ae_title == "TESTER"
    assert (status_of(answer), echo) == (0, 0)
    assert answer[0x0100] == us(0x8130)
    assert answer[0x0002] == uid(COMMITMENT)


def test_a_service_that_fails_is_a_processing_failure_and_the_association_lives():
    answer, echo = asked(Desk(RuntimeError("Canary^Name")), b"data")

    assert (status_of(answer), echo) == (0x0110, 0)
    assert b"Canary" not in b"".join(answer.values())


def test_a_request_that_is_too_large_for_a_service_never_reaches_it():
    desk = Desk(Reply(status=0))
    piece = bytes(1 << 19)

    answer, echo = asked(desk, *[piece] * (SMALL_DATA_SET // len(piece)), b"more")

    assert desk.messages == []
    assert (status_of(answer), echo) == (0x0213, 0)


def test_a_class_that_no_row_serves_is_not_accepted():
    with receiving(FakeDoor()) as receiver, RawPeer(receiver.port) as peer:
        peer.send(associate_request([(1, COMMITMENT, [EXPLICIT]), (3, CT, [EXPLICIT])]))
        kind, body = peer.read()

    assert kind == 2
    assert body.count(b"\x21") >= 2
    assert bytes([1, 0, 3, 0]) in body  # context 1: abstract syntax not supported
