"""One self-contained HTML page from sections, tables and pictures.

Pictures are embedded, so the file can be mailed, archived or opened without a network; no script,
no outside request (a Content-Security-Policy says so), every text escaped.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final, TypeAlias

from pipelines.api import Finding, Severity

Cell: TypeAlias = str | int | float | None

DRAFT: Final = "Unapproved draft for research use. Not for clinical use without local validation."
STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.draft { background: #b00020; color: #fff; padding: .4rem .8rem; border-radius: 4px; }
table { border-collapse: collapse; margin: .8rem 0; } caption { text-align: left; opacity: .7 }
th, td { border-bottom: 1px solid var(--line); padding: .28rem .9rem .28rem 0; text-align: left; }
th { background: var(--soft); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; border-radius: 4px; } figure { margin: 1rem 0; }
figcaption { opacity: .75; font-size: .9rem; }
.INFO { color: #2a7de1 } .WARN { color: #b8860b } .BLOCK { color: #d11a2a }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a head; numbers are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    inks: Mapping[str, str] = field(default_factory=dict)
    """Word in a cell -> color of its letters."""
    lead: int = 1
    """Columns that are repeated where a table is too wide for one sheet of paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG file, embedded."""

    path: Path
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with text, findings, tables and pictures, in this order."""

    title: str
    text: str = ""
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def write_page(path: Path, title: str, sections: Sequence[Section], *, lead: str = "") -> Path:
    """Write the page and return `path`.

    Parameters
    ----------
    path
        The HTML file.
    title, lead
        Heading and first sentence.
    sections
        What follows, in order.
    """
    body = "\n".join(_section(s) for s in sections)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
<p class="draft">{DRAFT}</p>
{body}
</body></html>
""",
        encoding="utf-8",
    )
    return path


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.findings:
        parts.append(f"<ul>{''.join(map(_finding, section.findings))}</ul>")
    parts += [_table(t) for t in section.tables]
    parts += [_picture(p) for p in section.pictures]
    return "\n".join(parts)


def _finding(finding: Finding) -> str:
    words = {Severity.INFO: "note", Severity.WARN: "look", Severity.BLOCK: "held"}
    roi = f" [{finding.roi}]" if finding.roi else ""
    return (
        f'<li><b class="{finding.severity}">{words[finding.severity]}</b> '
        f"{escape(finding.code + roi)}: {escape(finding.message)}</li>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in table.head)
    rows = "".join(
        f"<tr>{''.join(_cell(cell, table.inks) for cell in row)}</tr>" for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def cell_text(value: Cell) -> str:
    """Return what is shown of a cell."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _cell(value: Cell, inks: Mapping[str, str]) -> str:
    shown = escape(cell_text(value))
    if isinstance(value, float | int):
        return f'<td class="number">{shown}</td>'
    ink = inks.get(shown)
    style = f' style="color:{ink};font-weight:600"' if ink else ""
    return f"<td{style}>{shown}</td>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
