"""The report on paper: the sections of the HTML page as A4 sheets, PDF and PNG.

One renderer for every pipeline; what is a `Section` for `pipelines.report.page` is one here. Text
stays text in the PDF. The same sections give the same bytes: no date, one font, no page made in
another order. The PNG is the first sheet, so sections come with the most important first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf, PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipelines.api import Finding, Severity
from pipelines.report.lettering import FAMILY, drawable, fitted, width_mm, wrapped
from pipelines.report.page import DRAFT, Cell, Picture, Section, Table, cell_text

WIDTH, HEIGHT = 210.0, 297.0
"""A4 upright [mm]."""
MARGIN: Final = 12.0
INNER: Final = WIDTH - 2 * MARGIN
ROOM: Final = HEIGHT - 2 * MARGIN - 4
"""For blocks on a sheet, above its footer [mm]."""
SCALES: Final = (1.0, 0.92, 0.85, 0.78, 0.72, 0.66, 0.6, 0.55, 0.5)
"""Tried one after the other for the pictures of the first sheet."""
PNG_DPI: Final = 150
_MM: Final = 1 / 25.4
_LINE: Final = 1.28
"""Distance of lines as a share of the font size."""
_POINT_MM: Final = 25.4 / 72
_BODY, _HEADING, _SMALL = 7.5, 10.0, 6.5
"""Font sizes [pt]."""
_TABLE_SIZES: Final = (7.0, 6.5, 6.0, 5.5)
"""Tried one after the other until a table fits."""
_GAP: Final = 3.0
"""Between columns of a table [mm]."""
_WORDS: Final = {Severity.INFO: "note", Severity.WARN: "look", Severity.BLOCK: "held"}
_INKS: Final = {Severity.INFO: "#2a6fc9", Severity.WARN: "#a66f00", Severity.BLOCK: "#c1121f"}
_RED: Final = "#b00020"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The files that were written."""

    pdf: Path
    png: Path
    """The first page."""
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Something that is not broken over pages."""

    height: float
    """[mm]"""
    draw: Callable[[Figure, float], None]
    """Draws with its top so many mm below the upper edge of the sheet."""
    with_next: bool = False
    """A heading never stands alone at the foot of a sheet."""
    head: "_Block | None" = None
    """Repeated where a sheet begins with this block: the head of a table."""


def write_sheet(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    name: str = "report",
    first: int = 0,
) -> Sheet:
    """Write ``<name>.pdf`` with all sheets and ``<name>.png`` with the first one.

    Parameters
    ----------
    folder
        Existing or new.
    title, lead
        Heading and first sentence; words of the pipeline, never a patient's.
    sections
        What follows, in order.
    name
        File name without suffix.
    first
        So many sections belong on the first sheet: their pictures are made smaller for it, down
        to half their size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leading = _leading(title, lead, sections[:first])
    pages = _paged([*leading, *(b for s in sections[first:] for b in _section(s, 1.0))])
    pdf, png = folder / f"{name}.pdf", folder / f"{name}.png"
    fixed = {"Creator": None, "Producer": None, "CreationDate": None, "Title": drawable(title)}
    with PdfPages(pdf, metadata=fixed) as file:
        for number, page in enumerate(pages, 1):
            figure = _drawn(page, title, number, len(pages))
            if number == 1:
                FigureCanvasAgg(figure)
                figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
            FigureCanvasPdf(figure)
            file.savefig(figure)
            figure.clear()  # artists and figure refer to each other: pictures would pile up
    return Sheet(pdf=pdf, png=png, pages=len(pages))


def _leading(title: str, lead: str, sections: Sequence[Section]) -> list[_Block]:
    """Return the first blocks, with pictures as large as the first sheet allows."""
    blocks: list[_Block] = []
    for scale in SCALES:
        blocks = [*_opening(title, lead), *(b for s in sections for b in _section(s, scale))]
        if sum(block.height for block in blocks) <= ROOM:
            break
    return blocks


