"""Metrics by name and pattern: what may be asked for, and closed-form values."""

from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.api import Role
from pipelines.dose_radiomics.dvh import Dvh
from pipelines.dose_radiomics.metric_names import MetricNameError, wanted
from pipelines.dose_radiomics.metrics import INDICES, Isodose, Place, computed
from pipelines.dose_radiomics.patterns import matches
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from tests.unit.pipelines.dose_radiomics.support import (
    cylinder,
    dose,
    linear_z,
    request,
    save,
    structure_set,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("D95%", "D95%[Gy]"),
        ("D2%[%]", "D2%[%]"),
        ("D0.03cc", "D0.03cc[Gy]"),
        ("DC700cc", "DC700cc[Gy]"),
        ("V20Gy", "V20Gy[%]"),
        ("V20Gy[cc]", "V20Gy[cc]"),
        ("V95%", "V95%[%]"),
        ("CV15Gy", "CV15Gy[cc]"),
        ("gEUD(-10)", "gEUD(-10)[Gy]"),
        ("geud(0.5)", "gEUD(0.5)[Gy]"),
        ("mean", "Mean[Gy]"),
        ("HI", "HI_ICRU83"),
        ("CI", "CI_RTOG"),
        ("CN_Paddick", "CN_Paddick"),
        (" R50 ", "R50"),
    ],
)
def test_names_have_one_spelling(text, name):
    assert wanted(text).name == name
    assert wanted(name) == wanted(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("V20", r"is it V20Gy or V20% of the prescription\?"),
        ("D95", r"is it D95% or D95cc of the volume\?"),
        ("V20Gy[Gy]", r"the unit is % or cc"),
        ("Mean[cc]", "the unit is Gy"),
        ("GI[%]", "the unit is left out"),
        ("D101%", "no more than 100 %"),
        ("gEUD(0)", "no exponent 0"),
        ("V0Gy", "must not be 0"),
        ("D95%[Gy", "not closed"),
        ("TCP", "is no dose metric; write one of D95%"),
        ("gEUD(-0.00123)", "18 characters"),
        ("V20.00001Gy", "at most six digits"),
        ("", "is no dose metric"),
    ],
)
def test_a_wrong_name_says_what_to_write(text, reason):
    with pytest.raises(MetricNameError, match=reason):
        wanted(text)


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("PTV70", "ptv*", True),
        ("PTV70", "ptv", False),
        ("Lung-Left", "Lung_L", True),
        ("LT LUNG", "Lung_L", True),
        ("Lung_R", "Lung_L", False),
        ("zPTV_eval", "/ptv/", True),
        ("zPTV_eval", "/^ptv/i", False),
        ("Lungs - GTV", "Lungs - GTV", True),
        ("左肺", "*肺", True),
        ("左肺", "心臓", False),
    ],
)
def test_patterns_are_names_globs_or_regular_expressions(name, pattern, fits):
    assert matches(name, pattern) is fits


def uniform(low=10, high=60, volume=100.0):
    """Return the DVH of a dose spread evenly from `low` to `high` Gy."""
    counts = np.zeros(high * 1000)
    counts[low * 1000 :] = volume / ((high - low) * 1000)
    middle = (low + high) / 2
    return Dvh(
        volume_cc=volume, outside_cc=0, mean=middle, sd=(high - low) / np.sqrt(12), minimum=low,
        maximum=high, bin_gy=0.001, counts=counts,
    )  # fmt: skip


def values(*names, prescription=40.0, dvh=None):
    isodose = Isodose(prescription_gy=40, reference_cc=50, half_cc=200, region="here")
    place = Place(dvh=dvh or uniform(), prescription_gy=prescription, isodose=lambda _: isodose)
    found, missing = computed(map(wanted, names), place)
    return SimpleNamespace(all=[m.value for m in found], missing=missing)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("D50%", 35), ("D50%[%]", 87.5), ("D20cc", 50), ("D20cc[%]", 125), ("DC20cc", 20),
        ("V20Gy", 80), ("V20Gy[cc]", 80), ("V50%", 80), ("V100%[cc]", 40), ("CV20Gy", 20),
        ("CV20Gy[%]", 20), ("CV150%", 100), ("Mean", 35), ("Min", 10), ("Max", 60),
        ("gEUD(1)", 35), ("Coverage", 0.4), ("CI_RTOG", 0.5), ("HI_RTOG", 1.5),
        ("HI_ICRU83", 48 / 35), ("CN_Paddick", 40**2 / (100 * 50)), ("R50", 2), ("GI", 4),
    ],
)  # fmt: skip
def test_values_of_an_even_dose_are_those_of_the_formula(name, value):
    assert values(name).all == pytest.approx([value], rel=1e-6, abs=1e-3)


def test_what_has_no_value_is_named_with_its_reason():
    found = values("D200cc", "V95%", "GI", "Mean", prescription=None)

    assert found.all == [35]
    assert found.missing[0].startswith("D200cc[Gy]: the region has only 100 cm3")
    assert all("no prescription" in line for line in found.missing[1:])


