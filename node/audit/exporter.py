"""Hands the audit trail on to a syslog server, in order, without ever making the node wait.

The spool is the ledger itself: a cursor says how far the server has it. A server that is away, or
does not take a batch to its end, is asked again later and later; whoever works does not notice.
"""

import logging
import socket
from contextlib import suppress
from typing import Final

from typing_extensions import override

from node.audit.message import AuditSource, Message, to_xml
from node.audit.syslog import Receiver, frame
from node.audit.trail import Reporter
from node.config.audit import AuditSection
from node.config.model import Config
from node.domain import Clock
from node.errors import ConfigError, LedgerError
from node.log import event
from node.rounds import Rounds
from node.store.ledger import Ledger
from node.tls import problems, requestor_context

_log = logging.getLogger(__name__)

BATCH: Final = 200
"""Events of one connection; bounds memory, and what is sent twice after a break."""
_LOOK_S: Final = 2.0
"""Time between two looks at the ledger. [s]"""
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 300.0
_IDLE_EVENTS: Final = 1000
"""Events of other kinds after which the cursor moves without anything to send."""


class AuditExporter(Rounds):
    """Sends what is new.

    Parameters
    ----------
    ledger
        Of the node that owns the data folder.
    receiver
        The server; by default the one of the configuration.

    Raises
    ------
    ConfigError
        Certificate, key or authorities cannot be used.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: Config,
        section: AuditSection,
        clock: Clock,
        *,
        receiver: Receiver | None = None,
    ) -> None:
        super().__init__("audit", failure_pause_s=_LONGEST_PAUSE_S)
        self._ledger = ledger
        self._reporter = Reporter(ledger, config)
        self._source = AuditSource(id=config.node.ae_titles[0], site=section.site)
        self._clock = clock
        self._receiver = receiver or receiver_of(section)
        self._host = socket.gethostname()
        self._down_since: float | None = None
        self._pause_s = 0.0

    @override
    def start(self) -> None:
        """Begin where the last node stopped; for the first time, with what happens from now on."""
        self._ledger.begin_audit()
        super().start()

    @override
    def run_once(self) -> float:
        """Send what is new; a server that is away is asked again, later and later."""
        try:
            while self.send() and not self._stopping.is_set():
                pass
        except OSError as error:
            self._tell_down(error)
        else:
            self._tell_up()
        return max(_LOOK_S, self._pause_s)

    @override
    def ended(self) -> None:
        """Tell that the node stops, if the server was there a moment ago."""
        if not self._pause_s:
            with suppress(OSError, LedgerError):
                self.send()

    def send(self) -> int:
        """Send the next batch; return how many messages went.

        Raises
        ------
        OSError
            The server did not take them; the next call sends them again.
        LedgerError
            The database refused.
        """
        batch = self._ledger.audit_events(BATCH)
        messages = self._reporter.messages(batch.events)
        if messages:
            self._receiver.deliver([self._frame(message) for message in messages])
        if batch.events or batch.end - batch.begin >= _IDLE_EVENTS:
            self._ledger.audit_sent(batch.end)
        return len(messages)

    def _frame(self, message: Message) -> bytes:
        xml = to_xml(message, self._source)
        return frame(xml, at=message.at, host=self._host, app="rtnode", outcome=message.outcome)

    def _tell_down(self, error: OSError) -> None:
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            event(_log, "audit_server_down", level=logging.ERROR, host=self._receiver.host,
                  reason=error.strerror or str(error) or type(error).__name__)  # fmt: skip
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * self._pause_s))

    def _tell_up(self) -> None:
        self._pause_s = 0.0
        if self._down_since is not None:
            seconds = round(self._clock.monotonic() - self._down_since, 1)
            event(_log, "audit_server_back", host=self._receiver.host, down_s=seconds)
            self._down_since = None


def receiver_of(section: AuditSection) -> Receiver:
    """Return the server of the configuration.

    Raises
    ------
    ConfigError
        Certificate, key or authorities cannot be used.
    """
    found = problems(section.credentials())
    if found:
        raise ConfigError([f"audit.{problem}" for problem in found])
    return Receiver(
        host=section.host,
        port=section.port,
        name=section.tls_name or section.host,
        context=requestor_context(section.credentials()),
    )
