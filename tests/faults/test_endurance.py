"""What only time or size shows, small in CI and whole by a variable: A14, B13, E8.

============================ ======= ===========================================================
``RTNODE_FAULT_OBJECT_MB``   48      A14: one multi-frame object of so many MB; 3072 is the fault
``RTNODE_FAULT_CROWD_S``     6       B13: 500 associations a minute for so long; 3600 is the fault
``RTNODE_FAULT_SOAK_S``      12      E8: studies, kills and cut links for so long; 600 for a night
============================ ======= ===========================================================
"""

import os
import random
import signal
import statistics
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.test_kill import children_of
from tests.faults.forged import Forged, finish
from tests.faults.test_work import CutLink
from tests.node_kit import settings, until
from tests.served_kit import Modality, Served, series
from tests.store_kit import ct, encode
from tests.wire_kit import RELEASE, RawPeer, associate_request, c_echo, c_store, p_data, pdv

OBJECT_MB = int(os.environ.get("RTNODE_FAULT_OBJECT_MB", "48"))
CROWD_S = float(os.environ.get("RTNODE_FAULT_CROWD_S", "6"))
SOAK_S = float(os.environ.get("RTNODE_FAULT_SOAK_S", "12"))
SEED = int(os.environ.get("RTNODE_FAULT_SEED", "20261121"))

PER_MINUTE = 500
"""Associations of the crowd."""
POOLED = 8
"""Descriptors of the readers' connections to the database that are opened when there is need."""
STUDY_EVERY_S = 2.0
FAULT_EVERY_S = 4.0
GROWTH_MIB = 300
PIECE = bytes(64 * 1024)


