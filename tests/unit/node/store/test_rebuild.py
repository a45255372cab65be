"""Rebuilding the index never costs a file: what it cannot take in stays where it is."""

from dataclasses import replace

from node.domain import AETitle
from node.store.rebuild import rebuild
from tests.postgres_kit import lose_the_database
from tests.store_kit import ROOMY, ct, push, store


def test_an_object_above_todays_limit_stays_in_the_orphan_area(tmp_path):
    """It was acknowledged under another limit."""
    with store(tmp_path) as opened:
        push(opened, ct(1))
    lose_the_database(tmp_path)
    small = replace(ROOMY, max_object_bytes=100)

    with store(tmp_path, options=small, rebuilding=True) as opened:
        found = rebuild(opened, AETitle("RTNODE"))
        assert (found.restored, found.unreadable) == (0, 1)
        assert len(opened.files.orphans()) == 1
    with store(tmp_path) as opened:
        assert rebuild(opened, AETitle("RTNODE")).restored == 1


def test_bytes_that_do_not_fit_into_the_quarantine_stay_in_the_orphan_area(tmp_path):
    with store(tmp_path) as opened:
        push(opened, ct(1))
    lose_the_database(tmp_path)
    full = replace(ROOMY, limits=replace(ROOMY.limits, quarantine=0))

    with store(tmp_path, options=full, rebuilding=True) as opened:
        (orphan,) = opened.files.orphans()
        orphan.write_bytes(b"no DICOM at all")
        assert rebuild(opened, AETitle("RTNODE")).unreadable == 1
        assert orphan.read_bytes() == b"no DICOM at all"
