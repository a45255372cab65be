"""Generated data lies where it says: closed forms for every patient position."""

import numpy as np
import pytest

from demo.grid import DIRECTIONS, Grid, centered_grid


@pytest.mark.parametrize("position", sorted(DIRECTIONS))
def test_directions_of_every_position_are_orthonormal_and_head_or_feet_first(position: str) -> None:
    grid = centered_grid((3, 4, 5), (5.0, 2.0, 1.0), position=position)

    assert np.dot(grid.row_direction, grid.column_direction) == 0
    assert np.linalg.norm(grid.normal) == pytest.approx(1)
    assert grid.normal[2] == (1 if position.startswith("HF") else -1)


def test_scanner_down_is_the_side_the_patient_lies_on() -> None:
    """Patient Position FFDL: left side down, so rows of pixels grow toward patient left (+x)."""
    down = {"HFS": (0, 1, 0), "HFP": (0, -1, 0), "HFDL": (1, 0, 0), "FFDR": (-1, 0, 0)}

    for position, direction in down.items():
        assert DIRECTIONS[position][1] == direction


@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
@pytest.mark.parametrize("position", sorted(DIRECTIONS))
def test_a_centered_grid_has_its_middle_at_the_center(position: str, tilt_deg: float) -> None:
    grid = centered_grid(
        (3, 4, 5), (5.0, 2.0, 1.0), position=position, tilt_deg=tilt_deg, center=(10, -20, 30)
    )

    middle = grid.positions().reshape(-1, 3).mean(axis=0)

    np.testing.assert_allclose(middle, (10, -20, 30), atol=1e-9)


def test_indices_map_to_millimeters_by_spacing_and_directions() -> None:
    grid = Grid(shape=(3, 4, 5), spacing=(5.0, 2.0, 1.0), origin=(-7, 8, 9))

    np.testing.assert_allclose(grid.to_patient(np.array([2, 3, 4])), (-7 + 4, 8 + 6, 9 + 10))
    np.testing.assert_allclose(grid.slice_origin(2), (-7, 8, 19))
    np.testing.assert_allclose(grid.affine @ (2, 3, 4, 1), (-3, 14, 19, 1))
