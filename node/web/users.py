"""Who may look, and who may act: the users file and its password hashes.

The file is JSON, written by ``rtnode web user`` with mode 0600 and read anew when it changes, so
a user who is removed or whose password changes is out at the next click. Passwords are hashed by
argon2id with the parameters of the library (RFC 9106, low-memory choice).
"""

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from node.errors import NodeError
from node.store.files import SystemFileOps

SHORTEST_PASSWORD: Final = 12
"""Characters; length counts for more than odd signs (NIST SP 800-63B)."""
LONGEST_PASSWORD: Final = 256
"""More is refused before it is hashed."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_CHECKS: Final = 2
"""Passwords that are hashed at one time: each takes 64 MiB and some 50 ms."""


class Role(StrEnum):
    """What a user may do."""

    VIEWER = "viewer"
    """Look at everything."""
    OPERATOR = "operator"
    """Look, and act: retry, cancel, send again, declare complete."""


class UsersUnusable(NodeError):
    """The users file cannot be used."""

    hint = "make a user: `rtnode web user add NAME --role operator`"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who may log in."""

    name: str
    role: Role
    password_hash: str

    @property
    def may_act(self) -> bool:
        """Return whether the user may change something."""
        return self.role is Role.OPERATOR


class Users:
    """The users file; safe from several threads.

    Parameters
    ----------
    path : Path
        The file; one that is missing holds no users.
    hasher : PasswordHasher, optional
        Another cost than the library's choice, for tests.
    """

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        self._path = path
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash("the password of nobody")
        self._slots = threading.BoundedSemaphore(_CHECKS)
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._users: Mapping[str, User] = {}

    def all(self) -> Mapping[str, User]:
        """Return the users by name, as the file is now.

        Raises
        ------
        UsersUnusable
            The file cannot be read or is no users file.
        """
        with self._lock:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                return {}
            except OSError as error:
                raise UsersUnusable(f"the users file cannot be read: {error.strerror}") from None
            version = (found.st_mtime_ns, found.st_ino)
            if version != self._seen:
                self._users = _read(self._path)
                self._seen = version
            return self._users

    def get(self, name: str) -> User | None:
        """Return a user as the file is now."""
        return self.all().get(name)

    def check(self, name: str, password: str) -> User | None:
        """Return the user when the password is right.

        An unknown name takes as long as a wrong password.
        """
        user = self.get(name)
        if len(password) > LONGEST_PASSWORD:
            return None
        with self._slots:
            right = self._verify(user.password_hash if user else self._nobody, password)
        return user if right else None

    def put(self, name: str, role: Role, password: str) -> None:
        """Add a user, or give one another role and password.

        Raises
        ------
        UsersUnusable
            The name or password is not allowed, or the file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise UsersUnusable(
                "a user name has 1 to 32 lower-case letters, digits, dots, - and _",
                hint="for example `rtnode web user add m.tanaka`",
            )
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise UsersUnusable(
                f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters",
                hint="a sentence is easy to keep and hard to guess",
            )
        user = User(name=name, role=role, password_hash=self._hasher.hash(password))
        self._write({**self.all(), name: user})

    def remove(self, name: str) -> None:
        """Remove a user.

        Raises
        ------
        UsersUnusable
            There is no such user.
        """
        users = dict(self.all())
        if users.pop(name, None) is None:
            raise UsersUnusable(f"there is no user {name}", hint="`rtnode web user list`")
        self._write(users)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    def _write(self, users: Mapping[str, User]) -> None:
        tree = {
            name: {"role": user.role.value, "hash": user.password_hash}
            for name, user in sorted(users.items())
        }
        text = json.dumps({"users": tree}, indent=2) + "\n"
        ops = SystemFileOps()
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            ops.move(part, self._path)
        except OSError as error:
            raise UsersUnusable(
                f"the users file cannot be written: {error.strerror}",
                hint="run it as the user of the web page; check web.users_file",
            ) from None


def _read(path: Path) -> dict[str, User]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): User(
                name=str(name), role=Role(entry["role"]), password_hash=str(entry["hash"])
            )
            for name, entry in tree["users"].items()
        }
    except OSError as error:
        raise UsersUnusable(f"the users file cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsersUnusable(
            "the users file is no users file", hint="restore it, or remove it and add the users"
        ) from None
