"""A ledger that holds years: ingest, start and look at 0 and at many instances, in one run.

``.venv/bin/python -m benchmarks.ledger [--instances 100000] [--slices 200] [--repeats 5]
[--keep FOLDER]``; a folder that is kept is filled once and measured as often as one likes.

The large ledger is filled by SQL with series of 200 instances, their events, and empty files of
the right names, since the start compares names. Then the same slices are pushed through the
intake of the empty and of the large one, alternately; medians and their ratio are printed, of the
rate and of the processor time of the process, which other work on the machine moves less. One
thread, the whole acknowledge rule. The start is measured after a crash (the folder lock says so)
and after an orderly end.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from node.clock import SystemClock
from node.config.model import Config
from node.domain import AETitle, Source
from node.routing.coordinator import Coordinator
from node.store import schema
from node.store.files import FILES_PER_BUCKET, Limits
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from node.store.store import Store, StoreOptions, open_store
from tests.store_kit import ct, encode

PER_SERIES = 200
BATCH = 5_000
OPTIONS = StoreOptions(limits=Limits(min_free=0, warn_free=0))
KEYWORDS = {
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.9765625, 0.9765625],
    "Rows": 512, "Columns": 512, "SliceThickness": 2.5, "Modality": "CT", "KVP": 120,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Manufacturer": "Maker",
    "PatientPosition": "HFS", "SeriesDescription": "Thorax 2.5", "ConvolutionKernel": "B30f",
}  # fmt: skip


def fill(folder: Path, count: int) -> None:
    """Make a data folder with `count` instances of complete series on which nothing is to do."""
    open_store(folder, clock=SystemClock(), options=OPTIONS).close()
    store = open_store(folder, clock=SystemClock(), options=OPTIONS)
    begin = datetime.now(UTC) - timedelta(days=700)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        store._database.write(lambda c, n=numbers: _insert(c, n, begin))
        _touch(folder, numbers)
    store.close()


def _names(number: int) -> tuple[str, str]:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return digest, f"blobs/filled-{number // FILES_PER_BUCKET:05}/{digest}.dcm"


def _touch(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / _names(number)[1]
        if number % FILES_PER_BUCKET == 0:
            path.parent.mkdir(exist_ok=True)
        path.touch()


def _insert(connection: Connection, numbers: range, begin: datetime) -> None:
    blobs, instances, series, events = [], [], {}, []
    for number in numbers:
        digest, path = _names(number)
        uid = f"2.25.9.{number // PER_SERIES}"
        at = begin + timedelta(seconds=number)
        blobs.append({"sha256": digest, "path": path, "size": 525_000, "created_at": at,
                      "transfer_syntax_uid": EXPLICIT_VR_LITTLE_ENDIAN})  # fmt: skip
        shared = {"study_instance_uid": f"{uid}.1", "series_instance_uid": uid,
                  "modality": "CT", "patient_key": f"p{number // PER_SERIES // 20}"}  # fmt: skip
        instances.append(shared | {
            "sop_instance_uid": f"{uid}.2.{number}", "sha256": digest,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "frame_of_reference_uid": f"{uid}.3",
            "keywords": KEYWORDS | {"ImagePositionPatient": [0, 0, 2.5 * number]},
            "calling_ae_title": "CT", "called_ae_title": "RTNODE", "address": "192.0.2.1",
            "association_id": f"{number // PER_SERIES:08x}", "received_at": at, "conflict": False,
        })  # fmt: skip
        if uid not in series:
            series[uid] = shared | {
                "state": "COMPLETE", "revision": 0, "count": PER_SERIES, "reason": "filled",
                "first_received_at": at, "last_received_at": at,
            }  # fmt: skip
            events.append({"at": at, "action": "series_complete", "kind": "series", "subject": uid,
                           "correlation": "", "detail": {}})  # fmt: skip
    connection.execute(schema.blob.insert(), blobs)
    connection.execute(schema.instance.insert(), instances)
    connection.execute(schema.series.insert(), list(series.values()))
    connection.execute(schema.event.insert(), events)
    connection.execute(
        schema.decision.insert(),
        [
            {"series_instance_uid": uid, "series_revision": 0, "route": "", "state": "NONE",
             "reason": "no route", "first_at": begin}
            for uid in series
        ],
    )  # fmt: skip


def push(store: Store, name: str, contents: list[tuple[str, bytes]]) -> tuple[float, float]:
    """Push slices through the intake until each has its row; return slices a second, ms of CPU."""
    source = Source(calling_ae_title=AETitle("CT"), called_ae_title=AETitle("RTNODE"),
                    address="127.0.0.1", association_id=name)  # fmt: skip
    began, worked = time.perf_counter(), time.process_time()
    for uid, data in contents:
        store.intake.accept(
            data,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=uid,
            source=source,
        )
    store.intake.association_ended(name, end="RELEASED", received=len(contents), refused=0)
    rate = len(contents) / (time.perf_counter() - began)
    return rate, 1e3 * (time.process_time() - worked) / len(contents)


def slices(series: str, count: int) -> list[tuple[str, bytes]]:
    """Return UIDs and encoded data sets of 512 x 512 slices."""
    made = []
    for number in range(count):
        ds = ct(number, series=series, patient=series)
        ds.Rows = ds.Columns = 512
        ds.PixelData = bytes(512 * 512 * 2)
        made.append((str(ds.SOPInstanceUID), encode(ds)))
    return made


def start_s(folder: Path, *, crashed: bool) -> float:
    """Return how long an open takes; `crashed` lets the lock say that the last node died."""
    if crashed:
        (folder / "lock").write_text("running\n")
        (folder / "ledger.db-wal").touch()
    began = time.perf_counter()
    store = open_store(folder, clock=SystemClock(), options=OPTIONS)
    took = time.perf_counter() - began
    store.close()
    return took


def look_s(store: Store, folder: Path) -> float:
    """Return how long a look of the coordinator takes that finds nothing new. [s]."""
    config = Config.model_validate_json(
        json.dumps({"node": {"ae_titles": ["RTNODE"], "data_dir": str(folder)}})
    )
    coordinator = Coordinator(store.ledger, config, SystemClock())
    coordinator.look()
    return statistics.median(_timed(coordinator.look) for _ in range(5))


def _timed(run) -> float:  # noqa: ANN001 - anything that runs
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    place = chosen.keep or Path(tempfile.mkdtemp(prefix="rtnode-ledger-", dir=chosen.folder))
    try:
        for name, count in (("large", chosen.instances), ("empty", 0)):
            if not (place / name).exists():
                (place / name).mkdir(parents=True)
                fill(place / name, count)
        size = (place / "large" / "ledger.db").stat().st_size
        print(f"{chosen.instances} instances, database {size / 1e6:.0f} MB")
        for name in ("empty", "large"):
            first = start_s(place / name, crashed=True)
            again = start_s(place / name, crashed=False)
            print(f"start, {name}: {first:.2f} s after a crash, {again:.2f} s after an end")
        measure(place, chosen)
    finally:
        if chosen.keep is None:
            shutil.rmtree(place)


def measure(place: Path, chosen: argparse.Namespace) -> None:
    """Push into both ledgers in turn, then look at both."""
    found: dict[str, list[tuple[float, float]]] = {"empty": [], "large": []}
    stores = {n: open_store(place / n, clock=SystemClock(), options=OPTIONS) for n in found}
    run = time.monotonic_ns()  # a folder that is kept knows the series of the last run
    for repeat in range(chosen.repeats):
        for name, store in stores.items():
            contents = slices(f"2.25.7.{run}.{repeat}", chosen.slices)
            found[name].append(push(store, f"{repeat:08x}", contents))
    for number, unit in enumerate(("slices/s", "ms of CPU a slice")):
        middle = {}
        for name, runs in found.items():
            values = [one[number] for one in runs]
            middle[name] = statistics.median(values)
            print(f"ingest, {name}: {middle[name]:.2f} {unit}, median of {len(values)}"
                  f" ({min(values):.2f} to {max(values):.2f})")  # fmt: skip
        print(f"ingest, large / empty: {middle['large'] / middle['empty']:.2f} of {unit}")
    for name, store in stores.items():
        print(f"look of the coordinator, {name}: {look_s(store, place / name) * 1e3:.1f} ms")
        store.close()


if __name__ == "__main__":
    main(sys.argv[1:])
