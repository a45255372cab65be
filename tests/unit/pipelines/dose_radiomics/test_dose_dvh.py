"""DVH against closed forms: cylinders in a dose that is linear along their axis."""

import numpy as np
import pytest

from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dose_radiomics.dvh import Dvh
from pipelines.dose_radiomics.recipe import Biological, region_dvh
from pipelines.dose_radiomics.regions import Region
from pipelines.geometry.expressions import Name
from pipelines.radiomics.contours import Spacing, solid
from tests.unit.pipelines.dicom.test_rtdose_reader import ORIENTATIONS
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    save,
    square,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)  # a cylinder from -10 to +10 mm: 15 to 35 Gy


def compute(tmp_path, loops, rd, convert=None):
    grid = read_dose(save(rd, tmp_path / "rd.dcm"))
    structures = read_structure_set(save(structure_set([("R", "", loops)]), tmp_path / "rs.dcm"))
    roi, name = structures.rois[0], Name("R")
    made = solid(
        roi, [grid.to_axes(loop.points) for loop in roi.closed],
        Spacing(image_mm=None, dose_mm=grid.spacing_mm[0]),
    )  # fmt: skip
    return region_dvh(Region(node=name, solids={name: (made,)}), grid, convert)


@pytest.fixture
def in_linear_dose(tmp_path):
    return compute(tmp_path, cylinder(10, HEIGHTS), dose(linear_z))


def test_volume_mean_and_spread_of_a_cylinder_in_a_linear_dose(in_linear_dose):
    assert in_linear_dose.volume_cc == pytest.approx(2 * np.pi, rel=1e-4)
    assert in_linear_dose.mean == pytest.approx(25, abs=1e-6)
    assert in_linear_dose.sd == pytest.approx(20 / np.sqrt(12), rel=1e-3)
    assert in_linear_dose.outside_cc == 0


@pytest.mark.parametrize("percent", [98, 95, 50, 5, 2])
def test_dose_at_volume_runs_linearly(in_linear_dose, percent):
    expected = 35 - 20 * percent / 100

    assert in_linear_dose.dose_at_percent(percent) == pytest.approx(expected, abs=0.13)


@pytest.mark.parametrize("gray", [16, 20, 25, 30, 34.5])
def test_volume_at_dose_runs_linearly(in_linear_dose, gray):
    assert in_linear_dose.percent_at_dose(gray) == pytest.approx(5 * (35 - gray), abs=0.7)


def test_volume_beyond_all_doses_is_everything_or_nothing(in_linear_dose):
    assert in_linear_dose.cc_at_dose(0) == pytest.approx(in_linear_dose.volume_cc)
    assert in_linear_dose.cc_at_dose(36) == 0
    assert in_linear_dose.dose_at_percent(100) == pytest.approx(in_linear_dose.minimum, abs=2e-3)


def test_uniform_dose_gives_that_dose_everywhere(tmp_path):
    found = compute(tmp_path, cylinder(10, HEIGHTS), dose(lambda p: np.full(p.shape[:-1], 60.0)))

    for value in (found.mean, found.dose_at_percent(98), found.dose_at_cc(0.03), found.geud(-10)):
        assert value == pytest.approx(60, abs=1e-3)
    assert found.percent_at_dose(60) == pytest.approx(100, abs=1e-6)


def test_geud_between_mean_and_extremes(in_linear_dose):
    assert in_linear_dose.geud(1) == pytest.approx(25, abs=1e-3)
    assert in_linear_dose.geud(2) == pytest.approx(np.sqrt(25**2 + 400 / 12), rel=1e-3)
    assert 34 < in_linear_dose.geud(500) < 35
    assert 15 < in_linear_dose.geud(-500) < 16


def test_cold_spot_of_zero_dose_makes_a_negative_geud_zero(tmp_path):
    found = compute(tmp_path, cylinder(10, HEIGHTS), dose(lambda p: np.maximum(p[..., 2], 0)))

    assert found.geud(-5) == 0
    assert found.minimum == 0


def test_invariant_under_scaling_bits_order_and_offsets(tmp_path, in_linear_dose):
    for rd in (
        dose(linear_z, absolute=True),
        dose(linear_z, order=range(20, -1, -1)),
        dose(linear_z, offsets=np.r_[0:20:2, 20:41:2]),
    ):
        found = compute(tmp_path, cylinder(10, HEIGHTS), rd)

        assert found.mean == pytest.approx(in_linear_dose.mean, rel=1e-9)
        assert found.dose_at_percent(95) == pytest.approx(
            in_linear_dose.dose_at_percent(95), rel=1e-9
        )
    coarse = compute(tmp_path, cylinder(10, HEIGHTS), dose(linear_z, bits=16, scaling=1e-3))
    assert coarse.mean == pytest.approx(in_linear_dose.mean, abs=1e-3)


@pytest.mark.parametrize("position", ["HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"])
def test_invariant_under_patient_position(tmp_path, in_linear_dose, position):
    orientation, first = ORIENTATIONS[position]

    found = compute(
        tmp_path, cylinder(10, HEIGHTS), dose(linear_z, orientation=orientation, first=first)
    )

    assert found.volume_cc == pytest.approx(in_linear_dose.volume_cc, rel=1e-6)
    assert found.mean == pytest.approx(in_linear_dose.mean, abs=1e-6)


