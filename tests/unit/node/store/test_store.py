"""Opening a data folder: one owner, sound database, nothing forgotten."""

import pytest

from node.errors import LedgerError, OutOfResources
from node.lifecycle import JobState
from node.store.migrate import newest_schema
from node.store.store import open_reader, open_store, refuse_remote
from tests.postgres_kit import database_for, lose_the_database, sqlite_only
from tests.store_kit import (
    ROOMY,
    SERIES,
    FakeClock,
    blobs,
    claim,
    ct,
    finish,
    push,
    source,
    start_job,
    store,
)


def test_two_nodes_cannot_share_a_data_folder(tmp_path):
    with store(tmp_path), pytest.raises(LedgerError, match="another node"):
        store(tmp_path)
    store(tmp_path).close()


def test_what_was_accepted_is_there_after_closing_and_opening(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
    with store(tmp_path) as opened:
        assert len(opened.ledger.instances(SERIES)) == 1
        assert opened.ledger.verify() == []
        assert opened.recovered.orphans == 0


def test_a_reader_looks_beside_a_running_node_and_cannot_write(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        opened.ledger.counts()  # what was answered a moment ago is written down by a look here
        reader = open_reader(tmp_path, clock=FakeClock(), url=database_for(tmp_path))

        assert reader.counts().instances == 1
        assert reader.verify() == []
        assert reader.schema_version() == newest_schema()
        with pytest.raises(LedgerError, match="only reads"):
            reader.note("x", kind="node", subject="x")
        reader.close()
        push(opened, ct(2))


def test_a_reader_looks_at_a_node_that_is_down(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))

    reader = open_reader(tmp_path, clock=FakeClock(), url=database_for(tmp_path))

    assert reader.counts().instances == 1
    reader.close()


def test_a_reader_says_when_there_is_no_ledger(tmp_path):
    with pytest.raises(LedgerError, match="no ledger"):
        open_reader(tmp_path, clock=FakeClock())


def test_a_file_without_a_row_is_set_aside_at_start(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
    (known,) = blobs(tmp_path)
    stray = known.with_name("f" * 64 + ".dcm")
    stray.write_bytes(b"half a file")

    with store(tmp_path) as opened:
        assert opened.recovered.orphans == 1
        assert opened.recovered.missing == ()
        assert blobs(tmp_path) == [known]
        assert (tmp_path / "orphans" / stray.name).exists()


def test_a_row_without_a_file_is_an_alarm(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        push(opened, ct(2))
    lost = blobs(tmp_path)[0]
    lost.unlink()

    with store(tmp_path) as opened:
        assert opened.recovered.missing == (str(lost.relative_to(tmp_path)),)
        (problem,) = opened.ledger.verify()
        assert (problem.kind, problem.subject) == ("missing", str(lost.relative_to(tmp_path)))


@pytest.mark.parametrize(
    ("place", "kinds"),
    [(0, []), (-400, ["changed"]), (-1, ["changed"])],
    ids=["preamble", "header", "pixel"],
)
def test_verify_finds_a_flipped_bit_of_the_data_set(tmp_path, place, kinds):
    with store(tmp_path) as opened:
        push(opened, ct(1))
        (path,) = blobs(tmp_path)
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

        assert [p.kind for p in opened.ledger.verify()] == kinds


def test_a_start_after_a_crash_puts_right_what_was_under_way(tmp_path):
    with store(tmp_path) as opened:
        opened.intake.association_opened(source())
        start_job(opened, destinations=("pacs",))
        finish(opened, tmp_path)
        opened.ledger.claim_deliveries("pacs", 1)
        first = opened.ledger.reprocess_job(1)
        spent = opened.ledger.reprocess_job(1)
        opened._database.write(
            lambda c: c.exec_driver_sql(f"update job set max_attempts = 1 where id = {spent.id}")
        )
        claim(opened)
        claim(opened)

    with store(tmp_path) as opened:
        found = opened.recovered
        assert (found.jobs_rescheduled, found.jobs_held) == (1, 1)
        assert (found.deliveries_pending, found.associations_lost) == (1, 1)
        assert opened.ledger.job(first.id).state is JobState.SCHEDULED
        held = opened.ledger.job(spent.id)
        assert held.state is JobState.HELD
        assert held.reason == "the node stopped while the job ran (1 of 1 attempts spent)"
        assert opened.ledger.recent_associations()[0].end == "LOST"
        assert len(opened.ledger.claim_deliveries("pacs", 9)) == 1


def test_a_lost_database_is_never_silently_begun_anew(tmp_path):
    """E3."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
    lose_the_database(tmp_path)

    with pytest.raises(LedgerError, match="its database is gone") as caught:
        store(tmp_path)

    assert "backup" in caught.value.advice


@sqlite_only("cuts its file to nothing; the test above empties PostgreSQL's schema")
def test_a_database_that_is_there_but_empty_is_never_begun_anew_beside_objects(tmp_path):
    """E3: what a broken restore or a full disk leaves."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
    lose_the_database(tmp_path)
    (tmp_path / "ledger.db").touch()

    for _ in range(2):
        with pytest.raises(LedgerError, match="its database is gone"):
            store(tmp_path)
    assert len(blobs(tmp_path)) == 1


@sqlite_only("damages its file; PostgreSQL checks its own pages")
def test_a_damaged_database_stops_the_start_with_what_to_do(tmp_path):
    """E3."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
    path = tmp_path / "ledger.db"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 12] = b"\xff" * (4096 * 11)
    path.write_bytes(data)

    with pytest.raises(LedgerError) as caught:
        store(tmp_path)

    assert "backup" in caught.value.advice
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        store(tmp_path)


def test_a_database_from_a_newer_node_stops_the_start(tmp_path):
    with store(tmp_path) as opened:
        newer = "update alembic_version set version_num = '9999'"
        opened._database.write(lambda c: c.exec_driver_sql(newer))

    with pytest.raises(LedgerError, match="schema 9999"):
        store(tmp_path)


def test_a_keyword_that_cannot_be_read_stops_the_start(tmp_path):
    with pytest.raises(ValueError, match="identifies a person"):
        open_store(tmp_path, clock=FakeClock(), options=ROOMY, extra_keywords=["PatientName"])
    store(tmp_path).close()


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutOfResources, match="cannot make the data folder"):
        store(tmp_path / "file" / "data")


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /mnt/pacs rw,relatime - nfs4 server:/export rw
41 22 0:41 / /mnt/my\\040share rw - cifs //server/x rw
42 40 254:1 / /mnt/pacs/local rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize("folder", ["/mnt/pacs", "/mnt/pacs/rtnode/data", "/mnt/my share/data"])
def test_network_file_systems_are_refused(tmp_path, folder):
    with pytest.raises(LedgerError, match="nothing can be promised"):
        refuse_remote(type(tmp_path)(folder), MOUNTS)


@pytest.mark.parametrize("folder", ["/var/lib/rtnode", "/mnt/pacs/local/data", "/mnt/pacsnot"])
def test_local_file_systems_are_taken(tmp_path, folder):
    refuse_remote(type(tmp_path)(folder), MOUNTS)
