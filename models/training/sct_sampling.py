"""Patches for training the synthetic CT networks: paired, or CBCT and CT apart.

Values in the batches are HU / 1000, as `models.sct_net` takes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sct_infer import body_box, neighbours
from models.training.sct_pairs import Pair

PATCH_PX: Final[Sequence[tuple[int, int]]] = ((160, 2), (128, 4), (96, 7))
"""Patch sizes and how many make a batch; instance normalization must not get used to one size."""
LEAST_BODY: Final = 0.2
"""Share of a patch that is body."""
TRIES: Final = 8
OFFSET_SD: Final = 0.02
"""Of an offset added to the CBCT of a batch, HU / 1000: more scanners than pairs."""
BONE_HU, AIR_HU, SKIN_HU = 150.0, -999.0, -400.0
SURROUND_WEIGHT: Final = 0.1
BONE_WEIGHT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Stacks of neighbouring slices with the truth of the centre slice."""

    cbct: Tensor
    """Shape (N, slices, row, column)."""
    ct: Tensor
    """Shape (N, slices, row, column): neighbours too, for discriminators and the way back."""
    weight: Tensor
    """Shape (N, 1, row, column): body 1, bone more, surroundings little, unknown 0."""


class PairSampler:
    """Draws patches; its random state can be saved and restored."""

    def __init__(
        self,
        pairs: Iterable[Pair],
        slices: int,
        seed: int,
        *,
        sizes: Sequence[tuple[int, int]] = PATCH_PX,
        unpaired: bool = False,
    ) -> None:
        self.pairs = [_boxed(p) for p in pairs]
        self.others = self.pairs
        """Where CTs come from when they are drawn apart."""
        self.slices, self.sizes, self.unpaired = slices, sizes, unpaired
        self.random = np.random.default_rng([seed, 51])
        if not self.pairs:
            raise ValueError("no training pairs")

    def batch(self) -> Batch:
        """Return the next batch."""
        size, count = self.sizes[int(self.random.integers(len(self.sizes)))]
        drawn = [self._patch(size) for _ in range(count)]
        cbct, ct, weight = (
            torch.from_numpy(np.stack([np.asarray(d[i], np.float32) for d in drawn]))
            for i in range(3)
        )
        shift = torch.from_numpy(self.random.normal(0, OFFSET_SD, (count, 1, 1, 1)))
        return Batch(
            cbct=torch.where(cbct <= AIR_HU, cbct, cbct + 1000 * shift.float()) / 1000,
            ct=ct / 1000,
            weight=weight,
        )

    def state(self) -> dict[str, Any]:
        """Return the random state as JSON."""
        return dict(self.random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.random.bit_generator.state = state

    def _patch(self, size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return CBCT and CT (slices, size, size) and weight (1, size, size)."""
        pair = self.pairs[int(self.random.integers(len(self.pairs)))]
        cbct, ct, weight = self._cut(pair, size)
        if self.unpaired:  # the CT of somebody else
            other = self.others[int(self.random.integers(len(self.others)))]
            _, ct, _ = self._cut(other, size)
        turn, flip = int(self.random.integers(4)), bool(self.random.random() < 0.5)  # noqa: PLR2004 (half)
        parts = [np.rot90(a, turn, (1, 2)) for a in (cbct, ct, weight)]
        if flip:
            parts = [a[:, :, ::-1] for a in parts]
        if self.random.random() < 0.5:  # noqa: PLR2004 (half)
            parts = [parts[0][::-1], parts[1][::-1], parts[2]]
        return parts[0], parts[1], parts[2]

    def _cut(self, pair: Pair, size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        depth = len(pair.cbct)
        centre, window = self._place(pair, size)
        for _ in range(TRIES):
            if pair.body[centre][window].mean() >= LEAST_BODY:
                break
            centre, window = self._place(pair, size)
        stack = neighbours(depth, centre, self.slices)
        cbct, ct = (_filled(a[stack][:, *window], size, -1000) for a in (pair.cbct, pair.ct))
        body = _filled(pair.body[centre : centre + 1][:, *window], size, 0)
        weight = _weight(cbct[self.slices // 2], ct[self.slices // 2], body[0])
        return cbct, ct, weight[None]

    def _place(self, pair: Pair, size: int) -> tuple[int, tuple[slice, slice]]:
        """Return a slice and a window of `size` pixels, drawn."""
        depth, rows, columns = pair.cbct.shape
        row = int(self.random.integers(max(1, rows - size + 1)))
        column = int(self.random.integers(max(1, columns - size + 1)))
        window = (slice(row, row + size), slice(column, column + size))
        return int(self.random.integers(depth)), window


def _weight(cbct: NDArray[Any], ct: NDArray[Any], body: NDArray[Any]) -> NDArray[np.float32]:
    unknown = (cbct <= AIR_HU) & (ct > SKIN_HU)  # cut away by the field of view
    weight = SURROUND_WEIGHT * ~unknown + body * (1 + BONE_WEIGHT * (ct > BONE_HU))
    return np.asarray(weight, dtype=np.float32)


def _filled(part: NDArray[Any], size: int, value: int) -> NDArray[Any]:
    """Return `part` (n, rows, columns) filled up to `size` x `size` behind its end."""
    missing = [(0, 0), *((0, size - n) for n in part.shape[1:])]
    return part if part.shape[1:] == (size, size) else np.pad(part, missing, constant_values=value)


def _boxed(pair: Pair) -> Pair:
    """Return `pair` cut to its body's box, in 16 bits."""
    rows, columns = body_box(pair.body)
    cut = (slice(None), rows, columns)
    return replace(
        pair,
        cbct=np.rint(pair.cbct[cut]).astype(np.int16),
        ct=np.rint(pair.ct[cut]).astype(np.int16),
        body=pair.body[cut],
    )
