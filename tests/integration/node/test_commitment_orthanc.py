"""Storage commitment with Orthanc, both ways: it commits to our results, we to what it sent."""

import pytest

from node.lifecycle import DeliveryState
from tests import factories
from tests.node_kit import CONTOURS, node, send, until
from tests.orthanc_kit import orthanc

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def peers(archive) -> dict:
    return {
        "pacs": {
            "ae_title": "ARCHIVE",
            "host": "127.0.0.1",
            "port": archive.port,
            "receive": True,
            "addresses": ["127.0.0.1"],
            "commitment": True,
        }
    }


def test_orthanc_commits_to_a_delivered_result(tmp_path, archive):
    with node(tmp_path, archive.port, peers=peers(archive)) as running:
        archive.knows("rtnode", "RTNODE", running.port)
        send(running.port, factories.study()["CT"])
        ledger = running.store.ledger
        until(lambda: ledger.counts().deliveries.get("pacs", {}).get("COMMITTED"), 30)

        (job,) = ledger.jobs()
        (line,) = ledger.job_detail(job.id).deliveries
        assert line.state is DeliveryState.COMMITTED
        actions = [e.action for e in ledger.explain(line.sop_instance_uid)]
        assert actions[-3:] == ["delivery_claimed", "delivery_stored", "delivery_committed"]


def test_we_commit_to_what_orthanc_sent(tmp_path, archive):
    study = factories.study()
    archive.put([*study["CT"], *study["RTPLAN"]])
    with node(tmp_path, archive.port, routes=(CONTOURS,), peers=peers(archive)) as running:
        archive.knows("rtnode", "RTNODE", running.port)
        send(running.port, study["CT"])
        asked = [*study["CT"], *study["RTPLAN"]]  # the plan was never sent
        question = {"DicomInstances": [[ds.SOPClassUID, ds.SOPInstanceUID] for ds in asked]}
        path = archive.rest("/modalities/rtnode/storage-commitment", question, "POST")["Path"]
        until(lambda: archive.rest(path)["Status"] != "Pending", 20)

        report = archive.rest(path)
        assert report["Status"] == "Failure"
        held = {i["SOPInstanceUID"] for i in report["Success"]}
        failed = {i["SOPInstanceUID"] for i in report["Failures"]}
        assert held == {ds.SOPInstanceUID for ds in study["CT"]}
        assert failed == {study["RTPLAN"][0].SOPInstanceUID}
