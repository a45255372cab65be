"""Storage commitment in both directions: reports that come here, there, late, never or wrong."""

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from node.domain import AETitle, Uid
from node.lifecycle import DeliveryState
from node.scp.commands import N_ACTION_RQ, N_EVENT_REPORT_RQ
from node.scp.commitment import STATUSES, Commitment
from node.scp.services import Message
from node.scu.commitment import Committer
from node.scu.delivery import RetryPolicy
from node.scu.reporter import Reporter
from node.scu.transaction import encode_question, encode_report, read_question
from node.store.commitments import InstanceName
from tests.integration.network.support import EXPLICIT, IMPLICIT, dead_port, peer_at
from tests.store_kit import CT, FakeClock, ct, finish, push, source, start_job, store

POLICY = RetryPolicy(first_s=1, max_s=2, give_up_after=timedelta(days=7))
WAIT = timedelta(seconds=60)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opened(tmp_path, clock):
    with store(tmp_path / "data", clock=clock) as it:
        yield it


@dataclass
class Archive:
    """A peer that commits, or does not, as told."""

    missing: dict[str, int] = field(default_factory=dict)
    status: int = 0
    on_same: bool = True
    silent: bool = False
    transaction: str | None = None
    answers: list[int] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)

    def __enter__(self) -> Self:
        ae = AE(ae_title="PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_supported_context(StorageCommitmentPushModel)
        self._server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._on_action)]
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _on_action(self, event):
        self.asked.append(event.action_information)
        if self.on_same and not self.silent and self.status == 0:
            threading.Thread(target=self._report, args=(event.assoc, self.asked[-1])).start()
        return self.status, None

    def _report(self, assoc, question) -> None:
        time.sleep(0.1)  # after the answer to the question
        ds = self.report(question)
        event_type = 2 if "FailedSOPSequence" in ds else 1
        answer, _ = assoc.send_n_event_report(
            ds, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(answer.get("Status"))

    def report(self, question) -> Dataset:
        ds = Dataset()
        ds.TransactionUID = self.transaction or question.TransactionUID
        held, failed = [], []
        for item in question.ReferencedSOPSequence:
            reason = self.missing.get(item.ReferencedSOPInstanceUID)
            if reason is not None:
                item.FailureReason = reason
            (held if reason is None else failed).append(item)
        ds.ReferencedSOPSequence = held
        if failed:
            ds.FailedSOPSequence = failed
        return ds


def delivered(opened, folder, results: int = 3) -> int:
    """Return a job whose results were all answered 0x0000."""
    job = start_job(opened, slices=1)
    finish(opened, folder, results)
    for delivery in opened.ledger.claim_deliveries("pacs", 64):
        opened.ledger.delivery_sent(delivery.id, status=0)
    return job


def states(opened, job: int) -> dict[str, DeliveryState]:
    lines = opened.ledger.job_detail(job).deliveries
    return {line.sop_instance_uid: line.state for line in lines}


def committer(opened, port: int, clock, linger_s: float = 1.0) -> Committer:
    peer = peer_at(port, called="PACS", calling="RTNODE", response_timeout_s=3.0)
    return Committer("pacs", peer, opened.ledger, POLICY, clock, wait=WAIT, linger_s=linger_s)


def service(opened) -> Commitment:
    return Commitment(
        ledger=opened.ledger,
        reachable=frozenset({AETitle("PACS"), AETitle("CTSIM1")}),
        asked={AETitle("PACS"): "pacs"},
    )


def message(elements: dict[int, bytes], data: bytes, calling: str, syntax=EXPLICIT) -> Message:
    uid = StorageCommitmentPushModelInstance.encode()
    named = {0x1000: uid, 0x1001: uid} | elements
    return Message(
        elements=named, data=data, transfer_syntax_uid=syntax, source=source(calling=calling)
    )


def event_report(opened, transaction, held=(), failed=(), *, calling="PACS", syntax=EXPLICIT):
    """Hand a report to the receiver's service, as it comes on another association."""
    data = encode_report(
        Uid(transaction), [_name(u) for u in held], [(_name(u), r) for u, r in failed], syntax
    )
    return service(opened).report(message({0x1002: b"\x01\x00"}, data, calling, syntax)).status


def _name(uid: str) -> InstanceName:
    return InstanceName(sop_class_uid=Uid(CT), sop_instance_uid=Uid(uid))


def test_what_the_peer_commits_to_is_committed(opened, tmp_path, clock):
    job = delivered(opened, tmp_path)
    with Archive() as peer:
        committer(opened, peer.port, clock).run_once()

    assert set(states(opened, job).values()) == {DeliveryState.COMMITTED}
    assert len(peer.asked) == 1
    assert peer.answers == [0]


def test_what_the_peer_lacks_is_sent_again_and_nothing_else(opened, tmp_path, clock):
    """Fault D5: a failure list."""
    job = delivered(opened, tmp_path)
    lost, *others = states(opened, job)
    with Archive(missing={lost: 0x0112}) as peer:
        committer(opened, peer.port, clock).run_once()

    assert states(opened, job) == {
        lost: DeliveryState.PENDING,
        **dict.fromkeys(others, DeliveryState.COMMITTED),
    }
    (again,) = opened.ledger.claim_deliveries("pacs", 64)
    assert again.sop_instance_uid == lost
    assert not again.doubtful  # the peer says itself that it lacks the object


def test_an_object_that_the_peer_loses_again_and_again_asks_a_person(opened, tmp_path, clock):
    job = delivered(opened, tmp_path, results=1)
    (lost,) = states(opened, job)
    with Archive(missing={lost: 0x0112}) as peer:
        for _ in range(20):
            committer(opened, peer.port, clock).run_once()
            for delivery in opened.ledger.claim_deliveries("pacs", 64):
                opened.ledger.delivery_sent(delivery.id, status=0)

    (line,) = opened.ledger.job_detail(job).deliveries
    assert line.state is DeliveryState.HELD
    assert "storage commitment failed: it does not hold the object" in line.reason
    assert line.hint
    assert len(peer.asked) == 5


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_report_on_another_association_counts_once(opened, tmp_path, clock, syntax):
    """Fault D5: on another association, and a duplicate of it."""
    job = delivered(opened, tmp_path)
    with Archive(on_same=False) as peer:
        committer(opened, peer.port, clock, linger_s=0.1).run_once()
    assert set(states(opened, job).values()) == {DeliveryState.SENT}

    for _ in range(2):
        answer = event_report(
            opened, peer.asked[0].TransactionUID, states(opened, job), syntax=syntax
        )
        assert answer == 0
        assert set(states(opened, job).values()) == {DeliveryState.COMMITTED}


@pytest.mark.parametrize("again", ["held", "failed"])
def test_a_report_that_comes_again_after_a_resend_says_nothing_about_it(
    opened, tmp_path, clock, again
):
    """Fault D5: our answer to it was lost, and meanwhile the object has gone out once more."""
    job = delivered(opened, tmp_path, results=1)
    (uid,) = states(opened, job)
    with Archive(on_same=False) as peer:
        committer(opened, peer.port, clock, linger_s=0.1).run_once()
    transaction = peer.asked[0].TransactionUID
    report = {"held": {"held": [uid]}, "failed": {"failed": [(uid, 0x0112)]}}[again]
    assert event_report(opened, transaction, **report) == 0
    if again == "held":
        opened.ledger.resend_job(job)
    (claimed,) = opened.ledger.claim_deliveries("pacs", 1)
    opened.ledger.delivery_sent(claimed.id, status=0)

    assert event_report(opened, transaction, **report) == 0
    assert states(opened, job) == {uid: DeliveryState.SENT}


@pytest.mark.parametrize("reason", [0x0110, 0x0213, 0xC000])
def test_what_the_peer_does_not_commit_to_is_sent_again_whatever_its_reason(
    opened, tmp_path, clock, reason
):
    """A peer without C-FIND: were it still in doubt, it would never be sent at all."""
    job = start_job(opened, slices=1)
    finish(opened, tmp_path, 1)
    (claimed,) = opened.ledger.claim_deliveries("pacs", 1)
    opened.ledger.delivery_sent(claimed.id, status=None, note="unanswered")
    (uid,) = states(opened, job)
    with Archive(missing={uid: reason}) as peer:
        committer(opened, peer.port, clock).run_once()
    (again,) = opened.ledger.claim_deliveries("pacs", 1)

    assert not again.doubtful


def test_a_report_that_mentions_only_some_leaves_the_others_open(opened, tmp_path, clock):
    job = delivered(opened, tmp_path)
    first, *others = states(opened, job)
    with Archive(on_same=False) as peer:
        committer(opened, peer.port, clock, linger_s=0.1).run_once()
    transaction = peer.asked[0].TransactionUID

    assert event_report(opened, transaction, [first]) == 0
    assert [states(opened, job)[u] for u in others] == [DeliveryState.SENT] * 2
    assert event_report(opened, transaction, others) == 0
    assert set(states(opened, job).values()) == {DeliveryState.COMMITTED}


def test_a_late_report_still_counts(opened, tmp_path, clock):
    job = delivered(opened, tmp_path)
    with Archive(on_same=False) as peer:
        asking = committer(opened, peer.port, clock, linger_s=0.1)
        asking.run_once()
        clock.advance(61)
        asking.run_once()  # the deadline passed: it is asked again

        assert len(peer.asked) == 2
    assert event_report(opened, peer.asked[0].TransactionUID, states(opened, job)) == 0
    assert set(states(opened, job).values()) == {DeliveryState.COMMITTED}


def test_a_peer_that_never_reports_is_asked_three_times_and_then_left_alone(
    opened, tmp_path, clock
):
    job = delivered(opened, tmp_path, results=1)
    with Archive(silent=True) as peer:
        asking = committer(opened, peer.port, clock, linger_s=0.05)
        for _ in range(40):
            asking.run_once()
            clock.advance(30)

    (line,) = opened.ledger.job_detail(job).deliveries
    assert len(peer.asked) == 3
    assert (line.state, line.reason) == (
        DeliveryState.SENT,
        "storage commitment was not answered 3 times",
    )


def test_what_was_never_answered_at_all_is_sent_again(opened, tmp_path, clock):
    """Neither the C-STORE nor the commitment had an answer: the same bytes go once more."""
    job = start_job(opened, slices=1)
    finish(opened, tmp_path, 1)
    (claimed,) = opened.ledger.claim_deliveries("pacs", 1)
    opened.ledger.delivery_sent(claimed.id, status=None, note="unanswered")
    with Archive(silent=True) as peer:
        asking = committer(opened, peer.port, clock, linger_s=0.05)
        for _ in range(40):
            asking.run_once()
            clock.advance(30)

    assert set(states(opened, job).values()) == {DeliveryState.PENDING}
    (again,) = opened.ledger.claim_deliveries("pacs", 1)
    assert not again.doubtful


def test_a_report_for_another_transaction_changes_nothing(opened, tmp_path, clock):
    job = delivered(opened, tmp_path)
    with Archive(transaction="1.2.3.4") as peer:
        committer(opened, peer.port, clock).run_once()

    assert peer.answers == [0x0115]
    assert set(states(opened, job).values()) == {DeliveryState.SENT}


def test_a_report_of_somebody_else_changes_nothing(opened, tmp_path, clock):
    """Fault D5: the wrong AE; even with the right transaction."""
    job = delivered(opened, tmp_path)
    with Archive(silent=True) as peer:
        committer(opened, peer.port, clock, linger_s=0.05).run_once()
    transaction = peer.asked[0].TransactionUID

    assert event_report(opened, transaction, states(opened, job), calling="CTSIM1") == 0x0124
    assert set(states(opened, job).values()) == {DeliveryState.SENT}


def test_a_report_cannot_name_what_was_not_asked(opened, tmp_path, clock):
    job = delivered(opened, tmp_path, results=1)
    with Archive(silent=True) as peer:
        committer(opened, peer.port, clock, linger_s=0.05).run_once()

    status = event_report(opened, peer.asked[0].TransactionUID, [], [("1.2.3.77", 0x0112)])

    assert status == 0
    assert set(states(opened, job).values()) == {DeliveryState.SENT}


def test_an_object_that_is_both_held_and_failed_is_failed(opened, tmp_path, clock):
    job = delivered(opened, tmp_path, results=1)
    (uid,) = states(opened, job)
    with Archive(silent=True) as peer:
        committer(opened, peer.port, clock, linger_s=0.05).run_once()

    event_report(opened, peer.asked[0].TransactionUID, [uid], [(uid, 0x0112)])

    assert states(opened, job) == {uid: DeliveryState.PENDING}


@pytest.mark.parametrize("status", [0x0110, 0x0112, 0x0124, 0xA700])
def test_a_refused_question_is_asked_again_later(opened, tmp_path, clock, status):
    job = delivered(opened, tmp_path)
    with Archive(status=status) as peer:
        asking = committer(opened, peer.port, clock)
        asking.run_once()
        assert asking.run_once() > 0  # it rests
        peer.status = 0
        clock.advance(5)
        asking.run_once()

    assert set(states(opened, job).values()) == {DeliveryState.COMMITTED}


def test_a_peer_without_the_service_is_named(opened, tmp_path, clock, caplog):
    delivered(opened, tmp_path)
    ae = AE(ae_title="PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        committer(opened, server.server_address[1], clock).run_once()
    finally:
        server.shutdown()

    assert "does not offer storage commitment" in str(caplog.records[-1].__dict__)


def test_a_dead_peer_keeps_its_questions(opened, tmp_path, clock):
    job = delivered(opened, tmp_path)
    asking = committer(opened, dead_port(), clock)
    asking.run_once()

    assert asking.run_once() > 0
    assert opened.ledger.next_commitment_at("pacs") is None  # not asked: it does not count
    assert set(states(opened, job).values()) == {DeliveryState.SENT}


def test_a_class_that_the_peer_does_not_commit_to_stays_sent_and_is_not_asked_again(
    opened, tmp_path, clock
):
    job = delivered(opened, tmp_path, results=1)
    (uid,) = states(opened, job)
    with Archive(missing={uid: 0x0122}) as peer:
        for _ in range(3):
            committer(opened, peer.port, clock).run_once()

    assert states(opened, job) == {uid: DeliveryState.SENT}
    assert len(peer.asked) == 1


# -- we are asked ----------------------------------------------------------------------------


@dataclass
class Modality:
    """A peer that asked and listens for our report."""

    status: int = 0
    reports: list[tuple[int, Dataset]] = field(default_factory=list)

    def __enter__(self) -> Self:
        ae = AE(ae_title="CTSIM1")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self._server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)]
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _on_report(self, event):
        self.reports.append((event.request.EventTypeID, event.event_information))
        return self.status, None


