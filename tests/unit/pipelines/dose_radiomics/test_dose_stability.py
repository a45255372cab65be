"""Stability: statistics against published numbers, levels against closed forms, the command."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner

from node.cli.exits import Exit
from node.cli.main import main
from pipelines.dicom.rtdose import read_dose
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability import (
    Factor,
    Spread,
    classify,
    grid_levels,
    icc21,
    spread_of,
    usable,
    variation,
)
from pipelines.dose_radiomics.stability_classes import Stability, class_of, told
from pipelines.dose_radiomics.stability_run import chosen
from pipelines.radiomics.features import FEATURES
from pipelines.radiomics.resample import cubic, trilinear
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    names_plan,
    plan,
    save,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def test_icc_of_the_example_of_shrout_and_fleiss():
    assert icc21(SHROUT_FLEISS) == pytest.approx(0.29, abs=0.005)


def test_icc_is_one_for_agreement_and_unknown_without_anything_to_tell_apart():
    assert icc21(np.array([[1.0, 1], [2, 2], [5, 5]])) == pytest.approx(1)
    assert icc21(np.ones((3, 4))) is None
    assert icc21(np.array([[1.0, 2, 3]])) is None


def test_an_offset_of_one_level_lowers_the_absolute_agreement():
    assert icc21(np.array([[1.0, 3], [2, 4], [3, 5]])) == pytest.approx(1 / 3)


def test_variation_is_sd_over_mean_and_zero_for_equal_values():
    cv = variation(np.array([[9.0, 10, 11], [0, 0, 0], [-2, -2, -2], [-1, 0, 1]]))

    assert cv.tolist() == [pytest.approx(10), 0, 0, np.inf]


def test_a_region_without_the_feature_at_one_level_does_not_count():
    found = spread_of(np.array([[1.0, np.nan], [2, 2]]))

    assert (found.mean_cv, found.icc) == (0, None)
    assert spread_of(np.array([[1.0, np.nan]])) is None
    assert spread_of(np.array([[1.0], [2.0]])) is None


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ([(1, 0.95), (4.9, None)], Stability.STABLE),
        ([(1, 0.95), (5, 0.99)], Stability.LIMITED),
        ([(1, 0.8)], Stability.LIMITED),
        ([(1, 0.95), (26, 0.99)], Stability.UNSTABLE),
        ([(1, 0.4)], Stability.UNSTABLE),
        ([(np.inf, None)], Stability.UNSTABLE),
    ],
)
def test_the_worst_factor_gives_the_class(spreads, expected):
    found = [Spread(mean_cv=cv, worst_cv=cv, icc=icc) for cv, icc in spreads]

    assert classify(found) is expected


def test_cubic_splines_follow_a_cubic_and_stay_above_zero():
    old = (np.arange(0.0, 10), np.array([0.0, 1, 3, 4, 7, 9]), np.arange(0.0, 12, 2))
    new = (np.linspace(0, 9, 13), np.linspace(0, 9, 7), np.linspace(-3, 12, 5))
    inside = (*new[:2], np.clip(new[2], 0, 10))

    def values(axes):
        z, y, x = np.ix_(*axes)
        return z**3 / 100 + y**2 + x**3 / 50 + 1

    assert cubic(values(old), old, new) == pytest.approx(values(inside))
    spike = np.zeros((7, 7, 7))
    spike[3, 3, 3] = 1
    fine = (np.linspace(0, 6, 25),) * 3
    assert cubic(spike, (np.arange(7.0),) * 3, fine).min() == 0
    short = (np.arange(2.0), np.arange(3.0), np.arange(3.0))
    assert cubic(np.ones((2, 3, 3)), short, short) == pytest.approx(1)


def test_grids_of_other_spacing_and_phase_hold_the_same_dose(tmp_path):
    rd = dose(lambda p: 65 + p[..., 2] + 0.5 * p[..., 0], step=(3.0, 2.0, 2.0), shape=(15, 31, 41))
    grid = read_dose(save(rd, tmp_path / "rd.dcm"))

    levels = list(grid_levels(grid, usable(grid, (1.0, 2.0, 3.0, 4.0))))
    same = dose(linear_z, step=(2.0, 2.0, 2.0))
    even = read_dose(save(same, tmp_path / "even.dcm"))
    assert "2 mm" not in {level.name for level in grid_levels(even, (2.0, 3.0))}

    names = {f: [v.name for v in levels if v.factor is f] for f in Factor}
    assert names[Factor.SPACING] == ["native 3 x 2 x 2 mm", "2 mm", "3 mm", "4 mm"]
    assert len(names[Factor.PHASE]) == 6
    assert names[Factor.INTERPOLATION] == ["trilinear", "cubic"]
    for level in levels:
        z, _, x = np.ix_(*level.grid.positions)
        expected = np.broadcast_to(65 + (z - 20) + 0.5 * (x - 40), level.grid.dose.shape)
        assert level.grid.dose == pytest.approx(expected, abs=1e-5)
        at = tuple(line[1:-1] for line in level.grid.positions)
        assert level.interpolate(level.grid.dose, level.grid.positions, at).shape == tuple(
            len(line) for line in at
        )
    assert levels[0].interpolate is trilinear


def hot(points):
    """A smooth hill on a slope: features that differ and depend on the grid."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 5 + 30 * np.exp(-((x / 12) ** 2) - (y / 15) ** 2 - (z / 10) ** 2)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a structure set, a plan and its dose."""
    source = tmp_path / "in"
    source.mkdir()
    rs = structure_set(
        [
            ("PTV", "PTV", cylinder(10, HEIGHTS)),
            ("Lung-Left", "ORGAN", cylinder(8, HEIGHTS, x=-15)),
            ("Lung-Right", "ORGAN", cylinder(9, HEIGHTS, x=18, y=3)),
            ("Tiny", "ORGAN", cylinder(1, [0, 2])),
        ]
    )
    rp = plan(rs)
    save(rs, source / "rs.dcm")
    save(rp, source / "rp.dcm")
    save(names_plan(dose(hot), rp), source / "rd.dcm")
    (source / "readme.txt").write_text("not DICOM")
    return source


