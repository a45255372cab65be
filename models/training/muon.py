"""Momentum whose steps are orthogonal: the optimizer of the convolution kernels.

After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): a kernel is a matrix (output
channels x the rest); its averaged gradient is replaced by the nearest matrix with orthogonal rows,
so that every direction in which a layer may change moves alike, not only the few that dominate
the gradient. Scaled so that a step is as large as AdamW's (Liu et al. 2025, arXiv 2502.16982) and
both take one learning rate. Torch has it for plain matrices only (`torch.optim.Muon`).
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from typing_extensions import override

QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration: singular values end between .7 and 1.2."""
ITERATIONS: Final = 5
LIKE_ADAM: Final = 0.2
"""Root mean square of an element of a step, in learning rates."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, for weights of two and more dimensions."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    @override
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step; a closure is not called."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        average = state.setdefault("momentum", torch.zeros_like(weight))
        average.lerp_(gradient, 1 - group["momentum"])
        wanted = gradient.lerp(average, group["momentum"]).flatten(1)
        length = LIKE_ADAM * max(wanted.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(orthogonal(wanted).view_as(weight), alpha=group["lr"] * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix whose rows, or columns where they are fewer, are orthonormal.

    Newton-Schulz in bfloat16: matrix products alone, and only the directions need be right.
    """
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x.T if tall else x).float()
