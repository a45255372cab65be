"""Dose over the patient: three planes at one scale, isodose bands, outlines of the structures.

The bands are filled as a wash that lets the anatomy through, their lower edges drawn as lines; the
legend says each level in Gy and, where a prescription is known, in percent of it. Outlines are
the 0.5 level of covered fractions, not of voxels, so they are as smooth as the contours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pipelines.report.figures import FOOTER, Window
from pipelines.report.lettering import drawable
from pipelines.report.plane import Plane

LEVELS_PERCENT: Final = (20.0, 40.0, 60.0, 80.0, 95.0, 107.0)
"""Isodoses, of the prescription or of the maximum."""
DPI: Final = 150
_WIDTH_IN: Final = 10.6
_GAP_MM: Final = 8.0
_LEGEND_IN: Final = 1.55
_OPACITY: Final = 0.33
_HALO: Final = (patheffects.withStroke(linewidth=2, foreground="black"),)
"""Keeps letters readable on bright bone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A structure in one plane."""

    name: str
    color: str
    covered: NDArray[np.float64]
    """Covered fraction of every pixel, shape of the plane."""
    style: str = "-"
    """Matplotlib line style."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One plane with everything on it, pixels square, not yet turned upright."""

    plane: Plane
    step_mm: float
    dose_gy: NDArray[np.float64]
    """Shape (down, right); NaN where there is no dose."""
    hu: NDArray[np.float64] | None
    """The same shape; NaN outside the image."""
    outlines: Sequence[Outline]
    place: str
    """Where the plane lies, in words."""


def dose_wash(
    path: Path,
    slices: Sequence[Slice],
    *,
    reference_gy: float,
    prescribed: bool,
    window: Window,
    title: str = "",
) -> Path:
    """Draw the planes side by side and return `path`.

    Parameters
    ----------
    path
        Where the PNG is written.
    slices
        Usually an axial, a coronal and a sagittal one, with the same structures in one order.
    reference_gy
        What 100 % means [Gy].
    prescribed
        The reference is a prescription; else it is the maximum dose.
    window
        Level and width [HU].
    title
        Words of the pipeline; never a patient's.
    """
    sizes = [tuple(n * s.step_mm for n in s.dose_gy.shape) for s in slices]
    high = max(size[0] for size in sizes)
    wide = sum(size[1] for size in sizes) + _GAP_MM * (len(slices) - 1)
    per_mm = (_WIDTH_IN - _LEGEND_IN - 0.2) / wide
    height = high * per_mm + (1.05 if title else 0.85)
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=DPI, facecolor="black")
    levels = np.array(LEVELS_PERCENT) * reference_gy / 100
    if not prescribed:
        levels = levels[np.array(LEVELS_PERCENT) < 100]  # noqa: PLR2004 - no dose above its maximum
    left = 0.1
    for part, (down, right) in zip(slices, sizes, strict=True):
        bottom = 0.55 + (high - down) * per_mm / 2
        place = (left / _WIDTH_IN, bottom / height, right * per_mm / _WIDTH_IN,
                 down * per_mm / height)  # fmt: skip
        _draw(figure.add_axes(place), part, levels, window)
        left += (right + _GAP_MM) * per_mm
    _legend(figure, levels, reference_gy, prescribed=prescribed)
    _names(figure, slices, height)
    figure.text(0.01, 1 - 0.2 / height, drawable(title), color="white", fontsize=10, va="center")
    figure.text(0.01, 0.1 / height, FOOTER, color="#ff6b6b", fontsize=7)
    figure.text(0.99, 0.1 / height, f"level {window[0]:g}, width {window[1]:g} HU",
                color="#b0b0b0", fontsize=7, ha="right")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None}, facecolor="black")
    figure.clear()  # artists and figure refer to each other: arrays would pile up
    return path


