"""The users file: hashes only, private, read anew when it changes."""

import json
import stat
from pathlib import Path

import pytest

from node.web.users import SHORTEST_PASSWORD, Role, Users, UsersUnusable
from tests.web_kit import QUICK

GOOD = "correct horse battery"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.json", QUICK)


def test_a_right_password_is_taken_and_a_wrong_one_is_not(users: Users) -> None:
    users.put("m.tanaka", Role.OPERATOR, GOOD)

    found = users.check("m.tanaka", GOOD)

    assert found is not None
    assert found.may_act
    assert users.check("m.tanaka", GOOD + "!") is None
    assert users.check("nobody", GOOD) is None


def test_the_file_holds_argon2id_hashes_and_is_private(users: Users, tmp_path: Path) -> None:
    users.put("a", Role.VIEWER, GOOD)
    path = tmp_path / "users.json"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert GOOD not in path.read_text()
    assert json.loads(path.read_text())["users"]["a"]["hash"].startswith("$argon2id$")


def test_another_process_may_change_the_file_at_any_time(users: Users, tmp_path: Path) -> None:
    users.put("a", Role.VIEWER, GOOD)
    assert users.get("a") is not None

    Users(tmp_path / "users.json").remove("a")

    assert users.get("a") is None


def test_a_file_that_is_not_there_holds_nobody(users: Users) -> None:
    assert users.all() == {}


@pytest.mark.parametrize("text", ["", "[]", '{"users": {"a": {}}}', '{"users": {"a": 1}}'])
def test_a_damaged_file_is_refused_and_never_read_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(text)

    with pytest.raises(UsersUnusable, match="no users file"):
        Users(path).all()


@pytest.mark.parametrize("name", ["", "Tanaka", "a b", "../x", "a" * 33, "-a", "名"])
def test_odd_names_are_refused(users: Users, name: str) -> None:
    with pytest.raises(UsersUnusable, match="user name"):
        users.put(name, Role.VIEWER, GOOD)


@pytest.mark.parametrize("password", ["x" * (SHORTEST_PASSWORD - 1), "x" * 257])
def test_short_and_endless_passwords_are_refused(users: Users, password: str) -> None:
    with pytest.raises(UsersUnusable, match="characters"):
        users.put("a", Role.VIEWER, password)


def test_removing_somebody_unknown_is_told(users: Users) -> None:
    with pytest.raises(UsersUnusable, match="no user b"):
        users.remove("b")