def _paged(blocks: Sequence[_Block]) -> list[list[tuple[float, _Block]]]:
    """Return (top [mm], block) for every sheet."""
    bottom = MARGIN + ROOM + 1e-6
    pages: list[list[tuple[float, _Block]]] = [[]]
    top = MARGIN
    following = [*blocks[1:], None]
    for block, after in zip(blocks, following, strict=True):
        needed = block.height + (after.height if block.with_next and after is not None else 0.0)
        if top + needed > bottom and pages[-1]:
            pages.append([])
            top = MARGIN + 6
            if block.head is not None and block.head is not block:
                pages[-1].append((top, block.head))
                top += block.head.height
        pages[-1].append((top, block))
        top += block.height
    return pages


def _drawn(page: Sequence[tuple[float, _Block]], title: str, number: int, pages: int) -> Figure:
    figure = Figure(figsize=(WIDTH * _MM, HEIGHT * _MM), facecolor="white")
    for top, block in page:
        block.draw(figure, top)
    if number > 1:
        _write(figure, MARGIN, MARGIN - 2, title, _SMALL, color="#555555")
    foot = HEIGHT - MARGIN + 1
    _write(figure, MARGIN, foot, DRAFT, _SMALL, color=_RED)
    _write(figure, WIDTH - MARGIN, foot, f"{number} / {pages}", _SMALL, color="#555555",
           align="right")  # fmt: skip
    return figure


def _opening(title: str, lead: str) -> Iterator[_Block]:
    def heading(figure: Figure, top: float) -> None:
        _write(figure, MARGIN, top, drawable(title), 15, bold=True)

    def banner(figure: Figure, top: float) -> None:
        _box(figure, MARGIN, top, INNER, 4.6, _RED)
        _write(figure, MARGIN + 2, top + 0.9, DRAFT, _BODY, color="white", bold=True)

    yield _Block(height=7.5, draw=heading)
    if lead:
        yield from _text(lead, "#333333")
    yield _Block(height=6.6, draw=banner)


def _section(section: Section, scale: float) -> Iterator[_Block]:
    def heading(figure: Figure, top: float) -> None:
        _write(figure, MARGIN, top + 1.2, drawable(section.title), _HEADING, bold=True)

    yield _Block(height=6.4, draw=heading, with_next=True)
    if section.text:
        yield from _text(section.text, "#333333")
    for finding in section.findings:
        yield from _finding(finding)
    for table in section.tables:
        yield from _table(table)
        yield _space(1.5)
    for picture in section.pictures:
        yield _picture(picture, scale)


def _text(words: str, color: str, indent: float = 0.0) -> Iterator[_Block]:
    for line in wrapped(words, _BODY, INNER - indent):
        yield _line_of(line, color, indent)


def _line_of(line: str, color: str, indent: float) -> _Block:
    def draw(figure: Figure, top: float) -> None:
        _write(figure, MARGIN + indent, top, line, _BODY, color=color)

    return _Block(height=_BODY * _POINT_MM * _LINE, draw=draw)


def _finding(finding: Finding) -> Iterator[_Block]:
    where = f" [{finding.roi}]" if finding.roi else ""
    words = f"{finding.code}{where}: {finding.message}"
    first, *others = _text(words, "black", 9.0)

    def draw(figure: Figure, top: float) -> None:
        _write(figure, MARGIN, top, _WORDS[finding.severity], _BODY, bold=True,
               color=_INKS[finding.severity])  # fmt: skip
        first.draw(figure, top)

    yield _Block(height=first.height, draw=draw)
    yield from others


def _space(height: float) -> _Block:
    return _Block(height=height, draw=lambda _figure, _top: None)


