"""The report on paper: sheets that break well, repeatable, with the draft on each of them."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipelines.api import Finding, Severity
from pipelines.report.figures import Scan, three_planes
from pipelines.report.lettering import MISSING, drawable, fitted, width_mm, wrapped
from pipelines.report.page import DRAFT, Picture, Section, Table
from pipelines.report.sheet import write_sheet


def sections(rows: int = 10, columns: int = 4) -> list[Section]:
    table = Table(
        head=[f"column {c}" for c in range(columns)],
        rows=[[f"row {n}", *(n + c / 7 for c in range(columns - 1))] for n in range(rows)],
        inks={"row 1": "#1b7f3b"},
    )
    finding = Finding(code="roi-empty", severity=Severity.WARN, message="long " * 60, roi="PTV")
    return [Section(title="Numbers", text="Words. " * 40, findings=[finding], tables=[table])]


def words(pdf: Path) -> list[str]:
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("missing tool: pdftotext")
    read = subprocess.run([program, "-layout", pdf, "-"], capture_output=True, text=True,
                          check=True, timeout=60)  # fmt: skip
    return read.stdout.split("\f")[:-1]


def test_a_long_table_goes_on_with_its_head_and_no_row_is_lost(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path, "Report", sections(rows=150))

    pages = words(sheet.pdf)
    assert len(pages) == sheet.pages == 3
    assert all("column 0" in page and DRAFT in page for page in pages)
    assert re.findall(r"row (\d+)", " ".join(pages)) == [str(n) for n in range(150)]
    assert "[PTV]" in pages[0]


def test_a_wide_table_is_split_and_each_part_names_its_rows(tmp_path: Path) -> None:
    (page,) = words(write_sheet(tmp_path, "Report", sections(rows=3, columns=30)).pdf)

    assert page.count("row 2") > 1
    assert all(f"column {c}" in page for c in range(30))


def test_the_same_sections_give_the_same_bytes_without_a_date(tmp_path: Path) -> None:
    one, other = (write_sheet(tmp_path / name, "Report", sections()) for name in "ab")

    assert one.pdf.read_bytes() == other.pdf.read_bytes()
    assert one.png.read_bytes() == other.png.read_bytes()
    assert b"CreationDate" not in one.pdf.read_bytes()


def test_pictures_shrink_until_the_leading_sections_share_the_first_sheet(tmp_path: Path) -> None:
    scan = Scan(hu=np.zeros((4, 8, 8)), spacing=(3.0, 1.0, 1.0))
    picture = Picture(path=three_planes(scan, tmp_path / "a.png"))
    every = [Section(title="Pictures", pictures=[picture] * 4), *sections(rows=5)]

    assert len(words(write_sheet(tmp_path / "free", "Report", every).pdf)) == 2
    assert len(words(write_sheet(tmp_path / "fit", "Report", every, first=2).pdf)) == 1


def test_letters_that_the_font_lacks_are_squares() -> None:
    assert drawable("PTV\n70  肺") == f"PTV 70 {MISSING}"
    assert drawable("Größe α ≥") == "Größe α ≥"


def test_lines_fit_their_width_and_no_word_is_lost() -> None:
    text = "a few words and onethatismuchtoolongforaline at the end"

    lines = list(wrapped(text, 8, 25))

    assert all(width_mm(line, 8) <= 25 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert fitted("a name that is too long", 8, 20).endswith("…")
