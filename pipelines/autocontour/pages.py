"""The report for people: one page with pictures and tables, on screen and on paper."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipelines.api import Finding, Json, Severity
from pipelines.autocontour.assemble import Assembled
from pipelines.autocontour.worst import worst_slices
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.contours import LEVEL
from pipelines.imaging.grid import WorkImage
from pipelines.report.figures import Overlay, Scan, axial_planes, three_planes
from pipelines.report.page import Picture, Section, Table, write_page
from pipelines.report.sheet import Sheet, write_sheet

TITLE: Final = "Auto-contours"
WORST: Final = (
    "For each structure the slice on which it changes most to the next one; those with findings "
    "first. It says where to look, not that something is wrong."
)
LEAD: Final = "RT Structure Set drawn automatically, not reviewed by anyone."


def write_pages(
    folder: Path,
    volume: CtVolume,
    image: WorkImage,
    made: Assembled,
    figures: Mapping[str, Json],
    findings: Sequence[Finding],
    further: Sequence[Section] = (),
) -> Sheet:
    """Write report.json, the picture, the page and its paper form; they hold no patient's name.

    Parameters
    ----------
    folder
        New or existing.
    volume, image, made
        The CT, the work image, and what was written.
    figures
        With `rois`: name -> volume_cc, contours, round_trip_dice.
    findings
        All of the run.
    further
        Sections that follow, such as the comparison.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = [dataclasses.asdict(f) for f in findings]
    (folder / "report.json").write_text(
        json.dumps({"figures": dict(figures), "findings": told}, indent=2) + "\n"
    )
    scan = scan_of(volume, image)
    overlays = [
        Overlay(name=name, mask=surface >= LEVEL, color=hex_color(made.colors[name]))
        for name, surface in made.surfaces.items()
    ]
    picture = three_planes(scan, folder / "contours.png", overlays=overlays, title="autocontour")
    flagged = {f.roi for f in findings if f.roi and f.severity is not Severity.INFO}
    places = worst_slices(made.surfaces, {*flagged, *_written(made, flagged)})
    worst = axial_planes(
        scan,
        folder / "worst.png",
        [(p.slice, f"{p.name}: {100 * p.change:.0f} % changes") for p in places],
        overlays=overlays,
        title="where structures change most from a slice to the next",
    )
    sections = [
        Section(title="Structures", tables=[_table(made, figures)]),
        Section(title="Picture", pictures=[Picture(path=picture)]),
        Section(title="Findings", text="" if findings else "none", findings=findings),
        Section(title="Slices to look at first", text=WORST, pictures=[Picture(path=worst)]),
        *further,
    ]
    write_page(folder / "index.html", TITLE, sections, lead=LEAD)
    return write_sheet(folder, TITLE, sections, lead=LEAD, first=2)


def _written(made: Assembled, flagged: Collection[str]) -> set[str]:
    """Return the names under which flagged organs are written, such as those that are cut off."""
    return {s.name for s in made.structures if s.name.replace("~", "") in flagged}


def scan_of(volume: CtVolume, image: WorkImage) -> Scan:
    """Return the work image as what the pictures are drawn from."""
    row, column = volume.geometry.row_direction, volume.geometry.column_direction
    return Scan(
        hu=image.hu,
        spacing=image.spacing,
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
    )


def hex_color(color: tuple[int, int, int]) -> str:
    """Return a color as ``#rrggbb``."""
    return "#" + "".join(f"{part:02x}" for part in color)


def _table(made: Assembled, figures: Mapping[str, Json]) -> Table:
    rois = figures["rois"]
    about = {s.name: s for s in made.structures}
    labels = any(s.label for s in made.structures)
    rows = []
    for name, values in rois.items() if isinstance(rois, dict) else ():
        numbers = (_cell(values, key) for key in ("volume_cc", "contours", "round_trip_dice"))
        label = (about[name].label,) if labels else ()
        rows.append((name, *label, about[name].interpreted_type, *numbers, about[name].description))
    head = ("structure", *(("label",) if labels else ()), "type", "volume [cc]", "contours",
            "Dice of the file read back", "how")  # fmt: skip
    return Table(head=head, rows=rows)


def _cell(values: Json, key: str) -> float | int | str:
    value = values.get(key) if isinstance(values, dict) else None
    if isinstance(value, float) and value >= 1000:  # noqa: PLR2004 (four digits need no decimals)
        return round(value)
    return value if isinstance(value, (float, int)) else ""
