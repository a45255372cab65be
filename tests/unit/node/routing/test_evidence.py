"""How a series came in: breaks, re-sends, single images, and silence."""

from datetime import UTC, datetime, timedelta

import pytest

from node.domain import Accepted, AETitle, Kept, Series, Uid
from node.lifecycle import SeriesState
from node.routing.door import Door
from node.routing.evidence import Silence, arrival
from node.store.records import AssociationInfo
from tests.routing_kit import SOURCE
from tests.store_kit import FakeClock

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def association(
    begin: float, end: float | None, how: str = "RELEASED", objects: int = 10, refused: int = 0
):
    return AssociationInfo(
        association_id=f"{begin}",
        calling_ae_title=AETitle("CTSIM1"),
        called_ae_title=AETitle("RTNODE"),
        address="10.0.0.1",
        opened_at=START + timedelta(seconds=begin),
        ended_at=None if end is None else START + timedelta(seconds=end),
        end="" if end is None else how,
        instances=objects,
        refused=refused,
    )


def series(count: int = 3, revision: int = 0) -> Series:
    return Series(
        series_instance_uid=Uid("1.2"), study_instance_uid=Uid("1"), patient_key="p",
        modality="CT", state=SeriesState.RECEIVING, revision=revision, count=count, reason="",
        first_received_at=START, last_received_at=START,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("associations", "interrupted"),
    [
        ([association(0, 5)], False),
        ([association(0, 5, "ABORTED")], True),
        ([association(0, 5, "LOST")], True),
        ([association(0, 5, "ABORTED"), association(6, 9)], False),
        ([association(0, 5, "ABORTED"), association(1, 9)], True),
        ([association(0, 5, "ABORTED"), association(6, 9, "ABORTED")], True),
        ([association(0, 5, "ABORTED"), association(6, None)], True),
        ([association(0, 5), association(6, 9, "ABORTED")], True),
    ],
    ids=["released", "aborted", "lost", "resumed", "ran beside", "broke twice", "resuming",
         "broke later"],
)  # fmt: skip
def test_a_break_is_healed_only_by_an_association_that_began_later_and_was_released(
    associations, interrupted
) -> None:
    assert arrival(1.0, associations).interrupted is interrupted


@pytest.mark.parametrize(
    ("associations", "interrupted"),
    [
        ([association(0, 5, refused=2)], True),
        ([association(0, 5, refused=2), association(6, 9)], False),
        ([association(0, 5, "ABORTED"), association(6, 9, refused=1)], True),
    ],
    ids=["refused", "taken later", "refused again"],
)
def test_an_association_of_which_we_refused_objects_is_broken_however_it_ended(
    associations, interrupted
) -> None:
    assert arrival(1.0, associations).interrupted is interrupted


def test_a_repeat_that_brought_nothing_new_heals_a_break_too() -> None:
    broken = [association(0, 5, "ABORTED")]

    assert arrival(1.0, broken, START + timedelta(seconds=4)).interrupted
    assert not arrival(1.0, broken, START + timedelta(seconds=6)).interrupted


def test_single_images_on_associations_of_their_own_are_seen() -> None:
    assert arrival(1.0, [association(n, n + 1, objects=1) for n in range(3)]).one_by_one
    assert not arrival(1.0, [association(0, 5, objects=9)]).one_by_one


def test_silence_starts_again_with_each_change() -> None:
    clock = FakeClock()
    silence = Silence(clock)
    ended = [association(0, 5)]
    assert silence.of(series(), [association(0, None)]) == 0
    clock.advance(3)
    assert silence.of(series(), [association(0, None)]) == 3
    assert silence.of(series(), ended) == 0
    clock.advance(2)
    assert silence.of(series(count=4), ended) == 0
    clock.advance(1)
    assert silence.of(series(count=4), ended, START) == 0
    clock.advance(4)

    assert silence.of(series(count=4), ended, START) == 4
    assert silence.at_last_look(series()) == 4


class FakeIntake:
    """Accepts whatever comes as the repeat of something."""

    kept = Kept.DUPLICATE

    def receive(self, **named) -> "FakeIntake":
        return self

    def write(self, fragment) -> None: ...

    def discard(self) -> None: ...

    def accept(self) -> Accepted:
        return Accepted(
            kept=self.kept, sha256="", sop_instance_uid=Uid("1.2.3"), series_instance_uid=Uid("1.2")
        )

    def association_opened(self, source) -> None: ...

    def association_ended(self, association_id, **named) -> None: ...


@pytest.mark.parametrize(
    ("kept", "end", "noticed"),
    [
        (Kept.DUPLICATE, "RELEASED", True),
        (Kept.DUPLICATE, "ABORTED", False),
        (Kept.STORED, "RELEASED", False),
    ],
)
def test_the_door_notices_a_repeat_that_was_released(kept, end, noticed) -> None:
    intake = FakeIntake()
    intake.kept = kept
    door = Door(intake, FakeClock())
    door.association_opened(SOURCE)
    door.receive(
        transfer_syntax_uid=Uid("1"), sop_class_uid=Uid("1"), sop_instance_uid=Uid("1.2.3"),
        source=SOURCE,
    ).accept()  # fmt: skip
    assert door.resent_at("1.2") is None
    door.association_ended(SOURCE.association_id, end=end, received=1, refused=0)

    assert (door.resent_at("1.2") is not None) is noticed