def test_each_metric_stands_once_however_often_it_is_asked_for():
    assert len(values("HI", "HI_ICRU83", *INDICES).all) == len(INDICES)


HEIGHTS = np.arange(-9, 10, 2.0)


@pytest.fixture
def outcome(tmp_path):
    """Return a function from settings to the outcome of two targets, two lungs and no plan."""

    def work(**changes):
        rs = structure_set(
            [
                ("PTV70", "PTV", cylinder(10, HEIGHTS)),
                ("PTV56", "PTV", cylinder(5, HEIGHTS)),
                ("Lung_L", "ORGAN", cylinder(6, HEIGHTS, x=-20)),
                ("Lung_R", "ORGAN", cylinder(6, HEIGHTS, x=20)),
                ("GTV", "GTV", cylinder(3, HEIGHTS[5:], x=20)),
            ]
        )
        files = [(Role.RTDOSE, save(dose(linear_z), tmp_path / "rd.dcm")),
                 (Role.RTSTRUCT, save(rs, tmp_path / "rs.dcm"))]  # fmt: skip
        return run(request(tmp_path, files, DoseRadiomicsSettings(
            **({"families": (), "pictures": False} | changes))))  # fmt: skip

    return work


def test_rules_add_metrics_to_the_regions_that_fit(outcome):
    found = outcome(
        metrics_by_roi=(
            {"rois": ("PTV*", "/lung/"), "metrics": ("DC1cc", "gEUD(-5)")},
            {"rois": ("Lungs - GTV",), "metrics": ("CV20Gy", "V95%")},
        )
    )

    rois = found.figures["rois"]
    assert "DC1cc_gy" in rois["PTV70"]
    assert "gEUD(-5)_gy" in rois["Lung_L"]
    assert "DC1cc_gy" not in rois["GTV"]
    assert rois["Lungs - GTV"]["CV20Gy_cc"] > 0
    told = [(f.code, f.roi, f.message) for f in found.findings]
    assert told == [("metric-not-computed", "Lungs - GTV",
                     "V95%[%]: no prescription is known for the physical dose")]  # fmt: skip


def test_each_target_is_judged_by_its_own_prescription(outcome):
    rois = outcome(prescriptions=(("PTV70", 30.0), ("PTV*", 20.0))).figures["rois"]

    assert rois["PTV70"]["Coverage"] == pytest.approx(0.25, abs=0.01)  # 30 to 35 of 15 to 35 Gy
    assert rois["PTV56"]["Coverage"] == pytest.approx(0.75, abs=0.01)
    area = 60 * 80  # isodoses are measured between the outer samples, up to z = 20
    assert rois["PTV70"]["R50"] == pytest.approx(area * 30 / 1000 / (2 * np.pi), rel=1e-3)
    assert rois["PTV70"]["CI_RTOG"] == pytest.approx(area * 15 / 1000 / (2 * np.pi), rel=0.03)
    assert rois["PTV70"]["GI"] == pytest.approx(2, rel=0.03)


def test_the_mean_lung_dose_leaves_the_tumor_out(outcome):
    rois = outcome().figures["rois"]

    lungs, tumor = 2 * 36 * 20, 9 * 10
    expected = (lungs * 25 - tumor * 30) / (lungs - tumor)  # the tumor lies above z = 0
    assert rois["Lungs - GTV"]["mean_gy"] == pytest.approx(expected, abs=0.02)


def test_biological_dose_has_no_index_that_rests_on_the_prescription(outcome):
    rois = outcome(dose="EQD2", fractions=30, prescriptions=(("PTV*", 20.0),)).figures["rois"]

    assert "Coverage" not in rois["PTV70"]
    assert "HI_ICRU83" in rois["PTV70"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics_by_roi": ({"rois": ("PTV",), "metrics": ("V20",)},)}, "V20Gy or V20%"),
        ({"metrics_by_roi": ({"rois": (), "metrics": ("V20Gy",)},)}, "at least 1 item"),
        ({"metrics_by_roi": ({"rois": ("/(/",), "metrics": ("Mean",)},)}, "regular expression"),
        ({"prescriptions": (("PTV", 0.0),)}, "greater than 0"),
        ({"alpha_beta_by_roi": (("", 3.0),)}, "must not be empty"),
        ({"volume_at_gy": (20.00001234,)}, "at most six digits"),
        ({"dose_at_cc": (1234567.0,)}, "at most six digits"),
        ({"geud_a": (-0.00123,)}, "characters"),
        ({"report_pdf": True, "pictures": False}, "set pictures to true"),
        ({"report_image": True, "pictures": False}, "report_image: .* set pictures to true"),
    ],
)
def test_settings_tell_at_once_what_cannot_be_meant(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        DoseRadiomicsSettings(**changes)
