"""The outbox at work: one thread a destination, every outcome recorded as it comes.

A dead destination must not delay the others, so each has its own thread, and a circuit breaker:
after a failed association the whole destination rests, longer each time, and is then tried with
one object and a C-ECHO first. An object that is refused for good is held for a person; nothing is
dropped. A claim that no answer was recorded for goes back to the queue as doubtful: the peer is
asked where it can be, and since the bytes of an object never change, a second copy is the same.
"""

import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from typing_extensions import override

from node.config.model import Config, DeliverySection
from node.domain import Clock, Delivery, SentDelivery
from node.errors import DeliveryError, LedgerError
from node.log import event
from node.rounds import Rounds
from node.scu.destinations import Destination
from node.scu.recording import Recording
from node.scu.sender import Outcome, Outgoing, Result

_log = logging.getLogger(__name__)

BATCH: Final = 256
"""Deliveries that are claimed at a time: most series need one claim, for which the peer waits."""

FEW: Final = 5
"""Attempts after a failure of the peer that may pass, or may never."""

_LEDGER_PAUSE_S: Final = 1.0
_YIELD_S: Final = 0.5
"""By how much the blamed object is due after its destination: a peer that breaks off at one
object, each time, must see the others first."""
_POLL_S: Final = 30.0
"""A safety net: `DeliveryWorker.wake` is called when something is queued."""


