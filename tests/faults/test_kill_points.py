"""SIGKILL at every step boundary, and at random moments: A1, A8, C2, D6 and E8 in small.

``RTNODE_FAULT_RUNS=200`` makes the random part as long as a night allows.
"""

import os
import random
import signal
import time

import pytest

from tests.faults.forged import finish
from tests.served_kit import Modality, series

RUNS = int(os.environ.get("RTNODE_FAULT_RUNS", "3"))

FILES, WRITER, INTAKE = "node.store.files", "node.store.writer", "node.store.intake"
LEDGER = "node.store.ledger"
BOUNDARIES = [
    ("receive: names not synced", (FILES, "BlobFiles._prepare_names", "before", 1)),
    ("receive: bytes not synced", (FILES, "SystemFileOps.sync_data", "before", 3)),
    ("receive: durable, not linked", (FILES, "SystemFileOps.sync_data", "after", 3)),
    ("receive: linked, not answered", (FILES, "BlobFiles.finish", "after", 4)),
    ("receive: answered, no row", (WRITER, "Database.write_soon", "after", 5)),
    ("receive: folder synced, no row", (INTAKE, "insert_instance", "before", 3)),
    ("receive: row committed, two names", (INTAKE, "Intake._settled", "before", 3)),
    ("complete: series declared whole", (LEDGER, "Ledger.advance_series", "after", 1)),
    ("complete: before the job", (LEDGER, "Ledger.record_decision", "before", 1)),
    ("complete: job inserted", (LEDGER, "Ledger.record_decision", "after", 1)),
    ("run: claimed", (LEDGER, "Ledger.claim_job", "after, with an answer", 1)),
    ("run: result made, not published", (LEDGER, "Ledger.finish_job", "before", 1)),
    ("run: result published, no row", ("node.store.results", "_publish", "after", 1)),
    ("run: finished", (LEDGER, "Ledger.finish_job", "after", 1)),
    ("deliver: claimed", (LEDGER, "Ledger.claim_deliveries", "after, with an answer", 1)),
    ("deliver: stored, not recorded", (LEDGER, "Ledger.deliveries_sent", "before", 1)),
    ("deliver: recorded", (LEDGER, "Ledger.deliveries_sent", "after", 1)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_at_each_step_boundary_loses_and_doubles_nothing(forged, pacs) -> None:
    """One node after the other dies one step further on; each heals what the last one left."""
    modalities = []
    for number, (name, point) in enumerate(BOUNDARIES):
        forged.start(point)
        modality = Modality(forged, series(number + 1, count=8))
        modality.start()
        modalities.append(modality)
        assert forged.gone.wait(40), f"the step was not reached: {name}"
        assert forged.code == -signal.SIGKILL, name

    finish(forged, modalities, pacs)


@pytest.mark.slow
@pytest.mark.timeout(0 if RUNS > 50 else 600)
def test_kills_at_random_moments_lose_and_double_nothing(forged, pacs) -> None:
    seed = int(os.environ.get("RTNODE_FAULT_SEED", "20261120"))
    print("seed", seed)
    chance = random.Random(seed)
    modalities = []
    for number in range(RUNS):
        forged.start()
        modality = Modality(forged, series(number + 1, count=12))
        modality.start()
        modalities.append(modality)
        time.sleep(chance.uniform(0.05, 2.5))
        forged.send_signal(signal.SIGKILL)

    finish(forged, modalities, pacs)
