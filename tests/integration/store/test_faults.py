"""The receive path under faults: A1, A2, A3, A4, A6 and A8 of the fault catalogue.

The oracle is `Ledger.verify` (L1, L2, L10) plus what the harness knows itself: which objects were
acknowledged, that is, for which `Intake.accept` returned.
"""

import errno
import hashlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event

from node.domain import Kept
from node.errors import LedgerError, OutOfResources
from node.store.files import Limits
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from node.store.store import StoreOptions
from node.store.volume import DiskState
from tests.postgres_kit import sqlite_only
from tests.store_kit import (
    SERIES,
    FailingOps,
    ForgettingOps,
    RecordingOps,
    arrivals,
    blobs,
    ct,
    encode,
    push,
    source,
    store,
)

ROOT = Path(__file__).resolve().parents[3]


def identity(number: int) -> str:
    return hashlib.sha256(EXPLICIT_VR_LITTLE_ENDIAN.encode() + encode(ct(number))).hexdigest()


def assert_all_there(opened, acknowledged: set[int]) -> None:
    """L1: acknowledged is a subset of indexed, and the bytes are those that were sent."""
    indexed = {i.header.sop_instance_uid: i.sha256 for i in opened.ledger.instances(SERIES)}
    for number in acknowledged:
        assert indexed.get(f"{SERIES}.{number}") == identity(number), f"{number} was lost"
    assert opened.ledger.verify() == []


