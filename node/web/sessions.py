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
from dataclasses import dataclass, replace
from typing import Final

from node.domain import Clock
from node.web.users import User, Users

PER_USER: Final = 5
"""Sessions of one user; the oldest ends when one more begins."""
FAILURES: Final = 5
"""Wrong passwords in the window before an address, or a user name, has to wait."""
WINDOW_S: Final = 900.0
"""Time in which failures count. [s]"""
_REMEMBERED: Final = 10_000
"""Addresses and names whose failures are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user who is logged in."""

    user: User
    csrf: str
    """Secret that every form of the session carries."""
    began: float
    seen: float
    """Monotonic times. [s]"""


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
    """Counts wrong passwords by address and by user name; both have to wait after a few."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, deque[float]] = {}

    def wait_s(self, *keys: str) -> float:
        """Return how long [s] these must wait before the next try; 0 when they need not."""
        now = self._clock.monotonic()
        with self._lock:
            return max((self._wait_s(key, now) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """Count one wrong password."""
        now = self._clock.monotonic()
        with self._lock:
            for key in keys:
                times = self._failures.pop(key, None) or deque(maxlen=FAILURES)
                times.append(now)
                self._failures[key] = times
            while len(self._failures) > _REMEMBERED:
                self._failures.pop(next(iter(self._failures)))

    def succeeded(self, *keys: str) -> None:
        """Forget the failures of these."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _wait_s(self, key: str, now: float) -> float:
        times = self._failures.get(key)
        if times is None or len(times) < FAILURES:
            return 0.0
        return max(0.0, times[0] + WINDOW_S - now)


def same(one: str, other: str) -> bool:
    """Compare two secrets without telling by time where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
