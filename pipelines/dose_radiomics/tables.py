"""The report folder: tables for research, a page for people."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.api import Finding, Json
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.features import FEATURES
from pipelines.dose_radiomics.recipe import RECIPE, parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import class_of
from pipelines.report.figures import Curve, dvh_plot
from pipelines.report.page import Cell, Picture, Section, Table, write_page

MERGED, AVERAGED = "3D merged", "3D averaged"
_SHOWN = (
    "Volume[cc]", "Mean[Gy]", "Min[Gy]", "Max[Gy]", "D95%[Gy]", "D2%[Gy]", "V5Gy[%]", "V20Gy[%]",
)  # fmt: skip
"""Columns of the page; the tables hold everything."""
STABILITY_NOTE = (
    "Stability was measured on an analytic dose over grid spacing, grid phase and interpolation; "
    "rtnode dose-stability measures it on a plan. Empty: not known for this recipe."
)


def write_report(
    folder: Path,
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: DoseRadiomicsSettings,
) -> dict[str, Json]:
    """Write all tables and pictures into `folder` and return the key figures.

    ``metrics.csv``, ``features.csv`` (both aggregations), ``dvh.csv``, ``report.json``,
    ``dvh.png`` and ``index.html``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = key_figures(results)
    _csv(folder / "metrics.csv", ("region", "metric", "unit", "value"), _metrics(results))
    _csv(
        folder / "features.csv",
        ("region", "code", "family", "feature", "aggregation", "unit", "value", "stability"),
        _features(results, settings),
    )
    _csv(
        folder / "dvh.csv",
        ("region", "dose_gy", "volume_percent", "volume_cc"),
        _curves(results, settings.dvh_points),
    )
    (folder / "report.json").write_text(
        json.dumps(_everything(results, findings, settings), indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    picture = dvh_plot(
        folder / "dvh.png",
        [
            Curve(name=result.name, dose_gy=dose, volume_percent=volume)
            for result in results
            if result.dvh is not None
            for dose, volume in (result.dvh.curve(settings.dvh_points),)
        ],
        title="Dose-volume histograms",
    )
    _page(folder, results, findings, settings, picture)
    return figures


def key_figures(results: Sequence[Evaluated]) -> dict[str, Json]:
    """Return the figures of every region, units in the keys."""
    regions: dict[str, Json] = {}
    for result in results:
        row: dict[str, Json] = {_key(m.name): _short(m.value) for m in result.metrics}
        row["features"] = len(result.features.values)
        row["voxels"] = result.features.voxels
        regions[result.name] = row
    total = sum(len(result.metrics) + len(result.features.values) for result in results)
    return {"recipe": RECIPE, "rois": regions, "values": total}


def _key(name: str) -> str:
    """Return a metric name as a key: D95%[Gy] -> D95_gy, Volume[cc] -> volume_cc."""
    plain, _, unit = name.rstrip("]").partition("[")
    plain = plain.rstrip("%")
    if plain in {"Volume", "Mean", "Min", "Max", "SD"}:
        plain = plain.lower()
    unit = {"Gy": "gy", "%": "percent", "cc": "cc", "": ""}[unit]
    return f"{plain}_{unit}" if unit else plain


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _metrics(results: Iterable[Evaluated]) -> Iterable[tuple[object, ...]]:
    for result in results:
        for metric in result.metrics:
            yield result.name, metric.name, metric.unit, repr(metric.value)


def _features(
    results: Iterable[Evaluated], settings: DoseRadiomicsSettings
) -> Iterable[tuple[object, ...]]:
    for result in results:
        for values, averaged in ((result.features.values, False), (result.features.averaged, True)):
            for code, value in values.items():
                feature = FEATURES[code]
                directed = feature.family in {"glcm", "glrlm"}
                how = (AVERAGED if averaged else MERGED) if directed else "3D"
                yield (
                    result.name, code, feature.family, feature.name, how, feature.unit,
                    repr(value), "" if averaged else _stability(code, settings),
                )  # fmt: skip


def _curves(results: Iterable[Evaluated], points: int) -> Iterable[tuple[object, ...]]:
    for result in results:
        if result.dvh is None:
            continue
        for dose, percent in zip(*result.dvh.curve(points), strict=True):
            cc = percent / 100 * result.dvh.volume_cc
            yield result.name, f"{dose:.4f}", f"{percent:.5f}", f"{cc:.5f}"


def _everything(
    results: Sequence[Evaluated], findings: Sequence[Finding], settings: DoseRadiomicsSettings
) -> dict[str, Json]:
    """Return the whole result as plain JSON."""
    regions: list[Json] = []
    for result in results:
        metrics: dict[str, Json] = {m.name: m.value for m in result.metrics}
        merged: dict[str, Json] = dict(result.features.values)
        averaged: dict[str, Json] = dict(result.features.averaged)
        classes: dict[str, Json] = {
            code: kind for code in merged if (kind := _stability(code, settings))
        }
        regions.append(
            {
                "name": result.name,
                "expression": result.expression,
                "roi_number": result.roi.number,
                "metrics": metrics,
                "features": merged,
                "features_stability": classes,
                "features_averaged": averaged,
                "voxels": result.features.voxels,
                "parameters": list(result.parameters),
            }
        )
    told: list[Json] = [
        {"code": f.code, "severity": f.severity.value, "roi": f.roi, "message": f.message,
         "value": f.value, "unit": f.unit}
        for f in findings
    ]  # fmt: skip
    return {
        "recipe": RECIPE,
        "parameters": list(parameters(settings)),
        "settings": settings.model_dump(mode="json"),
        "regions": regions,
        "findings": told,
    }


def _page(
    folder: Path,
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: DoseRadiomicsSettings,
    picture: Path,
) -> None:
    rows = []
    for result in results:
        values = {metric.name: metric.value for metric in result.metrics}
        rows.append(
            [result.name, *(values.get(name) for name in _SHOWN), len(result.features.values)]
        )
    sections = [
        Section(
            title="Dose",
            tables=[Table(head=["region", *_SHOWN, "features"], rows=rows)],
            pictures=[Picture(path=picture, caption="Cumulative dose-volume histograms")],
        ),
        _feature_section(results, settings),
        Section(title="Findings", text="" if findings else "None.", findings=findings),
        Section(
            title="Method",
            tables=[Table(head=["setting"], rows=[[p] for p in parameters(settings)])],
        ),
    ]
    write_page(folder / "index.html", "Dose radiomics", sections, lead="All values stand in "
               "metrics.csv, features.csv and report.json beside this page.")  # fmt: skip


def _feature_section(results: Sequence[Evaluated], settings: DoseRadiomicsSettings) -> Section:
    """Return all merged and 3D features, one column a region, with their shipped stability."""
    shown = [result for result in results if result.features.values]
    codes = [code for code in FEATURES if any(code in r.features.values for r in shown)]
    rows: list[list[Cell]] = [
        [FEATURES[code].family, FEATURES[code].name, FEATURES[code].unit,
         _stability(code, settings) or None, *(r.features.values.get(code) for r in shown)]
        for code in codes
    ]  # fmt: skip
    head = ["family", "feature", "unit", "stability", *(result.name for result in shown)]
    return Section(
        title="Features",
        text=STABILITY_NOTE if codes else "None.",
        tables=[Table(head=head, rows=rows)] if codes else (),
    )


def _stability(code: str, settings: DoseRadiomicsSettings) -> str:
    """Return the shipped class of a feature; empty where none was measured."""
    found = class_of(code, settings)
    return "" if found is None else found.stability.value


def _csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
