"""Who may connect, who waits, and what is logged of it."""

from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from node.scp.admission import Occasionally, WaitingRoom, contains


@dataclass(eq=False)
class Guest:
    address: str
    cuts: list[int] = field(default_factory=list)

    def cut(self) -> None:
        self.cuts.append(1)


def test_the_oldest_of_an_address_makes_room_for_its_newest():
    room = WaitingRoom(per_address=2, in_total=10)
    first, second, third, other = (Guest(a) for a in ("a", "a", "a", "b"))

    room.enter(first)
    room.enter(other)
    room.enter(second)

    assert room.enter(third) is first
    assert [len(g.cuts) for g in (first, second, third, other)] == [1, 0, 0, 0]


def test_the_oldest_of_all_makes_room_when_the_room_is_full():
    room = WaitingRoom(per_address=5, in_total=3)
    guests = [Guest(f"10.0.0.{n}") for n in range(5)]

    cut = [room.enter(guest) for guest in guests]

    assert cut == [None, None, None, guests[0], guests[1]]


def test_who_left_is_neither_counted_nor_cut():
    room = WaitingRoom(per_address=1, in_total=1)
    first, second = Guest("a"), Guest("a")
    room.enter(first)
    room.leave(first)
    room.leave(first)

    assert room.enter(second) is None
    assert not first.cuts


def test_all_who_wait_can_be_sent_away_at_once():
    room = WaitingRoom(per_address=5, in_total=5)
    guests = [Guest("a"), Guest("b")]
    for guest in guests:
        room.enter(guest)

    room.cut_all()

    assert [len(guest.cuts) for guest in guests] == [1, 1]


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


def test_no_network_contains_nothing():
    assert not contains((), "127.0.0.1")


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
