"""The machine misbehaves: clocks jump, disks turn read-only, descriptors and files run out."""

import shutil
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta

import pytest

from node.clock import SystemClock
from node.domain import AETitle
from node.errors import LedgerError
from node.service import Node
from node.store.rebuild import rebuild
from tests.faults.kit import judge, settle
from tests.integration.network.support import FakePeer
from tests.node_kit import FAKE_WORKER, ROOT, config, send, until
from tests.postgres_kit import lose_the_database, sqlite_only
from tests.store_kit import SERIES, blobs, ct, push, start_job, store

HOUR = timedelta(hours=1)


class JumpingClock(SystemClock):
    """A wall clock that a time server or a person sets; monotonic time goes on."""

    offset = timedelta()

    def now(self) -> datetime:
        return super().now() + self.offset


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_e1_a_clock_that_jumps_completes_nothing_early_and_repeats_no_result(tmp_path, jump):
    """While the series arrives, while its job runs, and before it is delivered."""
    clock = JumpingClock()
    slices = [ct(n) for n in range(1, 9)]

    def jump_at(sent: int) -> None:
        if sent == 4:
            clock.offset += jump

    with FakePeer() as pacs:
        with Node(config(tmp_path, pacs.port), clock=clock, worker=FAKE_WORKER) as node:
            assert set(send(node.port, slices, between=jump_at)) == {0}
            until(node.store.ledger.jobs)
            clock.offset += jump
            until(lambda: pacs.received)
            clock.offset -= 2 * jump
            settle(node)

            (job,) = node.store.ledger.jobs()
            assert len(node.store.ledger.job(job.id).inputs) == 8
            judge(node.store.ledger, slices, pacs)
        assert len(pacs.received) == 1


def test_e1_a_clock_set_back_delays_a_retry_by_no_more_than_its_pause(tmp_path):
    """A destination that was away when the clock jumped back must not rest for an hour."""
    clock = JumpingClock()
    answers = iter([0xA700, 0, 0])
    slices = [ct(n) for n in range(1, 5)]
    with (
        FakePeer(answer=lambda _: next(answers)) as pacs,
        Node(config(tmp_path, pacs.port), clock=clock, worker=FAKE_WORKER) as node,
    ):
        send(node.port, slices)
        until(lambda: pacs.received)
        clock.offset -= HOUR
        settle(node, 15)
        judge(node.store.ledger, slices, pacs)


def in_namespace(folder, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script on a memory file system of its own, as a namespace's root."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no unprivileged mount namespaces on this machine")
    mount = f'mount -t tmpfs -o {size} none "$1" && exec "$2" -c "$3" "$1"'
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount, "sh", folder, sys.executable,
         textwrap.dedent(script)],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


READ_ONLY = """
    import subprocess, sys
    from pathlib import Path
    from node.errors import LedgerError, OutOfResources
    from node.store.volume import DiskState
    from tests.store_kit import SERIES, ct, push, store

    mount = Path(sys.argv[1])
    blobs = mount / "data" / "blobs"
    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", blobs], check=True)

    blobs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", blobs], check=True)
    opened = store(mount / "data")
    push(opened, ct(1))
    remount("ro")
    for number in range(2, 5):
        try:
            push(opened, ct(number))
        except (OutOfResources, LedgerError) as error:
            assert "Read-only" in str(error), error
        else:
            raise AssertionError("acknowledged on a read-only disk")
    assert opened.files.disk().state is DiskState.FULL
    assert "Read-only" in opened.files.disk().trouble
    remount("rw")
    push(opened, ct(2))
    assert opened.files.disk().state is DiskState.OK
    assert opened.ledger.verify() == []
    opened.close()
    with store(mount / "data") as after:
        names = {i.header.sop_instance_uid for i in after.ledger.instances(SERIES)}
        assert names == {f"{SERIES}.1", f"{SERIES}.2"}, names
        assert after.ledger.verify() == []
    print("done")
"""


def test_a7_a_disk_that_turns_read_only_refuses_says_why_and_recovers(tmp_path):
    done = in_namespace(tmp_path, "size=16m", READ_ONLY)

    assert done.stdout == "done\n", done.stderr[-2000:]