class Outbox(Protocol):
    """What the worker needs of the ledger (`node.store.ledger.Ledger`)."""

    def claim_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        """Move PENDING and due -> SENDING, attempt + 1; the oldest job first."""
        ...

    def deliveries_sent(self, sent: Sequence[SentDelivery]) -> None:
        """Move SENDING -> SENT, all of them; without a status the peer has not confirmed it."""
        ...

    def delivery_failed(
        self,
        delivery_id: int,
        *,
        transient: bool,
        status: int | None,
        reason: str,
        hint: str,
        not_before: datetime | None = None,
    ) -> None:
        """Move SENDING -> PENDING not before a time, or HELD."""
        ...

    def return_deliveries(self, ids: Collection[int]) -> None:
        """Move SENDING -> PENDING, as if they had not been claimed."""
        ...

    def queue_fallback(self, destination: str, fallback: str, *, after: timedelta) -> int:
        """Queue for `fallback` what `destination` did not take in time."""
        ...

    def next_delivery_at(self, destination: str) -> datetime | None:
        """Due time of the next PENDING delivery; None when there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait, and when to ask a person."""

    first_s: float = 5.0
    max_s: float = 900.0
    give_up_after: timedelta = timedelta(days=7)

    @classmethod
    def of(cls, section: DeliverySection) -> "RetryPolicy":
        """Return the policy that the configuration describes."""
        return cls(
            first_s=section.first_s,
            max_s=section.max_s,
            give_up_after=timedelta(days=section.give_up_after_days),
        )

    def delay_s(self, attempt: int, jitter: float) -> float:
        """Return the pause after `attempt` (1 = the first), doubled each time.

        Parameters
        ----------
        attempt : int
        jitter : float
            In [0, 1): takes up to a quarter off, so that peers are not called in step.
        """
        doublings = min(max(attempt, 1) - 1, 30)
        return min(self.first_s * 2.0**doublings, self.max_s) * (1.0 - jitter / 4)

    def given_up(self, delivery: Delivery, now: datetime) -> bool:
        """Tell whether a person must look at a delivery that failed again."""
        return delivery.created_at is not None and now - delivery.created_at > self.give_up_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """State of a destination: failures in a row, and when it may be tried again."""

    failures: int = 0
    retry_at: float = 0.0
    """Monotonic seconds."""

    def failed(self, now: float, policy: RetryPolicy, jitter: float) -> "Breaker":
        """Return the breaker after one more failure."""
        pause = policy.delay_s(self.failures + 1, jitter)
        return Breaker(failures=self.failures + 1, retry_at=now + pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Who gets what a destination does not take in time."""

    name: str
    after: timedelta

    @classmethod
    def of(cls, config: Config, destination: str) -> "Fallback | None":
        """Return the fallback of a destination, if the configuration names one."""
        peer = config.peers.get(destination)
        if peer is None or peer.fallback is None:
            return None
        return cls(name=peer.fallback, after=timedelta(seconds=peer.fallback_after_s))


class DeliveryWorker(Rounds):
    """Delivers what the outbox holds for one destination, in its own thread.

    Parameters
    ----------
    destination : Destination
    outbox : Outbox
    policy : RetryPolicy
    clock : Clock
    fallback : Fallback, optional
    jitter : callable
        Returns a number in [0, 1).
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        policy: RetryPolicy,
        clock: Clock,
        *,
        fallback: Fallback | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(f"deliver-{destination.name}", failure_pause_s=policy.first_s)
        self._destination = destination
        self._outbox = outbox
        self._policy = policy
        self._clock = clock
        self._fallback = fallback
        self._jitter = jitter
        self._breaker = Breaker()

    @property
    def name(self) -> str:
        """Name of the destination."""
        return self._destination.name

    @property
    def failures(self) -> int:
        """Failed associations in a row; 0 while the destination is well."""
        return self._breaker.failures

    @override
    def run_once(self) -> float:
        """Claim and deliver what is due; return the seconds until there may be more.

        Raises
        ------
        LedgerError
            The ledger did not hand out work; nothing was claimed.
        """
        self._queue_fallback()
        resting = self._breaker.retry_at - self._clock.monotonic()
        if self._breaker.failures and resting > 0:
            return resting
        limit = 1 if self._breaker.failures else BATCH
        claimed = self._outbox.claim_deliveries(self.name, limit)
        if not claimed:
            self._destination.close()
            return self._until_next()
        self._deliver(claimed)
        return 0.0

    @override
    def ended(self) -> None:
        """Release the association."""
        self._destination.close()

    def _queue_fallback(self) -> None:
        if self._fallback is None:
            return
        moved = self._outbox.queue_fallback(
            self.name, self._fallback.name, after=self._fallback.after
        )
        if moved:
            event(_log, "delivery_fallback", level=logging.ERROR, destination=self.name,
                  fallback=self._fallback.name, objects=moved,
                  reason="it did not take the results in time; it gets them when it is back",
                  hint="look why it does not: `rtnode echo`")  # fmt: skip

    def _until_next(self) -> float:
        due = self._outbox.next_delivery_at(self.name)
        if due is None:
            return _POLL_S
        return min(_POLL_S, max(0.05, (due - self._clock.now()).total_seconds()))

    # -- one batch ---------------------------------------------------------------------------

    def _deliver(self, claimed: Sequence[Delivery]) -> None:
        begun = self._clock.monotonic()
        open_: dict[int, Delivery] = {delivery.id: delivery for delivery in claimed}
        sent: dict[int, int] = {}
        recording = Recording(self._note_sent, f"record-{self.name}")
        try:
            if self._breaker.failures:
                self._destination.probe()
            for result in self._destination.deliver([_outgoing(d) for d in claimed]):
                delivery = open_.pop(result.item.key)
                self._record(recording, delivery, result)
                if result.delivered:
                    sent[delivery.job_id] = sent.get(delivery.job_id, 0) + 1
                if self._stopping.is_set():
                    break
            self._breaker = Breaker()
        except DeliveryError as error:
            self._fail(open_, error)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - one object over which we stumble must not be first for ever
            event(_log, "delivery_stumbled", level=logging.ERROR, error=error,
                  destination=self.name)  # fmt: skip
            self._fail(open_, DeliveryError(
                f"the node could not send the object ({type(error).__name__})",
                hint="the log holds the traceback: keep it for the developers"))  # fmt: skip
        finally:
            recording.finish()
            if open_:
                self._persist(lambda: self._outbox.return_deliveries(list(open_)))
        for job_id, count in sent.items():
            event(
                _log,
                "delivered",
                job=job_id,
                assoc=next(d.correlation for d in claimed if d.job_id == job_id),
                destination=self.name,
                objects=count,
                seconds=round(self._clock.monotonic() - begun, 3),
            )

    def _record(self, recording: Recording, delivery: Delivery, result: Result) -> None:
        """Have written down what became of one object."""
        if result.delivered or result.outcome is Outcome.UNCONFIRMED:
            confirmed = result.delivered
            status = (result.status or 0) if confirmed else None
            note = "" if result.outcome is Outcome.SENT else result.reason
            recording.add(SentDelivery(delivery_id=delivery.id, status=status, note=note))
            if note:
                action = "delivered_with_warning" if confirmed else "delivery_unconfirmed"
                self._tell(action, delivery, status, note, "")
            return
        transient = result.outcome is Outcome.RETRY or (
            result.outcome is Outcome.RETRY_FEW and delivery.attempt < FEW
        )
        self._write_failure(
            delivery,
            transient=transient,
            status=result.status,
            reason=result.reason,
            hint=result.hint,
        )

    def _fail(self, open_: dict[int, Delivery], error: DeliveryError) -> None:
        """Note that the destination as a whole failed; blame the object that was next."""
        self._breaker = self._breaker.failed(self._clock.monotonic(), self._policy, self._jitter())
        event(
            _log,
            "destination_failed",
            level=logging.WARNING if error.transient else logging.ERROR,
            destination=self.name,
            failures=self._breaker.failures,
            retry_s=round(self._breaker.retry_at - self._clock.monotonic(), 1),
            reason=str(error),
            hint=error.advice,
        )
        if open_:
            delivery = open_.pop(next(iter(open_)))
            # even a rejection for good leaves the object alone: what is wrong is the peer
            rest_s = self._breaker.retry_at - self._clock.monotonic()
            self._write_failure(
                delivery,
                transient=True,
                status=None,
                reason=str(error),
                hint=error.advice,
                least_s=rest_s + _YIELD_S,
            )

    def _write_failure(
        self,
        delivery: Delivery,
        *,
        transient: bool,
        status: int | None,
        reason: str,
        hint: str,
        least_s: float = 0.0,
    ) -> None:
        now = self._clock.now()
        if transient and self._policy.given_up(delivery, now):
            transient = False
            reason = f"not delivered for {self._policy.give_up_after.days} days: {reason}"
        pause = max(least_s, self._policy.delay_s(delivery.attempt, self._jitter()))
        self._persist(
            lambda: self._outbox.delivery_failed(
                delivery.id,
                transient=transient,
                status=status,
                reason=reason,
                hint=hint,
                not_before=now + timedelta(seconds=pause) if transient else None,
            )
        )
        self._tell(
            "delivery_retried" if transient else "delivery_held", delivery, status, reason, hint
        )

    def _note_sent(self, sent: Sequence[SentDelivery]) -> None:
        self._persist(lambda: self._outbox.deliveries_sent(sent))

    def _persist(self, write: Callable[[], None]) -> None:
        """Repeat `write` until the ledger takes it: the peer's answer must not be forgotten.

        A stopping node gives up; the claim goes back to the queue at the next start.
        """
        while True:
            try:
                write()
            except LedgerError:
                if self._stopping.wait(_LEDGER_PAUSE_S):
                    return
            else:
                return

    def _tell(
        self, action: str, delivery: Delivery, status: int | None, reason: str, hint: str
    ) -> None:
        event(
            _log,
            action,
            level=logging.ERROR if action == "delivery_held" else logging.WARNING,
            delivery=delivery.id,
            job=delivery.job_id,
            assoc=delivery.correlation,
            destination=self.name,
            sop=delivery.sop_instance_uid,
            status=None if status is None else f"0x{status:04X}",
            attempt=delivery.attempt,
            reason=reason,
            hint=hint,
        )


def _outgoing(delivery: Delivery) -> Outgoing:
    return Outgoing(
        path=delivery.path,
        sop_class_uid=delivery.sop_class_uid,
        sop_instance_uid=delivery.sop_instance_uid,
        transfer_syntax_uid=delivery.transfer_syntax_uid,
        key=delivery.id,
        doubtful=delivery.doubtful,
        report=delivery.report,
    )
