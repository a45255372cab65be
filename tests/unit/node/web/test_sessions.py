"""Sessions end in time, and wrong passwords make people wait."""

from pathlib import Path

import pytest

from node.web import sessions as sessions_module
from node.web.sessions import (
    ADDRESS_FAILURES,
    FAILURES,
    NAME_FAILURES,
    PER_USER,
    WINDOW_S,
    LoginBrake,
    Sessions,
)
from node.web.users import Role, User, Users
from tests.store_kit import FakeClock
from tests.web_kit import QUICK

GOOD = "correct horse battery"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def users(tmp_path: Path) -> Users:
    made = Users(tmp_path / "users.json", QUICK)
    made.put("a", Role.OPERATOR, GOOD)
    return made


@pytest.fixture
def user(users: Users) -> User:
    found = users.get("a")
    assert found is not None
    return found


@pytest.fixture
def sessions(users: Users, clock: FakeClock) -> Sessions:
    return Sessions(users, clock, idle_s=600, longest_s=3600)


def test_a_session_is_found_by_its_token_alone(sessions: Sessions, user: User) -> None:
    token = sessions.begin(user)

    assert sessions.find(token) is not None
    assert sessions.find(token + "x") is None
    assert sessions.find("") is None


def test_a_session_ends_when_nobody_clicks(
    sessions: Sessions, user: User, clock: FakeClock
) -> None:
    token = sessions.begin(user)
    clock.advance(599)
    assert sessions.find(token) is not None
    clock.advance(599)
    assert sessions.find(token) is not None
    clock.advance(601)

    assert sessions.find(token) is None


def test_what_a_page_asks_by_itself_keeps_no_session_alive(
    sessions: Sessions, user: User, clock: FakeClock
) -> None:
    token = sessions.begin(user)
    for _ in range(6):
        clock.advance(99)
        assert sessions.find(token, touch=False) is not None
    clock.advance(99)

    assert sessions.find(token, touch=False) is None


def test_a_session_ends_in_any_case(sessions: Sessions, user: User, clock: FakeClock) -> None:
    token = sessions.begin(user)
    for _ in range(7):
        clock.advance(500)
        sessions.find(token)
    clock.advance(101)

    assert sessions.find(token) is None


def test_logging_out_ends_it(sessions: Sessions, user: User) -> None:
    token = sessions.begin(user)
    sessions.end(token)

    assert sessions.find(token) is None


def test_a_new_password_or_role_ends_every_session(
    sessions: Sessions, users: Users, user: User
) -> None:
    token = sessions.begin(user)
    users.put("a", Role.VIEWER, GOOD)

    assert sessions.find(token) is None


def test_a_user_has_few_sessions_and_the_oldest_gives_way(sessions: Sessions, user: User) -> None:
    tokens = [sessions.begin(user) for _ in range(PER_USER + 1)]

    assert sessions.find(tokens[0]) is None
    assert all(sessions.find(token) for token in tokens[1:])


HERE, THERE = "10.0.0.1", "10.0.0.2"


def fail(brake: LoginBrake, times: int, name: str = "a", address: str = HERE) -> None:
    for _ in range(times):
        brake.failed(name, address)


def test_after_a_few_wrong_passwords_a_user_waits_at_that_address(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    fail(brake, FAILURES - 1)
    assert brake.wait_s("a", HERE) == 0
    fail(brake, 1)

    assert WINDOW_S - 60 < brake.wait_s("a", HERE) <= WINDOW_S
    assert brake.wait_s("b", HERE) == 0
    clock.advance(WINDOW_S + 1)
    assert brake.wait_s("a", HERE) == 0


def test_nobody_locks_a_user_out_from_another_address(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    fail(brake, FAILURES * 4, address=THERE)

    assert brake.wait_s("a", THERE) > 0
    assert brake.wait_s("a", HERE) == 0


def test_an_address_that_tries_many_names_waits_for_all_of_them(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    for number in range(ADDRESS_FAILURES):
        brake.failed(f"user{number}", THERE)

    assert brake.wait_s("somebody else", THERE) > 0
    assert brake.wait_s("user1", HERE) == 0


def test_many_machines_are_slowed_down_and_the_user_still_gets_in_at_the_own_desk(
    clock: FakeClock,
) -> None:
    brake = LoginBrake(clock)
    brake.succeeded("a", HERE)
    for number in range(NAME_FAILURES):
        brake.failed("a", f"192.0.2.{number}")

    assert brake.wait_s("a", "192.0.2.200") > 0
    assert brake.wait_s("a", HERE) == 0
    fail(brake, FAILURES)
    assert brake.wait_s("a", HERE) > 0


def test_a_right_password_forgets_the_wrong_ones(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    fail(brake, FAILURES)
    brake.succeeded("a", HERE)

    assert brake.wait_s("a", HERE) == 0


def test_what_is_remembered_has_a_bound(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    for number in range(sessions_module._REMEMBERED):
        brake.failed(f"n{number}", HERE)
        brake.succeeded(f"n{number}", f"x{number}")

    assert len(brake._failures) <= sessions_module._REMEMBERED
    assert len(brake._known) <= sessions_module._REMEMBERED
