"""verify, backup, restore, rebuild-index and purge as an operator meets them."""

import json
from pathlib import Path

from node.cli.exits import Exit
from tests.integration.cli.conftest import Site


def blobs(site: Site) -> list[Path]:
    return sorted((site.data_dir / "blobs").glob("*/*"))


def test_a_sound_node_is_verified_byte_by_byte(site: Site) -> None:
    code, out, _ = site.invoke("verify")

    assert code == Exit.DONE
    assert "ok: every row has its file" in out
    assert "1 jobs" in out


def test_a_flipped_bit_fails_the_verification_and_is_named(site: Site) -> None:
    path = blobs(site)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    code, out, _ = site.invoke("verify")
    assert code == Exit.FAILED
    assert "the bytes are not those stored" in out
    code, out, _ = site.invoke("verify", "--json")
    assert code == Exit.FAILED
    told = json.loads(out)
    assert told["ok"] is False
    assert told["problems"][0]["kind"] == "changed"
    assert site.invoke("verify", "--quick")[0] == Exit.DONE


def test_without_a_ledger_there_is_nothing_to_verify(empty_site: Site) -> None:
    code, _, err = empty_site.invoke("verify")

    assert code == Exit.FAILED
    assert "no ledger" in err


def test_a_backup_is_made_restored_and_completed_from_the_files(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    code, out, _ = site.invoke("backup", str(copy))
    assert code == Exit.DONE
    assert "checked" in out
    assert site.invoke("backup", str(copy))[0] == Exit.FAILED

    (site.data_dir / "ledger.db").write_bytes(b"gone")
    code, out, _ = site.invoke("restore", str(copy))
    assert code == Exit.DONE
    assert "before-restore" in out
    code, out, _ = site.invoke("rebuild-index", "--json")
    assert code == Exit.DONE
    assert json.loads(out)["restored"] == 0
    assert site.invoke("verify")[0] == Exit.DONE


def test_a_file_that_is_no_backup_is_not_restored(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no database at all")

    code, _, err = site.invoke("restore", str(other))

    assert code == Exit.FAILED
    assert "cannot be read" in err
    assert site.invoke("verify")[0] == Exit.DONE


def test_an_index_that_is_lost_is_built_again_from_the_files(site: Site) -> None:
    count = len(blobs(site))
    for path in site.data_dir.glob("ledger.db*"):
        path.unlink()

    code, out, _ = site.invoke("rebuild-index")

    assert code == Exit.DONE
    assert f"{count} objects restored" in out


def test_purge_tells_what_would_go_and_removes_nothing(site: Site) -> None:
    before = blobs(site)

    assert site.invoke("purge")[0] == Exit.USAGE
    code, out, _ = site.invoke("purge", "--dry-run")
    assert code == Exit.DONE
    assert "no rule is set" in out
    with site.config.open("a") as config:
        config.write("retention: {keep_days: 0.000001}\n")
    code, out, _ = site.invoke("purge", "--dry-run", "--json")
    assert code == Exit.DONE
    assert json.loads(out)["files"] == 0, "a job is held: nothing may go"
    assert blobs(site) == before
