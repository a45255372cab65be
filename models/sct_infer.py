"""How a CBCT enters the synthetic CT network and comes out: the one rule for training and node.

The body's box with `MARGIN_PX` around is shown in one piece, filled to multiples of 16; values are
HU / 1000; edge slices are repeated. Outside the box the CBCT stays as it is.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.sct_net import MULTIPLE

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, slices, row, column) -> (N, 1, row, column), HU / 1000."""

MARGIN_PX: Final = 16
AIR_HU: Final = -1000.0
AT_ONCE: Final = 4
"""Slices in one call: more costs memory, less costs time."""


def correct(
    cbct: Hu, body: Mask, network: Network, slices: int = 5, *, step: int = 1, flip: bool = False
) -> Hu:
    """Return the network's synthetic CT of `cbct`.

    Parameters
    ----------
    cbct : ndarray, shape (slices, rows, columns), HU
        -1000 outside the field of view, as in training.
    body : ndarray of bool, same shape
        Body inside the field of view.
    network : callable
        See `Network`.
    slices : int
        Neighbouring slices that it takes.
    step : int
        Only every n-th slice is corrected and returned.
    flip : bool
        Show the image upside down and turn the answer back: a second opinion.

    Returns
    -------
    ndarray, shape (slices / step, rows, columns), HU
    """
    result = np.array(cbct[::step], dtype=np.float32)
    if not body.any():
        return result
    rows, columns = body_box(body)
    shown = cbct[:, rows, columns]
    wanted = [-(-n // MULTIPLE) * MULTIPLE for n in shown.shape[1:]]
    fill = [(0, 0), *((0, w - n) for w, n in zip(wanted, shown.shape[1:], strict=True))]
    padded: Hu = np.pad(shown, fill, constant_values=AIR_HU).astype(np.float32) / np.float32(1000)
    axes = (2,) if flip else ()
    for indices, batch in _batches(padded, slices, step):
        answer = np.flip(network(np.ascontiguousarray(np.flip(batch, axes))), axes)
        result[indices, rows, columns] = 1000 * answer[:, 0, : shown.shape[1], : shown.shape[2]]
    return result


def body_box(body: NDArray[Any]) -> tuple[slice, slice]:
    """Return rows and columns of the body's box in all slices, with `MARGIN_PX` around."""
    found = []
    for axis in (1, 2):
        other = 3 - axis
        where = np.flatnonzero(body.any(axis=(0, other)))
        first, last = (where[0], where[-1]) if where.size else (0, body.shape[axis] - 1)
        found.append(
            slice(max(0, int(first) - MARGIN_PX), min(body.shape[axis], int(last) + 1 + MARGIN_PX))
        )
    return found[0], found[1]


def neighbours(count: int, centre: int, slices: int) -> NDArray[np.int64]:
    """Return the indices of the `slices` slices around `centre`; edge slices are repeated."""
    reach = slices // 2
    return np.clip(np.arange(centre - reach, centre + reach + 1), 0, count - 1)


def _batches(image: Hu, slices: int, step: int) -> Iterator[tuple[slice, Hu]]:
    """Yield the places in the result of each call and its stacks (N, slices, row, column)."""
    wanted = range(0, len(image), step)
    for start in range(0, len(wanted), AT_ONCE):
        stacks = [neighbours(len(image), i, slices) for i in wanted[start : start + AT_ONCE]]
        yield slice(start, start + len(stacks)), image[np.stack(stacks)]
