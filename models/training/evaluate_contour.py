"""Score a contouring network on the held-out patients; prints a table and writes JSON.

    python -m models.training.evaluate_contour --archive ../shared/data/train_openkbp.tar
        --weights build/hn/weights.safetensors

Clinicians end the spinal cord and the esophagus at different slices, so each organ is scored
twice: whole, and inside the slices where the reference has it.
"""

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage

from models.metrics import agreement
from models.organs import Network, segment
from models.training.openkbp import ORGANS, Case, held_out, read_cases
from models.unet25 import UNet25, UNet25Config

ELONGATED: Final = frozenset({"SpinalCord", "Esophagus"})
"""Organs that may be found in several parts; all of at least a tenth of the largest are kept."""

Score = dict[str, float]


def torch_network(weights: Path) -> Network:
    """Return the reference network: torch, CPU, fp32."""
    net = UNet25(UNet25Config()).eval()
    net.load_state_dict(load_file(weights))

    def network(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = net(torch.from_numpy(batch)).numpy()
        return answer

    return network


def tidy(labels: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Return one label without its crumbs."""
    parts, count = ndimage.label(labels == label)
    if count == 0:
        return np.zeros(labels.shape, np.bool_)
    sizes = np.bincount(parts.ravel())[1:]
    least = 0.1 * sizes.max() if ORGANS[label - 1] in ELONGATED else sizes.max()
    return np.isin(parts, 1 + np.flatnonzero(sizes >= least))


def score_case(case: Case, network: Network) -> dict[str, Score]:
    """Return organ -> measures for every organ that was drawn."""
    answer = np.zeros(case.labels.shape, np.uint8)
    for part in segment(case.hu, case.spacing, network, UNet25Config().slices):
        answer[part.index, part.rows, part.columns] = part.probabilities.argmax(axis=0)
    scores = {}
    for label in case.drawn:
        truth = case.labels == label
        if not truth.any():
            continue
        mine = tidy(answer, label)
        extent = truth.any(axis=(1, 2))[:, None, None]
        whole = agreement(mine, truth, case.spacing)
        inside = agreement(mine & extent, truth, case.spacing)
        scores[ORGANS[label - 1]] = {
            "dice": whole.dice if whole else 0.0,
            "dice_in_extent": inside.dice if inside else 0.0,
            "hd95_mm": whole.hd95_mm if whole else float("nan"),
            "surface_dice_3mm": whole.surface_dice if whole else 0.0,
        }
    return scores


def summary(scores: list[Score]) -> Score:
    """Return means, the median and spread of Dice, and the median distance."""
    columns = {key: np.array([s[key] for s in scores]) for key in scores[0]}
    means = {key: float(np.nanmean(values)) for key, values in columns.items()}
    more = {
        "n": float(len(scores)),
        "dice_median": float(np.median(columns["dice"])),
        "dice_sd": float(np.std(columns["dice"])),
        "hd95_median_mm": float(np.nanmedian(columns["hd95_mm"])),
        "missed": float(np.isnan(columns["hd95_mm"]).sum()),
    }
    return {key: round(value, 4) for key, value in (means | more).items()}


def main() -> None:
    """Score every held-out patient."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    args = parser.parse_args()
    network = torch_network(args.weights)
    scores: dict[str, list[Score]] = {organ: [] for organ in ORGANS}
    for case in (c for c in read_cases(args.archive) if held_out(c.name)):
        for organ, score in score_case(case, network).items():
            scores[organ].append(score)
    table = {organ: summary(rows) for organ, rows in scores.items()}
    for organ, row in table.items():
        print(organ, row)
    (args.weights.parent / "metrics.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
