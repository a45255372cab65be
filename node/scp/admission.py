"""Who may connect, and how many may wait: limits that idle connections cannot use up.

A connection that has not become an association yet costs a thread and nothing else, so it is
counted apart. When too many wait, the oldest is cut and the newest stays: a port scanner, a health
check or a stuck peer loses its place, a modality that associates at once gets one.
"""

import ipaddress
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Protocol, TypeAlias

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


class Waiting(Protocol):
    """A connection without an association."""

    @property
    def address(self) -> str:
        """IP address of the peer."""
        ...

    def cut(self) -> None:
        """Close it in both directions, from any thread; harmless when it is closed."""
        ...


class WaitingRoom:
    """The connections that are no association yet, oldest first.

    Parameters
    ----------
    per_address, in_total : int
        Most that may wait; the oldest makes room for the newest.
    """

    def __init__(self, *, per_address: int, in_total: int) -> None:
        self._per_address = per_address
        self._in_total = in_total
        self._waiting: list[Waiting] = []
        self._lock = threading.Lock()

    def enter(self, connection: Waiting) -> Waiting | None:
        """Let a connection wait; return the one that was cut for it, if any."""
        with self._lock:
            same = [w for w in self._waiting if w.address == connection.address]
            crowd = same if len(same) >= self._per_address else self._waiting
            full = len(same) >= self._per_address or len(self._waiting) >= self._in_total
            oldest = crowd[0] if full else None
            if oldest is not None:
                self._waiting.remove(oldest)
            self._waiting.append(connection)
        if oldest is not None:
            oldest.cut()
        return oldest

    def leave(self, connection: Waiting) -> None:
        """Take a connection out: it is an association now, or gone; harmless when it was cut."""
        with self._lock:
            if connection in self._waiting:
                self._waiting.remove(connection)

    def cut_all(self) -> None:
        """Cut every connection that waits: there will be no association for it."""
        with self._lock:
            waiting = list(self._waiting)
        for connection in waiting:
            connection.cut()


class Occasionally:
    """Lets one of many equal log lines through: a hostile peer must not fill the disk."""

    _MOST_KEYS: Final = 4096

    def __init__(self, period_s: float, monotonic: Callable[[], float]) -> None:
        self._period_s = period_s
        self._monotonic = monotonic
        self._last: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def allows(self, key: Hashable) -> bool:
        """Tell whether a line with this key may be written now."""
        now = self._monotonic()
        with self._lock:
            last = self._last.get(key)
            if last is not None and now - last < self._period_s:
                return False
            if len(self._last) >= self._MOST_KEYS:
                self._last.clear()
            self._last[key] = now
        return True


def contains(networks: Iterable[Network], address: str) -> bool:
    """Tell whether `address` lies in one of `networks`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    return any(ip in network for network in networks if network.version == ip.version)
