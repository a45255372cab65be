"""The dose page: planes through the right place, the right way up, with and without a CT."""

import hashlib

import numpy as np
import pytest
from matplotlib.image import imread

from pipelines.api import Role
from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.planes import PIXEL_MM, Drawn, slices
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import Name
from pipelines.radiomics.contours import Spacing, solid
from tests.unit.pipelines.dicom.test_rtdose_reader import ORIENTATIONS
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    request,
    save,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)


def corner_dose(points):
    """Return a dose that is hot on the patient's left, anterior, and toward the head."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.where((x > 10) & (y < -5) & (z > 5), 50.0, 1.0)


def planes(tmp_path, position):
    orientation, first = ORIENTATIONS[position]
    grid = read_dose(save(dose(corner_dose, orientation=orientation, first=first),
                          tmp_path / "rd.dcm"))  # fmt: skip
    grid = grid.facing(int(np.abs(grid.axes[:, 2]).argmax()))
    rs = structure_set([("R", "", cylinder(6, HEIGHTS, x=18, y=-12))])
    roi = read_structure_set(save(rs, tmp_path / "rs.dcm")).rois[0]
    made = solid(roi, [grid.to_axes(loop.points) for loop in roi.closed],
                 Spacing(image_mm=None, dose_mm=2.0))  # fmt: skip
    region = Region(node=Name("R"), solids={Name("R"): (made,)})
    drawn = [Drawn(name="R", region=region, color="#e69f00")]
    center = grid.to_axes(np.array([[18.0, -12.0, 8.0]]))[0]
    whole = (np.array([p[0] for p in grid.positions]), np.array([p[-1] for p in grid.positions]))
    return slices(grid, drawn, None, center=center, box=whole)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_three_planes_stand_upright_in_every_position(tmp_path, position):
    found = planes(tmp_path, position)

    assert [part.plane.name for part in found] == ["axial", "coronal", "sagittal"]
    assert [part.plane.edges["top"] for part in found] == ["A", "H", "H"]
    assert [part.plane.edges["right"] for part in found] == ["L", "L", "P"]
    for part, (above, right) in zip(
        found, [(True, True), (True, True), (True, False)], strict=True
    ):
        shown = part.plane.flip(np.nan_to_num(part.dose_gy))
        rows, columns = np.nonzero(shown > 25)
        assert bool(rows.mean() < shown.shape[0] / 2) is above
        assert bool(columns.mean() > shown.shape[1] / 2) is right


@pytest.mark.parametrize("position", ["HFS", "HFDL", "FFDR", "sagittal"])
def test_outlines_have_the_area_of_the_contours(tmp_path, position):
    axial = next(p for p in planes(tmp_path, position) if p.plane.name == "axial")

    assert axial.outlines[0].covered.sum() * PIXEL_MM**2 == pytest.approx(np.pi * 36, rel=0.01)
    assert "z 8.0 mm" in axial.place


def test_beyond_the_grid_there_is_no_dose(tmp_path):
    axial = planes(tmp_path, "HFS")[0]

    assert np.isnan(axial.dose_gy).any()
    assert not np.isnan(axial.dose_gy[20:-20, 20:-20]).any()


def test_a_name_in_another_script_is_a_number_in_pictures_and_whole_in_the_tables(tmp_path):
    rs = structure_set([("左肺", "ORGAN", cylinder(10, HEIGHTS))])
    rs.SpecificCharacterSet = "ISO_IR 192"
    files = [(Role.RTDOSE, save(dose(corner_dose), tmp_path / "rd.dcm")),
             (Role.RTSTRUCT, save(rs, tmp_path / "rs.dcm"))]  # fmt: skip
    job = request(tmp_path, files, DoseRadiomicsSettings(families=("statistics",)))

    outcome = run(job)

    report = job.output / "report"
    assert "左肺" in outcome.figures["rois"]
    for name in ("metrics.csv", "features.csv", "report.json", "index.html"):
        assert "左肺" in (report / name).read_text(encoding="utf-8")
    page = imread(report / "report.png")
    assert page.shape[:2] == (1753, 1240)
    digests = {hashlib.sha256((report / n).read_bytes()).digest() for n in ("dose.png", "dvh.png")}
    assert len(digests) == 2
