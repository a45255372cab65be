"""Order, spacing, gaps and the voxel-to-patient map, against grids made by other code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.grid import DIRECTIONS, centered_grid
from pipelines.api import InputRejected
from pipelines.geometry.stack import SlicePose, StackGeometry, examine


def poses(grid, order=None):
    """Return the slice poses of an independent grid, shuffled."""
    found = [
        SlicePose(
            position=tuple(grid.slice_origin(k)),
            row_direction=grid.row_direction,
            column_direction=grid.column_direction,
            spacing=(grid.spacing[1], grid.spacing[2]),
            rows=grid.shape[1],
            columns=grid.shape[2],
        )
        for k in range(grid.shape[0])
    ]
    return found if order is None else [found[k] for k in order]


def axial(zs, **changes):
    """Return axial poses at the given z."""
    defaults = {
        "row_direction": (1.0, 0.0, 0.0),
        "column_direction": (0.0, 1.0, 0.0),
        "spacing": (1.0, 1.0),
        "rows": 4,
        "columns": 5,
    }
    return [SlicePose(**{"position": (0.0, 0.0, float(z)), **defaults, **changes}) for z in zs]


@pytest.mark.parametrize("tilt", [0.0, 17.0], ids=["straight", "oblique"])
@pytest.mark.parametrize("position", DIRECTIONS)
def test_a_voxel_keeps_its_place_in_every_patient_position(position, tilt):
    """Unequal sizes and spacings: any swapped or mirrored axis moves the voxel."""
    grid = centered_grid((5, 7, 9), (4.0, 1.1, 1.3), position=position, tilt_deg=tilt)
    order = np.random.default_rng(3).permutation(5)

    geometry = StackGeometry.of(poses(grid, order))

    index = np.array([[1, 5, 2], [4, 0, 8]])
    np.testing.assert_allclose(geometry.points(index), grid.to_patient(index), atol=1e-9)
    np.testing.assert_allclose(geometry.affine, grid.affine, atol=1e-9)
    np.testing.assert_allclose(geometry.indices(grid.to_patient(index)), index, atol=1e-9)
    np.testing.assert_allclose(
        geometry.inverse @ [*grid.to_patient(index)[0], 1], [*index[0], 1], atol=1e-9
    )
    assert geometry.shape == grid.shape
    assert geometry.spacing == pytest.approx(grid.spacing)


def test_a_negated_column_direction_turns_the_slice_order_around():
    """The slice index grows along row × column, wherever that points."""
    report = examine(axial([0, 3, 6], column_direction=(0.0, -1.0, 0.0)))

    assert report.order == (2, 1, 0)
    assert report.uniform


def test_a_missing_slice_is_named_with_its_place():
    report = examine(axial([0, 3, 6, 12, 15]))

    assert [(g.z_from, g.z_to, g.missing) for g in report.gaps] == [(6.0, 12.0, 1)]
    assert report.problems == ("a slice is missing between 6.0 and 12.0 mm along the stack",)
    assert not report.uniform


def test_many_missing_slices_are_found_although_the_median_step_is_too_long():
    report = examine(axial([0, 2.5, 5, 12.5, 17.5, 25, 27.5, 40]))

    assert report.spacing == pytest.approx(2.5)
    assert [g.missing for g in report.gaps] == [2, 1, 2, 4]


def test_a_second_spacing_below_the_head_is_uneven_but_no_gap():
    report = examine(axial([0, 5, 10, 15, 20, 22, 24, 26, 28, 30, 32]))

    assert report.gaps == ()
    assert report.problems == ()
    assert not report.uniform


def test_uneven_slices_keep_their_exact_places_and_have_no_affine():
    geometry = StackGeometry.of(axial([0, 5, 10, 15, 20, 22, 24, 26]))

    np.testing.assert_allclose(
        geometry.points([[4, 0, 0], [5, 0, 0], [4.5, 1, 2]]), [[0, 0, 20], [0, 0, 22], [2, 1, 21]]
    )
    np.testing.assert_allclose(geometry.slice_widths, [5, 5, 5, 5, 3.5, 2, 2, 2])
    with pytest.raises(InputRejected, match="unevenly"):
        _ = geometry.affine


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ([], "no image"),
        (axial([0]), "only one slice"),
        (axial([0, 3, 3, 6]), "1 slices share a position"),
        ([*axial([0, 3]), *axial([6], rows=8)], "different sizes: 4x5 and 8x5"),
        ([*axial([0, 3]), *axial([6], spacing=(1.0, 1.2))], "different pixel spacings"),
        ([*axial([0, 3]), *axial([6], row_direction=(0.0, 1.0, 0.0),
                                 column_direction=(-1.0, 0.0, 0.0))], "2 different orientations"),
        (axial([0, 3, 6], spacing=(0.0, 1.0)), "no pixel spacing above zero"),
        (axial([0, 3, 6], column_direction=(0.5, 1.0, 0.0)), "perpendicular"),
    ],
    ids=["none", "one", "duplicate", "sizes", "spacings", "orientations", "zero", "skewed"],
)  # fmt: skip
def test_what_is_not_one_volume_is_refused_in_a_sentence(slices, words):
    report = examine(slices)

    assert words in "; ".join(report.problems)
    assert not report.uniform
    with pytest.raises(InputRejected, match=words):
        StackGeometry.of(slices)


def test_a_tilted_gantry_is_told_from_a_shift_between_two_slices():
    tilted = [
        SlicePose(position=(0.0, z * np.tan(np.deg2rad(14)), z), row_direction=(1.0, 0.0, 0.0),
                  column_direction=(0.0, 1.0, 0.0), spacing=(1.0, 1.0), rows=4, columns=5)
        for z in np.arange(0.0, 30.0, 3.0)
    ]  # fmt: skip
    shifted = axial([0, 3, 6]) + [
        SlicePose(position=(4.0, 0.0, z), row_direction=(1.0, 0.0, 0.0),
                  column_direction=(0.0, 1.0, 0.0), spacing=(1.0, 1.0), rows=4, columns=5)
        for z in (9.0, 12.0)
    ]  # fmt: skip

    assert examine(tilted).tilt_deg == pytest.approx(14)
    assert "sheared by 14.0 degrees" in examine(tilted).problems[0]
    assert "shift in plane by up to 4.0 mm" in examine(shifted).problems[0]


def test_positions_rounded_to_a_tenth_of_a_millimeter_are_still_one_grid():
    zs = np.round(np.arange(20) * 1.25, 1) + np.resize([0.0, 0.04], 20)

    assert examine(axial(zs)).problems == ()


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
    index=st.tuples(st.floats(-2, 8), st.floats(-3, 20), st.floats(-3, 20)),
)
def test_points_and_indices_undo_each_other_for_any_orientation(angles, index):
    a, b, c = angles
    turn = np.array(
        [
            [np.cos(a) * np.cos(b), -np.sin(a), np.cos(a) * np.sin(b)],
            [np.sin(a) * np.cos(b), np.cos(a), np.sin(a) * np.sin(b)],
            [-np.sin(b), 0.0, np.cos(b)],
        ]
    )
    geometry = StackGeometry.regular(
        shape=(6, 8, 9),
        spacing=(2.5, 0.8, 1.1),
        origin=(c, -17.0, 40.0),
        row_direction=tuple(turn[:, 0]),
        column_direction=tuple(turn[:, 1]),
    )

    np.testing.assert_allclose(geometry.indices(geometry.points([index])), [index], atol=1e-7)


def test_two_grids_are_the_same_only_when_their_voxels_coincide():
    grid = StackGeometry.regular(shape=(3, 4, 5), spacing=(3.0, 1.0, 1.0))
    moved = StackGeometry.regular(shape=(3, 4, 5), spacing=(3.0, 1.0, 1.0), origin=(0.0, 0.1, 0.0))

    assert grid.same_grid(grid)
    assert not grid.same_grid(moved)
