"""The SR against independent readers: dciodvfy, DCMTK, highdicom."""

import subprocess
import sys

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pipelines.api import Role
from pipelines.dicom.sr import number_text, read_back
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from tests.conftest import program
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

VARIANTS = [("comprehensive", "R2"), ("enhanced", "R2"), ("comprehensive", "R1")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return a function from (SOP class, variant) to the SR of one small case."""
    made = {}

    def make(kind, variant):
        if (kind, variant) not in made:
            folder = tmp_path_factory.mktemp("sr")
            heights = np.arange(-9, 10, 2.0)
            rs = structure_set(
                [
                    ("PTV", "PTV", cylinder(10, heights)),
                    ("Lung_L", "ORGAN", cylinder(6, heights, x=-20)),
                    ("Lung_R", "ORGAN", cylinder(6, heights, x=20)),
                    ("GTV", "GTV", cylinder(3, heights, x=20)),
                ]
            )
            rp = plan(rs)
            files = [
                (Role.RTDOSE, save(names_plan(dose(linear_z, bits=16, scaling=1e-3), rp),
                                   folder / "rd.dcm")),
                (Role.RTSTRUCT, save(rs, folder / "rs.dcm")),
                (Role.RTPLAN, save(rp, folder / "rp.dcm")),
            ]  # fmt: skip
            settings = DoseRadiomicsSettings(
                sr=kind, sr_variant=variant, geud_a=(-10.0,), pictures=False
            )
            made[kind, variant] = run(request(folder, files, settings))
        return made[kind, variant]

    return make


@pytest.mark.dciodvfy
@pytest.mark.parametrize(("kind", "variant"), VARIANTS)
def test_dciodvfy_finds_no_error(report, kind, variant):
    path = report(kind, variant).objects[0].path

    checked = subprocess.run(
        [program("dciodvfy"), path], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0
    assert "Error" not in checked.stderr + checked.stdout


@pytest.mark.dcmtk
@pytest.mark.parametrize("kind", ["comprehensive", "enhanced"])
@pytest.mark.parametrize("tool", ["dsrdump", "dsr2html"])
def test_dcmtk_reads_the_whole_tree(report, tool, kind):
    outcome = report(kind, "R2")
    path = outcome.objects[0].path

    read = subprocess.run([program(tool), path], capture_output=True, check=False)

    assert read.returncode == 0
    assert not read.stderr
    assert read.stdout.count(b"Absorbed Dose") >= 5 * len(outcome.figures["rois"])


@pytest.mark.parametrize(("kind", "variant"), VARIANTS)
def test_highdicom_reads_the_same_values(report, kind, variant):
    path = report(kind, variant).objects[0].path
    written = list(read_back(dcmread(path)))

    groups = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()

    assert len(groups) == len(written) == 5
    for group, (tracking, number, values) in zip(groups, written, strict=True):
        assert group.tracking_uid == tracking
        assert tuple(float(m.value) for m in group.get_measurements()) == values
        region = next(item for item in group[0].ContentSequence
                      if item.ConceptNameCodeSequence[0].CodeValue == "130488")  # fmt: skip
        assert region.ContentSequence[0].TextValue == number


def test_values_are_full_doubles_and_their_text_fits(report):
    sr = dcmread(report("comprehensive", "R2").objects[0].path)
    for group in sr.ContentSequence[-1].ContentSequence:
        for item in group.ContentSequence:
            if item.ValueType != "NUM":
                continue
            measured = item.MeasuredValueSequence[0]
            assert len(str(measured.NumericValue)) <= 16
            assert float(measured.NumericValue) == pytest.approx(
                measured.FloatingPointValue, rel=1e-8
            )


def test_marked_as_unverified_draft_with_provenance(report):
    outcome = report("comprehensive", "R2")
    sr = dcmread(outcome.objects[0].path)

    assert (sr.VerificationFlag, sr.CompletionFlag) == ("UNVERIFIED", "PARTIAL")
    assert sr.Manufacturer == "rtnode"
    assert (sr.ContentDate, sr.ContentTime) == ("20260103", "140000")  # the newest input
    assert "research use" in sr.ContributingEquipmentSequence[0].ContributionDescription
    assert (sr.PatientID, str(sr.PatientName)) == ("DOSE-1", "Dose^Phantom")


def test_each_group_names_region_source_algorithm_and_recipe(report):
    sr = dcmread(report("comprehensive", "R2").objects[0].path)
    group = sr.ContentSequence[-1].ContentSequence[-1]
    texts = {}
    for item in group.ContentSequence:
        code = item.ConceptNameCodeSequence[0].CodeValue
        texts.setdefault(code, []).append(item)

    assert texts["112039"][0].TextValue == "Lungs - GTV"
    assert texts["111002"][0].TextValue.startswith("dose-ibsi-v1")
    assert any("Lungs = Lung_L | Lung_R" in t.TextValue for t in texts["111002"])
    assert len(texts["130488"]) == len(texts["121112"]) == 1
    assert texts["363698007"][0].ConceptCodeSequence[0].CodeValue == "39607008"


@pytest.mark.parametrize("value", [0.0, 1 / 3, -1.23456789e-301, 1e300, 123456789012.0, -5e-324])
def test_numbers_fit_into_16_characters(value):
    text = number_text(value)

    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=1e-6) or abs(value) < 1e-300


def test_the_writer_loads_no_high_level_library():
    code = (
        "import sys, pipelines.dose_radiomics.pipeline\n"
        "assert not {'highdicom', 'torch', 'SimpleITK'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
