"""``rtnode check``: the summary of a right configuration, every problem of a wrong one."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.cli.exits import Exit
from node.cli.main import main
from node.errors import LedgerError

CONFIG = """\
node: {ae_titles: ["RTNODE"], data_dir: data}
receive: {unknown_peers: accept}
folders: {out: {path: out}}
routes:
  - {name: contours, match: {kind: [CT]}, pipeline: autocontour, destinations: [out]}
  - {name: resting, match: {kind: [CBCT]}, pipeline: synthetic_ct, destinations: [out],
     enabled: false}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_a_right_configuration_is_summed_up(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", str(config)])

    assert result.exit_code == Exit.DONE
    assert f"{config}: ok" in result.output
    assert "listens on    0.0.0.0:11112 as RTNODE" in result.output
    assert "receives from anybody" in result.output
    assert re.search(r"^contours +autocontour +\S+ +50 +out$", result.output, re.MULTILINE)
    assert "(resting)" in result.output


def test_every_problem_is_told_and_the_exit_code_is_that_of_usage(config: Path) -> None:
    config.write_text(CONFIG.replace("data_dir", "datadir").replace("autocontour", "autocontur"))

    result = CliRunner().invoke(main, ["check", "-c", str(config)])

    assert result.exit_code == Exit.USAGE
    assert f"{config}:1: node.datadir: not a known key; did you mean 'data_dir'?" in result.stderr
    assert f"{config}:5: routes.0.pipeline" in result.stderr
    assert "3 problems; nothing was started" in result.stderr


def test_the_summary_is_json_for_scripts(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", str(config), "--json"])

    told = json.loads(result.stdout)
    assert told["ok"] is True
    assert [route["name"] for route in told["routes"]] == ["contours", "resting"]


def test_the_problems_are_json_for_scripts(config: Path) -> None:
    config.write_text("node: {}\n")

    result = CliRunner().invoke(main, ["check", "-c", str(config), "--json"])

    assert result.exit_code == Exit.USAGE
    assert len(json.loads(result.stdout)["problems"]) == 2


@pytest.mark.parametrize("command", ["serve", "status", "jobs", "echo", "send", "retry"])
def test_every_command_refuses_a_wrong_configuration_with_all_its_problems(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("node: {ae_titles: [], data_dir: data, colour: red}\n")
    arguments = {"echo": ["pacs"], "send": ["pacs", str(tmp_path)], "retry": ["7"]}

    result = CliRunner().invoke(main, [command, "-c", str(path), *arguments.get(command, [])])

    assert result.exit_code == Exit.USAGE
    assert "config.yaml:1: node.colour: not a known key" in result.stderr
    assert "config.yaml:1: node.ae_titles: needs at least one entry" in result.stderr
    assert "hint: correct the lines named" in result.stderr


def test_a_data_folder_on_a_network_is_a_problem(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remote(_path: Path) -> None:
        raise LedgerError("the data folder is on nfs4", hint="use a local disk")

    monkeypatch.setattr("node.cli.check.refuse_remote", remote)

    result = CliRunner().invoke(main, ["check", "-c", str(config)])

    assert result.exit_code == Exit.USAGE
    assert "node.data_dir: the data folder is on nfs4; use a local disk" in result.stderr


def test_the_configuration_may_be_named_by_the_environment(config: Path) -> None:
    result = CliRunner().invoke(main, ["check"], env={"RTNODE_CONFIG": str(config)})

    assert result.exit_code == Exit.DONE


def test_the_version_names_what_a_bug_report_needs() -> None:
    result = CliRunner().invoke(main, ["--version"])

    assert result.exit_code == Exit.DONE
    for word in ("rtnode", "autocontour", "Python", "SQLite", "pydicom"):
        assert word in result.output


@pytest.mark.parametrize("command", main.commands.values(), ids=main.commands.keys())
def test_every_command_and_option_explains_itself(command: click.Command) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["strat"])

    assert result.exit_code == Exit.USAGE
