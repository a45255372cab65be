"""A result that a planning system could not import waits for a person; the archive has it."""

from node.lifecycle import DeliveryState, JobState
from tests.integration.network.support import FakePeer
from tests.node_kit import CONTOURS, node, send, until
from tests.store_kit import ct


def test_what_a_profile_forbids_is_held_for_its_destination_alone(tmp_path) -> None:
    """The structure set of the test pipeline has no ROI and no frame of reference."""
    series = [ct(n, series="1.2.3.2", patient="P1") for n in range(1, 6)]
    both = {**CONTOURS, "destinations": ["pacs", "tps"]}
    with FakePeer() as pacs:
        peers = {
            "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port},
            "tps": {"ae_title": "TPS", "host": "127.0.0.1", "port": pacs.port,
                    "profile": {"system": "eclipse"}},
        }  # fmt: skip
        with node(tmp_path, pacs.port, routes=[both], peers=peers) as running:
            send(running.port, series)
            until(lambda: pacs.received)

            ledger = running.store.ledger
            until(lambda: ledger.jobs()[0].state is JobState.COMPLETED)
            detail = ledger.job_detail(1)
            to = {d.destination: d for d in detail.deliveries}
            until(lambda: ledger.job_detail(1).deliveries[0].state is not DeliveryState.SENDING)

    assert to["tps"].state is DeliveryState.HELD
    assert "required" in to["tps"].reason
    assert "frame-of-reference" in to["tps"].reason
    assert "rtnode check" in to["tps"].hint
    assert "tps-held" in {f["code"] for f in detail.findings}
    assert len(pacs.received) == 1