def _draw(
    axes: Any,  # noqa: ANN401 (Matplotlib ships no types that mypy follows)
    part: Slice,
    levels: NDArray[np.float64],
    window: Window,
) -> None:
    rows, columns = part.dose_gy.shape
    extent = (0, columns, rows, 0)
    at = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    axes.set_facecolor("black")
    if part.hu is not None:
        level, width = window
        axes.imshow(part.plane.flip(part.hu), cmap="gray", vmin=level - width / 2,
                    vmax=level + width / 2, extent=extent, interpolation="bilinear",
                    aspect="equal")  # fmt: skip
    dose = np.ma.masked_invalid(part.plane.flip(part.dose_gy))
    tints = _tints(len(levels))
    if dose.count() and float(dose.max()) >= levels[0]:
        axes.contourf(*at, dose, levels=[*levels, np.inf], colors=tints, alpha=_OPACITY)
        axes.contour(*at, dose, levels=levels, colors=tints, linewidths=0.7, alpha=0.95)
    for outline in part.outlines:
        covered = part.plane.flip(outline.covered)
        if covered.max() >= 0.5 and covered.min() < 0.5:  # noqa: PLR2004 (half covered)
            axes.contour(*at, covered, levels=[0.5], colors=[outline.color], linewidths=1.3,
                         linestyles=[outline.style])  # fmt: skip
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    for edge, (x, y) in {
        "left": (0.02, 0.5), "right": (0.98, 0.5), "top": (0.5, 0.975), "bottom": (0.5, 0.025),
    }.items():  # fmt: skip
        axes.text(x, y, part.plane.edges[edge], transform=axes.transAxes, color="#ffd166",
                  fontsize=9, weight="bold", ha="center", va="center",
                  path_effects=_HALO)  # fmt: skip
    axes.text(0.0, 1.015, f"{part.plane.name}, {part.place}", transform=axes.transAxes,
              color="white", fontsize=7.5, va="bottom")  # fmt: skip
    _scale_bar(axes, part.step_mm, rows, columns)


def _scale_bar(axes: Any, step_mm: float, rows: int, columns: int) -> None:  # noqa: ANN401
    """Draw 5 cm in the lower right corner."""
    length = 50 / step_mm
    x, y = 0.97 * columns - length, 0.965 * rows
    axes.plot([x, x + length], [y, y], color="white", lw=1.6, solid_capstyle="butt")
    axes.text(x + length / 2, y - 0.012 * rows, "5 cm", color="white", fontsize=6.5, ha="center",
              va="bottom", path_effects=_HALO)  # fmt: skip


def _tints(count: int) -> list[tuple[float, float, float, float]]:
    return [tuple(c) for c in colormaps["turbo"](np.linspace(0.12, 0.93, count))]


def _legend(
    figure: Figure, levels: NDArray[np.float64], reference_gy: float, *, prescribed: bool
) -> None:
    """List the isodoses from hot to cold at the right edge."""
    tints = _tints(len(levels))
    handles = [
        Patch(facecolor=tint, label=f"{100 * level / reference_gy:3.0f} %  {level:5.1f} Gy")
        for level, tint in zip(levels, tints, strict=True)
    ][::-1]
    words = "prescription" if prescribed else "maximum dose"
    legend = figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(0.998, 0.55), frameon=False,
        labelcolor="white", fontsize=7.5, handlelength=1.1, handleheight=1.1, labelspacing=0.35,
        title=f"isodoses\n100 % = {reference_gy:.1f} Gy\n({words})", title_fontsize=7.5,
        alignment="left",
    )  # fmt: skip
    legend.get_title().set_color("white")


def _names(figure: Figure, slices: Sequence[Slice], height: float) -> None:
    """Name the structures that are seen in any plane, in one row or two under the planes."""
    seen: list[Line2D] = []
    for same in zip(*(part.outlines for part in slices), strict=True):
        if any(outline.covered.max() >= 0.5 for outline in same):  # noqa: PLR2004 (half covered)
            first = same[0]
            seen.append(Line2D([], [], color=first.color, lw=2, ls=first.style,
                               label=drawable(first.name)))  # fmt: skip
    if seen:
        columns = min(len(seen), 9)
        figure.legend(
            handles=seen, loc="lower left", bbox_to_anchor=(0.005, 0.2 / height),
            ncols=columns, frameon=False, labelcolor="white", fontsize=7.5, handlelength=2.2,
            columnspacing=1.3, handletextpad=0.5, borderaxespad=0,
        )  # fmt: skip
