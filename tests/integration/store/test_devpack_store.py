"""Real and broken files from many vendors through the door."""

from collections import Counter
from pathlib import Path

import pytest

from node.domain import Kept
from node.errors import CannotUnderstand
from node.store.header import read_header
from tests.store_kit import source, store

pytestmark = [pytest.mark.devpack, pytest.mark.filterwarnings("ignore::UserWarning")]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["dev_odd_dicom", "dev_4dct_light", "dev_mr_prostatex_t2"])
def test_every_file_gets_an_answer_and_every_refusal_a_reason(devpack, tmp_path, name):
    answers: Counter[Kept] = Counter()
    refusals = []
    with store(tmp_path) as opened:
        for path in files(devpack / name):
            try:
                answers[opened.intake.accept_file(path, source()).kept] += 1
            except CannotUnderstand as error:
                refusals.append(error)
        counts = opened.ledger.counts()

        assert opened.ledger.verify() == []
        assert answers[Kept.STORED] > 0
        assert counts.instances == answers[Kept.STORED] + answers[Kept.CONFLICT]
        assert all(str(error) and "quarantine" in error.advice for error in refusals)
        assert {str(e) for e in refusals} == {q.reason for q in opened.ledger.quarantined(1000)}


def test_the_thorax_is_joined_by_references(devpack, tmp_path):
    with store(tmp_path) as opened:
        for path in files(devpack / "dev_lung1_001_thorax"):
            if path.suffix == ".dcm":
                opened.intake.accept_file(path, source())
        ledger = opened.ledger
        by_modality = {}
        for series in ledger.recent_series():
            by_modality.setdefault(series.modality, []).append(series)
        planning = max(by_modality["CT"], key=lambda s: s.count)

        assert planning.count == 134
        assert ledger.referenced_images(planning.series_instance_uid) == {
            i.header.sop_instance_uid for i in ledger.instances(planning.series_instance_uid)
        }
        (structures,) = ledger.instances(by_modality["RTSTRUCT"][0].series_instance_uid)
        (plan,) = ledger.referencing("STRUCTURE_SET", structures.header.sop_instance_uid)
        (dose,) = ledger.referencing("PLAN", plan.header.sop_instance_uid)
        assert (plan.header.modality, dose.header.modality) == ("RTPLAN", "RTDOSE")
        assert len({s.patient_key for group in by_modality.values() for s in group}) == 1


def test_a_console_export_of_points_is_told_from_contours(devpack):
    (path,) = (devpack / "dev_obi_cbct_catphan_pelvis").rglob("RS.*")

    assert read_header(path).keywords["ContourGeometricType"] == ["POINT"]
