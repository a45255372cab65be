"""Decisions over time: a ledger on disk, a clock that moves when told, no thread."""

import pytest

from node.lifecycle import JobState, SeriesEvent, SeriesState
from node.routing import coordinator
from node.routing.coordinator import Coordinator
from node.store.records import DecisionState
from tests.node_kit import CONTOURS, DOSE, config
from tests.store_kit import FakeClock, ct, push, source, store


class Scene:
    """A store and a coordinator that looks when told."""

    def __init__(self, folder, **changes) -> None:
        self.folder = folder
        self.config = config(folder, 104, receive={"hold_after_s": 600.0}, **changes)
        self.clock = FakeClock()
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.store = store(self.folder, clock=self.clock)
        self.ledger = self.store.ledger
        self.coordinator = Coordinator(self.ledger, self.config, self.clock)

    def send(self, *objects, association="0000abcd", end="RELEASED") -> None:
        self.store.intake.association_opened(source(association))
        for ds in objects:
            push(self.store, ds, association)
        self.store.intake.association_ended(association, end=end, received=len(objects), refused=0)

    def look(self, later: float = 0.0) -> bool:
        self.coordinator.look()
        self.clock.advance(later)
        return self.coordinator.look()

    def state(self, uid="1.2.3.2"):
        return self.ledger.series(uid).state


@pytest.fixture
def scene(tmp_path):
    one = Scene(tmp_path)
    yield one
    one.store.close()


def series(count=6, uid="1.2.3.2", **changes):
    return [ct(n, series=uid, **changes) for n in range(1, count + 1)]


def test_looking_again_changes_nothing(scene) -> None:
    scene.send(*series())
    scene.look(0.5)
    first = scene.ledger.jobs()
    for _ in range(3):
        scene.look(100)

    assert scene.ledger.jobs() == first
    assert len(first) == 1


def test_a_restart_goes_on_with_quiet_periods_from_zero(scene) -> None:
    scene.send(*series(2))
    scene.look(0.5)
    scene.restart()

    scene.look(0.5)
    assert scene.state() is SeriesState.RECEIVING
    scene.look(0.2)
    assert scene.state() is SeriesState.COMPLETE


def test_a_series_that_was_complete_before_a_restart_is_decided_after_it(scene) -> None:
    scene.send(*series())
    seen = scene.ledger.series("1.2.3.2")
    scene.ledger.advance_series(seen, SeriesEvent.WHOLE, "all there")
    scene.restart()
    scene.look()

    assert len(scene.ledger.jobs()) == 1


def test_an_incomplete_series_without_a_decision_gets_one_after_a_restart(scene) -> None:
    scene.send(*series())
    seen = scene.ledger.series("1.2.3.2")
    scene.ledger.advance_series(seen, SeriesEvent.DEADLINE_PASSED, "a slice is missing")
    scene.restart()
    scene.look()

    (job,) = scene.ledger.jobs()
    assert (job.state, job.reason) == (
        JobState.HELD,
        "the series is incomplete: a slice is missing",
    )


def test_routes_that_a_crash_left_unjudged_are_judged_after_a_restart(tmp_path) -> None:
    """The process died between two decisions about one series."""
    second = {**CONTOURS, "name": "again", "settings": {}, "destinations": ["pacs"], "priority": 10}
    scene = Scene(tmp_path, routes=[CONTOURS, second])
    scene.send(*series())
    decider = scene.coordinator._decider
    judged = decider._decide_route

    def dies_after_one(*arguments, **named):
        judged(*arguments, **named)
        raise SystemExit

    decider._decide_route = dies_after_one
    with pytest.raises(SystemExit):
        scene.look(0.5)
    scene.restart()
    scene.look()

    routes = {d.route for d in scene.ledger.decisions([DecisionState.JOB])}
    assert routes == {"contours", "again"}
    assert not scene.ledger.decisions([DecisionState.WAITING])
    scene.store.close()


def test_the_deadline_makes_a_gap_visible_once(scene) -> None:
    scene.send(*series()[:2], *series()[3:])
    scene.look(599)
    assert scene.state() is SeriesState.RECEIVING
    scene.look(2)

    assert scene.state() is SeriesState.INCOMPLETE
    (job,) = scene.ledger.jobs()
    assert job.hint == "send what is missing; or release the job to run it as it is"
    for _ in range(3):
        scene.look(1000)
    assert len(scene.ledger.jobs()) == 1


def test_a_series_that_no_route_takes_says_why_for_each(scene) -> None:
    slices = series()
    for ds in slices:
        ds.Manufacturer, ds.ManufacturerModelName = "ELEKTA", "XVI"
    scene.send(*slices)
    scene.look(0.5)

    (decision,) = scene.ledger.decisions([DecisionState.NONE])
    assert decision.reason == "contours: the kind is not CT"


def test_one_series_that_cannot_be_judged_does_not_stop_the_others(scene, monkeypatch) -> None:
    real = coordinator.examine

    def examine(kind, instances, *rest, **named):
        if instances[0].header.series_instance_uid == "1.2.3.2":
            raise ZeroDivisionError
        return real(kind, instances, *rest, **named)

    monkeypatch.setattr(coordinator, "examine", examine)
    scene.send(*series())
    scene.send(*series(uid="1.2.3.5", patient="P5"), association="0000abce")
    scene.look(0.5)

    assert scene.state() is SeriesState.INCOMPLETE
    assert "could not judge" in scene.ledger.series("1.2.3.2").reason
    assert len(scene.ledger.jobs()) == 1


def test_the_input_of_another_patient_is_not_waited_for_silently(tmp_path) -> None:
    scene = Scene(tmp_path, routes=[DOSE])
    dose = ct(1, series="1.2.7.1")
    dose.SOPClassUID, dose.Modality = "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE"
    scene.send(dose)
    scene.look(0.5)
    assert len(scene.ledger.decisions([DecisionState.WAITING])) == 1
    scene.look(601)

    (job,) = scene.ledger.jobs()
    assert job.state is JobState.HELD
    assert (
        job.reason == "no structure set of this patient is in the frame of reference of the trigger"
    )
    scene.store.close()


def test_a_conflict_holds_the_job(scene) -> None:
    """A9: both contents are kept, the job is held, nothing is chosen silently."""
    scene.send(*series(), ct(3, pixel=7))
    scene.look(0.5)

    (job,) = scene.ledger.jobs()
    assert job.state is JobState.HELD
    assert "arrived twice with different content" in job.reason
