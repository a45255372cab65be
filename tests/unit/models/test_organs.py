"""The way into the network and back keeps every organ where it is."""

import numpy as np
import pytest

from models.organs import answer, slide, without_crumbs
from models.window import WIDE_HU, Frame

FLAT = Frame(
    dimensions=2, voxel_mm=(2.5, 3.9, 3.9), patch=(1, 80, 80), field=(80, 80),
    offsets=(-3, -2, -1, 0, 1, 2, 3),
)  # fmt: skip
SOLID = Frame(dimensions=3, voxel_mm=(2.5, 3.9, 3.9), patch=(16, 48, 48), field=(80, 80))
FRAMES = [pytest.param(FLAT, id="2.5D"), pytest.param(SOLID, id="3D in windows")]


def bright_is_class_one(batch: np.ndarray) -> np.ndarray:
    """A network that calls everything above 400 HU class 1; the wide window comes last."""
    low, high = WIDE_HU
    hu = (batch[:, -1] + 1) / 2 * (high - low) + low
    score = (hu - 400.0) / 20.0
    return np.stack([np.zeros_like(score), score], axis=1).astype(np.float32)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((30, 60, 64), (2.5, 3.9, 3.9)),
        ((25, 200, 220), (3.0, 1.3, 1.1)),
        ((60, 128, 128), (1.0, 2.0, 2.0)),
        ((16, 100, 90), (5.0, 2.2, 2.6)),
        ((5, 100, 90), (5.0, 2.2, 2.6)),
    ],
    ids=["as trained", "fine pixels", "thin slices", "thick slices", "shorter than a window"],
)
def test_a_ball_comes_back_where_it_was(shape, spacing, frame):
    axes = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    size = [n * s for n, s in zip(shape, spacing, strict=True)]
    body = np.hypot((axes[1] - size[1] / 2) / 90, (axes[2] - size[2] / 2) / 100) < 1
    centre = np.array([size[0] * 0.4, size[1] / 2 - 25, size[2] / 2 + 40])
    ball = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < 15**2
    hu = np.where(ball, 1000.0, np.where(body, 0.0, -1024.0)).astype(np.float32)

    found = np.zeros(shape, bool)
    for part in answer(hu, spacing, [bright_is_class_one], [frame]).slices():
        np.testing.assert_allclose(part.probabilities.sum(axis=0), 1.0, atol=1e-5)
        found[part.index, part.rows, part.columns] = part.probabilities[1] > 0.5

    middle = [float((a * found).sum() / found.sum()) for a in axes]
    truth = [float((a * ball).sum() / ball.sum()) for a in axes]
    np.testing.assert_allclose(middle, truth, atol=1.0)
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.88


@pytest.mark.parametrize("frame", FRAMES)
def test_blended_windows_say_what_one_window_would(frame):
    """A network without a view beyond the voxel gives the same answer however it is tiled."""
    random = np.random.default_rng(0)
    hu = random.uniform(-200, 1200, (37, 80, 80)).astype(np.float32)

    tiled = slide(hu, bright_is_class_one, frame)

    score = (np.clip(hu, *WIDE_HU) - 400.0) / 20.0
    np.testing.assert_allclose(tiled[:, 1], 1 / (1 + np.exp(-score)), atol=1e-4)


def test_the_middle_of_a_window_outweighs_its_edge():
    """A network that errs at the edge of its view does no harm where windows overlap."""

    def wrong_at_the_edge(batch: np.ndarray) -> np.ndarray:
        answer = np.zeros((1, 2, *batch.shape[2:]), np.float32)
        answer[:, 0] = 4.0
        answer[:, 1, :2] = answer[:, 1, -2:] = 8.0
        return answer

    tiled = slide(np.zeros((48, 80, 80), np.float32), wrong_at_the_edge, SOLID)

    wrong = (tiled[:, 1] > 0.5).any(axis=(1, 2))
    assert not wrong[2:-2].any()


def test_the_neighbours_of_the_outermost_slices_are_these_slices_again():
    seen = []

    def network(batch: np.ndarray) -> np.ndarray:
        seen.append(batch)
        return np.zeros((len(batch), 2, 80, 80), np.float32)

    slide(np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 80, 80), np.float32),
          network, FLAT)  # fmt: skip

    hu = (seen[0][:, :7, 0, 0] + 1) * 200 - 160
    assert hu[0].round().tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert hu[4].round().tolist() == [1, 2, 3, 4, 4, 4, 4]


def says(label: int):
    """Return a network that calls everything `label`, for sure, and remembers what it was shown."""

    def network(batch: np.ndarray) -> np.ndarray:
        network.shown.append(batch.shape)
        logits = np.full((len(batch), 3, *batch.shape[2:]), -20.0, np.float32)
        logits[:, label] = 20.0
        return logits

    network.shown = []
    return network


def test_networks_with_fields_of_their_own_are_averaged_where_both_look():
    """A narrow network says background beyond its field; around one middle the voxels coincide."""
    narrow = SOLID.model_copy(update={"patch": (16, 48, 32), "field": (80, 48)})
    wide, small = says(1), says(2)

    said = answer(
        np.zeros((30, 100, 100), np.float32), (2.5, 3.9, 3.9), [wide, small], [FLAT, narrow]
    )

    assert wide.shown[0][1:] == (8, 80, 80)
    assert small.shown[0][1:] == (2, 16, 48, 32)
    np.testing.assert_allclose(said.mean[:, :, 40, 40].T, np.array([[0, 0.5, 0.5]]).T * [[1] * 30],
                               atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(said.mean[:, 0, :, :16], 0.5, atol=1e-6)
    np.testing.assert_allclose(said.mean[:, 2, :, 64:], 0.0, atol=1e-6)
    assert (said.labels[1][:, :, 16:64] == 2).all()
    assert not said.labels[1][:, :, :16].any()


def test_a_ball_stays_where_it_was_when_networks_of_two_frames_look_for_it():
    axes = np.meshgrid(*(np.arange(n) * s for n, s in ((40, 2.0), (150, 1.5), (150, 1.5))),
                       indexing="ij")  # fmt: skip
    ball = sum((a - c) ** 2 for a, c in zip(axes, (35, 100, 130), strict=True)) < 20**2
    hu = np.where(ball, 1000.0, 0.0).astype(np.float32)
    narrow = SOLID.model_copy(update={"patch": (16, 48, 32), "field": (80, 64)})

    said = answer(hu, (2.0, 1.5, 1.5), [bright_is_class_one] * 2, [FLAT, narrow])
    found = np.zeros(hu.shape, bool)
    for part in said.slices():
        found[part.index, part.rows, part.columns] = part.probabilities[1] > 0.5

    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.9
    assert said.agreement() == {1: pytest.approx(1.0, abs=1e-3)}


def test_crumbs_go_and_parts_of_an_elongated_organ_stay():
    mask = np.zeros((20, 8, 8), bool)
    mask[0:8, 2:4, 2:4] = True
    mask[10:13, 2:4, 2:4] = True
    mask[18, 7, 7] = True

    assert without_crumbs(mask, "largest").sum() == 32
    assert without_crumbs(mask, "tenth").sum() == 44
    assert not without_crumbs(np.zeros_like(mask), "largest").any()
