"""Tells peers that asked us for storage commitment what we hold: one N-EVENT-REPORT each.

The report goes over a new association to the address that the configuration gives for the AE
title that asked, never to where the question came from: most peers release right after it, and an
address that anybody could claim is no address. We are the provider there, so we propose that role
(PS3.4 J.3.3, PS3.7 D.3.3.4).
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from typing_extensions import override

from node.config.model import Config
from node.domain import AETitle, Clock
from node.errors import DeliveryError, NotAccepted, PeerUnreachable
from node.log import event
from node.rounds import Rounds
from node.scu.association import Association, PeerAE, Roles
from node.scu.commitment import CONTEXTS, SUCCESS
from node.scu.destinations import peer_of
from node.scu.dimse import (
    N_EVENT_REPORT_RQ,
    MalformedMessage,
    n_event_report_rq,
    read_response,
)
from node.scu.transaction import (
    ALL_HELD,
    PUSH_MODEL,
    SOME_FAILED,
    WELL_KNOWN_INSTANCE,
    encode_report,
)
from node.store.commitments import OutgoingReport

_log = logging.getLogger(__name__)

GIVE_UP_AFTER: Final = timedelta(days=1)
"""A peer that cannot be told for so long has asked again or lost interest."""
_FIRST_S: Final = 5.0
_LONGEST_S: Final = 900.0
_POLL_S: Final = 30.0
_PAUSE_S: Final = 0.5
"""Shortest time between two looks; the answer to a question goes out before the report on it."""


class Reports(Protocol):
    """What the reporter needs of the ledger."""

    def due_reports(self, limit: int = 16) -> list[OutgoingReport]:
        """Return the reports that we owe now."""
        ...

    def next_report_at(self) -> datetime | None:
        """Return when the next report is to be sent."""
        ...

    def report_sent(self, number: int) -> None:
        """Record that the peer took the report."""
        ...

    def report_failed(self, number: int, *, not_before: datetime | None) -> None:
        """Record that the peer could not be told; without `not_before` it is given up."""
        ...


def addresses(config: Config) -> Callable[[AETitle], PeerAE | None]:
    """Return what finds the address of an AE title in the configuration."""
    known = {
        AETitle(peer.ae_title): address
        for name, peer in config.peers.items()
        if (address := peer_of(config, name)) is not None
    }
    return known.get


class Reporter(Rounds):
    """Sends what we owe, in its own thread.

    Parameters
    ----------
    reports : Reports
    peer_of : callable
        AE title -> where to report to; None where the configuration gives no address.
    clock : Clock
    """

    def __init__(
        self, reports: Reports, peer_of: Callable[[AETitle], PeerAE | None], clock: Clock
    ) -> None:
        super().__init__("commitment-reports", failure_pause_s=_FIRST_S, least_pause_s=_PAUSE_S)
        self._reports = reports
        self._peer_of = peer_of
        self._clock = clock

    @override
    def run_once(self) -> float:
        """Send what is due; return the seconds until there may be more.

        A peer that failed is not called again in this round: others wait behind it.

        Raises
        ------
        LedgerError
            The ledger refused; call again.
        """
        failed: set[AETitle] = set()
        for report in self._reports.due_reports():
            if self._stopping.is_set():
                break
            if report.ae_title in failed:
                self._again(report)
                continue
            try:
                self._send(report)
            except DeliveryError as error:
                failed.add(report.ae_title)
                event(_log, "commitment_report_failed", level=logging.WARNING,
                      peer=report.ae_title, transaction=report.transaction_uid,
                      attempt=report.attempt + 1, reason=str(error),
                      hint=error.advice)  # fmt: skip
                self._again(report)
            else:
                self._reports.report_sent(report.number)
                event(_log, "commitment_report_sent", peer=report.ae_title,
                      transaction=report.transaction_uid, held=len(report.held),
                      failed=len(report.failed))  # fmt: skip
        due = self._reports.next_report_at()
        if due is None:
            return _POLL_S
        return min(_POLL_S, max(0.05, (due - self._clock.now()).total_seconds()))

    def _again(self, report: OutgoingReport) -> None:
        now = self._clock.now()
        pause = min(_FIRST_S * 2.0 ** min(report.attempt, 20), _LONGEST_S)
        given_up = now - report.created_at > GIVE_UP_AFTER
        self._reports.report_failed(
            report.number, not_before=None if given_up else now + timedelta(seconds=pause)
        )

    def _send(self, report: OutgoingReport) -> None:
        peer = self._peer_of(report.ae_title)
        if peer is None:
            raise PeerUnreachable(
                f"{report.ae_title} asked for storage commitment and has no address",
                hint="give its peer host and port",
            )
        roles = {PUSH_MODEL: Roles(scu=False, scp=True)}
        with Association.open(peer, CONTEXTS, roles=roles) as association:
            context_id = association.context_id(PUSH_MODEL)
            if context_id is None:
                raise NotAccepted(
                    f"{peer} takes no report of a storage commitment provider",
                    hint="it must accept the Storage Commitment Push Model in this role",
                )
            syntax = association.context_of(context_id).transfer_syntax_uid
            message_id = association.next_message_id()
            command = n_event_report_rq(
                message_id=message_id,
                sop_class_uid=PUSH_MODEL,
                sop_instance_uid=WELL_KNOWN_INSTANCE,
                event_type_id=SOME_FAILED if report.failed else ALL_HELD,
            )
            data = encode_report(report.transaction_uid, report.held, report.failed, syntax)
            association.send(context_id, command, data)
            answer = association.receive(peer.response_timeout_s, limit=0)
            try:
                response = read_response(
                    answer.command, request=N_EVENT_REPORT_RQ, message_id=message_id
                )
            except MalformedMessage as error:
                raise PeerUnreachable(f"{peer} answered {error}") from error
        if response.status != SUCCESS:
            raise PeerUnreachable(f"{peer} refuses the report (0x{response.status:04X})")