NO_INODES = """
    import sys
    from pathlib import Path
    from node.errors import LedgerError, OutOfResources
    from tests.store_kit import ct, push, store

    mount = Path(sys.argv[1])
    opened = store(mount / "data")
    push(opened, ct(0))
    ballast = mount / "ballast"
    ballast.mkdir()
    taken, stored, refused = [], [], 0
    try:
        while True:
            taken.append(ballast / str(len(taken)))
            taken[-1].touch()
    except OSError:
        taken.pop()
    for number in range(1, 44):
        try:
            push(opened, ct(number))
            stored.append(number)
        except (OutOfResources, LedgerError):
            refused += 1
    assert refused >= 43 - 31, stored  # 31 names were prepared and need no more
    for path in taken:
        path.unlink()
    push(opened, ct(43))
    assert opened.ledger.verify() == []
    print("done")
"""


def test_e2_a_volume_without_inodes_refuses_and_recovers(tmp_path):
    done = in_namespace(tmp_path, "size=16m,nr_inodes=100", NO_INODES)

    assert done.stdout == "done\n", done.stderr[-2000:]


FEW_DESCRIPTORS = """
    import resource, socket, sys, time
    from pathlib import Path
    from tests.integration.network.support import VERIFICATION, IMPLICIT, Context, associate
    from tests.node_kit import node, send, until
    from tests.store_kit import ct

    with node(Path(sys.argv[1]), 1, routes=()) as running:
        open_now = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 12, 4096))
        peers = []
        try:
            while True:
                peers.append(socket.create_connection(("127.0.0.1", running.port), 5))
        except OSError:
            pass
        time.sleep(0.5)
        for peer in peers:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))

        def answers():
            try:
                with associate(running.port, Context(VERIFICATION, IMPLICIT)) as association:
                    return association.echo().status == 0
            except Exception:
                return False

        until(answers, 15)
        assert not running.troubles(), running.troubles()
        assert set(send(running.port, [ct(n) for n in range(1, 4)])) == {0}
        assert running.store.ledger.verify(grace_s=5) == []
    print("done")
"""


def test_e2_a_node_without_descriptors_refuses_and_recovers(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FEW_DESCRIPTORS), tmp_path],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.stdout.endswith("done\n"), done.stderr[-3000:]


@sqlite_only("its write-ahead log")
def test_e3_a_lost_write_ahead_log_never_hides_what_was_acknowledged(tmp_path):
    """A kill leaves rows in the log; without it their files have no rows."""
    opened = store(tmp_path / "data")
    for number in range(1, 6):
        push(opened, ct(number))
    opened.ledger.counts()  # their rows are in the log
    shutil.copytree(tmp_path / "data", tmp_path / "after")
    opened.close()
    (tmp_path / "after" / "ledger.db-wal").unlink()
    (tmp_path / "after" / "ledger.db-shm").unlink(missing_ok=True)
    whole = {path.name for path in blobs(tmp_path / "after")}

    with pytest.raises(LedgerError, match="write-ahead log") as refused:
        store(tmp_path / "after")
    assert "rebuild-index" in refused.value.advice
    assert {path.name for path in blobs(tmp_path / "after")} == whole

    with store(tmp_path / "after", rebuilding=True) as after:
        assert rebuild(after, AETitle("RTNODE")).restored == 5
        assert {i.sha256 + ".dcm" for i in after.ledger.instances(SERIES)} == whole
        assert after.ledger.verify() == []


def test_e3_without_its_database_a_node_does_not_start_and_the_files_bring_all_back(tmp_path):
    with store(tmp_path) as opened:
        for number in range(1, 6):
            push(opened, ct(number))
        start_job(opened, series="1.2.3.7")
    lose_the_database(tmp_path)

    with pytest.raises(LedgerError, match="database is gone"):
        store(tmp_path)

    with store(tmp_path, rebuilding=True) as opened:
        assert rebuild(opened, AETitle("RTNODE")).restored == 7
        assert opened.ledger.series(SERIES).count == 5
        assert opened.files.orphans() == []
        assert opened.ledger.verify() == []
    with store(tmp_path) as again:
        assert again.ledger.counts().instances == 7
