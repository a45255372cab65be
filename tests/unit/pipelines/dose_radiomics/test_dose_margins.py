"""Margins and rings: distances against spheres, volumes against the formula of Steiner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dose_radiomics.margins import MAX_POINTS, STEPS_MM, lattice
from pipelines.dose_radiomics.recipe import measured, region_dvh, region_features
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import (
    Both,
    Either,
    ExpressionError,
    Margin,
    Name,
    Not,
    leaves,
    names,
    parse,
    reach_mm,
)
from pipelines.geometry.margins import depth
from pipelines.radiomics.contours import Spacing, solid
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    save,
    structure_set,
)

RADIUS, HEIGHT = 10.0, 20.0
HEIGHTS = np.arange(-9, 10, 2.0)
SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 1.5), (1.0, 2.5, 2.0)])


def points(spacing, size=15.0):
    lines = [np.arange(-int(size / s), int(size / s) + 1) * s for s in spacing]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


def covered_ball(radius, center, spacing, parts=4):
    """Return covered fractions of a ball, by parts of every voxel."""
    inner = (np.arange(parts) + 0.5) / parts - 0.5
    offsets = np.stack(np.meshgrid(inner, inner, inner), axis=-1).reshape(-1, 3) * spacing
    places = points(spacing)
    found = np.zeros(places.shape[:3])
    for offset in offsets:
        found += np.linalg.norm(places + offset - center, axis=-1) < radius
    return found / len(offsets)


def to_surface(radius, center, spacing):
    """Return how far a point lies inside a ball [mm]."""
    return radius - np.linalg.norm(points(spacing) - center, axis=-1)


@settings(max_examples=15, deadline=None)
@given(
    SPACINGS,
    st.floats(5, 7),
    st.one_of(st.floats(1, 6), st.floats(-3.5, -1)),
    st.tuples(*[st.floats(-0.9, 0.9)] * 3),
)
def test_a_ball_with_a_margin_is_a_ball(spacing, radius, mm, center):
    below = depth(covered_ball(radius, center, spacing), spacing, mm)

    truth = to_surface(radius + mm, center, spacing)
    assert np.all(np.abs(truth[(below > 0) != (truth > 0)]) < max(spacing))
    near = np.abs(truth) < 1
    assert np.median(np.abs(below - truth)[near]) < 0.2 * max(spacing)


@settings(max_examples=10, deadline=None)
@given(SPACINGS, st.floats(4, 7), st.floats(1, 6), st.tuples(*[st.floats(-0.9, 0.9)] * 3))
def test_out_and_back_in_is_the_same_ball(spacing, radius, mm, center):
    covered = covered_ball(radius, center, spacing)
    step = min(spacing)

    wider = np.clip(0.5 + depth(covered, spacing, mm) / step, 0, 1)
    back = depth(wider, spacing, -mm)

    truth = to_surface(radius, center, spacing)
    assert np.all(np.abs(truth[(back > 0) != (truth > 0)]) < max(spacing))
    assert np.all(back[truth > max(spacing)] > 0)


def test_a_plane_moves_by_the_margin_whatever_part_of_a_voxel_it_covers():
    for part in (0.1, 0.5, 0.9):
        covered = np.zeros((20, 3, 3))
        covered[:5], covered[5] = 1.0, part

        out = depth(covered, (2.0, 1.0, 1.0), 6.0)[:, 1, 1]
        inward = depth(covered, (2.0, 1.0, 1.0), -4.0)[:, 1, 1]

        edge = 2 * (4.5 + part)
        for found, truth in (
            (out, edge + 6 - 2 * np.arange(20)),
            (inward, edge - 4 - 2 * np.arange(20)),
        ):
            near = np.abs(truth) <= 2  # a fraction looks one step far, half to each side
            assert found[near] == pytest.approx(truth[near], abs=1e-3)
            assert np.all((found > 0) == (truth > 0))


def test_a_margin_of_nothing_is_nothing():
    nothing = np.zeros((4, 4, 4))

    assert (depth(nothing, (1.0, 1.0, 1.0), 5.0) < 0).all()
    assert (depth(nothing, (1.0, 1.0, 1.0), -5.0) < 0).all()


def test_a_lattice_is_as_fine_as_its_points_allow():
    small = lattice(np.zeros(3), np.full(3, 20.0))
    large = lattice(np.zeros(3), np.full(3, 400.0))

    assert small.step_mm == STEPS_MM[0]
    assert np.prod([len(axis) for axis in large.axes]) <= MAX_POINTS
    for made, high in ((small, 20.0), (large, 400.0)):
        assert all(axis[0] <= -made.step_mm and axis[-1] >= high for axis in made.axes)


@pytest.fixture
def case(tmp_path):
    """Return (grid, evaluate): a cylinder in a dose that rises along it by 1 Gy/mm."""
    grid = read_dose(save(dose(linear_z), tmp_path / "rd.dcm"))
    drawn = structure_set([("PTV", "", cylinder(RADIUS, HEIGHTS))])
    roi = read_structure_set(save(drawn, tmp_path / "rs.dcm")).rois[0]
    loops = [grid.to_axes(loop.points) for loop in roi.closed]
    made = solid(roi, loops, Spacing(image_mm=None, dose_mm=2.0))

    def region(text):
        node = parse(text)
        return measured(Region(node=node, solids={Name("PTV"): (made,)}), grid, None)

    return grid, region


def steiner(radius, height, mm):
    """Return the volume [cc] of a cylinder with a margin: V + S m + M m² + 4/3 π m³."""
    volume, area = np.pi * radius**2 * height, 2 * np.pi * radius * (radius + height)
    bend = np.pi * height + np.pi**2 * radius
    return (volume + area * mm + bend * mm**2 + 4 / 3 * np.pi * mm**3) / 1000


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("PTV + 5mm", steiner(RADIUS, HEIGHT, 5)),
        ("PTV + 2.3 mm", steiner(RADIUS, HEIGHT, 2.3)),
        ("PTV + 3mm + 2mm", steiner(RADIUS, HEIGHT, 5)),
        ("PTV - 3mm", np.pi * 7**2 * 14 / 1000),
        ("(PTV + 8mm) - PTV", steiner(RADIUS, HEIGHT, 8) - steiner(RADIUS, HEIGHT, 0)),
        ("(PTV + 6mm) - (PTV - 2mm)", steiner(RADIUS, HEIGHT, 6) - np.pi * 8**2 * 16 / 1000),
        ("PTV + 5mm - 5mm", steiner(RADIUS, HEIGHT, 0)),
        ("(PTV & D>=25Gy) + 4mm", steiner(RADIUS, HEIGHT / 2, 4)),
        ("not (PTV - 3mm) & PTV", np.pi * (100 * 20 - 49 * 14) / 1000),
    ],
)
def test_margins_and_rings_have_the_volume_of_the_closed_form(case, text, volume):
    grid, region = case
    made = region(text)

    found = region_dvh(made, grid, None)
    features = region_features(
        made, grid, None, DoseRadiomicsSettings(families=("morphology",), resample_mm=1.0)
    )

    assert found.volume_cc == pytest.approx(volume, rel=0.04)
    assert features.values["YEKZ"] == pytest.approx(1000 * volume, rel=0.05)


def test_the_dose_of_a_margin_is_that_of_its_place(case):
    grid, region = case

    found = region_dvh(region("PTV + 5mm"), grid, None)

    assert found.mean == pytest.approx(25, abs=0.01)
    assert found.minimum == pytest.approx(10, abs=0.5)
    assert found.maximum == pytest.approx(40, abs=0.5)


def test_what_a_margin_puts_outside_the_dose_is_lost_volume_not_dose(case):
    grid, region = case  # the dose ends at z = -21 and +21

    found = region_dvh(region("PTV + 15mm"), grid, None)

    assert found.outside_cc + found.volume_cc == pytest.approx(
        steiner(RADIUS, HEIGHT, 15), rel=0.01
    )
    assert found.outside_cc == pytest.approx(6.85, rel=0.1)


def test_a_region_that_shrinks_away_has_no_volume(case):
    grid, region = case

    assert region_dvh(region("PTV - 11mm"), grid, None) is None
    assert region_dvh(region("(PTV & D>=100Gy) + 5mm"), grid, None) is None


def test_margins_bind_tighter_than_not_and_the_rest():
    a, b = Name("A"), Name("B")

    assert parse("A + 5mm") == Margin(a, 5.0)
    assert parse("A +5 mm") == Margin(a, 5.0)
    assert parse("A - 3mm - B") == Both(Margin(a, -3.0), Not(b))
    assert parse("(A + 20mm) - A") == Both(Margin(a, 20.0), Not(a))
    assert parse("A | B + 2.5mm") == Either(a, Margin(b, 2.5))
    assert parse("B & not A + 5mm") == Both(b, Not(Margin(a, 5.0)))
    assert parse("'GTV 1'+5mm - 2mm") == Margin(Margin(Name("GTV 1"), 5.0), -2.0)
    assert parse("GTV+5mm") == Name("GTV+5mm")
    assert parse("PTV-3mm") == Name("PTV-3mm")


def test_leaves_are_what_has_fractions_and_names_are_all_operands():
    node = parse("(A + 5mm) - (A | B)")

    assert leaves(node) == (Margin(Name("A"), 5.0), Name("A"), Name("B"))
    assert [n.text for n in names(node)] == ["A", "A", "B"]
    assert reach_mm(parse("((A + 5mm) | B) + 3mm - 6mm")) == 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A + 5", r"a \+ needs a distance such as \+ 5mm.*▸ \+ 5"),
        ("A + B", "a union is written |"),
        ("A + 5cm", "needs a distance"),
        ("A + 0mm", "between 0 and 100 mm"),
        ("A + 500mm", "between 0 and 100 mm"),
        ("+ 5mm", "expected an ROI name"),
        ("A - 5", "expected an ROI name"),
        ("D>=20Gy + 5mm & A", "a margin needs a region with bounds"),
        ("(not A) + 5mm & B", "a margin needs a region with bounds"),
        ("A + 5mm B", "expected |, &, - or the end"),
    ],
)
def test_errors_of_margins_say_what_is_wrong(text, reason):
    with pytest.raises(ExpressionError, match=reason):
        parse(text)


def covered_box(half, center, step, reach, parts=8):
    """Return covered fractions of a box with half edges `half`, exact along each axis."""
    lines = []
    for size, middle in zip(half, center, strict=True):
        at = step * np.arange(-int(reach / step), int(reach / step) + 1)
        low, high = middle - size, middle + size
        share = (np.minimum(at + step / 2, high) - np.maximum(at - step / 2, low)) / step
        lines.append(np.clip(share, 0, 1))
    return lines[0][:, None, None] * lines[1][:, None] * lines[2]


def grown_volume(covered, step, mm):
    """Return the volume of a region with a margin, as the product takes it [mm3]."""
    below = depth(covered, (step,) * 3, mm)
    return float(np.clip(0.5 + below / step, 0, 1).sum()) * step**3


@pytest.mark.parametrize(("step", "limit"), [(0.5, 0.004), (1.0, 0.012)])
@pytest.mark.parametrize("mm", [3.0, 5.0])
def test_a_box_with_a_margin_has_the_volume_of_steiner(step, limit, mm):
    """V + A d + pi d^2 (a + b + c) + 4/3 pi d^3; edges that cover less than half a voxel count."""
    half = np.array([8.3, 6.1, 5.2])
    a, b, c = 2 * half
    truth = a * b * c + 2 * (a * b + b * c + a * c) * mm
    truth += np.pi * (a + b + c) * mm**2 + 4 / 3 * np.pi * mm**3

    found = grown_volume(covered_box(half, (0.1, -0.2, 0.0), step, 8.3 + mm + 3 * step), step, mm)

    assert found == pytest.approx(truth, rel=limit)


@pytest.mark.parametrize(("spacing", "limit"), [((1.0,) * 3, 0.012), ((0.75,) * 3, 0.01)])
@pytest.mark.parametrize("mm", [4.0, -2.0])
def test_a_ball_with_a_margin_has_the_volume_of_the_ball(spacing, limit, mm):
    covered = covered_ball(9.0, (0.2, -0.3, 0.1), spacing)

    found = grown_volume(covered, spacing[0], mm)

    assert found == pytest.approx(4 / 3 * np.pi * (9 + mm) ** 3, rel=limit)
