"""A data folder as a node leaves it: one series, and a job held for a person."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.cli.main import main
from node.clock import SystemClock
from node.domain import AETitle, JobInput, NewJob, ResultFile, Source, Uid
from node.lifecycle import SeriesEvent
from node.store.records import DecisionState
from node.store.store import Store, open_store

EXPLICIT = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
NAME, IDENTIFIER = "CANARY^GRETA", "ID-4711-CANARY"
SOURCE = Source(
    calling_ae_title=AETitle("LINAC1"),
    called_ae_title=AETitle("RTNODE"),
    address="192.0.2.7",
    association_id="8f2a01cc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A configured data folder; the node is down."""

    config: Path
    data_dir: Path

    def invoke(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command on this configuration; return exit code, output and error output."""
        result = CliRunner().invoke(main, [*arguments, "-c", str(self.config)])
        return result.exit_code, result.stdout, result.stderr

    def store(self) -> Store:
        return open_store(self.data_dir, clock=SystemClock())


@pytest.fixture
def empty_site(tmp_path: Path) -> Site:
    config = tmp_path / "config.yaml"
    config.write_text('node: {ae_titles: ["RTNODE"], host: 127.0.0.1, data_dir: data}\n')
    return Site(config=config, data_dir=tmp_path / "data")


@pytest.fixture
def site(empty_site: Site) -> Iterator[Site]:
    """Return a site with job 1 HELD and job 2 SCHEDULED."""
    with empty_site.store() as store:
        _receive(store)
        for route, held in (("contours", ("a slice is missing", "send it again")), ("other", None)):
            _decide(store, route, held)
    return empty_site


@pytest.fixture
def refused_site(empty_site: Site) -> Site:
    """Return a site whose job is COMPLETED and whose delivery 1 to the PACS is HELD."""
    with empty_site.store() as store:
        _receive(store)
        _decide(store, "contours", None)
        job = store.ledger.claim_job(owner="test", lease_s=60)
        assert job is not None
        path = empty_site.config.parent / "result.dcm"
        image("1.2.3.9").save_as(path, enforce_file_format=True)
        result = ResultFile(
            path=path,
            sop_class_uid=Uid(CT),
            sop_instance_uid=Uid("1.2.3.9"),
            series_instance_uid=Uid("1.2.3"),
            modality="CT",
        )
        assert store.ledger.finish_job(job.id, job.token, [result], findings=[], figures={})
        (delivery,) = store.ledger.claim_deliveries("pacs", 1)
        store.ledger.delivery_failed(
            delivery.id, transient=False, status=0xA900, reason="refused", hint="look at its log"
        )
    return empty_site


def image(uid: str = "1.2.3.4") -> Dataset:
    """Return a CT slice without pixels that names a patient."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2", "1.2.3"
    ds.Modality, ds.PatientName, ds.PatientID = "CT", NAME, IDENTIFIER
    ds.file_meta = FILE_META
    return ds


FILE_META = Dataset()
FILE_META.MediaStorageSOPClassUID = CT
FILE_META.TransferSyntaxUID = EXPLICIT


def _receive(store: Store) -> None:
    store.intake.association_opened(SOURCE)
    ds = image()
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, ds)
    store.intake.accept(
        encoded.getvalue(),
        transfer_syntax_uid=EXPLICIT,
        sop_class_uid=CT,
        sop_instance_uid=str(ds.SOPInstanceUID),
        source=SOURCE,
    )
    store.intake.association_ended("8f2a01cc", end="RELEASED", received=1, refused=0)
    series = store.ledger.series("1.2.3")
    assert series is not None
    assert store.ledger.advance_series(series, SeriesEvent.WHOLE, "all there")


def _decide(store: Store, route: str, held: tuple[str, str] | None) -> None:
    series = store.ledger.series("1.2.3")
    assert series is not None
    (instance,) = store.ledger.instances("1.2.3")
    job = NewJob(
        route=route,
        pipeline="autocontour",
        pipeline_version="0.1.0",
        settings_json="{}",
        destinations=("pacs",),
        priority=50,
        series_instance_uid=series.series_instance_uid,
        series_revision=series.revision,
        inputs=(
            JobInput(
                role="CT",
                sop_instance_uid=instance.header.sop_instance_uid,
                sha256=instance.sha256,
                path=instance.path,
            ),
        ),
        start_reason="all there",
        correlation="8f2a01cc",
        held=held,
        revision=1 if held else 0,
    )
    state = DecisionState.HELD if held else DecisionState.JOB
    assert store.ledger.record_decision(series, route=route, state=state, reason="r", job=job)
