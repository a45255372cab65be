"""C-ECHO with a stopwatch: whether the peer is there, and whether it delays its responses.

A peer whose TCP stack waits with the second half of a response until our acknowledgment comes
costs about 40 ms an object. The delay shows only when we acknowledge as slowly as other senders
do, so the association here leaves delayed acknowledgments on.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Final

from node.domain import Uid
from node.errors import NotAccepted
from node.scu.association import VERIFICATION, Association, Context, PeerAE

_SYNTAXES: Final = (Uid("1.2.840.10008.1.2"), Uid("1.2.840.10008.1.2.1"))
_DELAYED_MS: Final = (35.0, 60.0)
"""Median round trip that betrays a delayed acknowledgment on a local network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoReport:
    """How a peer answered."""

    associate_ms: float
    """From the connection to the accepted association."""
    round_trips_ms: tuple[float, ...]
    """Each C-ECHO, request to response."""
    statuses: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether every C-ECHO was answered with success."""
        return all(status == 0 for status in self.statuses)

    @property
    def median_ms(self) -> float:
        """Median round trip."""
        return statistics.median(self.round_trips_ms)

    @property
    def hint(self) -> str:
        """What to do about the peer; empty when nothing is wrong."""
        if not self.ok:
            return "the peer answers C-ECHO with a failure; look at its log"
        if _DELAYED_MS[0] <= self.median_ms <= _DELAYED_MS[1]:
            return "peer delays responses (Nagle): set TCP_NODELAY=1 in its environment"
        return ""


def echo(peer: PeerAE, *, count: int = 5) -> EchoReport:
    """Open an association, send `count` C-ECHOs, release.

    Raises
    ------
    PeerUnreachable, AssociationRejected, PeerBusy
        As `Association.open`.
    NotAccepted
        The peer does not accept Verification.
    """
    started = time.perf_counter()
    contexts = [Context(VERIFICATION, syntax) for syntax in _SYNTAXES]
    with Association.open(peer, contexts, acknowledge=False) as association:
        associated = time.perf_counter()
        if not association.accepted:
            raise NotAccepted(f"{peer} does not accept Verification", hint="it offers no C-ECHO")
        round_trips, statuses = [], []
        for _ in range(count):
            begun = time.perf_counter()
            statuses.append(association.echo().status)
            round_trips.append((time.perf_counter() - begun) * 1e3)
    return EchoReport(
        associate_ms=(associated - started) * 1e3,
        round_trips_ms=tuple(round_trips),
        statuses=tuple(statuses),
    )
