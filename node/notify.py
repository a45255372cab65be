"""Tells people what needs them: held work, a destination that is down, a node that is ill.

A message names routes, pipelines, destinations, UIDs, reasons and hints, never a patient. Each
thing is told once; what was told is noted in the ledger, so that a restart does not tell it again.
A message that cannot be sent is tried again with the next one.
"""

import json
import logging
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final, Protocol

from typing_extensions import override

from node.config.notify import EmailSection, NotifySection
from node.domain import Clock
from node.drift.chart import HINT, alarms
from node.log import event
from node.rounds import Rounds
from node.secret import read_secret
from node.store.ledger import Ledger

_log = logging.getLogger(__name__)

TOLD: Final = "person_told"
"""Action of the ledger event that says that a thing was told."""
_LOOK_S: Final = 30.0
"""Time between two looks at the ledger."""
_TIMEOUT_S: Final = 20.0
"""For one message."""
_MOST: Final = 20
"""Things that one message spells out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that needs a person."""

    key: str
    """Stable for as long as the same thing lasts: ``job 7 2026-11-20T20:19:15``."""
    title: str
    reason: str
    hint: str = ""


class Channel(Protocol):
    """A way to reach people."""

    def send(self, title: str, items: Sequence[Item], text: str) -> None:
        """Send one message, or raise OSError."""
        ...


class Notifier(Rounds):
    """Looks every half minute and tells what is new.

    Parameters
    ----------
    name
        Who speaks: the node's AE title.
    troubles
        What is wrong with the running node.
    channels
        Where messages go; all get each message.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: NotifySection,
        clock: Clock,
        *,
        name: str,
        troubles: Callable[[], list[str]],
        channels: Sequence[Channel] | None = None,
    ) -> None:
        super().__init__("notifier", failure_pause_s=_LOOK_S)
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._name = name
        self._troubles = troubles
        self._channels = tuple(channels_of(settings) if channels is None else channels)
        self._last = float("-inf")
        self._ill: frozenset[str] = frozenset()

    @override
    def run_once(self) -> float:
        """Look once."""
        self.look()
        return _LOOK_S

    def look(self) -> bool:
        """Tell what is new, unless the last message is too young; return whether one was sent."""
        if self._clock.monotonic() - self._last < self._settings.every_s:
            return False
        waiting = [*self._held(), *self._down(), *self._drifting()]
        new = [item for item in waiting if not self._ledger.has_event(TOLD, item.key)]
        ill = frozenset(self._troubles())
        new += [Item(key="", title="the node is ill", reason=t) for t in sorted(ill - self._ill)]
        if not new:
            self._ill = ill
            return False
        if not self._send(new):
            return False
        self._ill = ill
        self._last = self._clock.monotonic()
        for item in new:
            if item.key:
                self._ledger.note(TOLD, kind="node", subject=item.key)
        return True

    def _held(self) -> list[Item]:
        return [
            Item(
                key=f"{item.kind} {item.id} {item.since.isoformat(timespec='seconds')}",
                title=f"{item.kind} {item.id} is held ({item.subject})",
                reason=item.reason,
                hint=item.hint,
            )
            for item in self._ledger.held()
        ]

    def _down(self) -> list[Item]:
        after = self._settings.destination_down_after_s
        now = self._clock.now()
        return [
            Item(
                key=f"down {line.name} {(now.timestamp() - line.oldest_s):.0f}",
                title=f"destination {line.name} is down",
                reason=f"{line.waiting} results wait for it, the oldest for {line.oldest_s:.0f} s",
                hint=f"`rtnode echo {line.name}` tries it; results are kept and sent by themselves",
            )
            for line in self._ledger.queue()
            if line.kind == "delivery" and line.oldest_s >= after
        ]

    def _drifting(self) -> list[Item]:
        return [
            Item(
                key=f"drift {alarm.number} {alarm.model} {alarm.organ}",
                title=f"{alarm.organ} of {alarm.model} agrees otherwise than before",
                reason=alarm.words,
                hint=HINT,
            )
            for alarm in alarms(self._ledger.acceptance_scores())
        ]

    def _send(self, items: Sequence[Item]) -> bool:
        """Return whether at least one channel took the message."""
        noun = "thing needs" if len(items) == 1 else "things need"
        title = f"rtnode {self._name}: {len(items)} {noun} a person"
        taken = False
        for channel in self._channels:
            try:
                channel.send(title, items, text_of(items))
                taken = True
            except OSError as error:
                event(_log, "message_not_sent", level=logging.WARNING, error=error,
                      channel=type(channel).__name__)  # fmt: skip
        if taken:
            event(_log, "people_told", items=len(items))
        return taken


def text_of(items: Sequence[Item]) -> str:
    """Return the body of a message."""
    lines: list[str] = []
    for item in items[:_MOST]:
        lines += [item.title, f"  {item.reason}"]
        if item.hint:
            lines.append(f"  hint: {item.hint}")
    if len(items) > _MOST:
        lines.append(f"and {len(items) - _MOST} more")
    lines += ["", "`rtnode status` shows everything that is held."]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Email:
    """Mail by SMTP."""

    settings: EmailSection
    password: str = field(default="", repr=False)

    def send(self, title: str, items: Sequence[Item], text: str) -> None:  # noqa: ARG002 - a mail is text
        """Send one mail; `smtplib.SMTPException` is an OSError."""
        settings = self.settings
        message = EmailMessage()
        message["Subject"] = title
        message["From"] = settings.sender
        message["To"] = ", ".join(settings.to)
        message.set_content(text)
        context = ssl.create_default_context()
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=_TIMEOUT_S, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=_TIMEOUT_S)
        with server:
            if settings.security == "starttls":
                server.starttls(context=context)
            if settings.user is not None:
                server.login(settings.user, self.password)
            server.send_message(message)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST with JSON."""

    url: str

    def send(self, title: str, items: Sequence[Item], text: str) -> None:
        """Send one request; any answer but 2xx is an OSError."""
        body = {
            "node": title.split(":", 1)[0],
            "text": f"{title}\n{text}",
            "items": [{"title": i.title, "reason": i.reason, "hint": i.hint} for i in items],
        }
        request = urllib.request.Request(  # noqa: S310 - http or https, by the configuration
            self.url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "rtnode"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
            answer.read(1 << 16)


def channels_of(settings: NotifySection) -> list[Channel]:
    """Return the channels that the configuration names.

    Raises
    ------
    ConfigError
        The file of a password cannot be used.
    """
    channels: list[Channel] = []
    if (mail := settings.email) is not None:
        secret = mail.password_file
        password = read_secret("notify.email.password_file", secret) if secret else ""
        channels.append(Email(mail, password))
    if settings.webhook is not None:
        channels.append(Webhook(settings.webhook))
    return channels
