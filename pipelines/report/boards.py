"""Pictures that set images side by side: three planes of each, checkerboards, noise spectra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.report.figures import (
    COLORS,
    DPI,
    LUNG,
    Scan,
    Window,
    draw_plane,
    save_figure,
    window_text,
)
from pipelines.report.plane import Plane

FIELDS: Final = 8
"""Fields of a checkerboard along the shorter side."""

Named = Sequence[tuple[str, Scan]]
"""Images on one grid with what they are called."""


def planes_of(
    path: Path,
    images: Named,
    *,
    window: Window = LUNG,
    title: str = "",
    at: tuple[int, int, int] | None = None,
) -> Path:
    """Draw an axial, a coronal and a sagittal plane of each image, one row an image.

    Parameters
    ----------
    path
        Where the PNG is written.
    images
        At least one.
    window, title
        As in `figures.three_planes`.
    at
        (slice, row, column); default the middle.
    """
    first = images[0][1]
    where = at or tuple(n // 2 for n in first.hu.shape)
    figure = Figure(figsize=(12, 0.9 + 2.5 * len(images)), dpi=DPI, facecolor="black")
    for row, (name, scan) in enumerate(images):
        for axis in range(3):
            axes = figure.add_subplot(len(images), 3, 3 * row + axis + 1)
            plane = Plane(scan.directions, scan.spacing, axis)
            draw_plane(axes, plane.take(scan.hu, where[axis]), plane, window)
            axes.set_title(f"{name}, {plane.name}", color="white", fontsize=10)
    return save_figure(figure, path, title, window_text(window))


def checkerboards(
    path: Path,
    pairs: Sequence[tuple[str, Scan, Scan]],
    *,
    window: Window = LUNG,
    title: str = "",
    at: int | None = None,
) -> Path:
    """Draw an axial checkerboard of each pair: edges go on across the fields where both agree.

    Parameters
    ----------
    path
        Where the PNG is written.
    pairs
        (words, first, second); the upper left field shows the first image.
    window, title
        As in `figures.three_planes`.
    at
        Slice; default the middle.
    """
    figure = Figure(figsize=(4.6 * len(pairs), 5.0), dpi=DPI, facecolor="black")
    for number, (words, first, second) in enumerate(pairs, start=1):
        k = first.hu.shape[0] // 2 if at is None else at
        plane = Plane(first.directions, first.spacing, 0)
        a, b = (plane.take(scan.hu, k) for scan in (first, second))
        axes = figure.add_subplot(1, len(pairs), number)
        draw_plane(axes, np.where(board(a.shape), a, b), plane, window)
        axes.set_title(words, color="white", fontsize=10)
    return save_figure(figure, path, title, window_text(window))


def board(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the fields of the first image; the upper left one is among them."""
    side = max(1, min(shape) // FIELDS)
    rows, columns = (np.arange(n) // side for n in shape)
    return np.asarray((rows[:, None] + columns[None, :]) % 2 == 0)


def spectra(
    path: Path,
    curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]],
    *,
    title: str = "",
) -> Path:
    """Draw radial noise power spectra: (name, frequency [1/mm], power [HU² mm²]) each."""
    figure = Figure(figsize=(9.0, 3.8), dpi=DPI, facecolor="white")
    axes = figure.add_subplot()
    for number, (name, frequency, power) in enumerate(curves):
        axes.plot(frequency, power, color=COLORS[number % len(COLORS)], lw=1.8, label=name)
    axes.set_xlabel("spatial frequency [1/mm]")
    axes.set_ylabel("noise power [HU² mm²]")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#e0e0e0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, path, title, "", dark=False)
