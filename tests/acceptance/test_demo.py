"""``make demo`` as a user runs it, as a subprocess, on a machine without Orthanc."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import factories

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", "--embedded", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib")},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_demo_brings_everything_back_and_shows_it(tmp_path: Path) -> None:
    done = demo("--output", tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert re.search(r"last C-STORE response to RTSTRUCT\s+-?[\d.]+ s", done.stdout)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 3
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_of_anybodys_dicom_goes_through_and_what_is_held_is_explained(
    tmp_path: Path,
) -> None:
    """A CT with a gap beside a text file: held with the place of the gap, the rest told."""
    data = tmp_path / "data"
    factories.save(factories.without(factories.ct_series(), 4), data / "gapped")
    (data / "notes.txt").write_text("not DICOM")

    done = demo("--data", data, "--output", tmp_path / "out")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"0x0000\s+11\b", done.stdout)
    assert "not a DICOM object" in done.stdout
    assert re.search(r"^  series .*(gap|missing)", done.stdout, re.MULTILINE)
    assert "a slice is missing" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
