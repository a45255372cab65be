"""RT Dose with DVH Sequence: read back as a planning system would, values and grid."""

import numpy as np
import pytest
from pydicom import dcmread

from pipelines.api import Role
from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtdose_dvh import MAX_BINS, bin_width
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    names_plan,
    plan,
    request,
    save,
    structure_set,
)

HEIGHTS = np.arange(-9, 10, 2.0)


def made(tmp_path, rd=None, *, named=True, **changes):
    rs = structure_set(
        [
            ("PTV", "PTV", cylinder(10, HEIGHTS)),
            ("Lung_L", "ORGAN", cylinder(6, HEIGHTS, x=-20)),
            ("Lung_R", "ORGAN", cylinder(6, HEIGHTS, x=20)),
            ("GTV", "GTV", cylinder(3, HEIGHTS, x=20)),
        ]
    )
    rp = plan(rs)
    rd = rd or dose(linear_z)
    if named:
        names_plan(rd, rp)
    files = [(Role.RTDOSE, save(rd, tmp_path / "rd.dcm")),
             (Role.RTSTRUCT, save(rs, tmp_path / "rs.dcm")),
             (Role.RTPLAN, save(rp, tmp_path / "rp.dcm"))]  # fmt: skip
    settings = DoseRadiomicsSettings(families=(), pictures=False, dvh_object=True, **changes)
    return run(request(tmp_path, files, settings))


def curve(item):
    """Return (dose at the lower edge of each bin, volume), as dicompyler-core reads a DVH."""
    data = np.array(item.DVHData, dtype=float)
    widths = data[::2] * float(item.DVHDoseScaling)
    return np.concatenate([[0.0], np.cumsum(widths)[:-1]]), data[1::2]


def test_curves_say_the_volumes_and_doses_of_the_report(tmp_path):
    outcome = made(tmp_path)

    ds = dcmread(outcome.objects[1].path)
    ptv = ds.DVHSequence[0]
    gray, volume = curve(ptv)
    figures = outcome.figures["rois"]["PTV"]
    assert (ptv.DVHType, ptv.DoseUnits, ptv.DVHVolumeUnits) == ("CUMULATIVE", "GY", "CM3")
    assert volume[0] == pytest.approx(figures["volume_cc"], rel=1e-5)
    assert volume[-1] == 0
    assert np.all(np.diff(volume) <= 0)
    assert np.interp(20, gray, volume) == pytest.approx(figures["V20Gy_cc"], abs=1e-3)
    assert float(ptv.DVHMeanDose) == pytest.approx(figures["mean_gy"], rel=1e-5)
    assert float(ptv.DVHMaximumDose) == pytest.approx(figures["max_gy"], rel=1e-5)
    assert len(volume) == ptv.DVHNumberOfBins


def test_a_subtraction_is_included_and_excluded_rois(tmp_path):
    ds = dcmread(made(tmp_path).objects[1].path)

    parts = [(r.ReferencedROINumber, r.DVHROIContributionType)
             for r in ds.DVHSequence[-1].DVHReferencedROISequence]  # fmt: skip
    assert parts == [(2, "INCLUDED"), (3, "INCLUDED"), (4, "EXCLUDED")]
    assert ds.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID


def test_what_dicom_cannot_say_is_told(tmp_path):
    outcome = made(tmp_path, derived=("PTV & D>=20Gy", "PTV + 5mm", "Lung_L | Lung_R"))

    told = {f.roi for f in outcome.findings if f.code == "dvh-not-written"}
    assert told == {"PTV & D>=20Gy", "PTV + 5mm"}
    assert len(dcmread(outcome.objects[1].path).DVHSequence) == 6


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 16, "scaling": 1e-3},
        {"bits": 32},
        {"order": range(20, -1, -1)},
        {"absolute": True},
        {"orientation": (0, 1, 0, -1, 0, 0), "first": (30, -40, -20)},
        {"orientation": (0, 1, 0, 0, 0, -1), "first": (30, -30, 30), "shape": (31, 31, 31)},
    ],
    ids=["16 bit", "32 bit", "descending", "absolute", "decubitus", "sagittal"],
)
def test_the_grid_is_that_of_the_dose_value_for_value(tmp_path, options):
    rd = dose(lambda p: 30 + 0.1 * p[..., 0] + 0.2 * p[..., 2], **options)

    outcome = made(tmp_path, rd)

    ours, theirs = read_dose(outcome.objects[1].path), read_dose(tmp_path / "rd.dcm")
    assert np.array_equal(ours.dose, theirs.dose)
    assert np.allclose(ours.axes, theirs.axes)
    corners = np.array([[0, 0, 0], [-1, -1, -1]])
    for corner in corners:
        place = [theirs.positions[a][corner[a]] for a in range(3)]
        at = theirs.origin + theirs.axes.T @ place
        assert np.allclose(ours.to_axes(at[None])[0],
                           [ours.positions[a][corner[a]] for a in range(3)])  # fmt: skip


def test_biological_dose_is_called_effective(tmp_path):
    ds = dcmread(made(tmp_path, dose="EQD2").objects[1].path)

    assert {item.DoseType for item in ds.DVHSequence} == {"EFFECTIVE"}


def test_a_dose_that_names_no_plan_gives_the_report_and_a_finding(tmp_path):
    outcome = made(tmp_path, named=False)

    assert [o.modality for o in outcome.objects] == ["SR"]
    (finding,) = [f for f in outcome.findings if f.code == "dvh-not-written"]
    assert "names no plan" in finding.message


@pytest.mark.parametrize("maximum", [0.5, 29.9, 70, 300, 5000])
def test_bins_are_as_fine_as_their_number_allows(maximum):
    width = bin_width(maximum)

    assert maximum / width < MAX_BINS
    assert width == 0.01 or maximum / (width / 2.5) >= MAX_BINS - 2
