"""Agreement measures against shapes whose values are known."""

import numpy as np
import pytest

from models.metrics import agreement, dice

SPACING = (3.0, 1.0, 2.0)


def box(*where: slice) -> np.ndarray:
    mask = np.zeros((20, 30, 40), bool)
    mask[where] = True
    return mask


def test_equal_masks_agree_perfectly():
    mask = box(slice(4, 9), slice(5, 20), slice(7, 30))

    found = agreement(mask, mask, SPACING)

    assert (found.dice, found.hd95_mm, found.surface_dice) == (1.0, 0.0, 1.0)


def test_a_shift_along_rows_is_found_in_millimeters():
    """A long bar shifted along its thin side: nearly all faces are off by that shift."""
    first = box(slice(2, 18), slice(5, 7), slice(2, 38))
    second = box(slice(2, 18), slice(9, 11), slice(2, 38))

    found = agreement(first, second, SPACING, tolerance_mm=3.9)

    assert found.dice == 0.0
    assert found.hd95_mm == pytest.approx(4.0)
    within = agreement(first, second, SPACING, tolerance_mm=4.0)
    assert within.surface_dice == pytest.approx(1.0)
    assert found.surface_dice < 0.6


def test_dice_counts_voxels():
    first = box(slice(0, 2), slice(0, 2), slice(0, 2))  # 8 voxels
    second = box(slice(0, 2), slice(0, 2), slice(0, 4))  # 16 voxels, 8 shared

    assert dice(first, second) == pytest.approx(2 * 8 / 24)


def test_empty_masks_are_not_scored():
    empty = np.zeros((4, 4, 4), bool)

    assert dice(empty, empty) is None
    assert agreement(empty, ~empty, SPACING) is None