def test_a2_name_then_bytes_then_answer_and_row_after_both(tmp_path):
    """A2, for each of 50 objects on 4 threads: folder of names < data < answer < folder < row."""
    ops = RecordingOps()
    with store(tmp_path, ops=ops) as opened:
        raw = opened._database._writer
        event.listen(raw, "commit", lambda _: ops.log.append(("commit", "")))

        def send(numbers):
            for number in numbers:
                push(opened, ct(number))
                ops.log.append(("answer", identity(number)))

        threads = [threading.Thread(target=send, args=(range(i, 50, 4),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opened.ledger.counts().instances == 50

    folder = str(blobs(tmp_path)[0].parent)
    for number in range(50):
        (arrival,) = (old for what, old, new in ops.links if identity(number) in new)
        data = ops.log.index(("data", arrival))
        assert ops.log.index(("name", arrival)) < data
        assert data < ops.log.index(("answer", identity(number)))
        linked = ops.log.index(("link", arrival))
        synced = ops.log.index(("directory", folder), linked)
        committed = ops.log.index(("commit", ""), synced)
        assert committed < ops.log.index(("removed", arrival))


RECEIVER = """
    import sys, threading
    from pathlib import Path
    from tests.store_kit import ct, push, store

    opened = store(Path(sys.argv[1]))
    numbers = iter(range(int(sys.argv[2]), int(sys.argv[2]) + 100000))
    print("listening", flush=True)

    def send():
        for number in numbers:
            push(opened, ct(number), "0000000" + sys.argv[3])
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()

    for _ in range(3):
        threading.Thread(target=send).start()
"""


@pytest.mark.slow
def test_a1_nothing_acknowledged_is_lost_by_kill_9(tmp_path):
    """A1: five kills at random moments under three senders; a start takes less than 5 s."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    receiver = [sys.executable, "-c", textwrap.dedent(RECEIVER)]
    acknowledged: set[int] = set()
    for round_ in range(5):
        process = subprocess.Popen(
            [*receiver, tmp_path, str(round_ * 1000), str(round_)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        first = [process.stdout.readline().strip() for _ in range(chance.randint(5, 40))]
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        lines = first + process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        process.wait()
        acknowledged |= {int(line) for line in lines}

    began = time.monotonic()
    with store(tmp_path) as opened:
        assert time.monotonic() - began < 5
        assert len(acknowledged) > 20
        assert_all_there(opened, acknowledged)
        assert opened.recovered.missing == ()
        again = {push(opened, ct(number)).kept for number in acknowledged}
        assert again == {Kept.DUPLICATE}


@sqlite_only("copies the data folder with its database in it")
@pytest.mark.parametrize("cut_after", [1, 7, 70])
def test_a3_nothing_acknowledged_is_lost_by_a_power_cut(tmp_path, cut_after):
    """A3, tier 1: a disk that forgets each entry and each byte that was not synced.

    The database keeps its own promise (``synchronous=FULL``). It is held up here, so that the cut
    is made while objects are acknowledged and have no row, and another one is half there.
    """
    ops = ForgettingOps()
    opened = store(tmp_path, ops=ops)
    push(opened, ct(0))
    opened.ledger.counts()
    entered, go = threading.Event(), threading.Event()
    blocker = threading.Thread(
        target=lambda: opened._database.write(lambda _: (entered.set(), go.wait(10)))
    )
    blocker.start()
    entered.wait(10)
    acknowledged = set(range(cut_after))
    for number in acknowledged:
        push(opened, ct(number))
    late = opened.intake.receive(
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"{SERIES}.1000",
        source=source(),
    )
    late.write(memoryview(encode(ct(1000))))
    disk = tmp_path.parent / f"{tmp_path.name}-after"
    shutil.copytree(tmp_path, disk, ignore=shutil.ignore_patterns("lock"))
    ops.cut(disk, tmp_path)
    go.set()
    blocker.join()
    late.discard()
    opened.close()

    with store(disk) as after:
        assert_all_there(after, acknowledged)
        assert after.ledger.counts().instances == len(acknowledged)
        assert after.recovered.taken_over == len(acknowledged) - 1
        assert (after.recovered.missing, after.recovered.orphans) == ((), 0)
        assert arrivals(disk) == []


@pytest.mark.parametrize("forgotten", ["sync_data", "sync_directory"])
def test_a3_a_node_that_answers_before_it_syncs_is_caught_by_this_test(tmp_path, forgotten):
    """The oracle's own test: a broken node must fail."""
    ops = ForgettingOps()
    real = getattr(ops, forgotten)
    opened = store(tmp_path, ops=ops)
    setattr(ops, forgotten, lambda _: None)
    push(opened, ct(1))
    disk = tmp_path.parent / f"{tmp_path.name}-after"
    shutil.copytree(tmp_path, disk, ignore=shutil.ignore_patterns("lock"))
    ops.cut(disk, tmp_path)
    setattr(ops, forgotten, real)
    opened.close()

    with store(disk) as after, pytest.raises(AssertionError):
        assert_all_there(after, {1})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a4_a7_a_disk_that_fails_refuses_and_recovers_by_itself(tmp_path, code):
    ops = FailingOps()
    with store(tmp_path, ops=ops) as opened:
        push(opened, ct(1))
        ops.write_error = code
        for number in (2, 3):
            with pytest.raises(OutOfResources):
                push(opened, ct(number))
        assert opened.files.disk().state is DiskState.FULL
        assert len(blobs(tmp_path)) == 1
        ops.write_error = 0

        push(opened, ct(2))

        assert opened.files.disk().state is DiskState.OK
        assert_all_there(opened, {1, 2})


def test_a7_a_folder_that_cannot_be_synced_is_never_acknowledged(tmp_path):
    ops = FailingOps()
    with store(tmp_path, ops=ops) as opened:
        push(opened, ct(1))
        ops.directory_error = errno.EIO
        opened.files.close()  # no name is prepared
        with pytest.raises(OutOfResources):
            push(opened, ct(2))
        ops.directory_error = 0

        assert len(blobs(tmp_path)) == 1
        assert_all_there(opened, {1})


def test_a7_a_folder_of_files_that_cannot_be_synced_delays_the_row_and_then_refuses(tmp_path):
    """What was answered is durable under its first name, and gets its row when the disk can."""
    ops = FailingOps()
    with store(tmp_path, ops=ops) as opened:
        push(opened, ct(1))
        opened.ledger.counts()
        ops.directory_error = errno.EIO
        push(opened, ct(2))
        with pytest.raises(OutOfResources):
            opened.intake.association_ended("0000abcd", end="RELEASED", received=2, refused=0)
        with pytest.raises(OutOfResources):
            push(opened, ct(3))
        ops.directory_error = 0

        push(opened, ct(3))
        assert_all_there(opened, {1, 2, 3})


FULL = """
    import sys
    from pathlib import Path
    from node.errors import LedgerError, OutOfResources
    from tests.store_kit import SERIES, blobs, ct, push, store

    folder = Path(sys.argv[1]) / "data"
    opened = store(folder)
    stored, refused = [], 0
    for number in range(200):
        ds = ct(number)
        ds.PixelData = bytes([number]) * 65536
        ds.Rows, ds.Columns = 128, 256
        try:
            push(opened, ds)
            stored.append(number)
        except (OutOfResources, LedgerError):
            refused += 1
    assert stored and refused, (len(stored), refused)
    found = {i.header.sop_instance_uid for i in opened.ledger.instances(SERIES)}
    assert opened.ledger.verify() == [], "partial files"
    assert len(blobs(folder)) == len(stored)
    (Path(sys.argv[1]) / "ballast").unlink()
    push(opened, ct(5000))
    opened.close()
    with store(folder) as after:
        found = {i.header.sop_instance_uid for i in after.ledger.instances(SERIES)}
        assert found == {f"{SERIES}.{n}" for n in [*stored, 5000]}
        assert after.ledger.verify() == []
        assert after.recovered.missing == ()
    print(len(stored), "stored", refused, "refused")
"""


def test_a4_a_really_full_disk_leaves_no_partial_file_and_a_sound_database(tmp_path):
    """A4 on a 6 MB memory file system, in a mount namespace of our own."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no unprivileged mount namespaces on this machine")
    script = (
        'mount -t tmpfs -o size=6m none "$1" && head -c 1500000 /dev/zero >"$1/ballast"'
        ' && exec "$2" -c "$3" "$1"'
    )

    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", tmp_path, sys.executable,
         textwrap.dedent(FULL)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


@sqlite_only("locks its file; tests/faults/test_postgresql.py locks a table")
def test_a6_a_locked_database_refuses_in_time_and_loses_nothing_that_was_answered(tmp_path):
    """A6 at 1/50 scale: what is durable without a row gets it, and meanwhile nothing is taken."""
    options = StoreOptions(limits=Limits(min_free=0, warn_free=0), busy_timeout_s=1.0)
    with store(tmp_path, options=options) as opened:
        push(opened, ct(1))
        opened.ledger.counts()
        other = sqlite3.connect(
            tmp_path / "ledger.db", isolation_level=None, check_same_thread=False
        )
        other.execute("begin immediate")
        push(opened, ct(2))  # its row is refused after a second
        began = time.monotonic()
        with pytest.raises(LedgerError, match="locked"):
            opened.intake.association_ended("0000abcd", end="RELEASED", received=2, refused=0)
        with pytest.raises(LedgerError, match="locked"):
            push(opened, ct(3))
        assert 0.9 < time.monotonic() - began < 5
        assert len(blobs(tmp_path)) == 2, "the refused object leaves no file"
        disk = tmp_path.parent / f"{tmp_path.name}-killed"
        shutil.copytree(tmp_path, disk, ignore=shutil.ignore_patterns("lock"))

        unlock = threading.Timer(0.3, lambda: other.execute("rollback"))
        unlock.start()
        push(opened, ct(4))
        unlock.join()
        other.close()

        assert_all_there(opened, {1, 2, 4})
        assert opened.ledger.counts().instances == 3
    with store(disk) as after:
        assert_all_there(after, {1, 2})
        assert after.recovered.taken_over == 1


def test_a8_the_same_object_on_two_associations_at_once_is_one_row_and_one_file(tmp_path):
    """A8: each answer comes after bytes of its own, or those of the other, are durable."""
    with store(tmp_path) as opened:
        for number in range(10):
            barrier = threading.Barrier(2)
            kept = []

            def send(association, number=number, barrier=barrier, kept=kept):
                barrier.wait(5)
                kept.append(push(opened, ct(number), association).kept)

            threads = [threading.Thread(target=send, args=(f"0000000{n}",)) for n in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert set(kept) <= {Kept.DUPLICATE, Kept.STORED}

        assert opened.ledger.counts().instances == 10
        assert len(blobs(tmp_path)) == 10
        assert opened.ledger.series(SERIES).count == 10
        assert_all_there(opened, set(range(10)))


def test_a8_a_kill_between_file_and_row_leaves_room_for_the_next_try(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
    orphan = blobs(tmp_path)[0].with_name(f"{identity(2)}.dcm")
    orphan.write_bytes(b"cut off")

    with store(tmp_path) as opened:
        assert push(opened, ct(2)).kept is Kept.STORED
        assert_all_there(opened, {1, 2})
