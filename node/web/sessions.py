"""Sessions in memory, and the brake on logins.

A session is a random token in a cookie; only its hash is kept. It ends when nobody clicked for a
while, after some hours in any case, at logout, with the process, and when the user's password or
role changes.
"""

import hashlib
import hmac
import secrets
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from node.domain import Clock
from node.web.users import User, Users

T = TypeVar("T")
PER_USER: Final = 5
"""Sessions of one user; the oldest ends when one more begins."""
FAILURES: Final = 5
"""Wrong passwords of one user from one address in the window; then both together have to wait."""
ADDRESS_FAILURES: Final = 20
"""The same from one address, whoever it says it is."""
NAME_FAILURES: Final = 50
"""The same for one user from everywhere; then the user waits where no login succeeded before."""
WINDOW_S: Final = 900.0
"""Time in which failures count. [s]"""
_REMEMBERED: Final = 10_000
"""Failures and known places that are remembered; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user who is logged in."""

    user: User
    csrf: str
    """Secret that every form of the session carries."""
    began: float
    seen: float
    """Monotonic times. [s]"""
    viewed: set[str] = field(default_factory=set, compare=False)
    """Whose images were looked at: each is written down once a session."""


class Sessions:
    """Who is logged in; safe from several threads.

    Parameters
    ----------
    idle_s, longest_s : float
        Limits of a session. [s]
    """

    def __init__(self, users: Users, clock: Clock, *, idle_s: float, longest_s: float) -> None:
        self._users = users
        self._clock = clock
        self._idle_s = idle_s
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, user: User) -> str:
        """Log a user in and return the token for the cookie."""
        token = secrets.token_urlsafe(32)
        now = self._clock.monotonic()
        session = Session(user=user, csrf=secrets.token_urlsafe(24), began=now, seen=now)
        with self._lock:
            self._drop_expired(now)
            mine = [key for key, s in self._sessions.items() if s.user.name == user.name]
            for key in mine[: max(0, len(mine) - PER_USER + 1)]:
                del self._sessions[key]
            self._sessions[_digest(token)] = session
        return token

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """Return the session of a token.

        Parameters
        ----------
        touch : bool
            False for what a page asks by itself: it must not keep a session alive.
        """
        key, now = _digest(token), self._clock.monotonic()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if self._expired(session, now) or self._users.get(session.user.name) != session.user:
                del self._sessions[key]
                return None
            if touch:
                session = self._sessions[key] = replace(session, seen=now)
            return session

    def end(self, token: str) -> None:
        """Log out."""
        with self._lock:
            self._sessions.pop(_digest(token), None)

    def _expired(self, session: Session, now: float) -> bool:
        return now - session.seen > self._idle_s or now - session.began > self._longest_s

    def _drop_expired(self, now: float) -> None:
        for key in [k for k, s in self._sessions.items() if self._expired(s, now)]:
            del self._sessions[key]


class LoginBrake:
    """Slows down guessing without a lock that somebody could turn on a user from elsewhere.

    A few failures stop this user at this address, more stop the address. The count of a user over
    all addresses is the slow brake against many machines; it does not hold at an address from
    which the user has logged in, so a guesser cannot keep people out of their own workplace
    (OWASP Authentication Cheat Sheet; the known place stands for its device cookie).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, str], deque[float]] = {}
        self._known: dict[tuple[str, str], None] = {}

    def wait_s(self, name: str, address: str) -> float:
        """Return how long [s] this user must wait at this address; 0 when not at all."""
        now = self._clock.monotonic()
        with self._lock:
            waits = [
                self._wait_s((name, address), FAILURES, now),
                self._wait_s(("", address), ADDRESS_FAILURES, now),
            ]
            if (name, address) not in self._known:
                waits.append(self._wait_s((name, ""), NAME_FAILURES, now))
            return max(waits)

    def failed(self, name: str, address: str) -> None:
        """Count one wrong password."""
        now = self._clock.monotonic()
        with self._lock:
            for key in ((name, address), ("", address), (name, "")):
                times = self._failures.pop(key, None) or deque(maxlen=NAME_FAILURES)
                times.append(now)
                self._failures[key] = times
            _forget_oldest(self._failures)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of this user here, and know the place."""
        with self._lock:
            self._failures.pop((name, address), None)
            self._known.pop((name, address), None)
            self._known[name, address] = None
            _forget_oldest(self._known)

    def _wait_s(self, key: tuple[str, str], most: int, now: float) -> float:
        times = self._failures.get(key)
        if times is None or len(times) < most:
            return 0.0
        return max(0.0, times[-most] + WINDOW_S - now)


def _forget_oldest(remembered: dict[tuple[str, str], T]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.pop(next(iter(remembered)))


def same(one: str, other: str) -> bool:
    """Compare two secrets without telling by time where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
