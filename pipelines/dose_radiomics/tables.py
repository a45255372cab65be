"""The report folder for programs: tables as CSV, everything as JSON."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.api import Finding, Json
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.dose_radiomics.recipe import RECIPE, parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability_classes import stability_word
from pipelines.radiomics.rows import HEADER, as_json, rows


def write_tables(
    folder: Path,
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: DoseRadiomicsSettings,
) -> dict[str, Json]:
    """Write all tables into `folder` and return the key figures.

    ``metrics.csv``, ``features.csv`` (both aggregations), ``dvh.csv`` and ``report.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = key_figures(results)
    _csv(folder / "metrics.csv", ("region", "metric", "unit", "value"), _metrics(results))
    _csv(
        folder / "features.csv",
        HEADER,
        (
            row
            for result in results
            for row in rows(
                result.name, result.features, "Gy", lambda code: stability_word(code, settings)
            )
        ),
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
        classes: dict[str, Json] = {
            code: kind
            for code in result.features.values
            if (kind := stability_word(code, settings))
        }
        regions.append(
            {
                "name": result.name,
                "expression": result.expression,
                "roi_number": result.roi.number,
                "metrics": metrics,
                **as_json(result.features),
                "features_stability": classes,
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


def _csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
