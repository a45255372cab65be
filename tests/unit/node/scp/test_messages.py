"""Presentation data values become messages; what breaks the rules of PS3.8 annex E is refused."""

import contextlib
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.scp.commands import C_STORE_RQ
from node.scp.errors import ProtocolError
from node.scp.messages import Begun, Fragment, Reassembly


def command(data_set: bool = True) -> bytes:
    return b"".join(
        struct.pack("<HHLH", 0, element, 2, value)
        for element, value in (
            (0x0100, C_STORE_RQ),
            (0x0110, 1),
            (0x0800, 1 if data_set else 0x0101),
        )
    )


COMMAND = command()


def pdv(control: int, fragment: bytes, context: int = 1) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def reassembly(limit: int = 1000) -> Reassembly:
    return Reassembly({1, 3}, limit)


def feed(messages: Reassembly, *bodies: bytes) -> list[tuple]:
    """Return what comes out: ("command", context) and ("data", bytes, last)."""
    seen = []
    for body in bodies:
        for part in messages.feed(memoryview(body)):
            if isinstance(part, Begun):
                seen.append(("command", part.context_id))
            else:
                assert isinstance(part, Fragment)
                seen.append(("data", bytes(part.data), part.last))
    return seen


def test_a_message_in_any_number_of_fragments_and_pdus_comes_out_whole():
    messages = reassembly()

    seen = feed(
        messages,
        pdv(1, COMMAND[:10]) + pdv(3, COMMAND[10:]) + pdv(0, b"ab"),
        pdv(0, b""),
        pdv(0, b"cd"),
        pdv(2, b""),  # a last fragment of zero bytes is legal
        pdv(3, COMMAND, context=3) + pdv(2, b"ef", context=3),
    )

    assert seen == [
        ("command", 1),
        ("data", b"ab", False),
        ("data", b"", False),
        ("data", b"cd", False),
        ("data", b"", True),
        ("command", 3),
        ("data", b"ef", True),
    ]
    assert not messages.under_way


def test_a_message_is_under_way_from_its_first_fragment_to_its_last():
    messages = reassembly()
    states = [messages.under_way]
    for body in (pdv(1, COMMAND[:4]), pdv(3, COMMAND[4:]), pdv(0, b"a"), pdv(2, b"b")):
        feed(messages, body)
        states.append(messages.under_way)

    assert states == [False, True, True, True, False]


def test_a_command_without_data_set_may_be_followed_by_any_command():
    messages = reassembly()

    seen = feed(messages, pdv(3, command(data_set=False)), pdv(3, command(data_set=False), 3))

    assert seen == [("command", 1), ("command", 3)]
    assert not messages.under_way


@pytest.mark.parametrize(
    "body",
    [
        pdv(2, b"data"),
        pdv(3, COMMAND) + pdv(2, b"x", context=3),
        pdv(3, COMMAND) + pdv(0, b"x") + pdv(3, COMMAND),
        pdv(3, COMMAND) + pdv(3, COMMAND),
        pdv(3, command(data_set=False)) + pdv(2, b"x"),
        pdv(3, COMMAND, context=5),
        pdv(3, b"\xff" * 20),
        pdv(3, b""),
        pdv(1, COMMAND) + pdv(3, b"x" * (64 * 1024)),
        pdv(3, COMMAND) + pdv(0, b"x" * 600) + pdv(0, b"x" * 600),
        struct.pack(">LBB", 100, 1, 3) + b"short",
        struct.pack(">LBB", 1, 1, 3),
        struct.pack(">LBB", 0xFFFFFFFF, 1, 3) + b"short",
        b"\0\0\0",
    ],
    ids=[
        "data-first",
        "two-contexts",
        "command-inside-data",
        "command-before-its-data",
        "data-that-was-not-announced",
        "context-not-accepted",
        "no-command",
        "empty-command",
        "long-command",
        "long-data-set",
        "past-the-end",
        "too-short",
        "length-of-4-gib",
        "cut-off",
    ],
)
def test_what_breaks_the_rules_is_refused(body):
    with pytest.raises(ProtocolError):
        feed(reassembly(), body)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_random_bodies_raise_nothing_but_protocol_errors(bodies):
    with contextlib.suppress(ProtocolError):
        feed(reassembly(), *bodies)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_message_cut_at_random_places_comes_out_whole(data):
    """Any split of a legal message into fragments and PDUs is legal."""
    content = data.draw(st.binary(max_size=200))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    parts = [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)])]
    at = data.draw(st.integers(0, len(COMMAND)))
    values = [pdv(1, COMMAND[:at]), pdv(3, COMMAND[at:])]
    values += [pdv(2 if n == len(parts) - 1 else 0, part) for n, part in enumerate(parts)]
    bodies = []
    while values:
        step = data.draw(st.integers(1, 3))
        bodies.append(b"".join(values[:step]))
        del values[:step]
    messages = reassembly()

    seen = feed(messages, *bodies)

    assert seen[0] == ("command", 1)
    assert b"".join(part[1] for part in seen[1:]) == content
    assert [part[2] for part in seen[1:]] == [False] * (len(parts) - 1) + [True]
    assert not messages.under_way
