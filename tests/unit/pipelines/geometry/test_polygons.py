"""Coverage and rasterisation of contours, against areas that are known exactly."""

import numpy as np
import pytest

from pipelines.geometry.polygons import (
    clean,
    coverage,
    nesting,
    rasterise,
    shared_fraction,
    signed_area,
)


def box(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [low, high], [high, high], [high, low]], float)


def test_coverage_of_a_rectangle_is_exact_along_the_row():
    loop = np.array([[1.5, 1.3], [1.5, 4.8], [3.5, 4.8], [3.5, 1.3]])

    covered = coverage([loop], (6, 7))

    assert np.allclose(covered[2], [0, 0.2, 1, 1, 1, 0.3, 0])
    assert covered.sum() == pytest.approx(7.0)


def test_coverage_of_a_slanted_triangle_sums_to_its_area():
    loop = np.array([[0.0, 0.0], [40.0, 3.0], [20.0, 50.0]])

    assert coverage([loop], (60, 60), scanlines=16).sum() == pytest.approx(
        abs(signed_area(loop)), rel=1e-4
    )


def test_loops_beyond_the_grid_are_cut_at_its_edge():
    covered = coverage([box(-10.0, 20.0)], (5, 5))

    assert np.array_equal(covered, np.ones((5, 5)))


def test_hole_and_island_follow_depth_parity():
    loops = [box(0, 20), box(5, 15), box(8, 12)]

    covered = coverage(loops, (25, 25)).sum()
    inside = rasterise(loops, (25, 25))

    assert covered == pytest.approx(400 - 100 + 16)
    assert inside[10, 10]
    assert not inside[6, 6]
    assert inside[2, 2]


def test_keyhole_bridge_counts_for_nothing():
    keyhole = np.array(
        [[0, 0], [0, 20], [20, 20], [20, 10], [15, 10], [15, 15], [5, 15], [5, 5], [15, 5],
         [15, 10], [20, 10], [20, 0]], float
    )  # fmt: skip

    assert coverage([keyhole], (25, 25)).sum() == pytest.approx(300)


def test_rasterise_takes_pixels_whose_centre_is_inside():
    inside = rasterise([box(0.6, 3.4)], (6, 6))

    assert np.array_equal(np.argwhere(inside), [[r, c] for r in (1, 2, 3) for c in (1, 2, 3)])


def test_neighbouring_regions_share_no_pixel_and_leave_no_gap():
    left = np.array([[0, 0], [0, 5], [10, 8], [10, 0]], float)
    right = np.array([[0, 5], [0, 10], [10, 10], [10, 8]], float)

    one, other = rasterise([left], (12, 12)), rasterise([right], (12, 12))

    assert not np.any(one & other)
    assert np.array_equal(one | other, rasterise([box(0, 10)], (12, 12)))


def test_partly_overlapping_outlines_are_united_by_signs():
    loops = [box(0, 10), box(5, 15)]

    assert coverage(loops, (20, 20), signs=(1, 1)).sum() == pytest.approx(175)
    assert coverage(loops, (20, 20)).sum() == pytest.approx(150)  # even-odd leaves a hole


def test_nesting_tells_holes_islands_and_overlaps():
    loops = [box(0, 20), box(5, 15), box(8, 12), box(30, 40), box(35, 45)]

    found = nesting(loops)

    assert found.depth.tolist() == [0, 1, 2, 0, 0]
    assert found.overlap[3, 4]
    assert not found.overlap[0].any()


def test_a_hole_that_touches_its_outline_within_noise_is_still_a_hole():
    found = nesting([box(0, 20), np.array([[5, -0.01], [5, 10], [15, 10], [15, -0.01]])])

    assert found.depth.tolist() == [0, 1]
    assert not found.overlap.any()


def test_shared_fraction_of_half_overlapping_squares_is_one_half():
    other = box(0, 10) + np.array([0.0, 5.0])

    assert shared_fraction(box(0, 10), other) == pytest.approx(0.5, abs=1e-6)


def test_clean_drops_repeated_and_closing_vertices():
    loop = np.array([[0, 0], [0, 1], [0, 1], [1, 1], [0, 0]], float)

    assert len(clean(loop)) == 3


def test_no_loops_cover_nothing():
    assert not coverage([], (3, 4)).any()
    assert not rasterise([], (3, 4)).any()
