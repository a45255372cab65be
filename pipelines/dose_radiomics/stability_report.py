"""The stability study as tables, picture and page."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.dose_radiomics.recipe import parameters
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability import Factor, Row, Study
from pipelines.dose_radiomics.stability_classes import LIMITS_CV, LIMITS_ICC, Stability
from pipelines.radiomics.features import FEATURES
from pipelines.report.figures import COLORS, DPI, FOOTER
from pipelines.report.page import Cell, Picture, Section, Table, write_page

_LEAST_CV: Final = 0.01
"""[%]; what varies less is drawn here, for a logarithm has no zero."""
_MOST_CV: Final = 1000.0
RULE: Final = (
    f"stable: every CV below {LIMITS_CV[0]:g} % and every known ICC at least {LIMITS_ICC[0]:g}; "
    f"unstable: some CV above {LIMITS_CV[1]:g} % or some ICC below {LIMITS_ICC[1]:g}; "
    "limited: between. CV is SD / |mean| over the levels, averaged over the regions; ICC(2,1) is "
    "absolute agreement between the levels over the regions."
)


def write_study(folder: Path, study: Study, settings: DoseRadiomicsSettings) -> None:
    """Write ``stability.csv``, ``values.csv``, ``stability.png`` and ``index.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = [factor for factor in Factor if any(f is factor for f, _ in study.levels)]
    _csv(
        folder / "stability.csv",
        ("code", "family", "feature", "factor", "levels", "mean_cv_percent", "worst_cv_percent",
         "icc_2_1", "class"),
        _spreads(study),
    )  # fmt: skip
    _csv(
        folder / "values.csv",
        ("region", "factor", "level", "code", "value"),
        ((v.region, v.factor, v.level, v.code, repr(v.value)) for v in study.values),
    )
    picture = _plot(folder / "stability.png", study.rows, factors)
    head = ["code", "family", "feature"]
    for factor in factors:
        head += [f"{factor} CV %", f"{factor} ICC"]
    sections = [
        Section(title="Classes", text=RULE, tables=[_classes(study.rows)],
                pictures=[Picture(path=picture, caption="CV of every feature by family")]),
        Section(
            title="Features",
            tables=[Table(head=[*head, "class"], rows=[_line(r, factors) for r in study.rows])],
        ),
        Section(
            title="What was varied",
            text=f"Regions: {', '.join(study.regions)}.",
            tables=[Table(head=["factor", "level"], rows=[[f, name] for f, name in study.levels]),
                    Table(head=["setting"], rows=[[p] for p in parameters(settings)])],
        ),
        Section(title="Findings", text="" if study.findings else "None.", findings=study.findings),
    ]  # fmt: skip
    lead = "All numbers stand in stability.csv, all single values in values.csv."
    write_page(folder / "index.html", "Stability of dose features", sections, lead=lead)


def summary(study: Study) -> list[list[str]]:
    """Return (family, stable, limited, unstable, worst feature) of every family as texts."""
    lines = []
    for family, members in _families(study.rows).items():
        count = Counter(row.stability for row in members)
        worst = max(members, key=_worst)
        name = f"{FEATURES[worst.code].name} {_worst(worst):.1f} %"
        lines.append([family, *(str(count[kind]) for kind in Stability), name])
    return lines


def _families(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(FEATURES[row.code].family, []).append(row)
    return found


def _worst(row: Row) -> float:
    return max(spread.mean_cv for spread in row.spreads.values())


def _spreads(study: Study) -> Iterable[tuple[object, ...]]:
    levels = Counter(factor for factor, _ in study.levels)
    for row in study.rows:
        feature = FEATURES[row.code]
        for factor, spread in row.spreads.items():
            icc = "" if spread.icc is None else f"{spread.icc:.6g}"
            cv = (f"{spread.mean_cv:.6g}", f"{spread.worst_cv:.6g}")
            what = (row.code, feature.family, feature.name, factor, levels[factor])
            yield *what, *cv, icc, row.stability


def _classes(rows: Sequence[Row]) -> Table:
    body: list[list[Cell]] = []
    for family, members in _families(rows).items():
        count = Counter(row.stability for row in members)
        body.append([family, *(count[kind] for kind in Stability)])
    total = Counter(row.stability for row in rows)
    body.append(["all", *(total[kind] for kind in Stability)])
    return Table(head=["family", *Stability], rows=body)


def _line(row: Row, factors: Sequence[Factor]) -> list[Cell]:
    feature = FEATURES[row.code]
    cells: list[Cell] = [row.code, feature.family, feature.name]
    for factor in factors:
        spread = row.spreads.get(factor)
        cells += [None, None] if spread is None else [spread.mean_cv, spread.icc]
    return [*cells, row.stability.value]


def _plot(path: Path, rows: Sequence[Row], factors: Sequence[Factor]) -> Path:
    """Draw the CV of every feature, one column a family, one color a factor."""
    families = _families(rows)
    figure = Figure(figsize=(11, 5.4), dpi=DPI, facecolor="white")
    axes = figure.add_subplot()
    for number, factor in enumerate(factors):
        x, y = [], []
        for column, members in enumerate(families.values()):
            for place, row in enumerate(members):
                if factor in row.spreads:
                    cv = row.spreads[factor].mean_cv
                    x.append(column + 0.8 * (place + 0.5) / len(members) - 0.4)
                    y.append(min(max(cv, _LEAST_CV), _MOST_CV))
        axes.plot(x, y, "o", ms=4, alpha=0.8, color=COLORS[number % len(COLORS)], label=factor)
    for limit in LIMITS_CV:
        axes.axhline(limit, color="black", lw=1, ls="--")
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_CV / 1.5, _MOST_CV * 1.5)
    axes.set_ylabel("coefficient of variation [%]")
    axes.set_xticks(range(len(families)), list(families), rotation=30, ha="right")
    axes.grid(visible=True, axis="y", color="#e0e0e0")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, frameon=False)
    figure.suptitle("Stability of dose features", fontsize=12, y=0.985)
    figure.text(0.02, 0.015, FOOTER, color="#c00000", fontsize=9)
    figure.subplots_adjust(left=0.08, right=0.85, top=0.92, bottom=0.2)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)
