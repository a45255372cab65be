"""What comes in becomes durable, once, and changes its series."""

import pytest
from pydicom import dcmread

from node.domain import Kept
from node.errors import CannotUnderstand, InstanceMismatch
from node.lifecycle import JobState, SeriesState
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, split
from tests.store_kit import (
    CT,
    SERIES,
    FakeClock,
    blobs,
    complete,
    ct,
    encode,
    part10,
    push,
    source,
    start_job,
    store,
)


@pytest.fixture
def opened(tmp_path):
    with store(tmp_path) as opened:
        yield opened


def test_an_accepted_object_is_a_row_and_a_file_with_the_bytes_as_received(opened):
    accepted = push(opened, ct())

    (instance,) = opened.ledger.instances(SERIES)
    assert accepted.kept is Kept.STORED
    assert instance.sha256 == accepted.sha256
    assert bytes(split(instance.path.read_bytes()).data) == encode(ct())
    assert dcmread(instance.path).SOPInstanceUID == f"{SERIES}.1"
    assert instance.size == len(encode(ct()))
    assert instance.source == source()
    assert instance.header.keywords["ImagePositionPatient"] == [-10.0, -20.0, 3.0]
    assert opened.ledger.verify() == []


def test_the_same_bytes_again_are_a_no_op(opened, tmp_path):
    """A8, one after the other; from a file as well as from the network."""
    first = push(opened, ct())
    before = opened.ledger.series(SERIES)

    second = push(opened, ct(), "0000ffff")
    (tmp_path / "again.dcm").write_bytes(part10(ct()))
    third = opened.intake.accept_file(tmp_path / "again.dcm", source())

    assert [second.kept, third.kept] == [Kept.DUPLICATE] * 2
    assert second.sha256 == third.sha256 == first.sha256
    assert len(blobs(tmp_path)) == 1
    assert opened.ledger.series(SERIES) == before


def test_other_bytes_under_a_taken_uid_are_kept_beside_and_flagged(opened, tmp_path):
    """A9."""
    push(opened, ct(1))
    before = opened.ledger.series(SERIES)

    second = push(opened, ct(1, pixel=9))

    assert second.kept is Kept.CONFLICT
    assert len(blobs(tmp_path)) == 2
    assert [i.sha256 for i in opened.ledger.instances(SERIES)] != [second.sha256]
    assert opened.ledger.conflicts(SERIES) == [f"{SERIES}.1"]
    assert opened.ledger.series(SERIES) == before, "the series does not change"
    assert opened.ledger.counts().conflicts == 1
    assert "instance_conflict" in [e.action for e in opened.ledger.explain(f"{SERIES}.1")]
    assert push(opened, ct(1, pixel=9)).kept is Kept.DUPLICATE
    assert push(opened, ct(1)).kept is Kept.DUPLICATE


def test_a_conflict_that_names_another_series_is_seen_from_the_first(opened):
    push(opened, ct(1))
    other = ct(1, pixel=3)
    other.SeriesInstanceUID = "1.2.77"

    push(opened, other)

    assert opened.ledger.conflicts(SERIES) == [f"{SERIES}.1"]
    assert opened.ledger.series("1.2.77") is None


def test_a_conflict_holds_the_jobs_that_wait_with_the_first(opened):
    job_id = start_job(opened)

    push(opened, ct(1, pixel=9))

    job = opened.ledger.job(job_id)
    assert job.state is JobState.HELD
    assert "other content" in job.reason
    assert job.hint


def test_what_cannot_be_understood_is_kept_in_quarantine_with_the_reason(opened, tmp_path):
    with pytest.raises(CannotUnderstand) as caught:
        opened.intake.accept(
            b"\x08\x00\x16\x00UI\x04\x001.2\0",
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=CT,
            sop_instance_uid="1.2",
            source=source(),
        )

    (kept,) = opened.ledger.quarantined()
    assert "kept in quarantine as quarantine/" in caught.value.advice
    assert kept.reason == str(caught.value) == "StudyInstanceUID is missing"
    assert kept.path.read_bytes() == b"\x08\x00\x16\x00UI\x04\x001.2\0"
    assert kept.association_id == "0000abcd"
    assert opened.ledger.explain(kept.sha256)[0].action == "instance_quarantined"


def test_the_same_rubbish_twice_is_one_quarantined_object(opened, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"no DICOM at all")

    for _ in range(2):
        with pytest.raises(CannotUnderstand):
            opened.intake.accept_file(tmp_path / "rubbish", source())

    assert len(opened.ledger.quarantined()) == 1
    assert opened.ledger.counts().quarantined == 1


