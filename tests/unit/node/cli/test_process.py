"""``rtnode process``: what reaches the worker, and what comes back as exit code."""

import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.exits import Exit
from node.cli.main import main


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, Path, dict[str, str]]]:
    """Stand in for the worker, whose import loads every library of the pipelines."""
    seen: list[tuple[str, Path, Path, dict[str, str]]] = []

    def process_folder(name: str, source: Path, output: Path, overrides: dict[str, str]) -> int:
        seen.append((name, source, output, overrides))
        return 1 if "fail" in overrides else 0

    worker = types.ModuleType("node.worker")
    worker.process_folder = process_folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "node.worker", worker)
    return seen


def test_settings_and_folders_reach_the_worker(calls: list, tmp_path: Path) -> None:
    out = tmp_path / "out"

    result = CliRunner().invoke(
        main, ["process", "autocontour", str(tmp_path), str(out), "--set", "a=1", "--set", "b=x=y"]
    )

    assert result.exit_code == Exit.DONE
    assert calls == [("autocontour", tmp_path, out, {"a": "1", "b": "x=y"})]


def test_no_result_is_a_failure(calls: list, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["process", "autocontour", str(tmp_path), str(tmp_path), "--set", "fail=1"]
    )

    assert result.exit_code == Exit.FAILED


@pytest.mark.parametrize(
    "arguments",
    [
        ["autocontur", ".", "out"],
        ["autocontour", "/no/such/folder", "out"],
        ["autocontour", ".", "out", "--set", "a"],
        ["autocontour", ".", "out", "--set", "=1"],
        ["autocontour", ".", "out", "--set", "a=1", "--set", "a=2"],
        ["autocontour", "."],
    ],
    ids=["pipeline", "folder", "no-value", "no-key", "twice", "no-output"],
)
def test_a_wrong_command_line_is_a_usage_error(calls: list, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["process", *arguments])

    assert result.exit_code == Exit.USAGE
    assert calls == []


def test_a_mistake_of_ours_fails_without_quoting_what_it_stumbled_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def process_folder(*_arguments: object) -> int:
        raise ValueError("CANARY^GRETA")

    worker = types.ModuleType("node.worker")
    worker.process_folder = process_folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "node.worker", worker)

    result = CliRunner().invoke(main, ["process", "autocontour", str(tmp_path), str(tmp_path)])

    assert result.exit_code == Exit.FAILED
    assert "a mistake of rtnode" in result.stderr
    assert "CANARY" not in result.output
