"""Approved sets that come back: recognized, compared in a child, told when they differ."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from node.cli.main import main
from node.clock import SystemClock
from node.config.model import Limits
from node.config.notify import NotifySection
from node.drift import watch
from node.drift.watch import DriftWatch
from node.metrics import prometheus, snapshot
from node.notify import Notifier
from node.store.store import Store
from tests import node_kit, store_kit
from tests.drift_kit import approved, drifted
from tests.node_kit import config, settings, until
from tests.store_kit import FakeClock, push
from tests.web_kit import contoured_job


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Store]:
    with store_kit.store(tmp_path / "data") as into:
        yield into


def drift_of(store: Store, **changes: object) -> DriftWatch:
    return DriftWatch(store.ledger, FakeClock(), Limits(timeout_s=60, memory_mb=8192), **changes)


@pytest.mark.slow
def test_an_approved_set_is_scored_once_against_the_draft(opened: Store, tmp_path: Path) -> None:
    job = contoured_job(opened, tmp_path)
    push(opened, approved(moved_mm=4.0))
    drift = drift_of(opened)

    assert drift.look() == 1
    assert drift.look() == 0
    assert drift_of(opened).look() == 0

    (line,) = opened.ledger.acceptance_scores()
    assert (line.job_id, line.score.organ, line.score.theirs) == (job, "Body", "BODY")
    # Two discs of radius 40 mm, 4 mm apart: their overlap by the formula of the lens.
    half = 2.0 / 40.0
    lens = 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))
    assert line.score.dice == pytest.approx(lens, abs=0.01)
    assert line.score.volume_ml == pytest.approx(line.score.volume_theirs_ml, rel=0.01)
    assert not line.score.unchanged
    assert [e.action for e in opened.ledger.explain(f"job:{job}")][-1] == "approved_compared"


@pytest.mark.slow
def test_a_set_that_nobody_touched_is_marked(opened: Store, tmp_path: Path) -> None:
    contoured_job(opened, tmp_path)
    push(opened, approved())
    drift_of(opened).look()

    (line,) = opened.ledger.acceptance_scores()
    assert line.score.unchanged
    assert line.score.dice == line.score.surface_dice == 1.0


@pytest.mark.parametrize(
    "changes",
    [{"ApprovalStatus": "UNAPPROVED"}, {"PatientID": "somebody else"}],
    ids=["not approved", "another patient"],
)
def test_what_does_not_belong_to_a_draft_is_left_alone(
    opened: Store, tmp_path: Path, changes: dict
) -> None:
    contoured_job(opened, tmp_path)
    push(opened, approved(**changes))

    assert opened.ledger.comparable() == []


def test_a_draft_that_comes_after_the_approved_set_finds_it(opened: Store, tmp_path: Path) -> None:
    """A route in shadow mode may be tried on images that were contoured long ago."""
    push(opened, approved())
    drift = drift_of(
        opened, command=(sys.executable, "-c", 'input(); print(\'{"refused": "no"}\')')
    )
    assert drift.look() == 0
    contoured_job(opened, tmp_path)

    assert drift.look() == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("input(); print('no protocol')", "protocol"),
        ("import time; time.sleep(60)", "longer than 1 s"),
        ('input(); print(\'{"refused": "another frame"}\')', "another frame"),
    ],
    ids=["crash", "nonsense", "hangs", "refusal"],
)
def test_a_comparison_that_fails_is_kept_with_its_reason_and_not_tried_for_ever(
    opened: Store, tmp_path: Path, code: str, reason: str
) -> None:
    contoured_job(opened, tmp_path)
    push(opened, approved())
    limits = Limits(timeout_s=1, memory_mb=512)
    drift = DriftWatch(opened.ledger, SystemClock(), limits, command=(sys.executable, "-c", code))

    assert drift.look() == 1
    assert drift_of(opened).look() == 0
    (kept,) = opened.ledger.uncompared(10)
    assert reason in kept.reason
    assert opened.ledger.acceptance_scores() == []


def test_files_that_were_purged_are_told(opened: Store, tmp_path: Path) -> None:
    contoured_job(opened, tmp_path)
    push(opened, approved())
    (pair,) = opened.ledger.comparable()
    opened.ledger._database.write(
        lambda c: c.exec_driver_sql("UPDATE blob SET purged_at = CURRENT_TIMESTAMP").rowcount
    )

    drift_of(opened).look()

    assert "retention" in opened.ledger.uncompared(1)[0].reason
    assert not pair.missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drift")


@pytest.fixture(scope="module")
def drifting(folder: Path) -> Iterator[Store]:
    """Yield a store with a baseline around 0.9 and one value far below; these tests only look."""
    with store_kit.store(folder / "data") as into:
        contoured_job(into, folder)
        drifted(into)
        yield into


class Kept:
    """A channel that keeps what it was given."""

    def __init__(self) -> None:
        self.items: list = []

    def send(self, _title: str, items, _text: str) -> None:
        self.items += items


def test_people_are_told_of_drift_once(drifting: Store) -> None:
    channel = Kept()
    notifier = Notifier(
        drifting.ledger, NotifySection(every_s=0.001), FakeClock(), name="RTNODE",
        troubles=list, channels=[channel],
    )  # fmt: skip
    notifier.look()
    notifier.look()

    assert [i.title for i in channel.items] == ["Body of classical agrees otherwise than before"]
    assert "is worse than the limits" in channel.items[0].reason


def test_metrics_count_scores_and_alarms(drifting: Store, folder: Path) -> None:
    text = prometheus(snapshot(config(folder / "data", 1), drifting.ledger))

    assert "rtnode_drift_alarms 1\n" in text
    assert 'rtnode_approved_total{model="classical",organ="Body"} 21\n' in text
    assert 'rtnode_approved_unchanged_total{model="classical",organ="Body"} 0\n' in text


@pytest.fixture(scope="module")
def command(drifting: Store, folder: Path):
    """Return `rtnode drift` with options."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(settings(folder / "data", 1)))
    return lambda *options: CliRunner().invoke(main, ["drift", "-c", str(path), *options])