def _picture(picture: Picture, scale: float) -> _Block:
    image = imread(picture.path)
    rows, columns = image.shape[:2]
    width = INNER * scale
    height = width * rows / columns
    if height > _TALLEST:
        width, height = width * _TALLEST / height, _TALLEST
    left = MARGIN + (INNER - width) / 2

    def draw(figure: Figure, top: float) -> None:
        place = (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
        axes = figure.add_axes(place)
        axes.imshow(image, aspect="auto")
        axes.set_axis_off()

    return _Block(height=height + 1.5, draw=draw)


_TALLEST: Final = 150.0
"""Of a picture [mm]."""


def _table(table: Table) -> Iterator[_Block]:
    """Yield head and rows; what is too wide is set smaller, then in parts side by side."""
    if len(table.head) == 1:  # sentences, not a table
        for row in table.rows:
            yield from _text(f"{row[0]}", "#333333")
        return
    texts = [[drawable(h) for h in table.head]]
    texts += [[drawable(cell_text(cell)) for cell in row] for row in table.rows]
    for size in _TABLE_SIZES:
        widths = _widths(texts, size)
        if sum(widths) + _GAP * (len(widths) - 1) <= INNER:
            break
    else:
        size = _TABLE_SIZES[-1]
        widths = [min(w, INNER / 4) for w in _widths(texts, size)]
    for part in _parts(widths, table.lead):
        yield from _part(table, texts, [(c, widths[c]) for c in part], size)


def _widths(texts: Sequence[Sequence[str]], size: float) -> list[float]:
    head, *rows = texts
    return [
        max([width_mm(name, size, bold=True), *(width_mm(row[c], size) for row in rows)])
        for c, name in enumerate(head)
    ]


def _parts(widths: Sequence[float], lead: int) -> Iterator[list[int]]:
    """Yield the columns of each part; the first `lead` columns stand in all of them."""
    fixed = list(range(min(lead, len(widths) - 1)))
    start = sum(widths[c] + _GAP for c in fixed)
    part, filled = list(fixed), start
    for c in range(len(fixed), len(widths)):
        if len(part) > len(fixed) and filled + widths[c] > INNER:
            yield part
            part, filled = list(fixed), start
        part.append(c)
        filled += widths[c] + _GAP
    yield part


def _part(
    table: Table,
    texts: Sequence[Sequence[str]],
    columns: Sequence[tuple[int, float]],
    size: float,
) -> Iterator[_Block]:
    lefts = [MARGIN]
    for _, width in columns[:-1]:
        lefts.append(lefts[-1] + width + _GAP)
    right = lefts[-1] + columns[-1][1]
    height = size * _POINT_MM * 1.5
    numeric = [_is_numeric(table, c) for c, _ in columns]

    def head_of(figure: Figure, top: float) -> None:
        _box(figure, MARGIN - 1, top, right - MARGIN + 2, height, "#e9edf2")
        _row(figure, top, texts[0], bold=True)

    def _row(figure: Figure, top: float, row: Sequence[str], *, bold: bool = False) -> None:
        for (c, width), left, number in zip(columns, lefts, numeric, strict=True):
            words = fitted(row[c], size, width + 0.3)
            ink = table.inks.get(words, "black") if not bold else "black"
            if number:
                _write(figure, left + width, top + 0.5, words, size, bold=bold, align="right",
                       color=ink)  # fmt: skip
            else:
                _write(figure, left, top + 0.5, words, size, bold=bold, color=ink)

    head = _Block(height=height, draw=head_of, with_next=True)
    yield head
    for row in texts[1:]:

        def draw(figure: Figure, top: float, row: Sequence[str] = row) -> None:
            _rule(figure, MARGIN - 1, right + 1, top + height)
            _row(figure, top, row)

        yield _Block(height=height, draw=draw, head=head)


def _is_numeric(table: Table, column: int) -> bool:
    cells: list[Cell] = [row[column] for row in table.rows]
    return any(isinstance(c, float | int) for c in cells) and not any(
        isinstance(c, str) for c in cells
    )


def _write(  # noqa: PLR0913 - where, what, how
    figure: Figure,
    left: float,
    top: float,
    words: str,
    size: float,
    *,
    color: str = "black",
    bold: bool = False,
    align: str = "left",
) -> None:
    """Write one line with its upper left (or right) corner at (left, top) [mm]."""
    figure.text(
        left / WIDTH, 1 - (top + 0.93 * size * _POINT_MM) / HEIGHT, words, fontsize=size,
        color=color, weight="bold" if bold else "normal", family=FAMILY, ha=align, va="baseline",
        parse_math=False,
    )  # fmt: skip


def _box(figure: Figure, left: float, top: float, width: float, height: float, color: str) -> None:
    corner = (left / WIDTH, 1 - (top + height) / HEIGHT)
    figure.add_artist(
        Rectangle(corner, width / WIDTH, height / HEIGHT, color=color, lw=0,
                  transform=figure.transFigure)
    )  # fmt: skip


def _rule(figure: Figure, left: float, right: float, top: float) -> None:
    y = 1 - top / HEIGHT
    figure.add_artist(
        Line2D([left / WIDTH, right / WIDTH], [y, y], color="#d0d5db", lw=0.4,
               transform=figure.transFigure)
    )  # fmt: skip
