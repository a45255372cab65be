"""What the synthetic CT networks are shown in training: paired, or CBCT and CT apart.

Patches, and whole boxes as `models.sct_infer` shows them: instance normalization makes the answer
depend on the field that is seen. Values in the batches are HU / 1000, as `models.sct_net` takes
them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sct_infer import body_box, neighbours
from models.sct_net import MULTIPLE
from models.training.sct_pairs import Pair

PATCH_PX: Final[Sequence[tuple[int, int]]] = ((160, 2), (128, 4), (96, 7))
"""Patch sizes and how many make a batch; instance normalization must not get used to one size."""
WHOLE_PX: Final = 64_000
"""Pixels of a batch of whole boxes, about."""
MOST_SLICES: Final = 6
"""Of one image in a batch of whole boxes."""
LEAST_BODY: Final = 0.2
"""Share of a patch that is body."""
TRIES: Final = 8
OFFSET_SD: Final = 0.02
"""Of an offset added to the CBCT of a batch, HU / 1000: more scanners than pairs."""
BONE_HU, AIR_HU, SKIN_HU = 150.0, -999.0, -400.0
SURROUND_WEIGHT: Final = 0.1
BONE_WEIGHT: Final = 1.0
HALF: Final = 0.5

Drawn = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""CBCT and CT (slices, row, column), HU; weight (1, row, column)."""


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
    """Draws stacks; its random state can be saved and restored."""

    def __init__(
        self,
        pairs: Iterable[Pair],
        slices: int,
        seed: int,
        *,
        sizes: Sequence[tuple[int, int]] = PATCH_PX,
        whole: float = 0.0,
        others: Iterable[Pair] | None = None,
    ) -> None:
        """Keep the images.

        Parameters
        ----------
        pairs : iterable of Pair
        slices : int
            Neighbouring slices of a stack.
        seed : int
        sizes : sequence of (pixels, patches)
            One is drawn for each batch of patches.
        whole : float
            Share of the batches that show whole boxes instead; paired images only.
        others : iterable of Pair, optional
            Where the CTs come from when CBCT and CT are drawn apart.

        Raises
        ------
        ValueError
            Without any image.
        """
        self.pairs = [_boxed(p) for p in pairs]
        self.others = None if others is None else [_boxed(p) for p in others]
        self.slices, self.sizes, self.whole = slices, sizes, whole
        self.random = np.random.default_rng([seed, 51])
        if not self.pairs or self.others == []:
            raise ValueError("no training images")

    @property
    def cts(self) -> list[Pair]:
        """Return the images whose CTs are drawn."""
        return self.pairs if self.others is None else self.others

    def batch(self) -> Batch:
        """Return the next batch."""
        if self.whole > 0 and self.random.random() < self.whole:
            drawn = self._boxes()
        else:
            size, count = self.sizes[int(self.random.integers(len(self.sizes)))]
            drawn = [self._turned(self._patch(size)) for _ in range(count)]
        cbct, ct, weight = (
            torch.from_numpy(np.stack([np.asarray(d[i], np.float32) for d in drawn]))
            for i in range(3)
        )
        shift = torch.from_numpy(self.random.normal(0, OFFSET_SD, (len(drawn), 1, 1, 1)))
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

    def _turned(self, drawn: Drawn, turns: int | None = None) -> Drawn:
        """Return `drawn` turned by quarters and mirrored by chance, in plane and along slices."""
        turns = int(self.random.integers(4)) if turns is None else turns
        mirrored, reversed_ = self.random.random(2) < HALF
        cbct, ct, weight = (np.rot90(a, turns, (1, 2)) for a in drawn)
        if mirrored:
            cbct, ct, weight = (a[:, :, ::-1] for a in (cbct, ct, weight))
        return (cbct[::-1], ct[::-1], weight) if reversed_ else (cbct, ct, weight)

    def _boxes(self) -> list[Drawn]:
        """Return slices of one image, its whole box in each, filled up as at inference."""
        pair = self.pairs[int(self.random.integers(len(self.pairs)))]
        depth, *box = pair.cbct.shape
        rows, columns = (-(-n // MULTIPLE) * MULTIPLE for n in box)
        count = int(np.clip(WHOLE_PX // (rows * columns), 1, min(MOST_SLICES, depth)))
        turns = int(self.random.integers(4))  # one for all, so that they still stack
        centres = self.random.choice(depth, count, replace=False)
        window = (slice(None), slice(None))
        return [
            self._turned(self._stack(pair, int(k), window, (rows, columns)), turns) for k in centres
        ]

    def _patch(self, size: int) -> Drawn:
        """Return patches of `size` pixels; the CT is somebody else's where they are apart."""
        cbct, ct, weight = self._cut(self.pairs, size)
        return (cbct, ct if self.others is None else self._cut(self.others, size)[1], weight)

    def _cut(self, images: Sequence[Pair], size: int) -> Drawn:
        pair = images[int(self.random.integers(len(images)))]
        centre, window = self._place(pair, size)
        for _ in range(TRIES):
            if pair.body[centre][window].mean() >= LEAST_BODY:
                break
            centre, window = self._place(pair, size)
        return self._stack(pair, centre, window, (size, size))

    def _place(self, pair: Pair, size: int) -> tuple[int, tuple[slice, slice]]:
        """Return a slice and a window of `size` pixels, drawn."""
        depth, rows, columns = pair.cbct.shape
        row = int(self.random.integers(max(1, rows - size + 1)))
        column = int(self.random.integers(max(1, columns - size + 1)))
        window = (slice(row, row + size), slice(column, column + size))
        return int(self.random.integers(depth)), window

    def _stack(
        self, pair: Pair, centre: int, window: tuple[slice, slice], shape: tuple[int, int]
    ) -> Drawn:
        """Return the window around slice `centre`, filled up to `shape`."""
        stack = neighbours(len(pair.cbct), centre, self.slices)
        cbct, ct = (_filled(a[stack][:, *window], shape, -1000) for a in (pair.cbct, pair.ct))
        body = _filled(pair.body[centre : centre + 1][:, *window], shape, 0)
        weight = _weight(cbct[self.slices // 2], ct[self.slices // 2], body[0])
        return cbct, ct, weight[None]


def _weight(cbct: NDArray[Any], ct: NDArray[Any], body: NDArray[Any]) -> NDArray[np.float32]:
    unknown = (cbct <= AIR_HU) & (ct > SKIN_HU)  # cut away by the field of view
    weight = SURROUND_WEIGHT * ~unknown + body * (1 + BONE_WEIGHT * (ct > BONE_HU))
    return np.asarray(weight, dtype=np.float32)


def _filled(part: NDArray[Any], shape: tuple[int, int], value: int) -> NDArray[Any]:
    """Return `part` (n, rows, columns) filled up to `shape` behind its end."""
    missing = [(0, 0), *((0, m - n) for m, n in zip(shape, part.shape[1:], strict=True))]
    return np.pad(part, missing, constant_values=value) if any(m for _, m in missing) else part


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
