"""The real child process with pipelines that take no time; `FAKE` tells them what to do.

``FAKE`` is a JSON object: ``sleep_s`` before the result, ``once`` a file that is made by the first
run, and ``fail`` one of ``reject``, ``crash``, ``exit``, ``kill``, ``memory``, ``loop``, ``leak``,
``block``, ``stranger`` or ``silent``; with ``once`` only the first run fails.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node import worker
from pipelines.api import (
    DerivedObject,
    Finding,
    InputRejected,
    Outcome,
    Request,
    Role,
    Severity,
)

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
TELL = json.loads(os.environ.get("FAKE", "{}"))


def run(request: Request) -> Outcome:
    """Write one small structure set into the study of the trigger, or fail as told."""
    first = _first_run()
    with Path(request.output, "began").open("w"):
        pass
    time.sleep(TELL.get("sleep_s", 0.0) if first else 0.0)
    fail = TELL.get("fail") if first else None
    if fail in _FAILURES:
        _FAILURES[fail]()
    trigger = [f for f in request.inputs.files if f.role in {Role.CT, Role.CBCT, Role.RTDOSE}]
    source = pydicom.dcmread(trigger[0].path, stop_before_pixels=True)
    ds = Dataset()
    ds.SOPClassUID = RTSTRUCT
    ds.SOPInstanceUID = request.provenance.uid("instance")
    ds.SeriesInstanceUID = request.provenance.uid("series")
    ds.StudyInstanceUID = source.StudyInstanceUID
    ds.PatientID = "somebody else" if fail == "stranger" else source.PatientID
    ds.Modality = "RTSTRUCT"
    ds.Manufacturer = "rtnode"
    ds.StructureSetLabel = "FAKE"
    path = request.output / "fake.dcm"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    (request.output / "report").mkdir()
    (request.output / "report" / "index.html").write_text("report")
    finding = Finding(
        code="fake", severity=Severity.BLOCK if fail == "block" else Severity.INFO, message="looked"
    )
    derived = DerivedObject(
        path=path,
        sop_class_uid=RTSTRUCT,
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        modality="RTSTRUCT",
    )
    return Outcome(
        objects=() if fail == "silent" else (derived,),
        findings=(finding,),
        figures={"inputs": len(request.inputs.files)},
    )


def _first_run() -> bool:
    """Tell whether no run was here before; without `once` every run is the first."""
    once = TELL.get("once")
    if not once:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _reject() -> None:
    raise InputRejected("a slice is missing between 27.0 and 33.0 mm")


def _crash() -> None:
    raise RuntimeError("CANARY^NAME must not be seen")


def _loop() -> None:
    while True:
        pass


def _leak() -> None:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


_FAILURES = {
    "reject": _reject,
    "crash": _crash,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "loop": _loop,
    "leak": _leak,
}

if __name__ == "__main__":
    worker.load = lambda name: run
    sys.exit(worker.main(sys.argv[1:]))
