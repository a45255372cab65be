"""The report folder: key figures as JSON, pictures, and one page that shows both."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, Json, Severity
from pipelines.imaging.nps import Texture
from pipelines.report.boards import checkerboards, planes_of, spectra
from pipelines.report.figures import Scan, compare
from pipelines.report.page import Picture, Section, Table, write_page
from pipelines.report.sheet import Sheet, write_sheet
from pipelines.synthetic_ct.contour_outputs import Contours
from pipelines.synthetic_ct.contour_outputs import section as contour_section
from pipelines.synthetic_ct.methods import Candidate, Scene

LIMITS_OF_THE_GATES = (
    "The gates find gross errors of HU, place and shape. They do not find a small structure of "
    "plausible HU that is not in the patient, and they were tuned on simulated images only: no "
    "number here is a proof of accuracy. Validate at your site."
)


def write_report(  # noqa: PLR0913, PLR0917 (all that a report shows)
    folder: Path,
    scene: Scene,
    final: Candidate,
    hu: NDArray[np.float32],
    figures: Mapping[str, Json],
    findings: Sequence[Finding],
    contours: Contours | None = None,
    grain: Texture | None = None,
) -> Sheet:
    """Write ``report.json``, pictures, ``report.html`` and the same on paper; return the paper."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "figures": figures,
        "findings": [
            {
                "code": f.code,
                "severity": str(f.severity),
                "message": f.message,
                "roi": f.roi,
                "value": f.value,
                "unit": f.unit,
                "limit": f.limit,
            }
            for f in findings
        ],
    }
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    cbct, sct = (_scan(scene, a) for a in (scene.cbct, hu))
    truth = None if scene.prior is None else _scan(scene, scene.prior.hu)
    middle = int(np.median(np.flatnonzero(scene.body.any(axis=(1, 2)))))
    title = f"synthetic CT, method {final.method}: {final.verdict}"
    compared = compare(
        folder / "comparison.png", cbct=cbct, sct=sct, body=scene.body, title=title, at=middle
    )
    pictures = [Picture(path=compared, caption="CBCT and synthetic CT, the correction, histograms")]
    images = [("CBCT", cbct), ("synthetic CT", sct)]
    boards = [("CBCT and synthetic CT", cbct, sct)]
    if truth is not None:
        images.append(("planning CT in place", truth))
        boards.append(("planning CT and synthetic CT", truth, sct))
    planes = planes_of(folder / "planes.png", images, title=title)
    pictures.append(Picture(path=planes, caption="Three planes of each image"))
    board = checkerboards(folder / "checkerboard.png", boards, title=title, at=middle)
    pictures.append(Picture(path=board, caption="Edges go on where both images agree"))
    if grain is not None:
        curves = [("CBCT", *grain.before.radial), ("synthetic CT", *grain.after.radial)]
        drawn = spectra(folder / "noise.png", curves, title="Noise power of flat soft tissue")
        pictures.append(Picture(path=drawn, caption="Noise power (Wiener) spectrum"))
    gates = Table(
        head=("gate", "value", "unit", "pass", "fail", "verdict"),
        rows=[
            (g.name, round(g.value, 3), g.unit, g.limits.passes, g.limits.fails, str(g.verdict))
            for g in final.gates
        ],
    )
    in_the_table = {gate.name for gate in final.gates}
    section = Section(
        title="Synthetic CT",
        text=LIMITS_OF_THE_GATES,
        findings=[
            f for f in findings if f.severity is not Severity.INFO or f.code not in in_the_table
        ],
        tables=[gates],
        pictures=pictures,
    )
    sections = [section]
    moved = None if contours is None else contour_section(contours, sct, folder)
    if moved is not None:
        sections.append(moved)
    write_page(folder / "report.html", title, sections)
    return write_sheet(folder, title, sections, first=1)


def _scan(scene: Scene, hu: NDArray[np.float32]) -> Scan:
    rows, columns = scene.geometry.row_direction, scene.geometry.column_direction
    return Scan(
        hu=hu,
        spacing=scene.geometry.spacing,
        row_direction=(float(rows[0]), float(rows[1]), float(rows[2])),
        column_direction=(float(columns[0]), float(columns[1]), float(columns[2])),
    )
