"""The delivery worker against a fake outbox and a fake destination: no sockets, no sleeping."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain import Delivery, SentDelivery, Uid
from node.errors import AssociationRejected, LedgerError, PeerUnreachable
from node.scu.delivery import BATCH, FEW, Breaker, DeliveryWorker, RetryPolicy
from node.scu.sender import Outcome, Outgoing, Result

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = RetryPolicy(first_s=5, max_s=900, give_up_after=timedelta(days=7))


@dataclass
class FakeClock:
    at: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at


@dataclass
class FakeOutbox:
    """Implements `Outbox` in memory."""

    clock: FakeClock
    pending: dict[int, Delivery] = field(default_factory=dict)
    due: dict[int, datetime] = field(default_factory=dict)
    sending: dict[int, Delivery] = field(default_factory=dict)
    sent: dict[int, tuple[int, str]] = field(default_factory=dict)
    held: dict[int, tuple[int | None, str, str]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    errors: list[LedgerError] = field(default_factory=list)
    commits: list[list[int]] = field(default_factory=list)
    """Deliveries that were recorded together."""
    before_commit: Callable[[], object] = lambda: None

    def add(self, number: int, created: datetime = START) -> None:
        self.pending[number] = delivery(number, created=created)

    def claim_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        self._maybe_fail()
        now = self.clock.now()
        ready = [d for i, d in self.pending.items() if self.due.get(i, START) <= now][:limit]
        claimed = [delivery(d.id, d.attempt + 1, d.created_at) for d in ready]
        for d in claimed:
            del self.pending[d.id]
            self.sending[d.id] = d
        return claimed

    def deliveries_sent(self, sent: Sequence[SentDelivery]) -> None:
        self.before_commit()
        self._maybe_fail()
        self.commits.append([one.delivery_id for one in sent])
        for one in sent:
            del self.sending[one.delivery_id]
            self.sent[one.delivery_id] = (one.status, one.note)

    def delivery_failed(
        self, delivery_id, *, transient, status, reason, hint, not_before=None
    ) -> None:
        self._maybe_fail()
        d = self.sending.pop(delivery_id)
        self.reasons[delivery_id] = reason
        if transient:
            self.pending[delivery_id] = d
            self.due[delivery_id] = not_before
        else:
            self.held[delivery_id] = (status, reason, hint)

    def return_deliveries(self, ids) -> None:
        for i in ids:
            d = self.sending.pop(i)
            self.pending[i] = delivery(i, d.attempt - 1, d.created_at)

    def next_delivery_at(self, destination: str) -> datetime | None:
        return min((self.due.get(i, START) for i in self.pending), default=None)

    def _maybe_fail(self) -> None:
        if self.errors:
            raise self.errors.pop()


@dataclass
class FakeDestination:
    """Implements `Destination`: answers as told, by object."""

    answers: dict[int, Outcome] = field(default_factory=dict)
    fails_before: int | None = None
    error: Callable[[], Exception] = lambda: PeerUnreachable("gone", hint="look")
    probes: int = 0
    probe_fails: bool = False
    closed: int = 0
    batches: list[list[int]] = field(default_factory=list)
    name: str = "pacs"
    on_item: Callable[[int], None] = lambda _: None

    def probe(self) -> None:
        self.probes += 1
        if self.probe_fails:
            raise self.error()

    def deliver(self, items: Sequence[Outgoing]) -> Iterator[Result]:
        self.batches.append([i.key for i in items])
        for item in items:
            if item.key == self.fails_before:
                raise self.error()
            self.on_item(item.key)
            outcome = self.answers.get(item.key, Outcome.SENT)
            yield Result(item=item, outcome=outcome, status=0, reason="told so", hint="hint")

    def close(self) -> None:
        self.closed += 1


def delivery(number: int, attempt: int = 0, created: datetime | None = START) -> Delivery:
    return Delivery(
        id=number,
        job_id=1,
        destination="pacs",
        sop_class_uid=Uid("1.2.3"),
        sop_instance_uid=Uid(f"2.25.{number}"),
        transfer_syntax_uid=Uid("1.2.840.10008.1.2.1"),
        path=Path("x.dcm"),
        attempt=attempt,
        created_at=created,
        correlation="8f2a01cc",
    )


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(clock):
    return FakeOutbox(clock)


def worker(destination, outbox, clock) -> DeliveryWorker:
    return DeliveryWorker(destination, outbox, POLICY, clock, jitter=lambda: 0.0)


def test_everything_due_is_sent_and_recorded(clock, outbox):
    for n in range(3):
        outbox.add(n)
    destination = FakeDestination()

    pause = worker(destination, outbox, clock).run_once()

    assert outbox.sent == dict.fromkeys(range(3), (0, ""))
    assert pause == 0.0


def test_an_empty_outbox_closes_the_association_and_waits(clock, outbox):
    destination = FakeDestination()

    pause = worker(destination, outbox, clock).run_once()

    assert destination.closed == 1
    assert pause > 1


def test_the_pause_ends_when_the_next_delivery_is_due(clock, outbox):
    outbox.add(1)
    outbox.due[1] = START + timedelta(seconds=12)

    assert worker(FakeDestination(), outbox, clock).run_once() == pytest.approx(12)


@pytest.mark.parametrize(
    ("outcome", "where"),
    [
        (Outcome.SENT, "sent"),
        (Outcome.SENT_WITH_WARNING, "sent"),
        (Outcome.RETRY, "pending"),
        (Outcome.RETRY_FEW, "pending"),
        (Outcome.REFUSED, "held"),
    ],
)
def test_each_outcome_goes_where_it_belongs_and_the_others_go_on(clock, outbox, outcome, where):
    outbox.add(1)
    outbox.add(2)
    destination = FakeDestination(answers={1: outcome})

    worker(destination, outbox, clock).run_once()

    assert 1 in getattr(outbox, where)
    assert 2 in outbox.sent
    assert not outbox.sending


def test_a_warning_is_kept_as_a_note(clock, outbox):
    outbox.add(1)

    worker(FakeDestination(answers={1: Outcome.SENT_WITH_WARNING}), outbox, clock).run_once()

    assert outbox.sent[1] == (0, "told so")


def test_retries_of_one_object_wait_longer_each_time(clock, outbox):
    outbox.add(1)
    destination = FakeDestination(answers={1: Outcome.RETRY})
    delivering = worker(destination, outbox, clock)
    pauses = []
    for _ in range(12):
        delivering.run_once()
        pauses.append((outbox.due[1] - clock.now()).total_seconds())
        clock.at += pauses[-1]

    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]


def test_an_unclear_failure_is_tried_a_few_times_and_then_held(clock, outbox):
    outbox.add(1)
    destination = FakeDestination(answers={1: Outcome.RETRY_FEW})
    delivering = worker(destination, outbox, clock)
    for _ in range(FEW):
        delivering.run_once()
        clock.at += 3600

    assert len(destination.batches) == FEW
    assert outbox.held[1] == (0, "told so", "hint")


def test_a_broken_association_blames_one_object_and_gives_the_others_back(clock, outbox):
    for n in range(1, 5):
        outbox.add(n)
    destination = FakeDestination(fails_before=3)

    worker(destination, outbox, clock).run_once()

    assert set(outbox.sent) == {1, 2}
    assert outbox.pending[3].attempt == 1
    assert outbox.reasons[3] == "gone"
    assert outbox.pending[4].attempt == 0
    assert not outbox.sending


def test_a_failed_destination_rests_longer_each_time_and_is_probed_with_one_object(clock, outbox):
    for n in range(1, 4):
        outbox.add(n)
    destination = FakeDestination(fails_before=1)
    delivering = worker(destination, outbox, clock)
    delivering.run_once()

    assert delivering.failures == 1
    assert delivering.run_once() == pytest.approx(5)  # rests; nothing is claimed
    clock.at += 5
    destination.probe_fails = True
    delivering.run_once()
    assert (destination.probes, delivering.failures) == (1, 2)
    assert delivering.run_once() == pytest.approx(10)
    assert len(destination.batches) == 1  # a failed probe sends nothing

    clock.at += 10
    destination.probe_fails = False
    destination.fails_before = None
    delivering.run_once()
    assert delivering.failures == 0
    assert len(destination.batches[-1]) == 1
    clock.at += 3600
    delivering.run_once()
    assert set(outbox.sent) == {1, 2, 3}


def test_a_rejection_for_good_rests_the_destination_and_keeps_its_deliveries(clock, outbox):
    outbox.add(1)
    destination = FakeDestination(
        fails_before=1, error=lambda: AssociationRejected("we are not known")
    )

    worker(destination, outbox, clock).run_once()

    assert outbox.reasons[1] == "we are not known"
    assert 1 in outbox.pending
    assert not outbox.held


def test_after_the_limit_a_person_is_asked(clock, outbox):
    outbox.add(1, created=START - timedelta(days=8))
    destination = FakeDestination(fails_before=1)

    worker(destination, outbox, clock).run_once()

    status, reason, hint = outbox.held[1]
    assert (status, hint) == (None, "look")
    assert reason.startswith("not delivered for 7 days")


def test_a_month_without_the_destination_loses_nothing(clock, outbox):
    for n in range(5):
        outbox.add(n)
    destination = FakeDestination(fails_before=0)
    destination.fails_before = None
    destination.on_item = lambda _: (_ for _ in ()).throw(PeerUnreachable("gone"))
    delivering = worker(destination, outbox, clock)
    while clock.at < 30 * 86400:
        clock.at += max(60.0, delivering.run_once())

    assert not outbox.sent
    assert set(outbox.pending) | set(outbox.held) == set(range(5))
    assert not outbox.sending


def test_an_answer_is_recorded_even_when_the_ledger_is_away_for_a_moment(
    clock, outbox, monkeypatch
):
    monkeypatch.setattr("node.scu.delivery._LEDGER_PAUSE_S", 0.0)
    outbox.add(1)
    destination = FakeDestination()
    destination.on_item = lambda _: outbox.errors.extend([LedgerError("away")] * 3)

    worker(destination, outbox, clock).run_once()

    assert outbox.sent == {1: (0, "")}
    assert destination.batches == [[1]]  # not sent again


def test_a_ledger_that_hands_out_nothing_is_asked_again(clock, outbox):
    outbox.errors.append(LedgerError("away"))

    with pytest.raises(LedgerError):
        worker(FakeDestination(), outbox, clock).run_once()


def test_stopping_gives_back_what_was_not_sent(clock, outbox):
    for n in range(4):
        outbox.add(n)
    destination = FakeDestination()
    delivering = worker(destination, outbox, clock)
    destination.on_item = lambda key: delivering.stop() if key == 1 else None

    delivering.run_once()

    assert set(outbox.sent) == {0, 1}
    assert {d.attempt for d in outbox.pending.values()} == {0}


def test_a_worker_thread_delivers_and_ends(clock, outbox):
    outbox.add(1)
    destination = FakeDestination()
    delivering = worker(destination, outbox, clock)
    delivering.start()
    delivering.stop()

    assert not delivering.alive()
    assert destination.closed >= 1


def test_no_more_than_a_batch_is_claimed(clock, outbox):
    for n in range(BATCH + 5):
        outbox.add(n)
    destination = FakeDestination()

    worker(destination, outbox, clock).run_once()

    assert len(destination.batches[0]) == BATCH


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_pause_is_never_longer_than_the_limit_nor_shorter_than_three_quarters(attempt, jitter):
    pause = POLICY.delay_s(attempt, jitter)

    assert 0.75 * POLICY.first_s <= pause <= POLICY.max_s


def test_the_breaker_counts_failures():
    breaker = Breaker().failed(100.0, POLICY, 0.0).failed(200.0, POLICY, 0.0)

    assert breaker == Breaker(failures=2, retry_at=210.0)


@pytest.mark.parametrize("error", [PeerUnreachable, ZeroDivisionError])
def test_an_object_over_which_peer_or_node_stumbles_does_not_block_the_queue(clock, outbox, error):
    """Due again when its destination is, it would be the first of the queue, and again."""
    for n in range(3):
        outbox.add(n)
    one = worker(FakeDestination(fails_before=0, error=error), outbox, clock)
    for _ in range(4):
        with suppress(ZeroDivisionError):
            clock.at += one.run_once()

    assert set(outbox.sent) == {1, 2}
    assert outbox.pending[0].attempt >= 1


def test_answers_gather_while_a_commit_is_under_way(clock, outbox):
    """A commit is a sync of the disk: it costs as much as the sending of many objects."""
    for n in range(BATCH):
        outbox.add(n)
    all_sent = threading.Event()
    outbox.before_commit = lambda: all_sent.wait(10)

    def work(number: int) -> None:
        if number == BATCH - 1:
            all_sent.set()

    worker(FakeDestination(on_item=work), outbox, clock).run_once()

    assert len(outbox.commits) <= 3
    assert sorted(outbox.sent) == list(range(BATCH))


def test_an_answer_is_recorded_while_the_peer_takes_its_time_for_the_next_object(clock, outbox):
    """A node that dies now must not have forgotten it."""
    for n in range(3):
        outbox.add(n)
    recorded: list[list[int]] = []

    def work(number: int) -> None:
        deadline = time.monotonic() + 10
        while number and number - 1 not in outbox.sent and time.monotonic() < deadline:
            time.sleep(0.001)
        recorded.append(sorted(outbox.sent))

    worker(FakeDestination(on_item=work), outbox, clock).run_once()

    assert recorded == [[], [0], [0, 1]]


def test_what_was_answered_before_a_break_is_recorded_before_the_break_is(clock, outbox):
    for n in range(6):
        outbox.add(n)

    worker(FakeDestination(fails_before=4), outbox, clock).run_once()

    assert sorted(outbox.sent) == [0, 1, 2, 3]
    assert outbox.reasons == {4: "gone"}
    assert sorted(outbox.pending) == [4, 5]
    assert not outbox.sending
