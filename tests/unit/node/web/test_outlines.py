"""Contours in the three planes, against a cylinder whose cuts are known."""

import numpy as np
import pytest

from node.web.pictures.grid import CORONAL, SAGITTAL, TRANSVERSE, Upright
from node.web.pictures.outlines import Outline
from pipelines.dicom.rtstruct import Loop, Roi
from pipelines.geometry.stack import StackGeometry

RADIUS = 12.0
HEIGHTS = np.arange(6.0, 31.0, 3.0)  # nine contours, 3 mm apart


def circle(z: float, radius: float = RADIUS, center: tuple[float, float] = (0, 0)) -> Loop:
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    points = np.column_stack(
        [center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), np.full(360, z)]
    )
    return Loop(points=points, geometric_type="CLOSED_PLANAR")


def roi(loops: list[Loop]) -> Roi:
    return Roi(number=1, name="R", interpreted_type="", codes=(), loops=tuple(loops))


@pytest.fixture
def grid() -> Upright:
    """Return a grid whose voxel (12, 40, 40) is the patient's origin in plane."""
    return Upright.of(
        StackGeometry.regular(
            shape=(15, 81, 81), spacing=(3.0, 1.0, 1.0), origin=(-40.0, -40.0, 0.0)
        )
    )


@pytest.fixture
def cylinder(grid: Upright) -> Outline:
    return Outline.of(roi([circle(z) for z in HEIGHTS]), grid)


def test_the_drawn_plane_shows_the_contour_as_it_is(cylinder: Outline) -> None:
    (line,) = cylinder.lines(TRANSVERSE, 4)

    assert np.allclose(np.hypot(line[:, 0] - 40, line[:, 1] - 40), RADIUS)


def test_nothing_is_shown_beyond_half_a_slice(cylinder: Outline) -> None:
    assert cylinder.lines(TRANSVERSE, 1) == []
    assert cylinder.lines(TRANSVERSE, 11) == []


@pytest.mark.parametrize("axis", [CORONAL, SAGITTAL])
def test_the_cut_through_the_axis_is_the_rectangle(cylinder: Outline, axis: int) -> None:
    (line,) = cylinder.lines(axis, 40)

    # Columns of pixels whose cover passes a half: between the centers, ± the radius.
    assert line[:, 0].min() == pytest.approx(40 - RADIUS, abs=0.5)
    assert line[:, 0].max() == pytest.approx(40 + RADIUS, abs=0.5)
    # Contours at slices 2 to 10; the slabs reach half a slice further; the head is on top.
    assert line[:, 1].min() == pytest.approx(14 - 10 - 0.5, abs=0.15)
    assert line[:, 1].max() == pytest.approx(14 - 2 + 0.5, abs=0.15)


def test_a_cut_off_the_axis_is_as_narrow_as_the_chord(cylinder: Outline) -> None:
    (line,) = cylinder.lines(CORONAL, 40 + 9)

    half = np.sqrt(RADIUS**2 - 9**2)
    assert np.ptp(line[:, 0]) == pytest.approx(2 * half, abs=1.0)


def test_a_cut_beside_the_structure_is_empty(cylinder: Outline) -> None:
    assert cylinder.lines(CORONAL, 40 + 13) == []


def test_an_inner_contour_is_a_hole(grid: Upright) -> None:
    loops = [loop for z in HEIGHTS for loop in (circle(z), circle(z, 5.0))]

    lines = Outline.of(roi(loops), grid).lines(CORONAL, 40)

    assert len(lines) == 2 or any(np.ptp(line[:, 0]) < 8 for line in lines)
    assert sum(np.ptp(line[:, 0]) < 12 for line in lines) >= 1


def test_two_pieces_along_the_body_stay_apart(grid: Upright) -> None:
    loops = [circle(z) for z in (6.0, 9.0, 12.0, 24.0, 27.0, 30.0)]

    assert len(Outline.of(roi(loops), grid).lines(SAGITTAL, 40)) == 2


def test_contours_across_the_body_are_counted_not_drawn(grid: Upright) -> None:
    upright = Loop(
        points=np.array([[0.0, 0.0, 3.0], [9.0, 0.0, 3.0], [9.0, 0.0, 30.0]]),
        geometric_type="CLOSED_PLANAR",
    )

    outline = Outline.of(roi([upright]), grid)

    assert outline.skipped == 1
    assert outline.lines(TRANSVERSE, 5) == []
