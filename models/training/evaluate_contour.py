"""Score a contouring network on the held-out patients; prints a table and writes JSON.

    python -m models.training.evaluate_contour --archive ... --weights build/hn/weights.safetensors
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.metrics import agreement
from models.organs import segment
from models.training.openkbp import ORGANS, held_out, read_cases
from models.unet25 import UNet25, UNet25Config
from scipy import ndimage


def tidy(labels: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Return a label without its crumbs: components of at least a tenth of the largest."""
    parts, count = ndimage.label(labels == label)
    if count == 0:
        return np.zeros(labels.shape, bool)
    sizes = np.bincount(parts.ravel())[1:]
    keep = 1 + np.flatnonzero(sizes >= (0.1 * sizes.max() if label in (2, 7) else sizes.max()))
    return np.isin(parts, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10_000)
    args = parser.parse_args()
    config = UNet25Config()
    net = UNet25(config).eval()
    net.load_state_dict(load_file(args.weights))

    @torch.inference_mode()
    def network(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return net(torch.from_numpy(batch)).numpy()

    scores: dict[str, list[dict[str, float]]] = {o: [] for o in ORGANS}
    cases = (c for c in read_cases(args.archive) if held_out(c.name))
    for number, case in enumerate(cases):
        if number >= args.limit:
            break
        answer = np.zeros(case.labels.shape, np.uint8)
        for part in segment(case.hu, case.spacing, network, config.slices):
            answer[part.index, part.rows, part.columns] = part.probabilities.argmax(axis=0)
        for label, organ in enumerate(ORGANS, start=1):
            truth = case.labels == label
            if label not in case.drawn or not truth.any():
                continue
            mine = tidy(answer, label)
            limited = mine.copy()
            extent = np.flatnonzero(truth.any(axis=(1, 2)))
            limited[: extent[0]] = False
            limited[extent[-1] + 1 :] = False
            full, inside = agreement(mine, truth, case.spacing), agreement(limited, truth, case.spacing)
            scores[organ].append({
                "dice": full.dice if full else 0.0,
                "dice_in_extent": inside.dice if inside else 0.0,
                "hd95_mm": full.hd95_mm if full else float("nan"),
                "surface_dice_3mm": full.surface_dice if full else 0.0,
            })
    table = {}
    for organ, rows in scores.items():
        if not rows:
            continue
        table[organ] = {"n": len(rows), **{k: round(float(np.nanmean([r[k] for r in rows])), 4) for k in rows[0]},
                        "dice_median": round(float(np.median([r["dice"] for r in rows])), 4),
                        "dice_sd": round(float(np.std([r["dice"] for r in rows])), 4),
                        "hd95_median_mm": round(float(np.nanmedian([r["hd95_mm"] for r in rows])), 2)}
        print(organ, table[organ])
    (args.weights.parent / "metrics.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
