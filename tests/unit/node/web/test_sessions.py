"""Sessions end in time, and wrong passwords make people wait."""

from pathlib import Path

import pytest

from node.web.sessions import FAILURES, PER_USER, WINDOW_S, LoginBrake, Sessions
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


def test_after_a_few_wrong_passwords_address_and_name_wait(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    for _ in range(FAILURES - 1):
        brake.failed("address 10.0.0.1", "name a")
    assert brake.wait_s("address 10.0.0.1", "name a") == 0
    brake.failed("address 10.0.0.1", "name a")

    assert WINDOW_S - 60 < brake.wait_s("address 10.0.0.1") <= WINDOW_S
    assert brake.wait_s("address 10.0.0.2", "name a") > 0
    assert brake.wait_s("address 10.0.0.2", "name b") == 0
    clock.advance(WINDOW_S + 1)
    assert brake.wait_s("address 10.0.0.1", "name a") == 0


def test_a_right_password_forgets_the_wrong_ones(clock: FakeClock) -> None:
    brake = LoginBrake(clock)
    for _ in range(FAILURES):
        brake.failed("name a")
    brake.succeeded("name a")

    assert brake.wait_s("name a") == 0