@pytest.mark.parametrize(
    ("sop_class", "sop_instance", "what"),
    [("1.2.840.10008.5.1.4.1.1.4", f"{SERIES}.1", "SOP class"), (CT, "1.9", "SOP Instance UID")],
    ids=["class", "instance"],
)
def test_an_object_that_is_not_the_one_requested_is_refused(opened, sop_class, sop_instance, what):
    with pytest.raises(InstanceMismatch, match=f"another {what} than the request"):
        opened.intake.accept(
            encode(ct()),
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            source=source(),
        )

    assert opened.ledger.instances(SERIES) == []
    assert opened.ledger.explain(f"{SERIES}.1")[0].action == "instance_refused"


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with store(tmp_path) as opened:
        opened.intake._max_object_bytes = 100
        (tmp_path / "big.dcm").write_bytes(part10(ct()))

        with pytest.raises(CannotUnderstand, match="the limit is 100"):
            opened.intake.accept_file(tmp_path / "big.dcm", source())

        assert opened.ledger.quarantined() == []


def test_a_series_grows_and_a_late_slice_opens_it_again_with_a_new_revision(opened):
    """A13."""
    done = complete(opened, 2)
    assert (done.state, done.revision, done.count) == (SeriesState.COMPLETE, 0, 2)

    push(opened, ct(3))
    late = opened.ledger.series(SERIES)
    push(opened, ct(4))
    later = opened.ledger.series(SERIES)

    assert (late.state, late.revision, late.count, late.reason) == (SeriesState.RECEIVING, 1, 3, "")
    assert (later.revision, later.count) == (1, 4)
    actions = [e.action for e in opened.ledger.explain(SERIES)]
    assert actions == ["series_started", "series_complete", "series_reopened"]


def test_a_series_that_contradicts_itself_is_stored_and_told(opened):
    """A15."""
    push(opened, ct(1))
    stranger = ct(2, patient="P2")

    assert push(opened, stranger).kept is Kept.STORED

    event = opened.ledger.explain(SERIES)[-1]
    assert (event.action, event.detail["other"]) == ("series_mixed", ["patient"])


def test_changes_wake_who_waits_and_duplicates_do_not(tmp_path):
    woken = []
    with store(tmp_path, on_change=lambda: woken.append(1)) as opened:
        push(opened, ct())
        opened.ledger.counts()
        after_first = len(woken)
        push(opened, ct())
        opened.ledger.counts()
        after_second = len(woken)
        opened.intake.association_ended("0000abcd", end="RELEASED", received=2, refused=0)

    assert (after_first, after_second, len(woken)) == (1, 1, 2)


def test_associations_are_followed_from_open_to_end(tmp_path):
    clock = FakeClock()
    with store(tmp_path, clock=clock) as opened:
        opened.intake.association_opened(source())
        push(opened, ct(1))
        (is_open,) = opened.ledger.open_associations()
        (delivering,) = opened.ledger.series_associations(SERIES)
        clock.advance(5)
        opened.intake.association_ended("0000abcd", end="RELEASED", received=1, refused=0)
        (ended,) = opened.ledger.series_associations(SERIES)

        assert is_open.association_id == delivering.association_id == "0000abcd"
        assert (delivering.ended_at, delivering.end, delivering.instances) == (None, "", 1)
        assert ended.end == "RELEASED"
        assert (ended.ended_at - ended.opened_at).total_seconds() == pytest.approx(5, abs=0.1)
        assert opened.ledger.open_associations() == []
        (line,) = opened.ledger.recent_associations()
        assert (line.received, line.refused) == (1, 0)


def test_an_association_id_that_comes_again_is_another_association(opened):
    opened.intake.association_opened(source())
    opened.intake.association_ended("0000abcd", end="ABORTED", received=0, refused=0)
    opened.intake.association_opened(source())
    push(opened, ct())

    (found,) = opened.ledger.series_associations(SERIES)

    assert found.ended_at is None


def test_a_folder_has_no_association_and_ends_with_its_last_object(opened):
    push(opened, ct(1), "folder01")
    push(opened, ct(2), "folder01")

    (found,) = opened.ledger.series_associations(SERIES)

    assert found.ended_at is not None
    assert found.ended_at > found.opened_at
    assert found.instances == 2
