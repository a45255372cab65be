"""The door remembers what was sent again, and not more than it needs."""

from datetime import UTC, datetime

from node.domain import Accepted, Kept, Uid
from node.routing import door as module
from node.routing.door import Door
from tests.store_kit import FakeClock, source


class Repeating:
    """An intake that has everything already."""

    def accept_file(self, path, source) -> Accepted:
        uid = Uid(path)
        return Accepted(
            kept=Kept.DUPLICATE, sha256="", sop_instance_uid=uid, series_instance_uid=uid
        )

    def association_opened(self, source) -> None:
        """Fine."""

    def association_ended(self, association_id, **_) -> None:
        """Fine."""


def resend(
    door: Door, association: str, *series: str, end: str = "RELEASED", refused: int = 0
) -> None:
    door.association_opened(source(association))
    for uid in series:
        door.accept_file(uid, source(association))
    door.association_ended(association, end=end, received=len(series), refused=refused)


def test_a_released_repeat_is_remembered_and_a_broken_one_is_not() -> None:
    door = Door(Repeating(), FakeClock())

    resend(door, "00000001", "1.2.1")
    resend(door, "00000002", "1.2.2", end="ABORTED")
    resend(door, "00000003", "1.2.3", refused=1)

    assert isinstance(door.resent_at("1.2.1"), datetime)
    assert door.resent_at("1.2.1").tzinfo is UTC
    assert door.resent_at("1.2.2") is None
    assert door.resent_at("1.2.3") is None


def test_an_archive_that_repeats_everything_every_night_does_not_fill_the_memory(
    monkeypatch,
) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    door = Door(Repeating(), FakeClock())

    for number in range(10):
        resend(door, f"{number:08}", f"1.2.{number}")

    assert len(door._resent) == 3
    assert door.resent_at("1.2.9") is not None
    assert not door._open
    assert not door._repeated
