"""The proof on real data: DCMTK pushes, the node works, Orthanc holds the results."""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from demo import readback
from demo.archive import OrthancArchive
from demo.push import push, read_items
from demo.runner import CALLED, MODALITY, Node, Progress
from tests.conftest import program

ASSOCIATIONS = 4
DEADLINE_S = 900.0
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[OrthancArchive]:
    started = OrthancArchive(program("Orthanc"), tmp_path / "orthanc")
    yield started
    started.stop()


def settled(node: Node, quiet_s: float) -> Progress:
    """Return the progress once nothing has been on its way for `quiet_s`."""
    deadline = time.monotonic() + DEADLINE_S
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        assert node.running(), node.log.read_text()[-3000:]
        progress = node.progress()
        if progress.busy():
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > quiet_s:
            return progress
        time.sleep(1.0)
    pytest.fail(f"still busy: {node.progress().line()}")


@pytest.mark.slow
@pytest.mark.devpack
@pytest.mark.dcmtk
@pytest.mark.orthanc
@pytest.mark.timeout(1200)
def test_a_thorax_shuffled_over_four_associations_comes_back_once_and_whole(
    devpack: Path, tmp_path: Path, archive: OrthancArchive
) -> None:
    thorax = devpack / "dev_lung1_001_thorax"
    files = sorted(thorax.rglob("*.dcm"))
    random.Random(1).shuffle(files)
    node = Node(tmp_path, archive)
    try:
        node.start()
        storescu(files, node)
        progress = settled(node, quiet_s=8)
    finally:
        node.stop()

    assert not progress.held, progress.held
    received = readback.read(archive.fetch(tmp_path / "received"))
    kinds = Counter(str(ds.SOPClassUID) for ds in everything(received))
    cbct = sorted((thorax / "SIMULATED_CBCT" / "CBCT").glob("*.dcm"))
    assert kinds == {STRUCTURE_SET: 1, CT_IMAGE: len(cbct), COMPREHENSIVE_SR: 1}
    assert {j["state"] for j in progress.jobs} == {"COMPLETED"}
    assert len(progress.jobs) == 3
    check_contours(received.structure_sets[0], thorax)
    check_synthetic_ct(received, cbct[0])
    check_report(received.reports[0], thorax)


def storescu(files: list[Path], node: Node) -> None:
    """Push with DCMTK over parallel associations; each must succeed as a whole."""
    command = [program("storescu"), "-aet", MODALITY, "-aec", CALLED, "127.0.0.1", str(node.port)]
    running = [
        subprocess.Popen([*command, *files[k::ASSOCIATIONS]], stderr=subprocess.PIPE, text=True)
        for k in range(ASSOCIATIONS)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]


def everything(received: readback.Received) -> Iterator[pydicom.Dataset]:
    yield from received.structure_sets
    yield from (ds for slices in received.images.values() for ds in slices)
    yield from received.reports
    yield from received.others


def check_contours(structure_set: pydicom.Dataset, thorax: Path) -> None:
    """Dice of at least 0.95 for each lung against the clinical contours."""
    slices = readback.read(sorted((thorax / "CT").glob("*.dcm"))).images
    _, grid = readback.volume(next(iter(slices.values())))
    clinical = pydicom.dcmread(next((thorax / "RTSTRUCT").glob("*.dcm")))
    assert structure_set.ApprovalStatus == "UNAPPROVED"
    for ours, theirs in (("Lung_L", "Lung-Left"), ("Lung_R", "Lung-Right")):
        drawn = readback.mask(structure_set, ours, grid)
        truth = readback.mask(clinical, theirs, grid)
        assert readback.dice(drawn, truth) >= 0.95, ours


def check_synthetic_ct(received: readback.Received, first_cbct: Path) -> None:
    """On the grid and in the frame of reference of the CBCT, all slices of one series."""
    (slices,) = received.images.values()
    cbct = pydicom.dcmread(first_cbct, stop_before_pixels=True)
    hu, grid = readback.volume(slices)
    assert {ds.FrameOfReferenceUID for ds in slices} == {cbct.FrameOfReferenceUID}
    assert grid.shape[1:] == (cbct.Rows, cbct.Columns)
    np.testing.assert_allclose(grid.spacing[1:], np.asarray(cbct.PixelSpacing, float), atol=1e-3)
    assert "DERIVED" in slices[0].ImageType
    assert hu.min() >= -1024


def check_report(report: pydicom.Dataset, thorax: Path) -> None:
    """V20 and mean of lungs minus GTV as the simulation of the dose states them."""
    found = readback.measurements(report)["Lungs - GTV"]
    mean = next(m.value for m in found if m.derivation == readback.MEAN)
    v20 = next(m.value for m in found if m.code == "V20Gy[%]")
    assert mean == pytest.approx(9.41, abs=0.1)
    assert v20 == pytest.approx(16.36, abs=0.5)


@pytest.mark.slow
@pytest.mark.devpack
@pytest.mark.orthanc
@pytest.mark.timeout(1200)
def test_odd_data_is_answered_explained_and_never_takes_the_node_down(
    devpack: Path, tmp_path: Path, archive: OrthancArchive
) -> None:
    sets = ("dev_odd_dicom", "dev_4dct_light", "dev_mr_prostatex_t2")
    files = [p for name in sets for p in sorted((devpack / name).rglob("*")) if p.is_file()]
    sendable, _ = read_items(files)
    node = Node(tmp_path, archive, hold_after_s=5.0)
    try:
        node.start()
        sent = {s.path: s for s in push(files, node.peer(MODALITY))}
        progress = settled(node, quiet_s=12)
        assert node.running()
    finally:
        node.stop()

    # every object is answered, or its SOP class or syntax was refused at negotiation
    unanswered = [sent[i.path] for i in sendable if sent[i.path].status is None]
    reasons = Counter(s.note for s in unanswered)
    assert set(reasons) <= {
        "SOP class or transfer syntax not accepted",
        "UID that the protocol cannot carry",
    }, reasons
    statuses = Counter(s.status for s in sent.values() if s.status is not None)
    assert set(statuses) <= {0x0000, 0xA900, 0xC000}, statuses
    assert statuses[0x0000] > 300
    # no MR reaches a CT pipeline
    magnetic = {series_of(i.path) for i in sendable if "mr" in i.path.parts[-2].lower()}
    magnetic |= {series_of(p) for p in (devpack / "dev_mr_prostatex_t2").rglob("*.dcm")}
    assert magnetic
    assert not magnetic & {j["series_instance_uid"] for j in progress.jobs}
    # whatever waits for a person says why and what to do
    assert progress.held
    assert [h for h in progress.held if not h["reason"]] == []
    assert [h for h in progress.held if h["kind"] == "job" and not h["hint"]] == []
    assert "Traceback" not in node.log.read_text()


def series_of(path: Path) -> str:
    ds = pydicom.dcmread(path, force=True, specific_tags=["SeriesInstanceUID"])
    return str(ds.get("SeriesInstanceUID", ""))
