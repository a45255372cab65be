"""Contours to slabs: volumes that the drawing implies, whatever way it is exported."""

import numpy as np
import pytest

from pipelines.dicom.rtstruct import Loop, Roi
from pipelines.radiomics.contours import Spacing, solid
from tests.unit.pipelines.dose_radiomics.support import circle, cylinder, square

SPACING = Spacing(image_mm=None, dose_mm=2.5)


def build(loops, spacing=SPACING, slab=None):
    roi = Roi(
        number=1,
        name="test",
        interpreted_type="",
        codes=(),
        loops=tuple(Loop(points=points, geometric_type=kind) for kind, points in loops),
        slab_thickness_mm=slab,
    )
    return solid(roi, [points[:, ::-1] for _, points in loops], spacing)


def planar(*points):
    return [("CLOSED_PLANAR", p) for p in points]


def cylinder_cc(radius, length):
    return np.pi * radius**2 * length / 1000


def test_end_caps_of_half_a_slice_complete_the_volume():
    found = build(cylinder(10, [0, 3, 6, 9]))

    assert found.prism_cc == pytest.approx(cylinder_cc(10, 12))
    assert (found.box[0][0], found.box[1][0]) == (-1.5, 10.5)


def test_uneven_slices_meet_half_way():
    found = build(cylinder(10, [0, 2, 5, 6]))

    assert [round(s.high - s.low, 6) for s in found.slabs] == [2, 2.5, 2, 1]


def test_decimal_noise_does_not_split_a_plane():
    loops = planar(circle(5, -10, 0, 0.004), circle(5, 10, 0, -0.004), circle(5, -10, 0, 2),
                   circle(5, 10, 0, 2))  # fmt: skip

    assert build(loops).prism_cc == pytest.approx(2 * cylinder_cc(5, 4), rel=5e-3)


def test_two_spheres_on_interleaved_planes_keep_their_volume():
    one = cylinder(5, np.arange(0, 20, 2), x=-20)
    other = cylinder(5, np.arange(1, 21, 2), x=20)

    found = build([*one, *other], Spacing(image_mm=2.0, dose_mm=2.5))

    assert found.prism_cc == pytest.approx(2 * cylinder_cc(5, 20))


def test_missing_slices_are_bridged_and_told():
    found = build(cylinder(10, [0, 2, 4, 10, 12]), Spacing(image_mm=2.0, dose_mm=2.5))

    assert found.prism_cc == pytest.approx(cylinder_cc(10, 14))
    assert "missing slices were bridged" in found.notes


def test_far_apart_parts_are_separate_stacks():
    found = build(cylinder(10, [0, 2, 4, 40, 42, 44]), Spacing(image_mm=2.0, dose_mm=2.5))

    assert found.prism_cc == pytest.approx(2 * cylinder_cc(10, 6))


def test_branching_stacks_share_their_trunk():
    trunk = planar(*(square(-20, 20, z) for z in (0, 2)))
    legs = planar(*(circle(5, x, 0, z) for z in (4, 6) for x in (-12, 12)))

    found = build([*trunk, *legs])

    assert found.prism_cc == pytest.approx((1600 * 4 + 2 * np.pi * 25 * 4) / 1000)


@pytest.mark.parametrize(
    ("spacing", "slab", "thickness"),
    [
        (Spacing(image_mm=3.0, dose_mm=2.5), 4.0, 3.0),
        (SPACING, 4.0, 4.0),
        (SPACING, None, 2.5),
    ],
    ids=["planning image", "contour slab thickness", "dose frames"],
)
def test_one_slice_takes_its_thickness_from_the_best_source(spacing, slab, thickness):
    found = build(cylinder(10, [7]), spacing, slab)

    assert found.prism_cc == pytest.approx(cylinder_cc(10, thickness))
    assert any("one slice" in note for note in found.notes) == (slab is None and thickness == 2.5)


def test_a_repeated_loop_counts_once():
    twice = circle(10, 0, 0, 0)
    turned = np.roll(twice[::-1], 17, axis=0)

    found = build([*planar(twice, turned), *cylinder(10, [2])])

    assert found.prism_cc == pytest.approx(cylinder_cc(10, 4))
    assert "a repeated contour was counted once" in found.notes


def test_holes_islands_and_xor_loops_follow_parity():
    rings = [square(-20, 20, z) for z in (0, 2)], [square(-10, 10, z) for z in (0, 2)]
    island = [square(-4, 4, z) for z in (0, 2)]
    expected = (1600 - 400 + 64) * 4 / 1000

    nested = build(planar(*rings[0], *rings[1], *island))
    xor = build([("CLOSEDPLANAR_XOR", p) for p in (*rings[0], *rings[1], *island)])

    assert nested.prism_cc == pytest.approx(expected)
    assert xor.prism_cc == pytest.approx(expected)


def test_overlapping_outlines_are_united_and_told():
    found = build(planar(*(square(lo, lo + 20, z) for z in (0, 2) for lo in (0, 10))))

    assert "contours that overlap in part were united" in found.notes
    assert all(slab.signs == (1, 1) for slab in found.slabs)


def test_degenerate_loops_enclose_nothing():
    line = np.array([[0, 0, 0], [10, 0, 0], [0, 0, 0], [0, 0, 0]], float)

    assert build(planar(line)).slabs == ()


def test_a_contour_across_planes_is_left_out_and_told():
    tilted = circle(10, 0, 0, 0)
    tilted[:, 2] = tilted[:, 0]

    found = build([*planar(tilted), *cylinder(10, [0, 2])])

    assert found.prism_cc == pytest.approx(cylinder_cc(10, 4))
    assert "a contour oblique to the dose grid was left out" in found.notes
