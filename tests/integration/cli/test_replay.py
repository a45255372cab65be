"""``rtnode replay``: a recorded job again, beside the ledger."""

from pathlib import Path

import pydicom
import pytest

from node import worker
from node.cli.exits import Exit
from node.domain import ResultFile, Uid
from pipelines.catalog import PIPELINES
from tests import fake_worker
from tests.integration.cli.conftest import Site
from tests.store_kit import claim, start_job


@pytest.fixture
def recorded(empty_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a site with a scheduled job 1 of the fast pipeline."""
    monkeypatch.setattr(worker, "load", lambda name: fake_worker.run)
    monkeypatch.setattr(fake_worker, "TELL", {})
    with empty_site.store() as store:
        start_job(store, pipeline_version=PIPELINES["autocontour"].version)
    return empty_site


def finish_with(site: Site, made: Path) -> None:
    """Record an object as the result of job 1."""
    ds = pydicom.dcmread(made)
    result = ResultFile(
        path=made,
        sop_class_uid=Uid(ds.SOPClassUID),
        sop_instance_uid=Uid(ds.SOPInstanceUID),
        series_instance_uid=Uid(ds.SeriesInstanceUID),
        modality="RTSTRUCT",
    )
    with site.store() as store:
        job = claim(store)
        assert store.ledger.finish_job(job.id, job.token, [result], findings=[], figures={})


def test_a_job_that_made_nothing_yet_is_run_and_its_result_is_new(
    recorded: Site, tmp_path: Path
) -> None:
    code, out, _ = recorded.invoke("replay", "1", str(tmp_path / "again"))

    assert code == Exit.DONE
    assert out.startswith("not made before")
    assert (tmp_path / "again" / "fake.dcm").exists()


def test_the_same_job_makes_the_same_bytes(recorded: Site, tmp_path: Path) -> None:
    recorded.invoke("replay", "1", str(tmp_path / "first"))
    finish_with(recorded, tmp_path / "first" / "fake.dcm")

    code, out, _ = recorded.invoke("replay", "1", str(tmp_path / "again"))

    assert code == Exit.DONE
    assert out.startswith("identical")


def test_other_bytes_under_the_same_uid_are_told(recorded: Site, tmp_path: Path) -> None:
    recorded.invoke("replay", "1", str(tmp_path / "first"))
    other = tmp_path / "other.dcm"
    ds = pydicom.dcmread(tmp_path / "first" / "fake.dcm")
    ds.StructureSetLabel = "OTHER"
    ds.save_as(other)
    finish_with(recorded, other)

    code, out, _ = recorded.invoke("replay", "1", str(tmp_path / "again"))

    assert code == Exit.FAILED
    assert out.startswith("DIFFERENT")


def test_a_job_whose_inputs_are_refused_says_why(
    recorded: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_worker, "TELL", {"fail": "reject"})

    code, _, err = recorded.invoke("replay", "1", str(tmp_path / "again"))

    assert code == Exit.FAILED
    assert "a slice is missing between 27.0 and 33.0 mm" in err


@pytest.mark.parametrize(
    ("job", "words"), [("7", "there is no job 7"), ("1", "is not empty")], ids=["unknown", "full"]
)
def test_what_cannot_be_replayed_is_a_usage_error(
    recorded: Site, tmp_path: Path, job: str, words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()

    code, _, err = recorded.invoke("replay", job, str(tmp_path / "full"))

    assert code == Exit.USAGE
    assert words in err
