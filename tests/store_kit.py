"""Doubles and small data sets for the tests of the durable store."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items

from node.domain import AETitle, JobInput, NewJob, ResultFile, Series, Source, Uid
from node.lifecycle import SeriesEvent
from node.store.files import ARRIVALS, Limits, SystemFileOps
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, Buffer, prefix
from node.store.records import DecisionState
from node.store.store import Store, StoreOptions, open_store
from tests.postgres_kit import database_for

CT = "1.2.840.10008.5.1.4.1.1.2"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY = "1.2.3.1"
SERIES = "1.2.3.2"
ROOMY = StoreOptions(limits=Limits(min_free=0, warn_free=0), busy_timeout_s=0.2)


class FakeClock:
    """A clock that moves when told, and a little with each look, so that times are ordered."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> datetime:
        self.elapsed += 1e-3
        return datetime(2026, 11, 20, 12, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds


class RecordingOps(SystemFileOps):
    """Writes down, in order, what was made durable."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.links: list[tuple[str, str, str]] = []

    def create(self, path: Path) -> int:
        self.log.append(("name", str(path)))
        return super().create(path)

    def link(self, old: Path, new: Path) -> None:
        super().link(old, new)
        self.links.append(("link", str(old), str(new)))
        self.log.append(("link", str(old)))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.log.append(("removed", str(path)))

    def write_new(self, path: Path, chunks: Iterable[Buffer]) -> None:
        super().write_new(path, chunks)
        self.log.append(("file", str(path)))

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        self.log.append(("data", opened_as(descriptor)))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.log.append(("directory", str(path)))


class FailingOps(SystemFileOps):
    """Fails as a broken or full disk does, after the call did its work or half of it."""

    def __init__(self) -> None:
        self.write_error = 0
        self.directory_error = 0
        self.free: int | None = None

    def write_new(self, path: Path, chunks: Iterable[Buffer]) -> None:
        if self.write_error:
            path.write_bytes(b"half")
            raise OSError(self.write_error, os.strerror(self.write_error), str(path))
        super().write_new(path, chunks)

    def write_at(self, descriptor: int, data: Buffer, position: int) -> None:
        if self.write_error:
            os.pwrite(descriptor, bytes(data)[:10], position)
            raise OSError(self.write_error, os.strerror(self.write_error))
        super().write_at(descriptor, data, position)

    def sync_directory(self, path: Path) -> None:
        if self.directory_error:
            raise OSError(self.directory_error, os.strerror(self.directory_error), str(path))
        super().sync_directory(path)

    def free_bytes(self, path: Path) -> int:
        return super().free_bytes(path) if self.free is None else self.free


class ForgettingOps(SystemFileOps):
    """A disk that loses, at a power cut, every entry and every content that was not synced."""

    def __init__(self) -> None:
        self.unsynced: dict[Path, set[Path]] = {}
        self.torn: set[Path] = set()
        """Files whose name may be durable, and whose bytes are not."""

    def create(self, path: Path) -> int:
        self.unsynced.setdefault(path.parent, set()).add(path)
        return super().create(path)

    def write_at(self, descriptor: int, data: Buffer, position: int) -> None:
        super().write_at(descriptor, data, position)
        self.torn.add(Path(opened_as(descriptor)))

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        self.torn.discard(Path(opened_as(descriptor)))

    def write_new(self, path: Path, chunks: Iterable[Buffer]) -> None:
        super().write_new(path, chunks)
        self.torn.discard(path)

    def link(self, old: Path, new: Path) -> None:
        super().link(old, new)
        self.unsynced.setdefault(new.parent, set()).add(new)

    def make_directory(self, path: Path) -> None:
        if not path.exists():
            self.unsynced.setdefault(path.parent, set()).add(path)
        super().make_directory(path)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.unsynced.pop(path, None)

    def cut(self, disk: Path, folder: Path) -> None:
        """Make of `disk`, a copy of `folder`, what would be left of it after a power cut now."""
        for path in self.torn:
            if (there := disk / path.relative_to(folder)).exists():
                os.truncate(there, there.stat().st_size // 2)
        for entry in set().union(*self.unsynced.values()):
            gone = disk / entry.relative_to(folder)
            if gone.is_dir():
                shutil.rmtree(gone)
            else:
                gone.unlink(missing_ok=True)


def opened_as(descriptor: int) -> str:
    """Return the path of an open file."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def store(
    folder: Path,
    *,
    clock: FakeClock | None = None,
    ops: SystemFileOps | None = None,
    options: StoreOptions = ROOMY,
    on_change: Callable[[], None] = lambda: None,
    rebuilding: bool = False,
) -> Store:
    """Open a store that refuses nothing for lack of space."""
    if options.database_url is None and (url := database_for(folder)):
        options = replace(options, database_url=url)
    return open_store(
        folder,
        clock=clock or FakeClock(),
        options=options,
        ops=ops,
        on_change=on_change,
        rebuilding=rebuilding,
    )


def source(association_id: str = "0000abcd", calling: str = "CTSIM1") -> Source:
    return Source(
        calling_ae_title=AETitle(calling),
        called_ae_title=AETitle("RTNODE"),
        address="10.0.0.1",
        association_id=association_id,
    )


