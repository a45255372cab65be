"""A whole node for the integration tests: configuration, senders, and things to wait for."""

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from node.config.model import Config
from node.service import Node
from tests.store_kit import CT, RTSTRUCT

ROOT = Path(__file__).resolve().parent.parent
FAKE_WORKER = (sys.executable, str(ROOT / "tests" / "fake_worker.py"))
STORAGE = (
    CT,
    RTSTRUCT,
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.5.1.4.1.1.66.1",
)
CONTOURS = {
    "name": "contours",
    "match": {"kind": ["CT"]},
    "pipeline": "autocontour",
    "destinations": ["pacs"],
}
SYNTHETIC = {
    "name": "sct",
    "match": {"kind": ["CBCT"]},
    "pipeline": "synthetic_ct",
    "destinations": ["pacs"],
}
DOSE = {
    "name": "dose",
    "match": {"kind": ["RTDOSE"]},
    "pipeline": "dose_radiomics",
    "destinations": ["pacs"],
}


def settings(data_dir: Path, pacs_port: int, *, routes: Sequence[dict] = (CONTOURS,), **sections):
    """Return a configuration tree for a node on a free port, with short quiet periods.

    `sections` are merged into those here; peers are replaced.
    """
    tree = {
        "node": {
            "ae_titles": ["RTNODE"],
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": str(data_dir),
        },
        "storage": {"warn_free_gb": 0.0, "min_free_gb": 0.0},
        "receive": {
            "unknown_peers": "accept",
            "quiet_period_s": 0.6,
            "quiet_period_open_s": 2.0,
            "hold_after_s": 60.0,
        },
        "peers": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}},
        "routes": list(routes),
        "pipelines": {"retry_first_s": 0.2, "retry_max_s": 0.4},
        "delivery": {"first_s": 0.2, "max_s": 1.0},
    }
    for name, section in sections.items():
        merged = name in tree and name != "peers"
        tree[name] = {**tree[name], **section} if merged else section
    return tree


def config(data_dir: Path, pacs_port: int, **changes) -> Config:
    return Config.model_validate_json(json.dumps(settings(data_dir, pacs_port, **changes)))


def node(data_dir: Path, pacs_port: int, **changes) -> Node:
    """Return a node, not started, whose child processes run the fake pipelines."""
    return Node(config(data_dir, pacs_port, **changes), worker=FAKE_WORKER)


def send(
    port: int,
    objects: Sequence[Dataset],
    *,
    calling: str = "CTSIM1",
    abort: bool = False,
    between: Callable[[int], None] = lambda sent: None,
) -> list[int]:
    """Send data sets over one association; return the status of each.

    `abort` breaks the association off instead of releasing it; `between` is called after each.
    """
    ae = AE(ae_title=calling)
    for sop_class in STORAGE:
        ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", port, ae_title="RTNODE", evt_handlers=KEEP_RESPONSES)
    assert assoc.is_established
    statuses = []
    for ds in objects:
        statuses.append(int(assoc.send_c_store(_encodable(ds)).Status))
        between(len(statuses))
    if abort:
        assoc.abort()
    else:
        assoc.release()
    return statuses


def send_together(port: int, parts: Sequence[Sequence[Dataset]]) -> None:
    """Send each part over an association of its own, all at the same time."""
    begun = threading.Barrier(len(parts))

    def run(part: Sequence[Dataset]) -> None:
        begun.wait()
        assert set(send(port, part)) == {0}

    threads = [threading.Thread(target=run, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "") -> None:
    """Poll until `condition` holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or "the condition did not come true in time"
        time.sleep(0.02)


def _keep_responses(event) -> None:
    """Keep pynetdicom's reactor from dropping responses that it meets under load.

    Stock `send_c_store` loses a few of a thousand responses where processors are busy, then waits
    for its time-out and aborts: a fault of the sender that no test here is about.
    """
    dimse = event.assoc.dimse
    real = dimse.get_msg

    def get_msg(block: bool = False):
        if not block:
            _, message = dimse.peek_msg()
            if message is None or not message.is_valid_request:
                return None, None
        return real(block)

    dimse.get_msg = get_msg


KEEP_RESPONSES = [(evt.EVT_CONN_OPEN, _keep_responses)]
"""Handlers for every sender of the tests."""


def _encodable(ds: Dataset) -> Dataset:
    if not hasattr(ds, "file_meta"):
        from pydicom.dataset import FileMetaDataset  # noqa: PLC0415 - only bare data sets need it

        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
