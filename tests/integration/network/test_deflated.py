"""Deflated Explicit VR Little Endian: taken, bounded, kept and sent on as it came (B7)."""

import random
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from node.clock import SystemClock
from node.errors import CannotUnderstand
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.association import Context
from node.scu.sender import Outcome, Outgoing, send_batch
from node.store import part10
from pipelines.dicom.volume import read_volume
from tests import factories
from tests.conftest import program
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    FakePeer,
    associate,
    data_set_of,
    outgoing,
    peer_at,
)
from tests.store_kit import SERIES, ct, encode, source, store, structure_set
from tests.wire_kit import RawPeer, c_store, p_data, pdv

DEFLATED = part10.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


def packed(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(plain) + packer.flush()
    return data + b"\0" * (len(data) % 2)


def as_file(ds, folder: Path) -> Path:
    """Write a data set as a deflated DICOM file."""
    head = part10.prefix(
        sop_class_uid=str(ds.SOPClassUID), sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=DEFLATED,
    )  # fmt: skip
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    path.write_bytes(head + packed(encode(ds)))
    return path


@pytest.fixture
def opened(tmp_path):
    with store(tmp_path / "data", clock=SystemClock()) as one:
        yield one


@pytest.fixture
def port(opened):
    settings = ReceiverSettings(ae_titles=("RTNODE",), port=0, accept_unknown=True)
    receiver = Receiver(settings, opened.intake, SystemClock())
    receiver.start()
    yield receiver.port
    receiver.stop(2.0)


def pushed(port: int, data: bytes, uid: str, sop_class: str = CT) -> int:
    """Send bytes as a deflated object over DICOM; return the status."""
    with RawPeer.associated(port, proposals=[(1, sop_class, [DEFLATED])]) as peer:
        peer.send(p_data(pdv(3, c_store(uid, sop_class=sop_class))))
        for at in range(0, len(data), 8192):
            peer.send(p_data(pdv(2 if at + 8192 >= len(data) else 0, data[at : at + 8192])))
        return peer.status()


@pytest.mark.parametrize("images", [50, 9000], ids=["small", "beyond the first look"])
def test_a_deflated_object_is_kept_as_it_came_and_understood(port, opened, images):
    digits = random.Random(3)
    named = {f"{SERIES}.{digits.randrange(10**12)}" for _ in range(images)}
    structures = packed(encode(structure_set(sorted(named, key=hash))))

    assert pushed(port, packed(encode(ct())), f"{SERIES}.1") == 0
    assert pushed(port, structures, "1.2.4.1", RTSTRUCT) == 0

    (image,), (held,) = opened.ledger.instances(SERIES), opened.ledger.instances("1.2.4")
    assert data_set_of(image.path) == packed(encode(ct()))
    assert data_set_of(held.path) == structures
    assert image.header.transfer_syntax_uid == DEFLATED
    assert image.header.keywords["Rows"] == 4
    assert {r.uid for r in held.header.references if r.kind == "IMAGE"} == named
    assert opened.ledger.verify() == []


def test_a_bomb_over_dicom_is_refused_and_the_node_answers_on(port, opened):
    """A thousand to one, behind a sound header."""
    bomb = packed(encode(ct()) + bytes(150 << 20))
    assert len(bomb) < 1 << 20

    assert pushed(port, bomb, f"{SERIES}.1") == 0xC000

    with associate(port, Context(VERIFICATION, IMPLICIT)) as association:
        assert association.echo().status == 0
    (kept,) = opened.ledger.quarantined()
    assert "grows beyond 64 MiB" in kept.reason
    assert opened.ledger.instances(SERIES) == []
    assert opened.ledger.verify() == []


def test_a_deflated_file_of_a_watched_folder_enters_by_the_same_door(opened, tmp_path):
    path = as_file(ct(), tmp_path)
    bomb = tmp_path / "bomb.dcm"
    data = path.read_bytes()
    start = len(data) - len(data_set_of(path))
    bomb.write_bytes(data[:start] + packed(encode(ct(2)) + bytes(100 << 20)))

    assert opened.intake.accept_file(path, source()).sop_instance_uid == f"{SERIES}.1"
    with pytest.raises(CannotUnderstand, match="grows beyond"):
        opened.intake.accept_file(bomb, source())


def test_a_peer_that_takes_deflated_objects_gets_the_bytes_that_came(port, opened):
    assert pushed(port, packed(encode(ct())), f"{SERIES}.1") == 0
    (instance,) = opened.ledger.instances(SERIES)
    results = []

    with FakePeer(syntaxes=(DEFLATED,)) as pacs:
        send_batch(peer_at(pacs.port, called="PACS"), [outgoing(instance.path)], results.append)
    with FakePeer(syntaxes=(EXPLICIT,)) as other:
        send_batch(peer_at(other.port, called="PACS"), [outgoing(instance.path)], results.append)

    assert [r.outcome for r in results] == [Outcome.SENT, Outcome.REFUSED]
    assert pacs.received == [(f"{SERIES}.1", packed(encode(ct())), DEFLATED)]
    assert "accepts no presentation context" in results[1].reason


def test_a_pipeline_sees_the_same_pixels(tmp_path):
    series = factories.ct_series()
    plain = factories.save(series, tmp_path / "plain")
    (tmp_path / "deflated").mkdir()
    deflated = [as_file(ds, tmp_path / "deflated") for ds in series]

    assert np.array_equal(read_volume(plain).hu, read_volume(deflated).hu)


@pytest.mark.dcmtk
def test_what_dcmtk_deflates_and_sends_is_what_it_reads_back(port, opened, tmp_path):
    ds = factories.ct_series()[0]
    (plain,) = factories.save([ds], tmp_path / "in")
    path = tmp_path / "deflated.dcm"
    subprocess.run([program("dcmconv"), "+td", plain, path], check=True, timeout=60)
    assert Outgoing.read(path).transfer_syntax_uid == DEFLATED

    sent = subprocess.run(
        [program("storescu"), "-xd", "-R", "-aec", "RTNODE", "127.0.0.1", str(port), path],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert sent.returncode == 0, sent.stderr
    (instance,) = opened.ledger.instances(str(ds.SeriesInstanceUID))
    assert instance.header.transfer_syntax_uid == DEFLATED
    dump = [program("dcmdump"), "-q", "+P", "7fe0,0010", "+P", "0020,0032"]
    read = [subprocess.run([*dump, p], capture_output=True, check=True, timeout=60).stdout
            for p in (plain, instance.path)]  # fmt: skip
    assert read[0] == read[1]
