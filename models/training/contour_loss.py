"""The loss of a contouring network when not every organ was drawn.

An organ that the clinician did not draw may still be in the image: its probability then counts as
background and its Dice term is left out (marginal loss; Shi et al. 2021,
doi 10.1016/j.media.2021.101979).
"""

import torch
from torch import Tensor, nn


def marginal_loss(logits: Tensor, target: Tensor, drawn: Tensor, organ_weight: float) -> Tensor:
    """Cross-entropy plus soft Dice over the batch.

    Parameters
    ----------
    logits : Tensor, shape (N, classes, ...)
    target : Tensor of int64, shape (N, ...)
    drawn : Tensor of bool, shape (N, classes)
    organ_weight : float
        Of an organ's voxel in the cross-entropy; the background's is 1.
    """
    n, classes = logits.shape[:2]
    flat = logits.float().flatten(2)  # (N, classes, voxels)
    wanted = target.flatten(1)  # (N, voxels)
    logp = nn.functional.log_softmax(flat, dim=1)
    p = logp.exp()
    undrawn = (~drawn).float()[:, :, None]
    background = (p[:, 0] + (p * undrawn).sum(1)).clamp_min(1e-7).log()
    picked = logp.gather(1, wanted[:, None])[:, 0]
    is_organ = wanted > 0
    weight = 1.0 + (organ_weight - 1.0) * is_organ
    cross_entropy = -(torch.where(is_organ, picked, background) * weight).sum() / weight.sum()
    counted = drawn.float()
    present = torch.zeros(n, classes, device=logits.device)
    present.scatter_add_(1, wanted, torch.ones_like(wanted, dtype=present.dtype))
    hit = torch.zeros_like(present).scatter_add_(1, wanted, p.gather(1, wanted[:, None])[:, 0])
    overlap = (hit * counted).sum(0)
    total = ((p.sum(2) + present) * counted).sum(0)
    dice = (2 * overlap + 1) / (total + 1)
    return cross_entropy + 1 - dice[1:].mean()
