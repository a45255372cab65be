"""Measure a synthetic CT network on the frozen hold-out: other patients, fixed seeds.

    python -m models.training.evaluate_sct --pairs build/sct --weights build/run/weights.safetensors

All of it is simulated CBCT, paired by construction. Errors are those of the SynthRAD challenges
(arXiv 2403.08447), in the body inside the field of view, HU.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.sct_infer import Network, correct
from models.sct_net import SctNet, SctNetConfig
from models.training.sct_pairs import Pair, load_pair

LOWEST_HU, HIGHEST_HU = -1024.0, 3000.0
BONE_HU, SOFT_HU = 250.0, (-20.0, 100.0)


def torch_network(weights: Path, config: SctNetConfig | None = None) -> Network:
    """Return the network of a weights file as a function on arrays, fp32."""
    net = SctNet(config or SctNetConfig()).eval()
    net.load_state_dict(load_file(weights))
    return as_network(net)


def as_network(net: SctNet) -> Network:
    """Return `net` as a function on arrays."""

    def call(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(batch)).numpy(), dtype=np.float32)

    return call


def scores(
    made: NDArray[np.float32], truth: NDArray[np.float32], body: NDArray[Any]
) -> dict[str, float]:
    """Return MAE, ME, bone and soft MAE [HU] and PSNR [dB] in `body`."""
    p = np.clip(made[body].astype(np.float64), LOWEST_HU, HIGHEST_HU)
    g = np.clip(truth[body].astype(np.float64), LOWEST_HU, HIGHEST_HU)
    off = p - g
    soft = (g > SOFT_HU[0]) & (g < SOFT_HU[1])
    found = {
        "mae": np.abs(off).mean(),
        "me": off.mean(),
        "psnr_db": 10 * np.log10((HIGHEST_HU - LOWEST_HU) ** 2 / max(np.mean(off**2), 1e-9)),
        "soft_mae": np.abs(off[soft]).mean() if soft.any() else np.nan,
        "bone_mae": np.abs(off[g > BONE_HU]).mean() if (g > BONE_HU).any() else np.nan,
    }
    return {k: round(float(v), 2) for k, v in found.items()}


def evaluate(
    network: Network, pairs: Sequence[Pair], slices: int = 5
) -> dict[str, dict[str, float]]:
    """Return the scores of each pair, and of their mean, beside those of the raw CBCT."""
    table: dict[str, dict[str, float]] = {}
    for pair in pairs:
        made = correct(pair.cbct, pair.body, network, slices)
        raw = {f"raw_{k}": v for k, v in scores(pair.cbct, pair.ct, pair.body).items()}
        table[pair.name] = scores(made, pair.ct, pair.body) | raw
    rows = list(table.values())
    table["mean"] = {k: round(float(np.nanmean([r[k] for r in rows])), 2) for k in rows[0]}
    return table


def evaluation_files(pairs: Path) -> list[Pair]:
    """Return the hold-out pairs of a folder that `sct_pairs` wrote."""
    return [load_pair(p) for p in sorted((pairs / "evaluation").glob("*.npz"))]


def main() -> None:
    """Print a line a patient and write ``metrics.json`` beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = evaluate(torch_network(args.weights), evaluation_files(args.pairs))
    for name, row in table.items():
        print(f"{name:<8} " + " ".join(f"{k} {v:.1f}" for k, v in row.items()))
    (args.weights.parent / "metrics.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
