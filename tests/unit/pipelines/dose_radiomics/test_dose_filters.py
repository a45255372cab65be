"""Filtered doses in the result: groups of their own, named, with every parameter."""

import csv
import json

import numpy as np
import pytest
from pydicom import dcmread

from pipelines.api import Role
from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.sr import read_back
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.recipe import Biological, region_features
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import Name, parse
from pipelines.radiomics.contours import box_solid
from pipelines.radiomics.filter_settings import LaplacianOfGaussian, Mean
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    request,
    save,
    structure_set,
)

FILTERS = (Mean(support=3), LaplacianOfGaussian(sigma_mm=3.0))


def squared(points):
    """Return a dose whose Laplacian is 0.04 Gy/mm2 everywhere."""
    return 20 + 0.02 * points[..., 2] ** 2


@pytest.fixture
def region():
    made = box_solid(np.array([14.0, 24.0, 24.0]), np.array([26.0, 36.0, 40.0]))
    return Region(node=parse("cube"), solids={Name("cube"): (made,)})


def test_the_laplacian_of_a_quadratic_dose_is_its_curvature(tmp_path, region):
    """Trilinear samples of 2 mm on a 2 mm grid: the kernel sees the very function."""
    grid = read_dose(save(dose(squared), tmp_path / "rd.dcm"))
    settings = DoseRadiomicsSettings(
        filters=(LaplacianOfGaussian(sigma_mm=3.0, cutoff=6.0),), min_voxels=8
    )

    (response,) = region_features(region, grid, None, settings).responses

    # along z the image ends 20 mm away, farther than the kernel reaches from the region
    assert response.values["Q4LE"] == pytest.approx(0.04 * 2**2, rel=0.01)  # per voxel squared
    assert response.label == "LoG 3 mm"


def test_filters_see_the_converted_dose(tmp_path, region):
    grid = read_dose(save(dose(linear_z), tmp_path / "rd.dcm"))
    settings = DoseRadiomicsSettings(filters=(Mean(support=3),), min_voxels=8)
    convert = Biological("BED", 3.0, 10)

    plain = region_features(region, grid, convert, settings)

    assert plain.responses[0].values["Q4LE"] == pytest.approx(plain.values["Q4LE"], rel=0.01)


def test_without_filters_nothing_changes(tmp_path, region):
    grid = read_dose(save(dose(linear_z), tmp_path / "rd.dcm"))
    plain = region_features(region, grid, None, DoseRadiomicsSettings(min_voxels=8))
    more = region_features(region, grid, None, DoseRadiomicsSettings(filters=FILTERS, min_voxels=8))

    assert plain.responses == ()
    assert more.values == plain.values


def test_the_report_holds_a_group_for_every_filtered_dose(tmp_path):
    heights = np.arange(-9, 10, 2.0)
    structures = structure_set([("PTV", "PTV", cylinder(10, heights)),
                                ("Lung_L", "ORGAN", cylinder(6, heights, x=-20))])  # fmt: skip
    settings = DoseRadiomicsSettings(filters=FILTERS, filter_families=("statistics", "glszm"))
    files = [(Role.RTDOSE, save(dose(linear_z), tmp_path / "rd.dcm")),
             (Role.RTSTRUCT, save(structures, tmp_path / "rs.dcm"))]  # fmt: skip

    outcome = run(request(tmp_path, files, settings))

    path = outcome.objects[0].path
    groups = list(read_back(dcmread(path)))
    assert len(groups) == len({uid for uid, _, _ in groups}) == 6
    assert [len(values) for _, number, values in groups if number == "2"][1:] == [18 + 16] * 2
    text = dcmread(path).to_json()
    assert "PTV, mean 3" in text
    assert "Measured on a response map: LoG 3 mm: boundary mirror, sigma_mm 3.0" in text
    with (tmp_path / "out" / "report" / "features.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["filter"] == "LoG 3 mm"]
    assert len(rows) == 2 * (18 + 16)
    assert {row["unit"] for row in rows} == {"1"}
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert [r["filter"] for r in report["regions"][0]["responses"]] == ["mean 3", "LoG 3 mm"]
