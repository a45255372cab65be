"""Closed-form DVH phantoms: how many statistics are off by more than 3 %.

`checks/dvh_phantoms.py`, beside the project, writes solids in a linear dose and their exact
statistics, after Nelms et al. 2015. The best published counts are 0 of 260 and 10 of 195.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq

from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dose_radiomics.recipe import region_dvh
from pipelines.dose_radiomics.regions import Region
from pipelines.geometry.expressions import Name
from pipelines.radiomics.contours import Spacing, solid
from tests.conftest import ROOT
from tests.unit.pipelines.dose_radiomics.support import cylinder, dose, save, structure_set

CHECK = ROOT.parent / "shared" / "checks" / "dvh_phantoms.py"


def statistics(structures_path, dose_path):
    grid = read_dose(dose_path)
    roi, name = read_structure_set(structures_path).rois[0], Name("roi")
    made = solid(
        roi, [grid.to_axes(loop.points) for loop in roi.closed],
        Spacing(image_mm=None, dose_mm=grid.spacing_mm[0]),
    )  # fmt: skip
    found = region_dvh(Region(node=name, solids={name: (made,)}), grid, None)
    return {
        "volume_cc": found.volume_cc,
        "mean_gy": found.mean,
        **{f"d{q}_gy": found.dose_at_percent(q) for q in (99, 95, 5, 1)},
        "d0.03cc_gy": found.dose_at_cc(0.03),
    }


def misses(folder, *options):
    """Return how many statistics of the ten cases are off by more than 3 %."""
    if not CHECK.exists() or importlib.util.find_spec("pydicom") is None:
        pytest.skip("the closed-form DVH check is not on this machine")
    printed = subprocess.run(
        [sys.executable, CHECK, folder, *options], capture_output=True, text=True, check=True
    ).stdout
    off = 0
    for case in json.loads(printed):
        found = statistics(case["rtstruct"], case["rtdose"])
        off += sum(abs(found[key] / truth - 1) > 0.03 for key, truth in case["reference"].items())
    return off


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid", [("0.4", "0.2", "0.4"), ("1",) * 3, ("2",) * 3, ("3",) * 3], ids=lambda g: g[0]
)
def test_no_statistic_is_off_with_fine_contours(tmp_path, grid):
    assert misses(tmp_path, "--slice-spacing", "0.2", "--dose-grid", *grid) == 0


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["0", "0.5"])
def test_at_most_nine_of_210_are_off_with_clinical_contours(tmp_path, phase):
    off = sum(
        misses(tmp_path / mm, "--slice-spacing", mm, "--dose-grid", mm, mm, mm, "--phase", phase)
        for mm in ("1", "2", "3")
    )

    assert off <= 9


@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0])
def test_a_cylinder_across_the_gradient_is_known_to_half_a_cell(tmp_path, spacing):
    """Cylinder of 24 mm in 1 Gy/mm along x: D_x from the area of circular segments."""
    heights = np.arange(-12 + spacing / 2, 12, spacing)
    rs = structure_set([("R", "", cylinder(12, heights))])
    rd = dose(lambda p: 41 + p[..., 0])

    found = statistics(save(rs, tmp_path / "rs.dcm"), save(rd, tmp_path / "rd.dcm"))

    assert found["volume_cc"] == pytest.approx(np.pi * 144 * 24 / 1000, rel=1e-3)
    assert found["mean_gy"] == pytest.approx(41, rel=1e-4)
    for percent in (99, 95, 5, 1):
        at = brentq(lambda t, p=percent: segment(t) - p / 100, -11.999, 11.999)
        # cells of 0.25 mm in 1 Gy/mm: the dose at a volume is known to half a cell
        assert found[f"d{percent}_gy"] == pytest.approx(41 + at, abs=0.13)


def segment(t):
    """Return the part of a circle of 12 mm that lies beyond `t`."""
    return (np.arccos(t / 12) - t / 12 * np.sqrt(1 - (t / 12) ** 2)) / np.pi