def status_of(pid: int, field: str) -> int:
    """Return a number of /proc/<pid>/status: VmRSS and VmHWM in KiB, Threads."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0])


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def served(tmp_path, pacs):
    receive = {"max_object_mb": OBJECT_MB + 64}
    tree = settings(tmp_path / "data", pacs.port, routes=(), receive=receive)
    one = Served(folder=tmp_path, tree=tree)
    one.start()
    yield one
    if one.process.poll() is None:
        one.kill()


def multi_frame(frames: int) -> bytes:
    """Return a CT data set up to its pixels: frames of 512 x 512 x 2 bytes are to follow."""
    ds = ct(1, series="1.2.3.900")
    ds.Rows = ds.Columns = 512
    ds.NumberOfFrames = frames
    ds.PixelData = b""
    head = encode(ds)[:-12]
    return head + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames * 512 * 512 * 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a14_an_object_of_any_size_takes_no_memory_and_others_are_served(served):
    pid = served.process.pid
    frames = OBJECT_MB * 2
    idle = status_of(pid, "VmRSS")
    echoes, done = [], threading.Event()

    def echo() -> None:
        while not done.is_set():
            began = time.monotonic()
            with RawPeer.associated(served.port) as other:
                other.send(p_data(pdv(3, c_echo(), context=3)))
                assert other.status() == 0
            echoes.append(time.monotonic() - began)
            done.wait(0.2)

    beside = threading.Thread(target=echo, daemon=True)
    beside.start()
    began = time.monotonic()
    with RawPeer.associated(served.port) as sender:
        sender.socket.settimeout(900)
        sender.send(p_data(pdv(3, c_store("1.2.3.900.1"))), p_data(pdv(0, multi_frame(frames))))
        for _ in range(frames * 8 - 1):
            sender.send(p_data(pdv(0, PIECE)))
        sender.send(p_data(pdv(2, PIECE)))
        assert sender.status() == 0
        seconds = time.monotonic() - began
        sender.send(RELEASE)
        assert sender.read()[0] == 6
    done.set()
    beside.join(30)

    growth = (status_of(pid, "VmHWM") - idle) / 1024
    told = f"{OBJECT_MB} MB in {seconds:.1f} s, RSS +{growth:.0f} MiB at most,"
    print(told, f"{len(echoes)} echoes beside, slowest {max(echoes) * 1000:.0f} ms")
    assert growth < GROWTH_MIB
    assert max(echoes) < 5
    (instance,) = served.ledger.instances("1.2.3.900")
    assert instance.size == len(multi_frame(frames)) + frames * len(PIECE) * 8
    assert served.ledger.verify() == []


@pytest.mark.slow
@pytest.mark.timeout(CROWD_S + 240)
def test_b13_a_crowd_of_associations_keeps_nobody_out_and_leaves_nothing(served):
    """500 a minute from one address in every way to come and go; a modality works beside it."""
    pid = served.process.pid
    with RawPeer.associated(served.port):
        pass
    until(lambda: status_of(pid, "Threads") > 0)
    time.sleep(1.5)
    before = descriptors(pid), status_of(pid, "Threads"), status_of(pid, "VmRSS")
    chance = random.Random(SEED)
    end = time.monotonic() + CROWD_S
    counts = {"associations": 0, "turned away": 0}
    stores: list[float] = []

    def one_of_the_crowd() -> None:
        with suppress(OSError), RawPeer(served.port, timeout=5) as peer:
            peer.send(associate_request(calling="CROWD"))
            if peer.read()[0] != 2:
                counts["turned away"] += 1
                return
            how = chance.randrange(4)
            if how == 0:
                peer.send(p_data(pdv(3, c_echo(), context=3)), RELEASE)
                peer.read()
            elif how == 1:
                peer.send(p_data(pdv(1, c_store())))
            elif how == 2:
                peer.send(RELEASE)
                peer.read()

    def modality() -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            began = time.monotonic()
            with RawPeer.associated(served.port, calling="CTSIM1") as peer:
                peer.socket.settimeout(60)
                series = f"1.2.3.9{number // 20}"  # a look at a series holds all of it
                data = encode(ct(number, series=series))
                peer.send(p_data(pdv(3, c_store(f"{series}.{number}")), pdv(2, data)))
                assert peer.status() == 0
                peer.send(RELEASE)
                peer.read()
            stores.append(time.monotonic() - began)
            time.sleep(max(0.0, 1.0 - stores[-1]))

    worker = threading.Thread(target=modality, daemon=True)
    worker.start()
    due = time.monotonic()
    while time.monotonic() < end:
        one_of_the_crowd()
        counts["associations"] += 1
        due += 60 / PER_MINUTE
        time.sleep(max(0.0, due - time.monotonic()))
    worker.join(30)
    until(lambda: status_of(pid, "Threads") <= before[1] + 1, 30, "threads are left")
    until(lambda: descriptors(pid) <= before[0] + POOLED, 30, "descriptors are left")

    grown = (status_of(pid, "VmRSS") - before[2]) / 1024
    rate = counts["associations"] * 60 / CROWD_S
    print(f"{counts} in {CROWD_S:.0f} s ({rate:.0f}/min); {len(stores)} stores beside, median"
          f" {statistics.median(stores) * 1000:.0f} ms, slowest {max(stores) * 1000:.0f} ms;"
          f" RSS {grown:+.0f} MiB")  # fmt: skip
    assert counts["associations"] > 10  # a busy machine makes fewer; the line above tells
    assert stores
    assert max(stores) < 30  # the DIMSE time-out of usual senders
    assert grown < 100
    assert served.ledger.counts().instances == len(stores)
    assert served.ledger.verify() == []


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 400)
def test_e8_a_soak_with_kills_and_cut_links_ends_with_every_study_delivered_once(tmp_path, pacs):
    """A study every 2 s; every 4 s a fault: the node, its worker, or the link to the archive."""
    chance = random.Random(SEED)
    link = CutLink(pacs.port, 0)
    link.whole.set()
    forged = Forged(tmp_path, link.port)
    faults = {"node killed": 0, "worker killed": 0, "link cut": 0}
    modalities: list[Modality] = []
    try:
        forged.start()
        begun = time.monotonic()
        next_fault = begun + FAULT_EVERY_S / 2
        while (now := time.monotonic()) < begun + SOAK_S:
            if now >= begun + len(modalities) * STUDY_EVERY_S:
                one = Modality(forged, series(len(modalities) + 1, count=12))
                one.start()
                modalities.append(one)
            if now >= next_fault:
                next_fault = now + chance.uniform(0.5, 1.5) * FAULT_EVERY_S
                fault = chance.choice(list(faults))
                faults[fault] += 1
                injure(fault, forged, link, chance)
            time.sleep(0.05)
        link.whole.set()
        forged.send_signal(signal.SIGKILL)
        finish(forged, modalities, pacs)
        again = sum(modality.again for modality in modalities)
        print(f"{SOAK_S:.0f} s: {len(modalities)} studies, {faults}, {link.cuts} cuts felt,"
              f" {again} sends without an answer")  # fmt: skip
    finally:
        forged.close()
        link.close()


def injure(fault: str, forged: Forged, link: CutLink, chance: random.Random) -> None:
    """Kill the node and start another, kill its worker, or let the link break for a while."""
    if fault == "node killed":
        forged.send_signal(signal.SIGKILL)
        forged.start()
    elif fault == "worker killed":
        for pid in children_of(forged.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        link.budget = chance.choice((100, 700, 1400, 3000))
        link.whole.clear()
        threading.Timer(chance.uniform(0.5, 3.0), link.whole.set).start()
