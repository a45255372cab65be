"""Asks destinations to commit to what was sent, one thread a destination.

A peer that answered 0x0000 has the object; one that commits takes responsibility for it (PS3.4
annex J). Its report may come on the association of the question, on another one that it opens, or
never: the question is recorded before it is asked, and a late report is asked for again a few
times. A refusal names objects, and only these are sent again.
"""

import logging
import random
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import pydicom.uid
from typing_extensions import override

from node.config.model import Config
from node.domain import Clock, Uid
from node.errors import CannotUnderstand, DeliveryError, LedgerError, NotAccepted, PeerUnreachable
from node.log import event
from node.rounds import Rounds
from node.scu.association import Association, Context, Message, PeerAE
from node.scu.delivery import Breaker, RetryPolicy
from node.scu.destinations import peer_of
from node.scu.dimse import (
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    RESPONSE,
    MalformedMessage,
    n_action_rq,
    number,
    uid,
)
from node.scu.transaction import (
    PUSH_MODEL,
    REQUEST_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    encode_question,
    read_report,
)
from node.store.commitments import InstanceName
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_log = logging.getLogger(__name__)

CONTEXTS: Final = tuple(
    Context(PUSH_MODEL, Uid(syntax))
    for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
)

SUCCESS: Final = 0x0000
INVALID_ARGUMENT_VALUE: Final = 0x0115
"""Our answer to a report on a transaction that this peer was not asked about."""
PROCESSING_FAILURE: Final = 0x0110

MOST_OBJECTS: Final = 500
"""Instances in one question."""
_LARGEST_REPORT: Final = 4 * 1024 * 1024
_LINGER_S: Final = 2.0
"""How long the association of a question stays open for a report on it."""
_POLL_S: Final = 30.0
_PAUSE_S: Final = 0.5
"""Shortest time between two looks: a study makes hundreds of changes a second."""
_AGE: Final = timedelta(days=7)


class Transactions(Protocol):
    """What the committer needs of the ledger."""

    def ask_commitment(
        self, destination: str, transaction_uid: Uid, *, limit: int, wait: timedelta, age: timedelta
    ) -> tuple[InstanceName, ...]:
        """Open a transaction over what was sent; empty when there is nothing to ask."""
        ...

    def commitment_reported(
        self,
        destination: str,
        transaction_uid: Uid,
        *,
        held: tuple[Uid, ...],
        failed: Mapping[Uid, int],
    ) -> bool:
        """Record a report; False when this destination was never asked so."""
        ...

    def commitment_not_asked(self, destination: str, transaction_uid: Uid) -> None:
        """Forget a transaction that did not reach the peer."""
        ...

    def expire_commitments(self, destination: str) -> int:
        """Close the transactions whose report is late."""
        ...

    def next_commitment_at(self, destination: str) -> datetime | None:
        """Return when the next report is late."""
        ...


def committers_of(
    config: Config, transactions: Transactions, policy: RetryPolicy, clock: Clock
) -> "list[Committer]":
    """Return one for each peer with `commitment: true`."""
    wait = timedelta(seconds=config.delivery.commitment_wait_s)
    peers = ((name, peer_of(config, name)) for name, p in config.peers.items() if p.commitment)
    return [
        Committer(name, peer, transactions, policy, clock, wait=wait)
        for name, peer in peers
        if peer is not None
    ]


