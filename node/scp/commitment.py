"""Storage commitment as the receiver meets it: questions of peers, and reports of ours.

A peer that sent objects asks whether it may forget them (N-ACTION): the question is recorded,
answered 0x0000, and `node.scu.reporter` tells the truth from the ledger over an association of its
own. A destination that we asked reports (N-EVENT-REPORT): it counts only for a transaction that
this peer was asked about. Both in one SOP class; the roles decide who is who (PS3.4 annex J).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from node.config.model import Config
from node.domain import AETitle, Source, Uid
from node.errors import CannotUnderstand, LedgerError
from node.log import event
from node.scp.commands import (
    ACTION_TYPE,
    AFFECTED_SOP_INSTANCE,
    EVENT_TYPE,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    REQUESTED_SOP_INSTANCE,
    number,
)
from node.scp.services import Message, Reply, Service
from node.scu.commitment import Transactions, record_report
from node.scu.transaction import (
    ALL_HELD,
    PUSH_MODEL,
    REQUEST_COMMITMENT,
    SOME_FAILED,
    WELL_KNOWN_INSTANCE,
    read_question,
)
from node.store.commitments import InstanceName
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_log = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_SOP_INSTANCE: Final = 0x0112
NO_SUCH_EVENT_TYPE: Final = 0x0113
NO_SUCH_ACTION_TYPE: Final = 0x0123
NOT_AUTHORIZED: Final = 0x0124

STATUSES: Final[Mapping[int, str]] = {
    SUCCESS: "recorded: a question is reported on, a report has been taken",
    PROCESSING_FAILURE: "the message cannot be read, its transaction UID stands for other"
    " objects, or the database is away",
    NO_SUCH_SOP_INSTANCE: "another instance than the well-known one",
    NO_SUCH_EVENT_TYPE: "another event than 1 and 2",
    0x0115: "a report on a transaction that this peer was not asked about",
    NO_SUCH_ACTION_TYPE: "another action than 1",
    NOT_AUTHORIZED: "a question of a peer without an address to report to, or a report of a peer"
    " that is not asked (`commitment: true`)",
}
"""Every status that is answered -> when (PS3.7 annex C)."""


class Questions(Protocol):
    """What the service needs of the ledger beside `Transactions`."""

    def commitment_received(
        self, ae_title: AETitle, transaction_uid: Uid, named: Sequence[InstanceName]
    ) -> bool:
        """Record a question; False when the transaction UID stands for other objects."""
        ...


class Ledger(Transactions, Questions, Protocol):
    """Both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """Answers N-ACTION and N-EVENT-REPORT of the Storage Commitment Push Model."""

    ledger: Ledger
    reachable: frozenset[AETitle]
    """AE titles that have an address to report to."""
    asked: Mapping[AETitle, str]
    """AE title -> name of the destination that is asked for commitment."""

    def service(self) -> Service:
        """Return the row of the receiver's table."""
        return Service(
            sop_class_uid=PUSH_MODEL,
            name="Storage Commitment Push Model",
            transfer_syntaxes=(Uid(EXPLICIT_VR_LITTLE_ENDIAN), Uid(IMPLICIT_VR_LITTLE_ENDIAN)),
            operations={N_ACTION_RQ: self.question, N_EVENT_REPORT_RQ: self.report},
            we_are_scu=True,
        )

    def question(self, message: Message) -> Reply:
        """Record what a peer asks; the report on it follows over another association."""
        source = message.source
        if _instance(message, REQUESTED_SOP_INSTANCE) != WELL_KNOWN_INSTANCE:
            return Reply(status=NO_SUCH_SOP_INSTANCE)
        if number(message.elements, ACTION_TYPE) != REQUEST_COMMITMENT:
            return Reply(status=NO_SUCH_ACTION_TYPE)
        if source.calling_ae_title not in self.reachable:
            return self._refused(source, NOT_AUTHORIZED, "the peer has no address to report to")
        try:
            question = read_question(message.data, message.transfer_syntax_uid)
            taken = self.ledger.commitment_received(
                source.calling_ae_title, question.transaction_uid, question.named
            )
        except (CannotUnderstand, LedgerError) as error:
            return self._refused(source, PROCESSING_FAILURE, str(error))
        if not taken:
            return self._refused(
                source, PROCESSING_FAILURE, "the transaction UID stands for other objects"
            )
        event(_log, "commitment_received", assoc=source.association_id,
              calling=source.calling_ae_title, transaction=question.transaction_uid,
              objects=len(question.named))  # fmt: skip
        return Reply(status=SUCCESS)

    def report(self, message: Message) -> Reply:
        """Record what a destination reports, if it was asked."""
        source = message.source
        if _instance(message, AFFECTED_SOP_INSTANCE) != WELL_KNOWN_INSTANCE:
            return Reply(status=NO_SUCH_SOP_INSTANCE)
        if number(message.elements, EVENT_TYPE) not in (ALL_HELD, SOME_FAILED):
            return Reply(status=NO_SUCH_EVENT_TYPE)
        destination = self.asked.get(source.calling_ae_title)
        if destination is None:
            return self._refused(
                source, NOT_AUTHORIZED, "a report of a peer that is not asked for commitment"
            )
        status, _ = record_report(
            self.ledger, destination, message.data, message.transfer_syntax_uid
        )
        return Reply(status=status)

    def _refused(self, source: Source, status: int, reason: str) -> Reply:
        event(_log, "commitment_refused", level=logging.WARNING, assoc=source.association_id,
              calling=source.calling_ae_title, address=source.address,
              status=f"0x{status:04X}", reason=reason)  # fmt: skip
        return Reply(status=status)


def commitment_of(config: Config, ledger: Ledger) -> Commitment:
    """Return the service that the configuration describes."""
    reachable = {n: p for n, p in config.peers.items() if p.host is not None}
    return Commitment(
        ledger=ledger,
        reachable=frozenset(AETitle(p.ae_title) for p in reachable.values()),
        asked={AETitle(p.ae_title): n for n, p in reachable.items() if p.commitment},
    )


def _instance(message: Message, element: int) -> Uid:
    return Uid(message.elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace"))
