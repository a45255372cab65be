"""A repeat that ends the wait after a broken association is known after a restart too."""

import pytest

from node.routing.door import Door
from tests.store_kit import SERIES, FakeClock, ct, encode, source, store


def transfer(door: Door, association_id: str, numbers: range, end: str) -> None:
    """Send slices over one association that ends as said."""
    door.association_opened(source(association_id))
    for number in numbers:
        ds = ct(number)
        arrival = door.receive(
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sop_class_uid=ds.SOPClassUID,
            sop_instance_uid=ds.SOPInstanceUID,
            source=source(association_id),
        )
        arrival.write(memoryview(encode(ds)))
        arrival.accept()
    door.association_ended(association_id, end=end, received=len(numbers), refused=0)


@pytest.mark.parametrize(("end", "known"), [("RELEASED", True), ("ABORTED", False)])
def test_a_repeat_is_known_after_a_restart_if_its_association_was_released(tmp_path, end, known):
    clock = FakeClock()
    with store(tmp_path, clock=clock) as before:
        door = Door(before.intake, clock)
        transfer(door, "0000000a", range(1, 4), "LOST")
        transfer(door, "0000000b", range(3, 4), end)

    with store(tmp_path, clock=clock) as after:
        again = Door(after.intake, clock, after.ledger.resent_series())

        assert (again.resent_at(SERIES) is not None) is known


def test_new_objects_are_no_repeat(tmp_path):
    clock = FakeClock()
    with store(tmp_path, clock=clock) as opened:
        transfer(Door(opened.intake, clock), "0000000a", range(1, 4), "RELEASED")

        assert opened.ledger.resent_series() == {}