class Committer(Rounds):
    """Asks one destination, in its own thread.

    Parameters
    ----------
    name : str
        Of the destination in the configuration.
    peer : PeerAE
    transactions : Transactions
    policy : RetryPolicy
        Pauses after a question that could not be asked.
    clock : Clock
    wait : timedelta
        Until a report is late.
    linger_s : float
        How long the association stays open for a report on it.
    """

    def __init__(
        self,
        name: str,
        peer: PeerAE,
        transactions: Transactions,
        policy: RetryPolicy,
        clock: Clock,
        *,
        wait: timedelta,
        linger_s: float = _LINGER_S,
    ) -> None:
        super().__init__(f"commit-{name}", failure_pause_s=policy.first_s, least_pause_s=_PAUSE_S)
        self.name = name
        self._peer = peer
        self._transactions = transactions
        self._policy = policy
        self._clock = clock
        self._late = wait
        self._linger_s = linger_s
        self._breaker = Breaker()

    @override
    def run_once(self) -> float:
        """Ask about what was sent; return the seconds until there may be more to do.

        Raises
        ------
        LedgerError
            The ledger refused; call again.
        """
        self._transactions.expire_commitments(self.name)
        resting = self._breaker.retry_at - self._clock.monotonic()
        if self._breaker.failures and resting > 0:
            return resting
        transaction = Uid(str(pydicom.uid.generate_uid(prefix=None)))
        named = self._transactions.ask_commitment(
            self.name, transaction, limit=MOST_OBJECTS, wait=self._late, age=_AGE
        )
        if not named:
            return self._until_late()
        try:
            self._ask(transaction, named)
        except (DeliveryError, MalformedMessage) as error:
            self._breaker = self._breaker.failed(
                self._clock.monotonic(), self._policy, random.random()
            )
            event(_log, "commitment_not_asked", level=logging.WARNING, destination=self.name,
                  objects=len(named), failures=self._breaker.failures, reason=str(error),
                  hint=getattr(error, "advice", "look at the log of the peer"))  # fmt: skip
        else:
            self._breaker = Breaker()
        return 0.0

    def _until_late(self) -> float:
        late = self._transactions.next_commitment_at(self.name)
        if late is None:
            return _POLL_S
        return min(_POLL_S, max(0.05, (late - self._clock.now()).total_seconds()))

    def _ask(self, transaction: Uid, named: tuple[InstanceName, ...]) -> None:
        """Ask, and take the report if it comes on the same association.

        A question that surely did not arrive is forgotten; one that may have is waited for.
        """
        try:
            association = Association.open(self._peer, CONTEXTS)
        except DeliveryError:
            self._transactions.commitment_not_asked(self.name, transaction)
            raise
        with association:
            context_id = association.context_id(PUSH_MODEL)
            if context_id is None:
                self._transactions.commitment_not_asked(self.name, transaction)
                raise NotAccepted(
                    f"{self._peer} does not offer storage commitment",
                    hint="set commitment: false for this peer",
                )
            syntax = association.context_of(context_id).transfer_syntax_uid
            message_id = association.next_message_id()
            command = n_action_rq(
                message_id=message_id,
                sop_class_uid=PUSH_MODEL,
                sop_instance_uid=WELL_KNOWN_INSTANCE,
                action_type_id=REQUEST_COMMITMENT,
            )
            association.send(context_id, command, encode_question(transaction, named, syntax))
            status = self._answer(association, message_id)
            if status != SUCCESS:
                self._transactions.commitment_not_asked(self.name, transaction)
                raise NotAccepted(
                    f"{self._peer} refuses to commit (0x{status:04X})",
                    hint="look at the log of the peer, or set commitment: false for it",
                )
            event(_log, "commitment_asked", destination=self.name, transaction=transaction,
                  objects=len(named))  # fmt: skip
            self._linger(association, transaction)

    def _answer(self, association: Association, message_id: int) -> int:
        """Return the status of the N-ACTION; a report may overtake it."""
        deadline = time.monotonic() + self._peer.response_timeout_s
        while True:
            message = association.receive(deadline - time.monotonic(), limit=_LARGEST_REPORT)
            field = number(message.command, 0x0100)
            if field == N_ACTION_RQ | RESPONSE:
                if number(message.command, 0x0120) != message_id:
                    raise PeerUnreachable(f"{self._peer} answered a message that was not sent")
                return number(message.command, 0x0900)
            self._take(association, message)

    def _linger(self, association: Association, transaction: Uid) -> None:
        """Wait a moment for the report; most peers open an association of their own for it."""
        deadline = time.monotonic() + self._linger_s
        try:
            while not self._stopping.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                message = association.receive(left, limit=_LARGEST_REPORT)
                if self._take(association, message) == transaction:
                    return
        except (PeerUnreachable, MalformedMessage):
            return  # silence, or the peer ended the association: both are its right

    def _take(self, association: Association, message: Message) -> Uid:
        """Record a report, answer it, and return its transaction."""
        if number(message.command, 0x0100) != N_EVENT_REPORT_RQ:
            raise PeerUnreachable(f"{self._peer} sent an unexpected message")
        if uid(message.command, 0x0002) != PUSH_MODEL:
            raise PeerUnreachable(f"{self._peer} reported on another service")
        syntax = association.context_of(message.context_id).transfer_syntax_uid
        status, transaction = record_report(self._transactions, self.name, message.data, syntax)
        association.answer(message, status)
        return transaction


def record_report(
    transactions: Transactions, destination: str, data: bytes, transfer_syntax_uid: Uid
) -> tuple[int, Uid]:
    """Record a report, wherever it came in; return our answer and its transaction.

    Never raises: a ledger that is away is answered with a failure, and the peer reports again or
    is asked again.
    """
    try:
        report = read_report(data, transfer_syntax_uid)
    except CannotUnderstand as error:
        event(_log, "commitment_report_refused", level=logging.WARNING, destination=destination,
              reason=str(error))  # fmt: skip
        return PROCESSING_FAILURE, Uid("")
    try:
        known = transactions.commitment_reported(
            destination, report.transaction_uid, held=report.held, failed=report.failed
        )
    except LedgerError as error:
        event(_log, "commitment_report_refused", level=logging.ERROR, destination=destination,
              reason=str(error), hint=error.advice)  # fmt: skip
        return PROCESSING_FAILURE, report.transaction_uid
    if not known:
        event(_log, "commitment_report_refused", level=logging.WARNING, destination=destination,
              reason="this peer was not asked about such a transaction")  # fmt: skip
        return INVALID_ARGUMENT_VALUE, report.transaction_uid
    level = logging.WARNING if report.failed else logging.INFO
    event(_log, "commitment_reported", level=level, destination=destination,
          transaction=report.transaction_uid, held=len(report.held),
          failed=len(report.failed))  # fmt: skip
    return SUCCESS, report.transaction_uid
