"""Pictures of a training run: how the losses fell, and what the network makes of a few slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from models.sct_infer import Network, correct
from models.training.sct_pairs import Hu, Pair

WINDOW_HU: Final = (-300.0, 300.0)
DIFFERENCE_HU: Final = 200.0
STYLE: Final = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}


def draw_losses(path: Path, losses: Sequence[dict[str, float]], steps_each: int) -> None:
    """Draw every loss over the steps, one panel each."""
    names = list(losses[0])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            values = [row[name] for row in losses]
            axes.plot(steps_each * np.arange(1, len(values) + 1), values, color="#1f5fa8", lw=1)
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("step")
        figure.savefig(path, dpi=110)


def draw_samples(path: Path, pairs: Sequence[Pair], network: Network, slices: int) -> None:
    """Draw CBCT, synthetic CT, CT and error of the middle slice of each pair."""
    made = [correct(p.cbct, p.body, network, slices) for p in pairs]
    titles = ("CBCT", "synthetic CT", "CT", "synthetic CT - CT")
    rows = [(p.cbct, m, p.ct, m - p.ct) for p, m in zip(pairs, made, strict=True)]
    _draw(path, pairs, titles, rows)


def draw_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Draw CBCT, CT and their difference of the middle slice of each pair."""
    rows = [(p.cbct, p.ct, p.cbct - p.ct) for p in pairs]
    _draw(path, pairs, ("simulated CBCT", "CT", "CBCT - CT"), rows)


def _draw(
    path: Path, pairs: Sequence[Pair], titles: Sequence[str], rows: Sequence[tuple[Hu, ...]]
) -> None:
    """Draw the middle slices; the last column is an error, shown inside the body."""
    figure = Figure(figsize=(2.3 * len(titles), 2.4 * len(pairs)), layout="constrained")
    grid = figure.subplots(len(pairs), len(titles), squeeze=False)
    for line, pair, images in zip(grid, pairs, rows, strict=True):
        k = len(pair.cbct) // 2
        for axes, image in zip(line[:-1], images[:-1], strict=True):
            axes.imshow(image[k], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        error = np.where(pair.body[k], images[-1][k], 0)
        line[-1].imshow(error, cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU)
        line[0].set_ylabel(pair.name)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=110)
