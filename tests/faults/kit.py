"""The end of every fault: let the node settle, then ask the oracle and the archive."""

import hashlib
from collections.abc import Iterable

from pydicom.dataset import Dataset

from node.lifecycle import JobState
from node.service import Node
from node.store.ledger import Ledger
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from tests.integration.network.support import FakePeer
from tests.node_kit import until
from tests.store_kit import encode


def content_of(ds: Dataset) -> str:
    """Return the content identity that the node must have for what was sent (L1)."""
    return hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ds)).hexdigest()


def settle(node: Node, seconds: float = 30.0) -> None:
    """Wait until nothing is under way (L11)."""
    ledger = node.store.ledger
    until(
        lambda: not any(ledger.open_work().values()),
        seconds,
        what="the node did not settle",
    )


def judge(ledger: Ledger, acked: Iterable[Dataset], pacs: FakePeer) -> None:
    """Judge a settled ledger: L1-L7 by the oracle, L1 and L5 by what the harness saw itself."""
    verdict = ledger.verdict()
    assert verdict.problems == ()
    assert not any(verdict.open_work.values()), verdict.open_work
    wanted = {str(ds.SOPInstanceUID): content_of(ds) for ds in acked}
    held = {i.header.sop_instance_uid: i.sha256 for i in ledger.instances_by_sop_uid(wanted)}
    assert held == wanted, "an acknowledged instance is not there as it was sent"
    contents: dict[str, set[bytes]] = {}
    for uid, content, _ in pacs.received:
        contents.setdefault(uid, set()).add(content)
    assert all(len(different) == 1 for different in contents.values()), "two contents, one UID"
    done = ledger.jobs([JobState.COMPLETED], limit=100_000)
    details = [ledger.job_detail(job.id) for job in done]
    made = {r.sop_instance_uid for detail in details for r in detail.results}
    live = {
        d.sop_instance_uid
        for detail in details
        if detail.superseded_by is None
        for d in detail.deliveries
        if d.state in {"SENT", "COMMITTED"}
    }
    assert live <= set(contents) <= made
