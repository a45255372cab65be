"""The report for people: one page with pictures, metrics and features, on screen and on paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.looks import Look, looks
from pipelines.dose_radiomics.planes import Drawn, slices
from pipelines.dose_radiomics.recipe import parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import Stability, stability_word
from pipelines.radiomics.features import FEATURES
from pipelines.report.figures import LUNG, SOFT_TISSUE, Curve, dvh_plot
from pipelines.report.page import Cell, Picture, Section, Table, write_page
from pipelines.report.sheet import Sheet, write_sheet
from pipelines.report.wash import dose_wash

if TYPE_CHECKING:
    from pipelines.dicom.volume import CtVolume

TITLE: Final = "Dose radiomics"
SHOWN: Final = (
    "Volume[cc]", "Mean[Gy]", "Min[Gy]", "Max[Gy]", "D98%[Gy]", "D95%[Gy]", "D2%[Gy]",
    "V5Gy[%]", "V20Gy[%]",
)  # fmt: skip
"""Columns of the page; the tables hold everything."""
INDICES: Final = ("Coverage", "CI_RTOG", "CN_Paddick", "HI_ICRU83", "HI_RTOG", "GI", "R50")
KEY_FEATURES: Final = (
    "QCFX", "Q4LE", "ECT3", "KE2A", "IPH6", "ACUI", "TU9B", "NI2N", "22OV", "W4KF", "GU8N",
    "QCDE", "FCBV",
)  # fmt: skip
"""What the first sheet shows: a few of each family, those that dosiomics papers name most."""
FIRST: Final = 4
"""Sections that stand on the first sheet."""
KEY_REGIONS: Final = 7
"""Regions beside the key features on the first sheet; targets and derived ones first."""
INKS: Final[Mapping[str, str]] = {Stability.STABLE: "#1b7f3b", Stability.LIMITED: "#a66f00",
               Stability.UNSTABLE: "#c1121f"}  # fmt: skip
STABILITY_NOTE: Final = (
    "Stability was measured on an analytic dose over grid spacing, grid phase and interpolation; "
    "rtnode dose-stability measures it on a plan. Empty: not known for this recipe."
)
DECIMALS: Final = 3
"""Of metrics on the page; a microgray says nothing."""
LEAD: Final = (
    "Values in full precision stand in metrics.csv, features.csv and report.json beside this page, "
    "and in the SR."
)
WARM_SHARE: Final = 0.1
"""Of the maximum dose; where no body is drawn, the picture shows all of it."""
_LUNG_HU: Final = (-950.0, -500.0)
"""Air beside the patient is below, soft tissue above."""
_LUNG_SHARE: Final = 0.04
_TARGETS: Final = ("GTV", "CTV", "PTV")


def write_pages(
    folder: Path,
    grid: DoseGrid,
    image: "CtVolume | None",
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: DoseRadiomicsSettings,
    prescription_gy: float | None,
) -> Sheet:
    """Write ``dose.png``, ``dvh.png``, ``index.html``, ``report.pdf`` and ``report.png``."""
    drawn = looks(results)
    wash = _wash(folder / "dose.png", grid, image, results, drawn, prescription_gy)
    curves = dvh_plot(
        folder / "dvh.png",
        [
            Curve(name=look.name, dose_gy=dose, volume_percent=volume, color=look.color,
                  style=look.style)
            for look, result in zip(drawn, results, strict=True)
            if result.dvh is not None
            for dose, volume in (result.dvh.curve(settings.dvh_points),)
        ],
    )  # fmt: skip
    over = "" if image is not None else " (no planning CT among the inputs)"
    sections = [
        Section(title=f"Dose and structures{over}", pictures=[Picture(path=wash)]),
        Section(title="Dose-volume histograms", pictures=[Picture(path=curves)]),
        Section(title="Dose metrics", tables=_metric_tables(results)),
        Section(title="Key features and their stability", tables=_key_table(results, settings)),
        Section(title="Findings", text="" if findings else "None.", findings=findings),
        Section(
            title="Method",
            tables=[Table(head=["setting"], rows=[[p] for p in parameters(settings)])],
        ),
    ]
    every = Section(
        title="All features", text=STABILITY_NOTE, tables=_all_features(results, settings)
    )
    write_page(folder / "index.html", TITLE, [*sections, every], lead=LEAD)
    return write_sheet(folder, TITLE, sections, lead=LEAD, first=FIRST)


def _wash(
    path: Path,
    grid: DoseGrid,
    image: "CtVolume | None",
    results: Sequence[Evaluated],
    drawn: Sequence[Look],
    prescription_gy: float | None,
) -> Path:
    """Draw the dose through the middle of the leading target, else through its maximum."""
    highest = float(grid.dose.max())
    regions = [
        Drawn(name=look.name, region=result.region, color=look.color, style=look.style)
        for look, result in zip(drawn, results, strict=True)
        if result.dvh is not None
    ]
    return dose_wash(
        path,
        slices(grid, regions, image, center=_center(grid, results), box=_box(grid, results)),
        reference_gy=prescription_gy or highest or 1.0,
        prescribed=prescription_gy is not None,
        window=_window(image),
    )


def _box(
    grid: DoseGrid, results: Sequence[Evaluated]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the picture shows: the body, else all regions and the dose above a tenth."""
    drawn = [r for r in results if r.dvh is not None]
    body = [r for r in drawn if r.roi.interpreted_type == "EXTERNAL" and not r.expression]
    if body:
        return body[0].region.box
    corners = [r.region.box for r in drawn]
    warm = np.argwhere(grid.dose >= WARM_SHARE * grid.dose.max())
    ends = [(warm[:, a].min(), warm[:, a].max()) for a in range(3)]
    low = [line[first] for line, (first, _) in zip(grid.positions, ends, strict=True)]
    high = [line[last] for line, (_, last) in zip(grid.positions, ends, strict=True)]
    corners.append((np.array(low), np.array(high)))
    return np.min([c[0] for c in corners], axis=0), np.max([c[1] for c in corners], axis=0)


