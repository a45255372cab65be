"""Pictures for reports: planes with contours, image comparisons, dose-volume histograms.

Every picture carries orientation letters, the window and the line that it is an unapproved draft,
and nothing that identifies a patient: titles are the caller's, and callers pass pipeline words
only. The same arrays give the same bytes (no date or version in the PNG). Matplotlib's object
interface is used, without pyplot: no global state, no display.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.report.lettering import drawable
from pipelines.report.plane import Plane

Vector: TypeAlias = tuple[float, float, float]
Window: TypeAlias = tuple[float, float]
"""(level, width) [HU]."""

FOOTER: Final = "UNAPPROVED DRAFT - research use only"
SOFT_TISSUE: Final[Window] = (40, 400)
LUNG: Final[Window] = (-300, 1400)
"""Wide enough to judge lung and mediastinum in one picture."""
DIFFERENCE_HU: Final = 300.0
"""Range of a difference map: ± this."""
CHANGE_HU: Final = 50.0
"""Range of the difference that less noise or thinner slices make: ± this."""
COLORS: Final = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#c0c0c0",
)  # fmt: skip
"""Okabe and Ito (2008): told apart with every kind of color vision."""
DASHES: Final = ("-", "--", ":", "-.")
"""Line styles, one a round through the colors."""
ABREAST: Final = 3
"""Planes in a row of `axial_planes`."""
MANY: Final = 16
"""Names that fit into a legend beside a plot in the usual size."""
DPI: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """An image with what is needed to draw it upright and to scale."""

    hu: NDArray[np.generic]
    """Shape (slices, rows, columns), HU or Gy."""
    spacing: Vector
    """(slice, row, column) [mm]."""
    row_direction: Vector = (1, 0, 0)
    """Patient LPS direction of growing column index."""
    column_direction: Vector = (0, 1, 0)
    """Patient LPS direction of growing row index."""

    @property
    def directions(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the LPS directions of growing (slice, row, column) index."""
        row, column = (
            np.asarray(self.row_direction, float),
            np.asarray(self.column_direction, float),
        )
        return np.cross(row, column), column, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A structure drawn as an outline over the image."""

    name: str
    mask: NDArray[np.bool_]
    """Shape of the image."""
    color: str = ""
    """Any Matplotlib color; empty: the next of `COLORS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A cumulative dose-volume histogram."""

    name: str
    dose_gy: NDArray[np.float64]
    """Shape (n,), growing [Gy]."""
    volume_percent: NDArray[np.float64]
    """Shape (n,), volume that receives at least this dose [%]."""
    color: str = ""
    """Any Matplotlib color; empty: the next of `COLORS`."""
    style: str = "-"
    """Matplotlib line style."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve of `curves`."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def three_planes(
    scan: Scan,
    path: Path,
    *,
    overlays: Sequence[Overlay] = (),
    window: Window = LUNG,
    title: str = "",
    at: tuple[int, int, int] | None = None,
) -> Path:
    """Draw an axial, a coronal and a sagittal plane side by side and return `path`.

    Parameters
    ----------
    scan
        The image.
    path
        Where the PNG is written.
    overlays
        Structures; those without a voxel in any plane are left out of the legend.
    window
        Level and width [HU].
    title
        Words of the pipeline; never a patient's.
    at
        (slice, row, column) through which the planes go; default: through the middle of the
        first overlay, else of the image.
    """
    at = at or _middle(scan, overlays)
    figure = Figure(figsize=(13, 4.9), dpi=DPI, facecolor="black")
    drawn: dict[str, str] = {}
    for panel, axis in enumerate((0, 1, 2), start=1):
        axes = figure.add_subplot(1, 3, panel)
        plane = Plane(scan.directions, scan.spacing, axis)
        draw_plane(axes, plane.take(scan.hu, at[axis]), plane, window)
        for number, overlay in enumerate(overlays):
            mask = plane.take(overlay.mask, at[axis])
            if mask.any() and not mask.all():
                color = overlay.color or COLORS[number % len(COLORS)]
                axes.contour(mask.astype(float), levels=[0.5], colors=[color], linewidths=1.2)
                drawn[drawable(overlay.name)] = color
        axes.set_title(plane.name, color="white", fontsize=10)
    _legend(figure, drawn)
    return save_figure(figure, path, title, window_text(window))


def axial_planes(
    scan: Scan,
    path: Path,
    planes: Sequence[tuple[int, str]],
    *,
    overlays: Sequence[Overlay] = (),
    window: Window = LUNG,
    title: str = "",
) -> Path:
    """Draw several axial planes, three in a row, and return `path`.

    Parameters
    ----------
    scan, path, overlays, window, title
        As in `three_planes`.
    planes
        Slice and words above it, at least one.
    """
    rows = -(-len(planes) // ABREAST)
    figure = Figure(figsize=(13, 1.0 + 3.4 * rows), dpi=DPI, facecolor="black")
    plane = Plane(scan.directions, scan.spacing, 0)
    drawn: dict[str, str] = {}
    for panel, (k, words) in enumerate(planes, start=1):
        axes = figure.add_subplot(rows, ABREAST, panel)
        draw_plane(axes, plane.take(scan.hu, k), plane, window)
        for number, overlay in enumerate(overlays):
            mask = plane.take(overlay.mask, k)
            if mask.any() and not mask.all():
                color = overlay.color or COLORS[number % len(COLORS)]
                axes.contour(mask.astype(float), levels=[0.5], colors=[color], linewidths=1.2)
                drawn[drawable(overlay.name)] = color
        axes.set_title(drawable(words), color="white", fontsize=10)
    _legend(figure, drawn)
    return save_figure(figure, path, title, window_text(window))


def compare(  # noqa: PLR0913 (three images, each with its own meaning)
    path: Path,
    *,
    cbct: Scan,
    sct: Scan,
    truth: Scan | None = None,
    body: NDArray[np.bool_] | None = None,
    title: str = "",
    window: Window = LUNG,
    at: int | None = None,
) -> Path:
    """Draw CBCT, synthetic CT and, where known, the truth with the remaining error.

    Parameters
    ----------
    path
        Where the PNG is written.
    cbct, sct, truth
        On one grid. Without a truth the difference is sCT minus CBCT: the correction.
    body : ndarray, same shape
        Voxels that enter difference map and histogram; default all.
    title, window
        As in `three_planes`.
    at
        Slice index; default the middle.
    """
    k = cbct.hu.shape[0] // 2 if at is None else at
    inside = np.ones(cbct.hu.shape, bool) if body is None else body
    images = [("CBCT", cbct), ("synthetic CT", sct), *([("truth", truth)] if truth else [])]
    plane = Plane(cbct.directions, cbct.spacing, 0)
    figure = Figure(figsize=(16 if truth else 13, 4.3), dpi=DPI, facecolor="black")
    columns = len(images) + 2
    for panel, (name, scan) in enumerate(images, start=1):
        axes = figure.add_subplot(1, columns, panel)
        draw_plane(axes, plane.take(scan.hu, k), plane, window)
        axes.set_title(name, color="white", fontsize=10)
    reference, words = (truth, "sCT − truth") if truth else (cbct, "sCT − CBCT")
    difference = np.where(inside[k], _float(sct.hu[k]) - _float(reference.hu[k]), np.nan)
    axes = figure.add_subplot(1, columns, columns - 1)
    shown = draw_plane(axes, plane.flip(difference), plane, (0, 2 * DIFFERENCE_HU), "coolwarm")
    axes.set_title(f"{words} [HU]", color="white", fontsize=10)
    bar = figure.colorbar(shown, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03)
    bar.ax.tick_params(colors="white", labelsize=7)
    bar.outline.set_visible(False)
    _histogram(figure.add_subplot(1, columns, columns), images, inside)
    return save_figure(figure, path, title, window_text(window))


def dvh_plot(
    path: Path,
    curves: Sequence[Curve],
    *,
    title: str = "",
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Path:
    """Draw cumulative dose-volume histograms and return `path`.

    Parameters
    ----------
    path
        Where the PNG is written.
    curves
        One a structure.
    title
        Words of the pipeline.
    points
        Label -> (dose [Gy], volume [%]) to be marked, e.g. ``{"Lungs V20Gy": (20, 16.4)}``.
    """
    figure = Figure(figsize=(10.5, 4.2), dpi=1.4 * DPI, facecolor="white")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        color = curve.color or COLORS[number % len(COLORS)]
        axes.plot(curve.dose_gy, curve.volume_percent, color=color, ls=curve.style, lw=1.8,
                  label=drawable(curve.name))  # fmt: skip
    for label, (dose, volume) in (points or {}).items():
        axes.plot([dose], [volume], "o", color="black", ms=5)
        axes.annotate(label, (dose, volume), (6, 5), textcoords="offset points", fontsize=7)
    axes.set_xlabel("dose [Gy]")
    axes.set_ylabel("volume [%]")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.grid(visible=True, color="#e0e0e0")
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False,
                    fontsize=9 if len(curves) <= MANY else 7)  # fmt: skip
    return save_figure(figure, path, title, "", dark=False)


def before_after(
    path: Path,
    images: tuple[Scan, Scan, Scan],
    words: tuple[str, str, str],
    *,
    axis: int,
    at: int,
    title: str = "",
) -> Path:
    """Draw one plane before, after, and the difference, side by side.

    Parameters
    ----------
    path
        Where the PNG is written.
    images
        Before, after, after minus before; on one grid.
    words
        What stands above each.
    axis, at
        The plane: across which axis (slice, row, column), and its index.
    title
        As in `three_planes`.
    """
    figure = Figure(figsize=(13, 4.9), dpi=DPI, facecolor="black")
    for panel, (scan, name) in enumerate(zip(images, words, strict=True), start=1):
        plane = Plane(scan.directions, scan.spacing, axis)
        axes = figure.add_subplot(1, 3, panel)
        last = panel == len(images)
        shown = draw_plane(
            axes,
            plane.take(scan.hu, at),
            plane,
            (0, 2 * CHANGE_HU) if last else SOFT_TISSUE,
            "coolwarm" if last else "gray",
        )
        axes.set_title(drawable(name), color="white", fontsize=10)
        if last:
            bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
            bar.ax.tick_params(colors="white", labelsize=7)
    return save_figure(figure, path, title, window_text(SOFT_TISSUE))


def curves(path: Path, panels: Mapping[str, Sequence[Line]]) -> Path:
    """Draw curves in panels side by side: "value over place" -> lines of one panel."""
    figure = Figure(figsize=(10.5, 3.6), dpi=1.4 * DPI, facecolor="white")
    for panel, (words, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), panel)
        for number, line in enumerate(lines):
            axes.plot(line.x, line.y, color=COLORS[number], ls=DASHES[number], marker=".",
                      label=drawable(line.name))  # fmt: skip
        value, _, place = words.partition(" over ")
        axes.set_ylabel(value, fontsize=8)
        axes.set_xlabel(place, fontsize=8)
        axes.grid(visible=True, color="#e0e0e0")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.legend(frameon=False, fontsize=8)
    figure.subplots_adjust(wspace=0.3)
    return save_figure(figure, path, "", "", dark=False)


def _middle(scan: Scan, overlays: Sequence[Overlay]) -> tuple[int, int, int]:
    if overlays and overlays[0].mask.any():
        found = np.argwhere(overlays[0].mask)
        s, r, c = ((found.min(axis=0) + found.max(axis=0)) // 2).tolist()
    else:
        s, r, c = (n // 2 for n in scan.hu.shape)
    return s, r, c


def draw_plane(
    axes: Any,  # noqa: ANN401 (Matplotlib ships no types that mypy follows)
    image: NDArray[Any],
    plane: Plane,
    window: Window,
    colors: str = "gray",
) -> Any:  # noqa: ANN401 (the AxesImage, for a color bar)
    """Draw one upright plane with its orientation letters."""
    level, width = window
    shown = axes.imshow(
        image, cmap=colors, vmin=level - width / 2, vmax=level + width / 2, aspect=plane.aspect,
        interpolation="bilinear",
    )  # fmt: skip
    axes.set_axis_off()
    for edge, (x, y) in {
        "left": (0.03, 0.5), "right": (0.97, 0.5), "top": (0.5, 0.96), "bottom": (0.5, 0.04),
    }.items():  # fmt: skip
        axes.text(
            x, y, plane.edges[edge], transform=axes.transAxes, color="#ffd166", fontsize=10,
            ha="center", va="center", weight="bold",
        )  # fmt: skip
    return shown


def _histogram(
    axes: Any,  # noqa: ANN401 (Matplotlib ships no types that mypy follows)
    images: Sequence[tuple[str, Scan]],
    inside: NDArray[np.bool_],
) -> None:
    """Draw how often each HU occurs inside the body."""
    bins = np.linspace(-1000, 1000, 101)
    styles = {"CBCT": "#e69f00", "synthetic CT": "#56b4e9", "truth": "#ffffff"}
    for name, scan in images:
        counts, _ = np.histogram(_float(scan.hu)[inside], bins)
        share = 100 * counts / max(int(inside.sum()), 1)
        axes.step(bins[:-1], share, where="post", color=styles[name], lw=1, label=name)
    axes.set_facecolor("black")
    axes.set_yscale("log")
    axes.set_ylim(0.01, 100)
    axes.tick_params(colors="white", labelsize=7)
    axes.set_title("HU in the body", color="white", fontsize=10)
    axes.set_box_aspect(1)
    axes.set_ylabel("voxels [%]", color="white", fontsize=8)
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    for spine in axes.spines.values():
        spine.set_color("#606060")
    axes.legend(fontsize=7, frameon=False, labelcolor="white")


def _legend(figure: Figure, drawn: Mapping[str, str]) -> None:
    """Write the names in rows of eight, the first row on top, all above the footer."""
    rows = -(-len(drawn) // 8)
    for number, (name, color) in enumerate(drawn.items()):
        row, column = divmod(number, 8)
        height = 0.055 + 0.04 * (rows - 1 - row)
        figure.text(0.02 + 0.12 * column, height, name, color=color, fontsize=10)


def _float(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def window_text(window: Window) -> str:
    """Return the window in words."""
    return f"level {window[0]:g}, width {window[1]:g} HU"


def save_figure(figure: Figure, path: Path, title: str, window: str, *, dark: bool = True) -> Path:
    """Add title and footer, and write the PNG without date or version."""
    ink = "white" if dark else "black"
    figure.suptitle(drawable(title), color=ink, fontsize=12, y=0.985)
    figure.text(0.02, 0.015, FOOTER, color="#ff6b6b" if dark else "#c00000", fontsize=9)
    figure.text(0.98, 0.015, window, color=ink, fontsize=9, ha="right")
    if dark:
        figure.subplots_adjust(left=0.01, right=0.955, top=0.88, bottom=0.12, wspace=0.08)
    else:
        figure.subplots_adjust(left=0.07, right=0.8, top=0.91 if title else 0.97, bottom=0.14)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(
        path, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor()
    )
    return path
