"""What a status means, and which contexts a batch needs: tables and pure functions."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain import Uid
from node.errors import CannotUnderstand
from node.scu.association import MAXIMUM_CONTEXTS, Context
from node.scu.echo import EchoReport
from node.scu.sender import (
    EXPLICIT,
    IMPLICIT,
    Outcome,
    Outgoing,
    batches,
    contexts_for,
    verdict,
)

J2K = Uid("1.2.840.10008.1.2.4.90")


def item(sop_class: str = "1.2.3", syntax: Uid = EXPLICIT, key: int = 0) -> Outgoing:
    return Outgoing(
        path=Path("x.dcm"),
        sop_class_uid=Uid(sop_class),
        sop_instance_uid=Uid("2.25.1"),
        transfer_syntax_uid=syntax,
        key=key,
    )


@given(st.integers(0, 0xFFFF))
def test_every_status_has_a_verdict_and_only_three_kinds_count_as_kept(status):
    row = verdict(status)

    kept = row.outcome in (Outcome.SENT, Outcome.SENT_WITH_WARNING)
    assert kept == (status == 0 or status == 0x0111 or 0xB000 <= status <= 0xBFFF)
    assert row.meaning
    assert kept or row.hint


def test_out_of_resources_alone_is_retried_without_end():
    retried = [s for s in range(0x10000) if verdict(s).outcome is Outcome.RETRY]

    assert retried == list(range(0xA700, 0xA800))


def test_an_uncompressed_object_may_go_in_either_syntax():
    assert contexts_for([item()]) == [Context(Uid("1.2.3"), EXPLICIT), Context("1.2.3", IMPLICIT)]


def test_a_compressed_object_goes_as_it_is():
    assert contexts_for([item(syntax=J2K)]) == [Context(Uid("1.2.3"), J2K)]


def test_each_context_is_proposed_once():
    assert len(contexts_for([item(), item(), item(syntax=IMPLICIT)])) == 2


@given(st.lists(st.integers(0, 300), max_size=400))
def test_batches_keep_the_order_and_fit_one_association(classes):
    items = [item(f"1.2.{c}", key=n) for n, c in enumerate(classes)]

    parts = list(batches(items))

    assert [i.key for part in parts for i in part] == list(range(len(items)))
    assert all(0 < len(contexts_for(part)) <= MAXIMUM_CONTEXTS for part in parts)


def test_a_file_that_is_no_dicom_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"hello")

    with pytest.raises(CannotUnderstand):
        Outgoing.read(path)


@pytest.mark.parametrize(
    ("milliseconds", "nagle"), [((0.5, 0.4, 44.0), False), ((44.0, 43.8, 44.1), True)]
)
def test_a_delayed_peer_is_recognized_by_its_median(milliseconds, nagle):
    report = EchoReport(associate_ms=1.0, round_trips_ms=milliseconds, statuses=(0, 0, 0))

    assert bool(report.hint) is nagle


def test_a_failing_echo_is_not_ok():
    report = EchoReport(associate_ms=1.0, round_trips_ms=(1.0,), statuses=(0x0122,))

    assert not report.ok
    assert report.hint
