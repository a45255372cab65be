"""The command as a process: exit codes reach the shell, and nothing heavy is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.exits import Exit

ROOT = Path(__file__).resolve().parents[4]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_right_configuration_is_answered_with_zero() -> None:
    result = run("-m", "node", "check", "-c", "config.yaml")

    assert (result.returncode, result.stderr) == (Exit.DONE, "")
    assert "config.yaml: ok" in result.stdout


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_configuration_is_answered_with_two_and_no_traceback(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("node: [\n")

    result = run("-m", "node", command, "-c", str(path))

    assert result.returncode == Exit.USAGE
    assert f"{path}:2: not YAML" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_line_loads_no_image_or_learning_library() -> None:
    """What a pipeline needs is loaded by `process` and by the workers alone."""
    code = (
        "import sys, node.cli.main;"
        "print(*{'torch', 'SimpleITK', 'highdicom', 'matplotlib', 'scipy'} & set(sys.modules))"
    )

    result = run("-c", code)

    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr
