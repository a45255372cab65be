"""What a pipeline lacks is fetched from Orthanc, and never anything of another patient."""

import pytest

from node.lifecycle import JobState
from node.store.records import DecisionState
from tests import factories
from tests.node_kit import DOSE, SYNTHETIC, node, send, until
from tests.orthanc_kit import DICOMWEB, orthanc

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    plugins = [DICOMWEB] if DICOMWEB.exists() else []
    with orthanc(tmp_path_factory.mktemp("orthanc"), plugins=plugins) as running:
        yield running


@pytest.fixture
def empty(archive):
    for number in archive.rest("/patients"):
        archive.rest(f"/patients/{number}", method="DELETE")
    return archive


def sections(archive, pull: str) -> dict:
    """Return the archive as a peer, and, for `web`, as a DICOMweb server to fetch from."""
    peer = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port}
    web = {"url": f"{archive.url}/dicom-web", "pull": True, "pull_per_minute": 600}
    if pull == "web":
        return {"peers": {"pacs": peer}, "dicomweb": {"cloud": web}}
    return {"peers": {"pacs": peer | {"query": True, "pull": pull, "pull_per_minute": 600}}}


def started(folder, archive, route, pull):
    if pull == "web" and not DICOMWEB.exists():
        pytest.skip("Orthanc's DICOMweb plugin is not installed")
    running = node(folder, archive.port, routes=(route,), **sections(archive, pull))
    running.start()
    archive.knows("rtnode", "RTNODE", running.port)
    return running


@pytest.mark.parametrize("pull", ["move", "get", "web"])
def test_a_dose_that_comes_alone_gets_its_plan_structures_and_ct(tmp_path, empty, pull):
    study = factories.study()
    empty.put([*study["CT"], *study["RTSTRUCT"], *study["RTPLAN"]])
    running = started(tmp_path, empty, DOSE, pull)
    try:
        send(running.port, study["RTDOSE"])
        ledger = running.store.ledger
        until(lambda: ledger.jobs([JobState.COMPLETED]), 30)

        (job,) = ledger.jobs()
        used = {i.role: 0 for i in ledger.job(job.id).inputs}
        for i in ledger.job(job.id).inputs:
            used[i.role] += 1
        assert used == {"CT": len(study["CT"]), "RTDOSE": 1, "RTPLAN": 1, "RTSTRUCT": 1}
        result = ledger.job_detail(job.id).results[0].sop_instance_uid
        until(lambda: result in empty.instances())
    finally:
        running.stop()


def test_a_cone_beam_ct_gets_the_planning_ct_that_its_registration_names(tmp_path, empty):
    study = factories.study()
    empty.put([*study["CT"], *study["REG"]])
    running = started(tmp_path, empty, SYNTHETIC, "move")
    try:
        send(running.port, study["CBCT"])
        ledger = running.store.ledger
        until(lambda: ledger.jobs([JobState.COMPLETED]), 30)

        (job,) = ledger.jobs()
        roles = {i.role for i in ledger.job(job.id).inputs}
        assert roles == {"CBCT", "PLANNING_CT", "REG"}
    finally:
        running.stop()


def test_a_cone_beam_ct_runs_alone_where_the_archive_has_nothing(tmp_path, empty):
    running = started(tmp_path, empty, SYNTHETIC, "get")
    try:
        send(running.port, factories.study()["CBCT"])
        ledger = running.store.ledger
        until(lambda: ledger.jobs([JobState.COMPLETED]), 20)

        (job,) = ledger.jobs()
        assert {i.role for i in ledger.job(job.id).inputs} == {"CBCT"}
    finally:
        running.stop()


@pytest.mark.parametrize("pull", ["move", "get", "web"])
def test_nothing_of_another_patient_is_ever_fetched(tmp_path, empty, pull, caplog):
    """The archive holds the study under another patient: the same UIDs throughout."""
    caplog.set_level("INFO")
    study = factories.study()
    others = [*study["CT"], *study["RTSTRUCT"], *study["RTPLAN"]]
    for ds in others:
        ds.PatientID = "SOMEBODY-ELSE"
    empty.put(others)
    running = started(tmp_path, empty, DOSE, pull)
    try:
        send(running.port, study["RTDOSE"])
        ledger = running.store.ledger
        until(lambda: ledger.decisions([DecisionState.WAITING]), 20)
        until(lambda: "pulled" in {r.getMessage() for r in caplog.records}, 20)

        assert ledger.counts().instances == 1
        assert not ledger.jobs([JobState.COMPLETED])
    finally:
        running.stop()
