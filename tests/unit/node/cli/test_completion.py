"""Completion in a shell: the script is the shell's, and what it asks is answered."""

import subprocess

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from node.cli.main import main
from tests.conftest import program


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program_by_its_name(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])

    assert done.exit_code == 0
    assert f"_RTNODE_COMPLETE={shell}_complete" in done.output


def test_bash_takes_the_script() -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).output

    checked = subprocess.run(
        [program("bash"), "--norc", "-c", f"{script}\ncomplete -p rtnode"],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert checked.stdout.strip().endswith("rtnode")


@pytest.mark.parametrize(
    ("words", "expected"),
    [("rtnode expl", {"explain"}), ("rtnode routes ", {"test"}), ("rtnode echo --js", {"--json"})],
)
def test_commands_and_options_are_completed(
    monkeypatch: pytest.MonkeyPatch, words: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))

    offered = BashComplete(main, {}, "rtnode", "_RTNODE_COMPLETE").complete()

    assert {line.split(",", 1)[1] for line in offered.splitlines()} == expected