def call(*arguments):
    return CliRunner().invoke(main, ["dose-stability", *map(str, arguments)])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_writes_tables_picture_and_page(folder, tmp_path):
    out = tmp_path / "out"

    result = call(folder, out)

    assert result.exit_code == Exit.DONE, result.output
    assert {p.name for p in out.iterdir()} == {
        "stability.csv", "values.csv", "stability.png", "index.html",
    }  # fmt: skip
    assert "spacing 4 mm: 4 regions" in result.stderr
    assert "[Tiny]" not in result.stdout
    rows = table(out / "stability.csv")
    mean = {r["factor"]: r for r in rows if r["code"] == "Q4LE"}
    assert set(mean) == {"spacing", "phase", "interpolation"}
    assert all(float(r["mean_cv_percent"]) < 3 for r in mean.values())
    assert mean["spacing"]["class"] == "stable"
    assert mean["phase"]["levels"] == "6"
    assert {r["class"] for r in rows} == set(Stability)
    values = table(out / "values.csv")
    assert {v["region"] for v in values} == {"PTV", "Lung-Left", "Lung-Right"}
    assert {v["code"] for v in values} <= set(FEATURES)
    assert "glszm" in result.stdout


def test_two_doses_of_one_plan_are_compared_as_algorithms(folder, tmp_path):
    rp = plan(structure_set([]))  # the same UIDs
    other = names_plan(dose(lambda p: 1.1 * hot(p), key="two"), rp)
    save(other, folder / "other.dcm")
    out = tmp_path / "out"

    result = call(folder, out, "--roi", "PTV", "--roi", "Lung*", "--roi", "PTV | Lungs")

    assert result.exit_code == Exit.DONE, result.output
    (mean,) = [
        r for r in table(out / "stability.csv") if (r["code"], r["factor"]) == ("Q4LE", "algorithm")
    ]
    assert float(mean["mean_cv_percent"]) == pytest.approx(100 * 0.1 / np.sqrt(2) / 1.05, rel=0.02)
    assert {v["region"] for v in table(out / "values.csv")} == {
        "PTV", "Lung-Left", "Lung-Right", "PTV | Lungs",
    }  # fmt: skip


def test_two_doses_that_name_no_common_plan_are_refused(folder, tmp_path):
    save(dose(linear_z, key="stranger"), folder / "other.dcm")

    result = call(folder, tmp_path / "out")

    assert result.exit_code == Exit.FAILED
    assert "2 plan doses that do not name the same plan" in result.stderr
    assert "hint: give a folder with one dose" in result.stderr


@pytest.mark.parametrize(
    ("rois", "reason"),
    [
        (["Heart"], "no ROI matches 'Heart'"),
        (["PTV + 5"], r"as an expression: a + needs a distance"),
        (["Tiny"], "no region has features"),
        (["Heart - PTV"], "no ROI matches Heart"),
    ],
)
def test_a_region_that_cannot_be_studied_is_told(folder, tmp_path, rois, reason):
    result = call(folder, tmp_path / "out", *(w for roi in rois for w in ("--roi", roi)))

    assert result.exit_code == Exit.FAILED
    assert reason in result.stderr


def test_a_folder_without_structures_is_refused(folder, tmp_path):
    (folder / "rs.dcm").unlink()

    result = call(folder, tmp_path / "out")

    assert result.exit_code == Exit.FAILED
    assert "no RT Structure Set" in result.stderr


def test_a_folder_that_holds_results_is_not_overwritten(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")

    assert call(folder, tmp_path / "out").exit_code == Exit.USAGE


def test_names_patterns_and_expressions_are_told_apart():
    settings = chosen(["PTV*", "'Lt Lung'", "Lt Lung", "Lungs - GTV", "/lung/i", "PTV + 5mm"])

    assert settings.rois == ("PTV*", "Lt Lung", "Lt Lung")
    assert settings.derived == ("Lungs - GTV", "/lung/i", "PTV + 5mm")


def test_shipped_classes_hold_for_the_recipe_that_they_were_measured_with():
    default = DoseRadiomicsSettings()

    assert class_of("Q4LE", default).stability is Stability.STABLE
    assert set(told(default)[0].split(": ")[1].split(", ")) <= set(FEATURES)
    for other in ({"bin_gy": 0.5}, {"resample_mm": 3.0}, {"dose": "EQD2"}):
        changed = DoseRadiomicsSettings(**other)
        assert class_of("Q4LE", changed) is None
        assert told(changed) == ()


def test_shipped_classes_follow_the_rule_and_cover_the_recipe():
    table = {code: class_of(code, DoseRadiomicsSettings()) for code in FEATURES}

    unmeasured = {"9CMM", "N365", "NPT7", "ZH1A", "IQYR", "SWZ1", "BRI8"}  # the last six: opt-in
    assert {code for code, found in table.items() if found is None} <= unmeasured
    for found in table.values():
        if found is not None:
            spread = Spread(mean_cv=found.cv_percent, worst_cv=0, icc=found.icc)
            assert classify([spread]) is found.stability
