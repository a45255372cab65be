"""``rtnode check FILES --profile``: what a planning system would say, before it says it."""

import json

from click.testing import CliRunner

from node.cli.exits import Exit
from node.cli.main import main
from pipelines.dicom.header import save
from tests import factories


def invoke(*arguments: str):
    return CliRunner().invoke(main, ["check", *arguments])


def test_an_object_that_may_be_imported_is_done(tmp_path):
    save(factories.rtstruct(names=["GTV"]), tmp_path / "rs.dcm")

    found = invoke(str(tmp_path), "--profile", "eclipse")

    assert found.exit_code == Exit.DONE
    assert "1 files, 0 problems by the rules of Varian Eclipse" in found.stdout


def test_an_object_that_would_be_held_is_told_with_its_rule(tmp_path):
    ds = factories.rtstruct(names=["GTV"])
    ds.ApprovalStatus = "APPROVED"
    save(ds, tmp_path / "rs.dcm")

    found = invoke(str(tmp_path / "rs.dcm"), "--profile", "eclipse", "--json")

    assert found.exit_code == Exit.FAILED
    (problem,) = json.loads(found.stdout)
    assert (problem["rule"], problem["action"]) == ("unapproved", "hold")


def test_the_rules_are_printed_with_what_is_only_assumed():
    found = invoke("--profile", "monaco")

    assert found.exit_code == Exit.DONE
    assert "Elekta Monaco" in found.stdout
    assert "assumed" in found.stdout
    assert "at most 1000 points a contour" in found.stdout


def test_objects_need_a_system_and_a_system_needs_dicom(tmp_path):
    (tmp_path / "a.dcm").write_text("no DICOM")

    assert invoke(str(tmp_path)).exit_code == Exit.USAGE
    assert invoke(str(tmp_path), "--profile", "mim").exit_code == Exit.FAILED
