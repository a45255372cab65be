"""The numbers for Prometheus: right, well formed, without UIDs or names."""

import re
from pathlib import Path

import pytest

from node.config.load import load
from node.metrics import METRICS, prometheus, snapshot
from tests import store_kit
from tests.conftest import ROOT
from tests.store_kit import FakeClock, finish, start_job

LINE = re.compile(r'^(rtnode_[a-z0-9_]+)(\{(?:[a-z]+="[^"\n]*",?)+\})? (-?[0-9.e+-]+)$')


@pytest.fixture
def scrape(tmp_path: Path) -> dict[str, float]:
    """Return what a node with one finished and one waiting job tells: name and labels -> value."""
    (tmp_path / "config.yaml").write_text('node: {ae_titles: ["RTNODE"], data_dir: data}\n')
    config = load(tmp_path / "config.yaml")
    with store_kit.store(config.node.data_dir, clock=FakeClock()) as store:
        start_job(store, slices=3)
        assert finish(store, tmp_path, results=2)
        start_job(store, series="1.2.4", slices=2)
        text = prometheus(snapshot(config, store.ledger))
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            found = LINE.match(line)
            assert found is not None, line
            values[found[1] + (found[2] or "")] = float(found[3])
    return values


def test_objects_jobs_and_deliveries_are_counted(scrape: dict[str, float]) -> None:
    assert scrape["rtnode_instances_total"] == 5
    assert scrape['rtnode_jobs{pipeline="autocontour",state="COMPLETED"}'] == 1
    assert scrape['rtnode_jobs{pipeline="autocontour",state="SCHEDULED"}'] == 1
    assert scrape['rtnode_deliveries{destination="pacs",state="PENDING"}'] == 2
    assert scrape['rtnode_waiting{kind="delivery",name="pacs"}'] == 2
    assert scrape['rtnode_series{state="COMPLETE"}'] == 2


def test_durations_are_a_summary_of_finished_attempts(scrape: dict[str, float]) -> None:
    assert scrape['rtnode_job_seconds_count{pipeline="autocontour"}'] == 1
    took = scrape['rtnode_job_seconds{pipeline="autocontour",quantile="0.5"}']
    assert took == scrape['rtnode_job_seconds_sum{pipeline="autocontour"}'] > 0


def test_a_node_that_is_down_says_so_and_nothing_held_is_a_zero(scrape: dict[str, float]) -> None:
    assert scrape["rtnode_running"] == 0
    assert scrape['rtnode_held{kind="job"}'] == 0


def test_no_label_holds_a_uid_or_a_patient(scrape: dict[str, float]) -> None:
    labels = " ".join(name.partition("{")[2] for name in scrape)

    assert re.search(r"\d+\.\d+\.\d+", labels) is None
    assert "CANARY" not in labels


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_documented(metric) -> None:
    text = (ROOT / "docs/monitoring/README.md").read_text(encoding="utf-8")

    assert f"| `{metric.name}` | {metric.kind} | {metric.meaning} |" in text


def test_every_alert_and_panel_asks_for_a_metric_that_exists() -> None:
    known = {metric.name for metric in METRICS}
    for name in ("alerts.yaml", "grafana.json"):
        text = (ROOT / "docs/monitoring" / name).read_text(encoding="utf-8")
        asked = set(re.findall(r"rtnode_[a-z0-9_]+", text))
        assert asked, name
        assert {re.sub("_(sum|count)$", "", a) for a in asked} <= known
