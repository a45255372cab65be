"""The command line of the demo: it empties its own folders only, and says what is wrong."""

import sys
from pathlib import Path

import pytest

from demo.__main__ import MARKER, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Return the exit code for arguments that the demo must refuse."""
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(str(stop.value.code))


def test_a_folder_that_is_not_there_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--data", tmp_path / "nothing", "--output", tmp_path / "out") == 2

    assert "is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_the_demos_is_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    assert run(monkeypatch, "--output", tmp_path) == 2

    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("inside", ["sent", "."], ids=["below", "the same folder"])
def test_the_data_to_be_pushed_are_never_emptied(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / inside
    data.mkdir(exist_ok=True)
    (tmp_path / MARKER).touch()

    assert run(monkeypatch, "--data", data, "--output", tmp_path) == 2

    assert data.is_dir()
    assert (tmp_path / MARKER).exists()
