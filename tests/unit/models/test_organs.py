"""The way into the network and back keeps every organ where it is."""

import numpy as np
import pytest

from models.organs import segment
from models.window import WIDE_HU


def bright_is_class_one(batch: np.ndarray) -> np.ndarray:
    """A network that calls everything above 400 HU of the centre slice class 1."""
    low, high = WIDE_HU
    hu = (batch[:, -1] + 1) / 2 * (high - low) + low
    score = (hu - 400.0) / 20.0
    return np.stack([np.zeros_like(score), score], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((30, 60, 64), (2.5, 3.9, 3.9)),
        ((25, 200, 220), (3.0, 1.3, 1.1)),
        ((60, 128, 128), (1.0, 2.0, 2.0)),
        ((16, 100, 90), (5.0, 2.2, 2.6)),
    ],
    ids=["as trained", "fine pixels", "thin slices", "thick slices"],
)
def test_a_ball_comes_back_where_it_was(shape, spacing):
    axes = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    size = [n * s for n, s in zip(shape, spacing, strict=True)]
    body = np.hypot((axes[1] - size[1] / 2) / 90, (axes[2] - size[2] / 2) / 100) < 1
    centre = np.array([size[0] * 0.4, size[1] / 2 - 25, size[2] / 2 + 40])
    ball = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < 15**2
    hu = np.where(ball, 1000.0, np.where(body, 0.0, -1024.0)).astype(np.float32)

    found = np.zeros(shape, bool)
    for part in segment(hu, spacing, bright_is_class_one, slices=7):
        np.testing.assert_allclose(part.probabilities.sum(axis=0), 1.0, atol=1e-5)
        found[part.index, part.rows, part.columns] = part.probabilities[1] > 0.5

    middle = [float((a * found).sum() / found.sum()) for a in axes]
    np.testing.assert_allclose(middle, centre, atol=1.0)
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.88
