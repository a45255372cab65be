"""The report page: one file, nothing fetched, nothing executed, everything escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from typing_extensions import override

from pipelines.api import Finding, Severity
from pipelines.report.figures import Scan, three_planes
from pipelines.report.page import DRAFT, Picture, Section, Table, write_page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(tmp_path: Path) -> str:
    scan = Scan(hu=np.zeros((4, 8, 8)), spacing=(3.0, 1.0, 1.0))
    picture = three_planes(scan, tmp_path / "a.png")
    finding = Finding(code="roi-outside-dose", severity=Severity.WARN, message="<1 %", roi="A&B")
    section = Section(
        title="<script>alert(1)</script>", findings=[finding],
        tables=[Table(head=("a", "b"), rows=[("x & y", 1.23456), (None, 123456)])],
        pictures=[Picture(path=picture, caption='"quoted"')],
    )  # fmt: skip
    return write_page(tmp_path / "index.html", "report", [section]).read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = written(tmp_path)
    tags = Tags()
    tags.feed(page)

    assert not tags.open
    assert "script" not in {tag for tag, _ in tags.seen}
    sources = [a["src"] for tag, a in tags.seen if tag == "img"]
    assert all(s is not None and s.startswith("data:image/png;base64,") for s in sources)
    assert not re.findall(r"https?://", page)
    assert "default-src 'none'" in page


def test_text_is_escaped_and_the_draft_is_declared(tmp_path: Path) -> None:
    page = written(tmp_path)

    assert "<script>" not in page
    assert "x &amp; y" in page
    assert "A&amp;B" in page
    assert DRAFT in page


def test_numbers_are_rounded_and_missing_cells_are_shown(tmp_path: Path) -> None:
    page = written(tmp_path)

    assert ">1.235<" in page
    assert ">123,456<" in page
    assert "<td>-</td>" in page
