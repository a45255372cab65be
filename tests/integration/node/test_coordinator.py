"""Decisions over time: a ledger on disk, a clock that moves when told, no thread."""

import pytest
from sqlalchemy import event, select

from node.errors import LedgerError
from node.lifecycle import JobState, SeriesEvent, SeriesState
from node.routing import coordinator
from node.routing.coordinator import Coordinator
from node.store import schema
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

    def send(self, *objects, association="0000abcd", end="RELEASED", refused=0) -> None:
        self.store.intake.association_opened(source(association))
        for ds in objects:
            push(self.store, ds, association)
        self.store.intake.association_ended(
            association, end=end, received=len(objects), refused=refused
        )

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


def test_slices_that_we_refused_are_missing_even_where_the_others_lie_side_by_side(scene) -> None:
    """A4: the disk was full for the last two slices, and the sender released all the same."""
    scene.send(*series(6), refused=2)
    scene.look(30.0)
    assert scene.state() is SeriesState.RECEIVING

    scene.send(*series(8)[6:], association="0000abce")
    scene.look(30.0)
    assert scene.state() is SeriesState.COMPLETE


def test_slices_refused_on_associations_of_their_own_are_missing_too(scene) -> None:
    """One association an image: nothing of the last two came, so nothing names their series."""
    for number, slice_ in enumerate(series(8)):
        name = f"0000ab{number:02}"
        scene.send(*([slice_] if number < 6 else []), association=name, refused=int(number > 5))
    scene.look(60.0)
    assert scene.state() is SeriesState.RECEIVING

    for number, slice_ in enumerate(series(8)[6:]):
        scene.send(slice_, association=f"0000ac{number:02}")
    scene.look(60.0)
    assert scene.state() is SeriesState.COMPLETE


def test_what_another_sender_or_an_earlier_day_was_refused_holds_nobody_up(scene) -> None:
    scene.send(association="0000aaaa", refused=1)
    scene.clock.advance(3600)
    scene.store.intake.association_opened(source("0000aaab", calling="OTHER"))
    scene.send(*series(6))
    scene.store.intake.association_ended("0000aaab", end="RELEASED", received=0, refused=1)
    scene.look(60.0)

    assert scene.state() is SeriesState.COMPLETE


PULLED = {"kind": "series", "subject": "1.2.3.2", "peer": "CTSIM1"}


def test_a_pull_that_the_archive_did_not_complete_is_no_whole_series(scene) -> None:
    """The archive's association ends in order; only its answer to the C-MOVE tells."""
    scene.ledger.note("pull_began", **PULLED)
    scene.send(*series(6))
    scene.look(30.0)
    assert scene.state() is SeriesState.RECEIVING

    scene.ledger.note("pull_ended", **PULLED, failed=2)
    scene.look(30.0)
    assert scene.state() is SeriesState.RECEIVING

    scene.ledger.note("pull_began", **PULLED)
    scene.send(*series(8)[6:], association="0000abce")
    scene.ledger.note("pull_ended", **PULLED, failed=0)
    scene.look(30.0)
    assert scene.state() is SeriesState.COMPLETE


def test_a_pull_that_brought_nothing_holds_no_other_sender_up(scene) -> None:
    scene.send(*series(6))
    scene.ledger.note("pull_began", **{**PULLED, "peer": "PACS"})
    scene.ledger.note("pull_ended", **{**PULLED, "peer": "PACS"}, failed=3)
    scene.look(0.5)

    assert scene.state() is SeriesState.COMPLETE


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


def test_a_look_does_not_grow_with_what_was_received_and_decided_long_ago(scene) -> None:
    """Otherwise every look of a node that is a year old reads the whole ledger."""
    scene.send(*series())
    scene.look(0.5)
    first = steps_of(scene, scene.coordinator.look)
    old = dict(
        scene.store._database.read(lambda c: c.execute(select(schema.series)).one())._mapping
    )
    made = dict(
        scene.store._database.read(lambda c: c.execute(select(schema.decision)).one())._mapping
    )
    uids = [f"1.2.4.{n}" for n in range(5000)]

    def grow(connection) -> None:
        connection.execute(
            schema.series.insert(),
            [old | {"series_instance_uid": uid, "patient_key": f"p{uid}"} for uid in uids],
        )
        connection.execute(
            schema.decision.insert(),
            [made | {"id": None, "series_instance_uid": uid, "state": state}
             for state, uid in zip(["JOB", "NONE", "HELD"] * 5000, uids, strict=False)],
        )  # fmt: skip

    scene.store._database.write(grow)
    scene.send(*series(uid="1.2.3.5", patient="P5"), association="0000abce")
    scene.look(0.5)

    assert len(scene.ledger.jobs()) == 2
    assert steps_of(scene, scene.coordinator.look) <= first + 50