def test_the_command_shows_the_table_and_fails_on_drift(command) -> None:
    answer = command()

    assert answer.exit_code == 1
    assert "Body   classical  0.1.0" in answer.stdout
    assert "OUTSIDE" in answer.stdout
    assert "is worse than the limits 0.847 to 0.953 of its first 20" in answer.stdout


def test_the_command_prints_json_and_csv(command) -> None:
    told = json.loads(command("--json").stdout)
    rows = command("--csv").stdout.splitlines()

    assert told["alarms"][0]["organ"] == "Body"
    assert told["alarms"][0]["value"] == 0.5
    dice = next(c for c in told["charts"] if c["measure"] == "dice")
    assert dice["limits"]["center"] == pytest.approx(0.9)
    assert dice["outside"] == [20]
    assert len(rows) == 22
    assert rows[0].startswith("at,job,route,shadow,approved,model,version,organ,theirs,unchanged")


def test_without_scores_the_command_says_so(opened: Store, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings(tmp_path / "data", 1)))

    answer = CliRunner().invoke(main, ["drift", "-c", str(path)])

    assert answer.exit_code == 0
    assert "no approved structure set has come back" in answer.stdout


@pytest.mark.slow
def test_a_running_node_recognizes_an_approved_set_that_is_sent_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.2)
    with store_kit.store(tmp_path / "data") as before:
        contoured_job(before, tmp_path)
    with node_kit.node(tmp_path / "data", 1) as node:
        assert node_kit.send(node.port, [approved()], calling="TPS") == [0]
        until(node.store.ledger.acceptance_scores, 60, "the approved set was not compared")

        (line,) = node.store.ledger.acceptance_scores()
        assert line.score.unchanged
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and _is_child(p)]


def _is_child(process: Path) -> bool:
    """Tell whether a comparison of ours is left running."""
    try:
        words = (process / "cmdline").read_bytes()
        status = (process / "status").read_text()
    except OSError:
        return False
    return b"node.drift.child" in words and f"PPid:\t{os.getpid()}" in status
