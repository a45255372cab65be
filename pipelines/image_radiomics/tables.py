"""The report folder: a table for research, a page for people."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.api import Finding, Json
from pipelines.image_radiomics.evaluate import Evaluated
from pipelines.image_radiomics.recipe import RECIPE, UNITS, parameters
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.radiomics.features import FEATURES
from pipelines.radiomics.rows import HEADER, as_json, rows
from pipelines.report.page import Cell, Section, Table, write_page
from pipelines.report.sheet import write_sheet

_DIGITS: Final = 6
"""Significant digits on the page; the tables hold all."""


def write_report(
    folder: Path,
    modality: str,
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: ImageRadiomicsSettings,
) -> dict[str, Json]:
    """Write ``features.csv``, ``report.json`` and ``index.html``; return the key figures.

    Where the settings ask for the page as an object, it is written on paper, too: ``report.pdf``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "features.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for result in results:
            writer.writerows(rows(result.name, result.features, UNITS[modality]))
    told: list[Json] = [
        {"code": f.code, "severity": f.severity.value, "roi": f.roi, "message": f.message}
        for f in findings
    ]
    regions: list[Json] = [_region(result) for result in results]
    whole: dict[str, Json] = {
        "recipe": RECIPE,
        "modality": modality,
        "parameters": list(parameters(settings, modality)),
        "settings": settings.model_dump(mode="json"),
        "regions": regions,
        "findings": told,
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    _page(folder, modality, results, findings, settings)
    return key_figures(modality, results)


def key_figures(modality: str, results: Sequence[Evaluated]) -> dict[str, Json]:
    """Return the figures of every region, units in the keys."""
    regions: dict[str, Json] = {
        result.name: {
            "volume_cc": float(f"{result.volume_cc:.6g}"),
            "features": len(result.features.values),
            "responses": len(result.features.responses),
            "voxels": result.features.voxels,
        }
        for result in results
    }
    return {"recipe": RECIPE, "modality": modality, "rois": regions}


def _region(result: Evaluated) -> dict[str, Json]:
    return {
        "name": result.name,
        "roi_number": result.roi.number,
        "volume_cc": result.volume_cc,
        "parameters": list(result.parameters),
        **as_json(result.features),
    }


def _page(
    folder: Path,
    modality: str,
    results: Sequence[Evaluated],
    findings: Sequence[Finding],
    settings: ImageRadiomicsSettings,
) -> None:
    head = ("family", "feature", "unit", *(result.name for result in results))
    lines: list[list[Cell]] = [
        [feature.family, feature.name, feature.unit_for(UNITS[modality]),
         *(_short(result.features.values.get(code)) for result in results)]
        for code, feature in FEATURES.items()
        if any(code in result.features.values for result in results)
    ]  # fmt: skip
    sizes: list[list[Cell]] = [
        [r.name, f"{r.volume_cc:.2f}", r.features.voxels, len(r.features.values),
         ", ".join(response.label for response in r.features.responses)]
        for r in results
    ]  # fmt: skip
    regions = Table(head=("region", "cm3", "voxels", "features", "response maps"), rows=sizes)
    title = f"Radiomics of the {modality}"
    lead = (
        "Features after the Image Biomarker Standardisation Initiative (IBSI); "
        "features.csv holds every value, response maps too."
    )
    sections = [
        Section(title="Regions", findings=findings, tables=[regions]),
        Section(title="Features", tables=[Table(head=head, rows=lines, lead=3)]),
        Section(title="Parameters", text="; ".join(parameters(settings, modality))),
    ]
    write_page(folder / "index.html", title, sections, lead=lead)
    if settings.report_pdf or settings.report_image:
        write_sheet(folder, title, sections, lead=lead)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS}g}"