def ask(opened, transaction: str, names, *, calling="CTSIM1", action: int = 1) -> int:
    data = encode_question(Uid(transaction), names, EXPLICIT)
    asked = message({0x1008: action.to_bytes(2, "little")}, data, calling)
    return service(opened).question(asked).status


def reporter(opened, port: int, clock) -> Reporter:
    peer = peer_at(port, called="CTSIM1", calling="RTNODE", response_timeout_s=3.0)
    return Reporter(opened.ledger, {AETitle("CTSIM1"): peer}.get, clock)


def test_the_report_tells_the_truth(opened, clock):
    push(opened, ct(1))
    push(opened, ct(2))
    held, gone = str(ct(1).SOPInstanceUID), str(ct(2).SOPInstanceUID)
    (instance,) = opened.ledger.instances_by_sop_uid([gone])
    instance.path.unlink()  # a row without its file is no object
    other = InstanceName(sop_class_uid=Uid("1.2.840.10008.5.1.4.1.1.4"), sop_instance_uid=Uid(held))
    assert ask(opened, "1.9.1", [_name(held), _name(gone), _name("1.2.3.404")]) == 0
    assert ask(opened, "1.9.2", [_name(held)]) == 0
    assert ask(opened, "1.9.3", [other]) == 0

    with Modality() as peer:
        reporter(opened, peer.port, clock).run_once()

    by_transaction = {str(ds.TransactionUID): (kind, ds) for kind, ds in peer.reports}
    kind, mixed = by_transaction["1.9.1"]
    assert kind == 2
    assert [i.ReferencedSOPInstanceUID for i in mixed.ReferencedSOPSequence] == [held]
    assert {i.ReferencedSOPInstanceUID: i.FailureReason for i in mixed.FailedSOPSequence} == {
        gone: 0x0112,
        "1.2.3.404": 0x0112,
    }
    kind, whole = by_transaction["1.9.2"]
    assert (kind, "FailedSOPSequence" in whole) == (1, False)
    assert by_transaction["1.9.3"][1].FailedSOPSequence[0].FailureReason == 0x0119
    assert opened.ledger.next_report_at() is None


