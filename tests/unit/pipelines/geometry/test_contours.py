"""Contours mean exactly the voxels that they were traced from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.geometry.contours import (
    FIELD_TOLERANCE_PX,
    MASK_TOLERANCE_PX,
    polygons,
    simplify,
    trace,
    turn,
)
from pipelines.geometry.polygons import rasterise

MASKS = hnp.arrays(np.bool_, (1, 14, 17))
FIELDS = hnp.arrays(np.float32, (1, 12, 13), elements=st.floats(0, 1, width=32))
YY, XX = np.mgrid[:60, :70]


def disc(row, column, radius):
    return np.hypot(YY - row, XX - column) <= radius


@settings(max_examples=150, deadline=None)
@given(mask=MASKS, holes=st.sampled_from(["keyhole", "nested"]), most=st.sampled_from([1000, 12]))
def test_every_mask_comes_back_voxel_by_voxel(mask, holes, most):
    """A tolerance of 0.3 px is below the 0.354 px that a level-0.5 line keeps from every center."""
    rings = trace(mask, holes=holes, max_points=most)[0]

    np.testing.assert_array_equal(rasterise(rings, mask.shape[1:]), mask[0])


@settings(max_examples=150, deadline=None)
@given(field=FIELDS)
def test_every_field_comes_back_voxel_by_voxel(field):
    """Values are kept 0.1 off the level, so the line keeps 0.118 px from every center."""
    rings = trace(field)[0]

    np.testing.assert_array_equal(rasterise(rings, field.shape[1:]), field[0] > 0.5)


@settings(max_examples=100, deadline=None)
@given(mask=MASKS, tolerance=st.floats(0.05, 0.35))
def test_no_vertex_that_was_left_out_is_farther_than_the_tolerance(mask, tolerance):
    rings = [ring for p in polygons(mask[0]) for ring in (p.shell, *p.holes)]

    for before, after in zip(rings, simplify(rings, tolerance), strict=True):
        ends = np.roll(after, -1, axis=0)
        along = ends - after
        arm = before[:, None] - after[None]
        share = np.clip((arm * along).sum(2) / np.maximum((along**2).sum(1), 1e-12), 0, 1)
        apart = np.linalg.norm(arm - share[..., None] * along, axis=2).min(axis=1)
        assert apart.max() <= tolerance + 1e-9
        assert len(after) >= 3


def test_the_line_runs_half_a_voxel_outside_the_outermost_centers():
    mask = np.zeros((1, 10, 10), np.bool_)
    mask[0, 3:7, 2:8] = True

    (ring,) = trace(mask, tolerance_px=0.0)[0]

    assert ring.min(axis=0).tolist() == [2.5, 1.5]
    assert ring.max(axis=0).tolist() == [6.5, 7.5]
    assert turn(ring) == pytest.approx(4 * 6 - 4 * 0.125)  # the corners are cut


def test_a_single_voxel_becomes_a_diamond_of_four_points():
    mask = np.zeros((1, 5, 5), np.bool_)
    mask[0, 2, 3] = True

    (ring,) = trace(mask)[0]

    assert sorted(map(tuple, ring)) == [(1.5, 3.0), (2.0, 2.5), (2.0, 3.5), (2.5, 3.0)]


def test_a_mask_at_the_edge_of_the_image_closes_outside_it():
    mask = np.ones((2, 4, 6), np.bool_)

    for (ring,) in trace(mask):
        assert ring.min() == -0.5
        np.testing.assert_array_equal(rasterise([ring], (4, 6)), mask[0])


def test_shells_turn_counter_clockwise_and_holes_clockwise_against_the_normal():
    ring = disc(30, 30, 25) & ~disc(30, 30, 15) | disc(30, 30, 5)

    shell, hole, island = sorted(trace(ring[None], holes="nested")[0], key=lambda r: -abs(turn(r)))

    assert turn(shell) > 0
    assert turn(hole) < 0
    assert turn(island) > 0


def test_a_hole_becomes_a_channel_and_an_island_in_it_a_contour_of_its_own():
    mask = disc(30, 35, 28) & ~disc(22, 30, 6) & ~disc(40, 44, 5) & ~disc(36, 24, 3) | disc(
        22, 30, 2
    )

    contours = trace(mask[None])[0]

    assert len(contours) == 2
    np.testing.assert_array_equal(rasterise(contours, mask.shape), mask)
    area = sum(turn(ring) for ring in contours)
    assert area == pytest.approx(sum(turn(r) for r in trace(mask[None], holes="nested")[0]))


def test_a_field_is_cut_between_voxels_where_its_values_say():
    """Along a row 1, 0.75, 0.25, 0: the level lies in the middle of the second pair."""
    field = np.zeros((1, 9, 8), np.float32)
    field[0, 2:7] = [0, 0, 1, 1, 1, 0.75, 0.25, 0]

    (ring,) = trace(field, tolerance_px=0.0)[0]

    assert ring[:, 1].max() == pytest.approx(5.5)


def test_long_contours_are_split_and_nothing_is_lost():
    comb = np.zeros((1, 60, 70), np.bool_)
    comb[0, 10:50, 5:65:3] = True
    comb[0, 28:32, 5:65] = True

    rings = trace(comb, max_points=40)[0]

    assert max(len(ring) for ring in rings) <= 40
    np.testing.assert_array_equal(rasterise(rings, comb.shape[1:]), comb[0])


def test_the_default_tolerances_stay_below_their_proven_limits():
    assert np.sqrt(2) / 4 > MASK_TOLERANCE_PX
    assert 0.1 / 0.6 / np.sqrt(2) > FIELD_TOLERANCE_PX


def test_nothing_gives_no_contour():
    assert trace(np.zeros((3, 5, 5), np.bool_)) == [[], [], []]
