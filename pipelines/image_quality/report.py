"""The report folder: key figures as JSON, before and after, noise spectra, edge profile, gates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, Json, Severity
from pipelines.geometry.stack import StackGeometry
from pipelines.image_quality.gates import Case
from pipelines.imaging.verdict import Gate, overall
from pipelines.report.figures import Line, Scan, before_after, curves
from pipelines.report.page import Picture, Section, Table, write_page
from pipelines.report.sheet import Sheet, write_sheet

LIMITS_OF_THE_GATES = (
    "The gates find gross errors: a tissue that reads other HU, edges that went soft, a structure "
    "that is gone or new, slices in the wrong place. They do not find a structure of the size of "
    "the noise. Validate at your site; keep the series as it came for diagnosis."
)

WORDS: Final = {
    1: ("before", "after", "after − before"),
    2: ("thick slices", "thin slices", "thin slices − straight line"),
}
"""One slice of each, or several -> what stands above the pictures."""


def write_report(
    folder: Path,
    case: Case,
    gates: tuple[Gate, ...],
    geometry: StackGeometry,
    figures: Mapping[str, Json],
    findings: Sequence[Finding],
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
                "value": f.value,
                "unit": f.unit,
                "limit": f.limit,
            }
            for f in findings
        ],
    }
    told = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "report.json").write_text(told + "\n", encoding="utf-8")
    words = "noise reduction" if case.factor == 1 else f"slices parted into {case.factor}"
    title = f"{words}, method {figures['method']}: {overall(gates)}"
    table = Table(
        head=("gate", "value", "unit", "pass", "fail", "verdict"),
        rows=[
            (g.name, round(g.value, 3), g.unit, g.limits.passes, g.limits.fails, str(g.verdict))
            for g in gates
        ],
    )
    in_the_table = {gate.name for gate in gates}
    section = Section(
        title="Image quality",
        text=LIMITS_OF_THE_GATES,
        findings=[
            f for f in findings if f.severity is not Severity.INFO or f.code not in in_the_table
        ],
        tables=[table],
        pictures=_pictures(folder, case, geometry, title),
    )
    write_page(folder / "report.html", title, [section])
    return write_sheet(folder, title, [section], first=1)


def _pictures(folder: Path, case: Case, geometry: StackGeometry, title: str) -> list[Picture]:
    shown = geometry if case.factor == 1 else geometry.parted(case.factor)
    inside = np.argwhere(case.body)
    at = np.median(inside, axis=0).astype(int) if len(inside) else np.array(shown.shape) // 2
    axis = 0 if case.factor == 1 else 1  # thin slices show in a coronal plane
    source = case.before if case.factor == 1 else np.repeat(case.source, case.factor, axis=0)
    difference = case.after - case.before
    before, after, change = (_scan(shown, a) for a in (source, case.after, difference))
    words = WORDS[min(case.factor, 2)]
    path = before_after(
        folder / "change.png", (before, after, change), words, axis=axis, at=int(at[axis]),
        title=title,
    )  # fmt: skip
    found = [Picture(path=path, caption="Before, after, and the difference")]
    texture, profile = case.change.texture, case.change.profile
    lines = {}
    if texture is not None:
        lines["noise power [HU² mm²] over frequency [1/mm]"] = [
            Line(name=name, x=spectrum.radial[0], y=spectrum.radial[1])
            for name, spectrum in (("before", texture.before), ("after", texture.after))
        ]
    if profile is not None:
        x = np.arange(len(profile.before), dtype=np.float64) - len(profile.before) // 2
        lines["mean profile across edges [HU] over distance [pixels]"] = [
            Line(name="before", x=x, y=profile.before),
            Line(name="after", x=x, y=profile.after),
        ]
    if lines:
        path = curves(folder / "curves.png", lines)
        found.append(Picture(path=path, caption="Noise power spectrum and edge profile"))
    return found


def _scan(geometry: StackGeometry, hu: NDArray[np.float32]) -> Scan:
    rows, columns = geometry.row_direction, geometry.column_direction
    return Scan(
        hu=hu,
        spacing=geometry.spacing,
        row_direction=(float(rows[0]), float(rows[1]), float(rows[2])),
        column_direction=(float(columns[0]), float(columns[1]), float(columns[2])),
    )