def test_a_peer_that_is_away_is_told_later(opened, clock):
    push(opened, ct(1))
    ask(opened, "1.9.1", [_name(str(ct(1).SOPInstanceUID))])
    reporter(opened, dead_port(), clock).run_once()

    with Modality() as peer:
        telling = reporter(opened, peer.port, clock)
        telling.run_once()
        assert not peer.reports
        clock.advance(6)
        telling.run_once()

    assert len(peer.reports) == 1


def test_a_peer_that_stays_away_is_given_up_after_a_day(opened, clock):
    ask(opened, "1.9.1", [_name("1.2.3")])
    telling = reporter(opened, dead_port(), clock)
    for _ in range(200):
        telling.run_once()
        clock.advance(900)

    assert opened.ledger.next_report_at() is None


def test_a_refused_report_is_tried_again(opened, clock):
    ask(opened, "1.9.1", [_name("1.2.3")])
    with Modality(status=0x0110) as peer:
        telling = reporter(opened, peer.port, clock)
        telling.run_once()
        peer.status = 0
        clock.advance(6)
        telling.run_once()

    assert len(peer.reports) == 2
    assert opened.ledger.next_report_at() is None


def test_the_same_question_is_answered_again_and_another_under_its_uid_is_refused(opened, clock):
    assert ask(opened, "1.9.1", [_name("1.2.3")]) == 0
    with Modality() as peer:
        reporter(opened, peer.port, clock).run_once()
        assert ask(opened, "1.9.1", [_name("1.2.3")]) == 0
        reporter(opened, peer.port, clock).run_once()
        assert ask(opened, "1.9.1", [_name("1.2.4")]) == 0x0110

    assert len(peer.reports) == 2