def ring(z):
    """Return a square of 40 mm with a square hole of 20 mm, as outline and hole."""
    return square(-20, 20, z), square(-10, 10, z)


def keyhole(z):
    """Return the same ring as one loop: a bridge of zero width leads to the hole and back."""
    outer, inner = ring(z)
    return np.concatenate([outer, outer[:1], inner[::-1][-1:], inner[::-1], outer[:1]])


@pytest.mark.parametrize(
    "loops",
    [
        lambda z: [("CLOSED_PLANAR", part) for part in ring(z)],
        lambda z: [("CLOSED_PLANAR", keyhole(z))],
        lambda z: [("CLOSEDPLANAR_XOR", part) for part in ring(z)],
        lambda z: [("CLOSED_PLANAR", np.repeat(part, 2, axis=0)) for part in ring(z)],
    ],
    ids=["nested", "keyhole", "xor", "duplicate points"],
)
def test_a_hole_is_a_hole_however_it_is_written(tmp_path, loops):
    drawn = [loop for z in HEIGHTS for loop in loops(z)]

    found = compute(tmp_path, drawn, dose(linear_z))

    assert found.volume_cc == pytest.approx((40**2 - 20**2) * 20 / 1000, rel=1e-9)
    assert found.mean == pytest.approx(25, abs=1e-6)


def test_several_components_are_one_region(tmp_path):
    drawn = cylinder(5, HEIGHTS, x=-15) + cylinder(5, HEIGHTS[::2], x=15)  # 4 mm apart: -11 to 11

    found = compute(tmp_path, drawn, dose(linear_z))

    assert found.volume_cc == pytest.approx(np.pi * 25 * (20 + 20) / 1000, rel=1e-3)


def test_an_roi_of_one_slice_has_the_thickness_of_the_dose_frames(tmp_path):
    found = compute(tmp_path, cylinder(10, [0.0]), dose(linear_z))

    assert found.volume_cc == pytest.approx(np.pi * 100 * 2 / 1000, rel=1e-4)
    assert (found.minimum, found.maximum) == pytest.approx((24, 26), abs=0.3)


def test_part_outside_the_grid_is_volume_without_dose(tmp_path):
    heights = np.arange(5, 44, 2.0)  # 4 to 44 mm; the grid ends at 20 + 1

    found = compute(tmp_path, cylinder(10, heights), dose(linear_z))

    assert found.outside_cc == pytest.approx(np.pi * 100 * 23 / 1000, rel=5e-3)
    assert found.volume_cc == pytest.approx(np.pi * 100 * 17 / 1000, rel=5e-3)
    assert found.maximum <= 45 + 1e-6


def test_part_beside_the_grid_is_volume_without_dose(tmp_path):
    loops = [("CLOSED_PLANAR", square(0, 60, z) - [0, 30, 0]) for z in HEIGHTS]

    found = compute(tmp_path, loops, dose(linear_z))

    assert found.volume_cc + found.outside_cc == pytest.approx(72, rel=1e-3)
    assert found.volume_cc == pytest.approx(41 * 60 * 20 / 1000, rel=0.02)


def test_nothing_inside_the_grid_gives_no_histogram(tmp_path):
    assert compute(tmp_path, cylinder(10, HEIGHTS + 500), dose(linear_z)) is None


def test_a_region_below_one_voxel_still_has_its_volume(tmp_path):
    found = compute(tmp_path, cylinder(0.5, [-0.25, 0.25]), dose(linear_z))

    assert found.volume_cc == pytest.approx(np.pi * 0.25 / 1000, rel=2e-3)
    assert found.mean == pytest.approx(25, abs=1e-3)


def test_eqd2_converts_after_the_interpolation(tmp_path):
    rd = dose(lambda p: np.full(p.shape[:-1], 60.0))

    eqd2 = compute(tmp_path, cylinder(10, HEIGHTS), rd, Biological("EQD2", 3.0, 20))
    bed = compute(tmp_path, cylinder(10, HEIGHTS), rd, Biological("BED", 10.0, 20))

    assert eqd2.mean == pytest.approx(60 * (3 + 3) / (2 + 3))
    assert bed.mean == pytest.approx(60 * (1 + 3 / 10))


def test_a_very_high_dose_widens_the_bins_instead_of_the_memory(tmp_path):
    rd = dose(lambda p: 1e4 * (1 + p[..., 0] / 100), scaling=1e-2)

    found = compute(tmp_path, cylinder(10, HEIGHTS), rd)

    assert len(found.counts) < 2_100_000
    assert found.mean == pytest.approx(1e4, rel=1e-3)
    assert found.dose_at_percent(50) == pytest.approx(1e4, rel=1e-2)


def test_curve_falls_from_all_to_nothing():
    found = Dvh(volume_cc=2, outside_cc=0, mean=1, sd=0, minimum=0.5, maximum=1.5, bin_gy=1,
                counts=np.array([1.0, 1.0]))  # fmt: skip

    gray, volume = found.curve(5)

    assert gray.tolist() == [0, 0.5, 1, 1.5, 2]
    assert volume.tolist() == [100, 75, 50, 25, 0]