def ct(number: int = 1, *, series: str = SERIES, patient: str = "P1", pixel: int = 0) -> Dataset:
    """Return a CT slice of 4 × 4 pixels at z = 3 mm × `number`."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CT
    ds.SOPInstanceUID = f"{series}.{number}"
    ds.Modality = "CT"
    ds.Manufacturer = "SIEMENS"
    ds.SeriesDescription = "Thorax 3.0"
    ds.PatientName = "CANARY^NAME"
    ds.PatientID = patient
    ds.PatientBirthDate = "19010203"
    ds.SliceThickness = 3
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = series
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [-10, -20, 3 * number]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = "1.2.3.9"
    ds.Rows = 4
    ds.Columns = 4
    ds.PixelSpacing = [0.9, 0.8]
    ds.BitsAllocated = 16
    ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.RescaleIntercept = -1024
    ds.RescaleSlope = 1
    ds.add_new(0x7FE00010, "OW", bytes([pixel, 0]) * 16)
    return ds


def structure_set(images: Sequence[str], *, sop: str = "1.2.4.1", series: str = SERIES) -> Dataset:
    """Return a structure set whose one frame references `images` of `series`."""
    ds = Dataset()
    ds.SOPClassUID = RTSTRUCT
    ds.SOPInstanceUID = sop
    ds.Modality = "RTSTRUCT"
    ds.PatientID = "P1"
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = "1.2.4"
    frame, study, of_series, roi, contour = (Dataset() for _ in range(5))
    of_series.SeriesInstanceUID = series
    of_series.ContourImageSequence = Items([_image(uid) for uid in images])
    study.RTReferencedSeriesSequence = Items([of_series])
    frame.FrameOfReferenceUID = "1.2.3.9"
    frame.RTReferencedStudySequence = Items([study])
    ds.ReferencedFrameOfReferenceSequence = Items([frame])
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.ContourImageSequence = Items([_image(uid) for uid in images])
    roi.ContourSequence = Items([contour])
    ds.ROIContourSequence = Items([roi])
    return ds


def _image(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CT
    item.ReferencedSOPInstanceUID = uid
    return item


def encode(ds: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """Return the bytes of a data set."""
    stream = DicomBytesIO()
    stream.is_implicit_VR = implicit
    stream.is_little_endian = little
    write_dataset(stream, ds)
    return bytes(stream.getvalue())


def part10(ds: Dataset) -> bytes:
    """Return a DICOM file."""
    head = prefix(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    return head + encode(ds)


def push(into: Store, ds: Dataset, association_id: str = "0000abcd"):
    """Hand a data set to the intake as C-STORE does."""
    return into.intake.accept(
        encode(ds),
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        source=source(association_id),
    )


def complete(into: Store, slices: int = 2, series: str = SERIES) -> Series:
    """Push a series and declare it complete."""
    for number in range(1, slices + 1):
        push(into, ct(number, series=series))
    seen = into.ledger.series(series)
    assert seen is not None
    done = into.ledger.advance_series(seen, SeriesEvent.WHOLE, "all slices are here")
    assert done is not None
    return done


def new_job(into: Store, seen: Series, **changes) -> NewJob:
    """Return a job on all instances of a series."""
    values = {
        "route": "thorax",
        "pipeline": "autocontour",
        "pipeline_version": "1",
        "settings_json": json.dumps({}),
        "destinations": ("pacs",),
        "priority": 50,
        "series_instance_uid": seen.series_instance_uid,
        "series_revision": seen.revision,
        "inputs": tuple(
            JobInput(
                role="CT",
                sop_instance_uid=i.header.sop_instance_uid,
                sha256=i.sha256,
                path=i.path,
            )
            for i in into.ledger.instances(seen.series_instance_uid)
        ),
        "start_reason": "geometry is whole",
        "correlation": "0000abcd",
    }
    return NewJob(**(values | changes))


def start_job(into: Store, slices: int = 2, series: str = SERIES, **changes) -> int:
    """Push a series and record the decision that starts a job; return its number."""
    seen = complete(into, slices, series)
    decision = into.ledger.record_decision(
        seen,
        route="thorax",
        state=DecisionState.JOB,
        reason="matches",
        job=new_job(into, seen, **changes),
    )
    assert decision is not None
    assert decision.job_id is not None
    return decision.job_id


def result_file(folder: Path, number: int = 1, *, pixel: int = 0) -> ResultFile:
    """Write a derived object into a work folder."""
    ds = ct(number, series="1.2.99", pixel=pixel)
    path = folder / f"{number}-{pixel}.dcm"
    path.write_bytes(part10(ds))
    return ResultFile(
        path=path,
        sop_class_uid=Uid(CT),
        sop_instance_uid=Uid(ds.SOPInstanceUID),
        series_instance_uid=Uid(ds.SeriesInstanceUID),
        modality="CT",
    )


def claim(into: Store, owner: str = "slot-0"):
    """Claim a job that must be there."""
    job = into.ledger.claim_job(owner=owner, lease_s=30)
    assert job is not None
    return job


def finish(into: Store, folder: Path, results: int = 1, **changes) -> bool:
    """Claim a job and finish it with some results."""
    job = claim(into)
    files = [result_file(folder, n) for n in range(1, results + 1)]
    return into.ledger.finish_job(job.id, job.token, files, findings=[], figures={}, **changes)


def blobs(folder: Path) -> list[Path]:
    """Return all blob files of a data folder; what is still arriving is none."""
    return sorted(p for p in (folder / "blobs").glob("*/*") if p.parent.name != ARRIVALS)


def arrivals(folder: Path) -> list[Path]:
    """Return the files of what is arriving, or has no row yet."""
    names = (folder / "blobs" / ARRIVALS).iterdir()
    return sorted(path for path in names if path.stat().st_size)