def _center(grid: DoseGrid, results: Sequence[Evaluated]) -> NDArray[np.float64]:
    """Return where the planes cross: the middle of the hottest target, else the hottest voxel."""
    targets = [
        r
        for r in results
        if r.dvh is not None
        and not r.expression
        and (r.roi.interpreted_type in _TARGETS or r.roi.name[:3].upper() in _TARGETS)
    ]
    if targets:
        low, high = max(targets, key=lambda r: r.dvh.mean if r.dvh else 0.0).region.box
        return np.asarray((low + high) / 2)
    k, j, i = np.unravel_index(int(grid.dose.argmax()), grid.dose.shape)
    return np.array([grid.positions[0][k], grid.positions[1][j], grid.positions[2][i]])


def _window(image: "CtVolume | None") -> tuple[float, float]:
    """Return a window that shows lungs where there are any."""
    if image is None:
        return SOFT_TISSUE
    inner = image.hu[len(image.hu) // 2, ::4, ::4]
    lung = (inner > _LUNG_HU[0]) & (inner < _LUNG_HU[1])
    return LUNG if float(lung.mean()) > _LUNG_SHARE else SOFT_TISSUE


def _metric_tables(results: Sequence[Evaluated]) -> list[Table]:
    """Return the usual metrics, the indices of targets, and what else was asked for."""
    shown = [r for r in results if r.dvh is not None]
    tables = [_pivot(shown, SHOWN)]
    targets = [r for r in shown if {m.name for m in r.metrics} & set(INDICES)]
    if targets:
        prescribed = any(r.prescription_gy for r in targets)
        tables.append(_pivot(targets, INDICES, prescribed=prescribed))
    asked = _asked(shown)
    if asked:
        tables.append(_pivot([r for r in shown if {m.name for m in r.metrics} & set(asked)], asked))
    return tables


def _pivot(shown: Sequence[Evaluated], names: Sequence[str], *, prescribed: bool = False) -> Table:
    """Return a row a region and a column a metric, as far as any region has it."""
    values = [{m.name: round(m.value, DECIMALS) for m in r.metrics} for r in shown]
    head = [name for name in names if any(name in own for own in values)]
    rows: list[list[Cell]] = [
        [r.name, *([r.prescription_gy] if prescribed else []), *(own.get(name) for name in head)]
        for r, own in zip(shown, values, strict=True)
    ]
    extra = ["prescription[Gy]"] if prescribed else []
    return Table(head=["region", *extra, *head], rows=rows)


def _asked(shown: Sequence[Evaluated]) -> list[str]:
    """Return the metrics that rules of the configuration added for some regions."""
    every = [[m.name for m in r.metrics if not m.name.startswith("VolOut")] for r in shown]
    common = frozenset.intersection(*map(frozenset, every)) if every else frozenset()
    usual = {*common, *SHOWN, *INDICES}
    added = dict.fromkeys(name for names in every for name in names if name not in usual)
    general = {m for names in every if len(names) == min(map(len, every)) for m in names}
    return [name for name in added if name not in general]


def _key_table(results: Sequence[Evaluated], settings: DoseRadiomicsSettings) -> list[Table]:
    """Return the key features of a few regions: targets and derived ones first."""
    with_features = [r for r in results if r.features.values]
    order = sorted(
        range(len(with_features)),
        key=lambda n: (
            not (with_features[n].expression or with_features[n].roi.interpreted_type in _TARGETS)
        ),
    )
    chosen = [with_features[n] for n in sorted(order[:KEY_REGIONS])]
    return _feature_table(chosen, KEY_FEATURES, settings)


def _all_features(results: Sequence[Evaluated], settings: DoseRadiomicsSettings) -> list[Table]:
    return _feature_table([r for r in results if r.features.values], tuple(FEATURES), settings)


def _feature_table(
    shown: Sequence[Evaluated], codes: Sequence[str], settings: DoseRadiomicsSettings
) -> list[Table]:
    """Return merged and 3D features, one column a region, with their shipped stability."""
    rows: list[list[Cell]] = [
        [FEATURES[code].family, FEATURES[code].name, FEATURES[code].unit_for("Gy"),
         stability_word(code, settings) or None, *(r.features.values.get(code) for r in shown)]
        for code in codes
        if any(code in r.features.values for r in shown)
    ]  # fmt: skip
    head = ["family", "feature", "unit", "stability", *(result.name for result in shown)]
    return [Table(head=head, rows=rows, inks=INKS, lead=4)] if rows else []