def test_news_of_one_patient_do_not_ask_about_the_held_series_of_all_others(scene) -> None:
    for number in range(12):
        uid = f"1.2.9.{number}"
        slices = series(4, uid=uid, patient=f"Q{number}")
        scene.send(*slices[:1], *slices[2:], association=f"00000a{number:02}")
    scene.look(700)
    scene.look(700)
    assert len(scene.ledger.decisions([DecisionState.HELD])) == 12
    asked = []
    real = scene.ledger.series
    scene.ledger.series = lambda uid: asked.append(uid) or real(uid)
    scene.send(*series(), association="0000abce")
    scene.look(0.5)

    assert not [uid for uid in asked if uid.startswith("1.2.9.")]


@pytest.fixture
def waiting(tmp_path):
    """Return a scene in which a dose waits for its structure set."""
    scene = Scene(tmp_path, routes=[DOSE])
    dose = ct(1, series="1.2.7.1")
    dose.SOPClassUID, dose.Modality = "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE"
    scene.send(dose)
    scene.look(0.5)
    assert len(scene.ledger.decisions([DecisionState.WAITING])) == 1
    yield scene
    scene.store.close()


def test_a_waiting_decision_that_cannot_be_judged_does_not_wait_for_ever(
    waiting, monkeypatch
) -> None:
    """A fault of ours in the second look must become visible, not a silent wait."""

    def fails(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(waiting.coordinator._decider, "reconsider", fails)
    waiting.look(601)
    waiting.look(601)

    assert not waiting.ledger.decisions([DecisionState.WAITING])
    (item,) = waiting.ledger.held()
    assert (item.kind, item.id) == ("series", "1.2.7.1")
    assert "could not judge" in item.reason
    assert "next start" in item.hint


def test_news_are_not_lost_when_the_database_refuses_in_the_middle_of_a_look(
    waiting, monkeypatch
) -> None:
    """The input arrived; a job that waits for it must not wait for the deadline."""
    judged = []
    monkeypatch.setattr(
        waiting.coordinator._decider, "reconsider", lambda d, **_: judged.append(d.route)
    )
    real = waiting.ledger.decisions

    def refuses(*_, **__):
        monkeypatch.setattr(waiting.ledger, "decisions", real)
        raise LedgerError("away")

    waiting.send(*series(), association="0000abce")
    waiting.coordinator.look()
    waiting.clock.advance(0.5)
    monkeypatch.setattr(waiting.ledger, "decisions", refuses)
    with pytest.raises(LedgerError):
        waiting.coordinator.look()
    waiting.coordinator.look()

    assert judged == ["dose"]


def test_a_series_over_which_the_node_stumbled_is_judged_by_its_next_start(
    scene, monkeypatch
) -> None:
    """An upgrade that mends the mistake takes up what the mistake left."""

    def fails(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(scene.coordinator._decider, "decide", fails)
        scene.send(*series())
        scene.look(0.5)
    assert [item.id for item in scene.ledger.held()] == ["1.2.3.2"]
    assert not scene.ledger.jobs()
    assert scene.ledger.verify() == []

    scene.restart()
    scene.look(0.5)
    scene.look(0.5)

    assert len(scene.ledger.jobs()) == 1
    assert scene.ledger.held() == []


def steps_of(scene, run) -> int:
    """Return how many hundreds of steps the database took for `run`."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    def on_checkout(connection, *_) -> None:
        connection.set_progress_handler(count, 100)

    reader = scene.store._database._reader
    event.listen(reader, "checkout", on_checkout)
    run()
    event.remove(reader, "checkout", on_checkout)
    return counted[0]
