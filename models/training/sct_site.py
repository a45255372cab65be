"""`rtnode sct train`: the trainer on a site's images, from their hold-out to a finished pack."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage

from models.pack import DataSource, PackRefused, SyntheticCtManifest, load_pack
from models.sct_infer import correct
from models.sct_net import SctNet, SctNetConfig, config_of
from models.sct_ood import LEAST_IMAGES
from models.training.evaluate_sct import as_network
from models.training.loop import LOG_STEPS, WEIGHTS, Budget, Task, run
from models.training.sct_adversarial import PATCHES, AdversarialRecipe, CycleGan, Pix2Pix
from models.training.sct_anchor import edge_loss
from models.training.sct_pack import Description, build_pack, familiar_with
from models.training.sct_pairs import Pair
from models.training.sct_pictures import draw_losses, draw_samples
from models.training.sct_sampling import PATCH_PX, PairSampler
from models.training.sct_tasks import Recipe, Supervised

HOLD_OUT: Final = 5
"""Every n-th CT is held out, by name."""
SHOWN: Final = 4
"""Held-out pairs in the picture."""
EDGES_LOST: Final = 0.02
"""Most that an adapted network's correlation of edges may fall below its start's."""
SHORT_MINUTES: Final = 24 * 60.0
"""A CycleGAN below this on a CPU is labelled short (reference page, section 7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained and for how long."""

    mode: str
    """sim, pix2pix or cyclegan."""
    budget: Budget
    seed: int
    start: Path | None
    """Pack whose weights are the beginning."""
    threads: int
    device: str
    name: str
    network: SctNetConfig = dataclasses.field(default_factory=SctNetConfig)
    """Only where there is no `start`."""


def train_site(
    pairs: Sequence[Pair],
    out: Path,
    order: Order,
    tell: Callable[[str], None],
    *,
    cts: Sequence[Pair] | None = None,
) -> Path:
    """Train and write a pack; return its folder.

    Parameters
    ----------
    pairs : sequence of Pair
        CBCTs with their truth; with `cts`, CBCTs alone.
    out : Path
        Folder of the run; a run that was broken off there goes on.
    order : Order
    tell : callable
        Receives lines of progress.
    cts : sequence of Pair, optional
        CTs of anybody, for cyclegan: then nothing is known of the CBCTs' truth, and no error is
        measured.

    Raises
    ------
    ValueError
        For too few images, a start that is no pack, or an adapted network that is worse than
        its start.
    """
    torch.set_num_threads(order.threads)
    held, kept = _split(pairs)
    start, started_from = _start(order)
    task = _task(order, kept, start, kept if cts is None else cts)
    recipe = (
        asdict(Recipe(seed=order.seed))
        if order.mode == "sim"
        else asdict(AdversarialRecipe(seed=order.seed))
    )
    record: dict[str, Any] = {
        "mode": order.mode,
        "recipe": recipe,
        "pairs": len(kept),
        "started_from": started_from,
    }
    if order.mode == "cyclegan":
        record["short"] = (order.budget.minutes or 0.0) < SHORT_MINUTES
        tell("CycleGAN: below a day on a CPU, or an hour on a GPU, expect little")
    progress = run(task, out, order.budget, record, tell)
    if progress.losses:
        draw_losses(out / "losses.png", progress.losses, LOG_STEPS)
    shown = held[:SHOWN] or kept[:SHOWN]
    network = as_network(task.average.cpu())
    draw_samples(out / "samples.png", shown, network, task.average.config.slices)
    if isinstance(task, CycleGan) and start is not None:
        best = choose(start, task.choices, held or kept, kept if cts is None else cts)
        save_file({k: v.contiguous() for k, v in best.state_dict().items()}, out / WEIGHTS)
    described = Description(
        id=order.name,
        version="0.1.0",
        title="Synthetic CT from cone-beam CT, trained at a site",
        body_region="as in the training images of the site",
        data=(
            DataSource(
                name="images of the site",
                licence="not stated",
                source="rtnode sct train",
                patients=len({p.name for p in kept}),
            ),
        ),
        weights_licence="not stated",
    )
    return build_pack(
        out, out / "pack", described, familiar_with(kept), held if cts is None else []
    )


def histogram_distance(made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
    """Return the mean distance of the quantiles of two sets of body values, HU."""
    levels = np.linspace(1, 99, 99)
    a, b = (np.percentile(np.concatenate(values), levels) for values in (made, real))
    return float(np.abs(a - b).mean())


def choose(
    start: SctNet, adapted: Sequence[SctNet], pairs: Sequence[Pair], cts: Sequence[Pair]
) -> SctNet:
    """Return the adapted generator to keep, chosen without pairs.

    The one whose body histogram is nearest to that of `cts`, among those that keep the CBCT's
    edges as the start keeps them.

    Raises
    ------
    ValueError
        Where none is nearer than `start`: then the warm start is the better model and stays.
    """
    real = [p.ct[p.body] for p in cts]
    (before, edges), *found = (_unpaired(net, pairs, real) for net in (start, *adapted))
    fit = [(distance, n) for n, (distance, kept) in enumerate(found) if kept >= edges - EDGES_LOST]
    best, number = min(fit, default=(math.inf, 0))
    if best > before:
        near = min(distance for distance, _ in found)
        raise ValueError(
            f"the adapted network is no better than its start: its histogram is {near:.1f} HU "
            f"from that of CTs, the start's {before:.1f}; no pack was written, keep the start"
        )
    return adapted[number]


def _unpaired(
    net: SctNet, pairs: Sequence[Pair], real: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return the histogram's distance from that of CTs, HU, and the correlation of edges."""
    network = as_network(net.cpu().eval())
    made = [correct(p.cbct, p.body, network, net.config.slices) for p in pairs]
    edges = [
        1 - float(edge_loss(*(torch.from_numpy(_calm(image))[:, None] for image in (p.cbct, m))))
        for p, m in zip(pairs, made, strict=True)
    ]
    values = [m[p.body] for p, m in zip(pairs, made, strict=True)]
    return histogram_distance(values, real), float(np.mean(edges))


def _calm(image: np.ndarray) -> np.ndarray:
    """Return `image` without its grain, HU / 1000: edges, not noise, are compared."""
    return np.asarray(ndimage.uniform_filter(image, (1, 5, 5)) / 1000, dtype=np.float32)


def _split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return held-out pairs and the others; nobody is in both."""
    names = sorted({p.name for p in pairs})
    out = set(names[HOLD_OUT - 1 :: HOLD_OUT])
    kept = [p for p in pairs if p.name not in out]
    if len(kept) < LEAST_IMAGES:
        raise ValueError(
            f"{len(kept)} training pairs beside the hold-out; at least {LEAST_IMAGES} are needed"
        )
    return [p for p in pairs if p.name in out], kept


def _start(order: Order) -> tuple[SctNet | None, str]:
    if order.start is None:
        return None, ""
    try:
        pack = load_pack(order.start, SyntheticCtManifest)
    except PackRefused as error:
        raise ValueError(str(error)) from error
    shape = pack.manifest.training["network"]
    if not isinstance(shape, dict):
        raise TypeError("the manifest does not state the network's shape")
    net = SctNet(config_of(shape))
    net.load_state_dict(load_file(pack.folder / "weights.safetensors"))
    return net, f"{pack.label} {pack.sha256}"


def _task(order: Order, pairs: Sequence[Pair], start: SctNet | None, cts: Sequence[Pair]) -> Task:
    config = order.network if start is None else start.config
    sizes = PATCH_PX if order.mode == "sim" else PATCHES
    others = cts if order.mode == "cyclegan" else None
    sampler = PairSampler(pairs, config.slices, order.seed, sizes=sizes, others=others)
    if order.mode == "sim":
        task = Supervised(sampler, config, Recipe(seed=order.seed), order.device)
        if start is not None:
            task.begin_with(start.state_dict())
        return task
    if start is None and order.mode == "cyclegan":
        raise ValueError("cyclegan starts from a pack: name one with --start")
    recipe = AdversarialRecipe(seed=order.seed)
    if order.mode == "cyclegan" and start is not None:
        return CycleGan(sampler, start, recipe, order.device)
    return Pix2Pix(sampler, start or SctNet(config), recipe, order.device)
