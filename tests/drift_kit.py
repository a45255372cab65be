"""Approved structure sets and their scores, for tests of drift."""

from datetime import UTC, datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset

from node.domain import Uid
from node.drift.chart import BASELINE
from node.store.acceptance import Comparable, Score, ScoreLine
from node.store.store import Store
from tests.store_kit import push, structure_set
from tests.web_kit import contoured

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def approved(sop: str = "1.2.4.77", *, moved_mm: float = 0.0, **changes: object) -> Dataset:
    """Return the draft of `contoured_job` as a planning system sends it back."""
    ds = contoured(name="BODY")
    ds.SOPInstanceUID, ds.SeriesInstanceUID = sop, f"{sop}.1"
    ds.Manufacturer = "TPS"
    ds.ApprovalStatus = "APPROVED"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        points = np.asarray(contour.ContourData, float).reshape(-1, 3)
        points[:, 0] += moved_mm
        contour.ContourData = [f"{v:.3f}" for v in points.ravel()]
    return ds


def score(dice: float, organ: str = "Body", **changes: object) -> Score:
    """Return a score as a comparison finds it."""
    values = {
        "organ": organ, "theirs": organ.upper(), "model": "classical", "version": "0.1.0",
        "dice": dice, "surface_dice": dice, "hd95_mm": 10 * (1 - dice),
        "added_path_mm": 5000 * (1 - dice), "volume_ml": 100.0 * dice, "volume_theirs_ml": 100.0,
        "unchanged": dice == 1.0,
    }  # fmt: skip
    return Score(**(values | changes))


def record(into: Store, number: int, scores: list[Score], *, reason: str = "") -> None:
    """Let an approved set arrive and record what it scored against job 1, as the node would."""
    ds = structure_set(["1.2.3.2.1"], sop=f"1.2.5.{number}", series="1.2.3.2")
    ds.SeriesInstanceUID, ds.ApprovalStatus = f"1.2.5.{number}.1", "APPROVED"
    push(into, ds)
    (arrived,) = into.ledger.instances(f"1.2.5.{number}.1")
    pair = Comparable(
        sop_instance_uid=arrived.header.sop_instance_uid, sha256=arrived.sha256, job_id=1,
        approved=arrived.path, draft=arrived.path, images=(), missing=False,
    )  # fmt: skip
    into.ledger.record_acceptance(pair, scores, reason=reason)


def line(number: int, dice: float = 0.9, **changes) -> ScoreLine:
    """Return a score of Lung_L on day `number`."""
    shadow = changes.pop("shadow", False)
    values = {
        "organ": "Lung_L", "theirs": "Lung-Left", "model": "classical", "version": "0.1.0",
        "dice": dice, "surface_dice": 0.9, "hd95_mm": 3.0, "added_path_mm": 100.0,
        "volume_ml": 110.0, "volume_theirs_ml": 100.0, "unchanged": False,
    }  # fmt: skip
    return ScoreLine(
        number=number, at=BEGIN + timedelta(days=number), job_id=number, route="contours",
        shadow=shadow, sop_instance_uid=Uid(f"1.2.{number}"), score=Score(**(values | changes)),
    )  # fmt: skip


def baseline(**changes) -> list[ScoreLine]:
    """Return values that go up and down by 0.02 around 0.91: every moving range is 0.02."""
    return [line(n, 0.90 + 0.02 * (n % 2), **changes) for n in range(BASELINE)]


def drifted(into: Store) -> None:
    """Record a baseline around 0.9 for the job that is there, and one value far below."""
    for number in range(20):
        record(into, number, [score(0.89 + 0.02 * (number % 2))])
    record(into, 20, [score(0.5)])
