"""Limits before and below DICOM: lengths, order of fragments, deadlines, admission."""

import contextlib
import itertools
import socket
import struct
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.scp.guards import (
    Admission,
    GuardError,
    MessageProgress,
    Occasionally,
    PduReader,
    Verdict,
    contains,
    require_association_request,
    require_command,
)

COMMAND = (
    struct.pack("<HHLH", 0, 0x0100, 2, 0x0001)
    + struct.pack("<HHLH", 0, 0x0110, 2, 1)
    + struct.pack("<HHLH", 0, 0x0800, 2, 1)
)


def pdv(control: int, fragment: bytes, context: int = 1) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def progress(limit: int = 1000) -> MessageProgress:
    return MessageProgress(object_limit=limit, accepted=frozenset({1, 3}))


def feed(message: MessageProgress, *bodies: bytes) -> None:
    for body in bodies:
        message.feed(memoryview(body))


def test_a_message_in_any_number_of_fragments_and_pdus_is_fine():
    message = progress()
    feed(
        message,
        pdv(1, COMMAND[:10]) + pdv(3, COMMAND[10:]) + pdv(0, b"ab"),
        pdv(0, b"cd"),
        pdv(2, b""),  # a zero-length last fragment is legal
        pdv(3, COMMAND, context=3) + pdv(2, b"ef", context=3),
    )

    assert not message.under_way


def test_a_command_without_data_set_may_be_followed_by_any_command():
    message = progress()

    feed(message, pdv(3, COMMAND), pdv(3, COMMAND, context=3), pdv(2, b"x", context=3))

    assert not message.under_way


@pytest.mark.parametrize(
    "body",
    [
        pdv(2, b"data"),
        pdv(3, COMMAND) + pdv(2, b"x", context=3),
        pdv(3, COMMAND) + pdv(0, b"x") + pdv(3, COMMAND),
        pdv(3, COMMAND, context=5),
        pdv(3, b"\xff" * 20),
        pdv(1, COMMAND) + pdv(3, b"x" * (64 * 1024)),
        pdv(3, COMMAND) + pdv(0, b"x" * 600) + pdv(0, b"x" * 600),
        struct.pack(">LBB", 100, 1, 3) + b"short",
        struct.pack(">LBB", 1, 1, 3),
        b"\0\0\0",
    ],
    ids=[
        "data-first",
        "two-contexts",
        "command-inside-data",
        "context-not-accepted",
        "no-command",
        "long-command",
        "long-data-set",
        "past-the-end",
        "too-short",
        "cut-off",
    ],
)
def test_what_breaks_the_rules_is_refused(body):
    with pytest.raises(GuardError):
        feed(progress(), body)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_random_bodies_raise_nothing_but_guard_errors(bodies):
    message = progress()
    with contextlib.suppress(GuardError):
        feed(message, *bodies)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_commands_and_requests_raise_nothing_but_guard_errors(data):
    for check in (require_command, require_association_request):
        with contextlib.suppress(GuardError):
            check(data)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_message_cut_at_random_places_passes(data):
    """Any split of a legal message into fragments and PDUs is legal (PS3.8 annex E)."""
    content = data.draw(st.binary(min_size=1, max_size=200))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    edges = [0, *cuts, len(content)]
    parts = [content[a:b] for a, b in itertools.pairwise(edges)]
    fragments = [pdv(3, COMMAND)]
    fragments += [pdv(2 if n == len(parts) - 1 else 0, part) for n, part in enumerate(parts)]
    message = progress()
    at = 0
    while at < len(fragments):
        step = data.draw(st.integers(1, 3))
        feed(message, b"".join(fragments[at : at + step]))
        at += step

    assert not message.under_way


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    a.close()
    b.close()
    with client, server:
        yield client, server


def reader(connection: socket.socket, now=lambda: 0.0, deadline: float = 10.0) -> PduReader:
    return PduReader(
        connection=connection,
        progress=progress(),
        deadline_s=deadline,
        monotonic=now,
    )


def test_header_and_body_are_returned_whole(pair):
    client, server = pair
    body = pdv(3, COMMAND)
    client.sendall(struct.pack(">BBL", 4, 0, len(body)) + body)
    pdus = reader(server)

    header = pdus.recv(6)

    assert pdus.recv(struct.unpack(">BBL", header)[2]) == body
    assert pdus.last_type == 4


@pytest.mark.parametrize(
    ("pdu_type", "length"),
    [(1, 300_000), (4, 2_000_000), (5, 17), (7, 0xFFFFFFFF)],
)
def test_a_length_over_its_limit_is_refused_before_the_body_is_read(pair, pdu_type, length):
    client, server = pair
    client.sendall(struct.pack(">BBL", pdu_type, 0, length))

    with pytest.raises(GuardError, match="announces"):
        reader(server).recv(6)


def test_one_deadline_covers_header_and_body(pair):
    client, server = pair
    times = iter([0.0, 1.0, 11.0])
    client.sendall(struct.pack(">BBL", 4, 0, 50) + b"part")
    pdus = reader(server, now=lambda: next(times))
    pdus.recv(6)

    with pytest.raises(GuardError, match="in time"):
        pdus.recv(50)


def test_a_closed_connection_returns_what_there_was(pair):
    client, server = pair
    client.sendall(b"\x04\x00")
    client.close()

    assert reader(server).recv(6) == b"\x04\x00"


def test_an_address_counts_until_it_leaves():
    admission = Admission((), per_address=2, in_total=3)
    enter = admission.enter

    assert [enter("192.0.2.1"), enter("192.0.2.1")] == [Verdict.ADMITTED] * 2
    assert enter("192.0.2.1") is Verdict.TOO_MANY_FROM_ADDRESS
    assert enter("192.0.2.2") is Verdict.ADMITTED
    assert enter("192.0.2.3") is Verdict.TOO_MANY
    admission.leave("192.0.2.1")
    assert enter("192.0.2.3") is Verdict.ADMITTED


def test_an_address_outside_all_networks_is_not_counted():
    admission = Admission([ip_network("10.0.0.0/8")], per_address=1, in_total=1)

    assert admission.enter("192.0.2.1") is Verdict.ADDRESS_NOT_ALLOWED
    assert admission.enter("10.1.2.3") is Verdict.ADMITTED


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.7/32", "10.0.0.7", True),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),  # IPv4 on a dual-stack socket
        ("fe80::/10", "fe80::1%eth0", True),
        ("2001:db8::/32", "10.0.0.1", False),
    ],
)
def test_networks_contain_their_addresses(network, address, inside):
    assert contains((ip_network(network),), address) is inside


def test_one_line_a_minute_for_each_key():
    now = [0.0]
    seldom = Occasionally(60.0, lambda: now[0])

    first = [seldom.allows("a"), seldom.allows("a"), seldom.allows("b")]
    now[0] = 61.0

    assert first == [True, False, True]
    assert seldom.allows("a")


def test_many_keys_do_not_fill_the_memory():
    seldom = Occasionally(60.0, lambda: 0.0)

    for n in range(10_000):
        seldom.allows(n)

    assert len(seldom._last) <= Occasionally._MOST_KEYS
