"""Upright planes: every voxel and every point stays where it is in the patient."""

from itertools import product

import numpy as np
import pytest

from node.web.pictures.grid import (
    CORONAL,
    PLANES,
    SAGITTAL,
    TRANSVERSE,
    Upright,
    cut,
    even,
    letters,
    pixels,
    sides,
    trilinear,
)
from pipelines.geometry.stack import SlicePose, StackGeometry

COSINE, SINE = float(np.cos(np.radians(5))), float(np.sin(np.radians(5)))
ORIENTATIONS = {
    "HFS": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "HFP": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "FFS": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "turned": ((COSINE, SINE, 0.0), (-SINE, COSINE, 0.0)),
}  # fmt: skip


def grid(name: str) -> StackGeometry:
    row, column = ORIENTATIONS[name]
    return StackGeometry.regular(
        shape=(5, 6, 7), spacing=(3.0, 2.0, 1.5), origin=(-10.0, 20.0, 30.0),
        row_direction=row, column_direction=column,
    )  # fmt: skip


def coordinates(geometry: StackGeometry) -> np.ndarray:
    """Return an image whose voxels hold their own LPS position, shape (..., 3)."""
    index = np.array(list(product(*(range(n) for n in geometry.shape))), dtype=float)
    return geometry.points(index).reshape(*geometry.shape, 3)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("axis", [TRANSVERSE, CORONAL, SAGITTAL])
def test_the_pixels_of_a_plane_are_the_voxels_at_their_places(name: str, axis: int) -> None:
    geometry = grid(name)
    upright = Upright.of(geometry)
    field = coordinates(geometry)

    for index in range(upright.shape[PLANES[axis].w]):
        shown = np.stack([cut(upright.turn(field[..., c]), axis, index) for c in range(3)], axis=-1)
        assert np.allclose(shown.reshape(-1, 3), pixels(upright, axis, index), atol=1e-9)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_points_and_indices_undo_each_other(name: str) -> None:
    upright = Upright.of(grid(name))
    points = np.array([[0.0, 0.0, 0.0], [-3.0, 25.0, 33.0]])

    assert np.allclose(upright.points(upright.indices(points)), points)


@pytest.mark.parametrize("name", [n for n in ORIENTATIONS if n != "turned"])
def test_every_acquisition_looks_the_same_upright(name: str) -> None:
    """Radiologists' way: the patient's right on the left side, front and head on top."""
    upright = Upright.of(grid(name))

    assert sides(upright, TRANSVERSE) == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert sides(upright, CORONAL) == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
    assert sides(upright, SAGITTAL) == {"left": "A", "right": "P", "top": "S", "bottom": "I"}
    assert np.allclose(upright.directions, np.eye(3)[::-1])


def test_an_oblique_side_has_two_letters() -> None:
    assert letters(np.array([0.8, 0.6, 0.0])) == "LP"
    assert letters(np.array([-0.1, -0.99, 0.0])) == "A"


def test_an_uneven_stack_shows_the_nearest_slice() -> None:
    poses = [
        SlicePose(position=(0.0, 0.0, z), row_direction=(1, 0, 0), column_direction=(0, 1, 0),
                  spacing=(1.0, 1.0), rows=2, columns=2)
        for z in (0.0, 2.0, 4.0, 6.0, 11.0, 16.0, 21.0)
    ]  # fmt: skip
    geometry = StackGeometry.of(poses)
    array = np.arange(7)[:, None, None] * np.ones((7, 2, 2))

    shown, regular, repaired = even(array, geometry)

    assert repaired
    assert regular.uniform
    at = regular.positions
    real = geometry.positions
    assert [int(v) for v in shown[:, 0, 0]] == [int(np.abs(real - z).argmin()) for z in at]


def test_sampling_is_exact_for_a_linear_field_and_ends_at_the_edge() -> None:
    k, i, j = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    field = 2.0 * k - 3.0 * i + 0.5 * j + 7
    at = np.array([[0.0, 0.0, 0.0], [1.25, 2.5, 3.75], [3.0, 4.0, 5.0], [3.4, 0.0, 0.0]])

    values = trilinear(field, at, outside=-1.0)

    expected = 2.0 * at[:, 0] - 3.0 * at[:, 1] + 0.5 * at[:, 2] + 7
    assert np.allclose(values[:3], expected[:3])
    assert values[3] == pytest.approx(2.0 * 3 + 7)  # half a voxel beyond the last center
    assert trilinear(field, np.array([[3.6, 0.0, 0.0]]), outside=-1.0)[0] == -1.0