def test_questions_that_cannot_be_answered_are_refused(opened):
    listening = service(opened)
    question = encode_question(Uid("1.9"), [_name("1.2.3")], EXPLICIT)
    action = {0x1008: b"\x01\x00"}

    def status(elements, data, calling="CTSIM1"):
        return listening.question(message(elements, data, calling)).status

    assert status(action, question, calling="STRANGER") == 0x0124
    assert status({0x1008: b"\x02\x00"}, question) == 0x0123
    assert status(action | {0x1001: b"1.2.3"}, question) == 0x0112
    assert status(action, b"") == 0x0110
    assert status(action, question[: len(question) // 2]) == 0x0110
    assert status(action, encode_question(Uid("1.9"), [], EXPLICIT)) == 0x0110
    assert status(action, question.replace(b"1.2.3\0", b"../x1\0")) == 0x0110
    assert listening.report(message({0x1002: b"\x09\x00"}, b"", "PACS")).status == 0x0113
    assert listening.report(message({0x1002: b"\x01\x00"}, b"\xff" * 50, "PACS")).status == 0x0110


def test_the_service_offers_both_operations_in_both_roles(opened):
    row = service(opened).service()

    assert set(row.operations) == {N_ACTION_RQ, N_EVENT_REPORT_RQ}
    assert (row.we_are_scp, row.we_are_scu) == (True, True)
    assert all(STATUSES.values())


def test_a_question_survives_its_encoding():
    names = [_name("1.2.3"), _name("1.2.4")]

    question = read_question(encode_question(Uid("1.9"), names, IMPLICIT), IMPLICIT)

    assert (question.transaction_uid, question.named) == ("1.9", tuple(names))
