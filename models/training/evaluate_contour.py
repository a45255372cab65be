"""Score a contouring network on patients that it was not trained on.

Clinicians end the spinal cord and the esophagus at different slices, so each organ is scored
twice: whole, and inside the slices where the reference has it. A missed organ has Dice 0 and no
distance; how many were missed is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from models.engine import load_members
from models.metrics import added_path_mm, agreement
from models.organs import Answer, Network, answer, without_crumbs
from models.pack import Pack
from models.training.cases import Case, components_of
from models.unet import MEMORY, UNet
from models.window import Frame

Score: TypeAlias = dict[str, float]
"""Measure -> value."""


def torch_network(net: UNet) -> Network:
    """Return the reference network: torch, CPU, fp32."""
    memory = MEMORY[net.config.dimensions]

    def network(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer = net(torch.from_numpy(batch).contiguous(memory_format=memory))
        logits: NDArray[np.float32] = answer.contiguous().numpy()
        return logits

    return network


def contour(case: Case, networks: Sequence[Network], frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """Return the likeliest class of every voxel of a patient's own grid, for networks together."""
    return classes(answer(case.hu, case.spacing, networks, frames), case.labels.shape)


def classes(said: Answer, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the likeliest class of every voxel of a CT of `shape`."""
    found = np.zeros(shape, np.uint8)
    for part in said.slices():
        found[part.index, part.rows, part.columns] = part.probabilities.argmax(axis=0)
    return found


def score(case: Case, found: NDArray[np.uint8], organs: Sequence[str]) -> dict[str, Score]:
    """Return organ -> measures for every organ that was drawn."""
    scores = {}
    for label in case.drawn:
        truth = case.labels == label
        if not truth.any():
            continue
        organ = organs[label - 1]
        mine = without_crumbs(found == label, components_of(organ))
        extent = truth.any(axis=(1, 2))[:, None, None]
        whole = agreement(mine, truth, case.spacing)
        inside = agreement(mine & extent, truth, case.spacing)
        scores[organ] = {
            "dice": whole.dice if whole else 0.0,
            "dice_in_extent": inside.dice if inside else 0.0,
            "hd95_mm": whole.hd95_mm if whole else float("nan"),
            "surface_dice_3mm": whole.surface_dice if whole else 0.0,
            "added_path_mm": added_path_mm(mine, truth, case.spacing),
        }
    return scores


def score_pack(pack: Pack, cases: Iterable[Case]) -> dict[str, list[Score]]:
    """Return organ -> the measures of each patient, as the node would contour: by ONNX Runtime."""
    organs = [output.name for output in pack.manifest.outputs]
    return score_all(cases, load_members(pack, threads=1), pack.manifest.frames, organs)


def score_all(
    cases: Iterable[Case],
    networks: Sequence[Network],
    frames: Sequence[Frame],
    organs: Sequence[str],
) -> dict[str, list[Score]]:
    """Return organ -> the measures of each patient in whom it was drawn."""
    scores: dict[str, list[Score]] = {organ: [] for organ in organs}
    for case in cases:
        for organ, row in score(case, contour(case, networks, frames), organs).items():
            scores[organ].append(row)
    return scores


def summary(scores: Mapping[str, Sequence[Score]]) -> dict[str, Score]:
    """Return organ -> means, the median and spread of Dice, and the median distance."""
    return {organ: _summary(rows) for organ, rows in scores.items() if rows}


def _summary(rows: Sequence[Score]) -> Score:
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    found = {key: values[~np.isnan(values)] for key, values in columns.items()}
    means = {key: float(values.mean()) for key, values in found.items() if len(values)}
    more = {
        "n": float(len(rows)),
        "dice_median": float(np.median(columns["dice"])),
        "dice_sd": float(np.std(columns["dice"])),
        "missed": float(np.isnan(columns["hd95_mm"]).sum()),
    }
    if len(found["hd95_mm"]):
        more["hd95_median_mm"] = float(np.median(found["hd95_mm"]))
    return {key: round(value, 4) for key, value in (means | more).items()}
