"""Dose radiomics on the development data: values that others computed, on real structures."""

import hashlib

import pytest
from pydicom import dcmread

from pipelines.api import InputFile, InputRejected, Inputs, Provenance, Request, Role
from pipelines.api import settings_sha256 as sha_of
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings

pytestmark = pytest.mark.devpack


@pytest.fixture
def evaluate(tmp_path):
    """Return a function that runs the pipeline on (role, paths)."""

    def work(*inputs, **changes):
        settings = DoseRadiomicsSettings(
            **({"families": ("statistics",), "pictures": False} | changes)
        )
        files = []
        for role, paths in inputs:
            for path in paths:
                header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
                sha = hashlib.sha256(path.read_bytes()).hexdigest()
                uid = str(header.SOPInstanceUID)
                files.append(InputFile(role=role, path=path, sop_instance_uid=uid, sha256=sha))
        output = tmp_path / "out"
        output.mkdir()
        provenance = Provenance(
            pipeline="dose_radiomics",
            version="0.1.0",
            settings_sha256=sha_of(settings),
            sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in files)),
        )
        inputs = Inputs(files=tuple(files))
        return run(Request(inputs=inputs, settings=settings, provenance=provenance, output=output))

    return work


def thorax(devpack):
    base = devpack / "dev_lung1_001_thorax"
    return [
        (Role.RTDOSE, list((base / "SIMULATED_RTDOSE").glob("*.dcm"))),
        (Role.RTSTRUCT, list((base / "RTSTRUCT").glob("*.dcm"))),
        (Role.RTPLAN, list((base / "SIMULATED_RTPLAN").glob("*.dcm"))),
        (Role.CT, list((base / "CT").glob("*.dcm"))),
    ]


def test_lungs_without_gtv_of_the_thorax(devpack, evaluate):
    rois = evaluate(*thorax(devpack)).figures["rois"]

    assert rois["Lungs - GTV"]["V20Gy_percent"] == pytest.approx(16.36, abs=0.5)
    assert rois["Lungs - GTV"]["mean_gy"] == pytest.approx(9.41, abs=0.1)
    assert rois["GTV-1"]["volume_cc"] == pytest.approx(156.3, abs=0.5)


def test_ptv70_of_the_head_and_neck_patient(devpack, evaluate):
    base = devpack / "dev_openkbp_hn" / "pt_1"
    outcome = evaluate(
        (Role.RTDOSE, list((base / "RTDOSE").glob("*.dcm"))),
        (Role.RTSTRUCT, list((base / "RTSTRUCT").glob("*.dcm"))),
    )

    assert outcome.figures["rois"]["PTV70"]["mean_gy"] == pytest.approx(71.42, abs=0.3)


def test_eclipse_breast_without_its_ct_is_evaluated_and_empty_rois_are_told(devpack, evaluate):
    base = devpack / "dev_rt_breast_eclipse_noct"
    outcome = evaluate(
        (Role.RTDOSE, [base / "rtdose.dcm"]),
        (Role.RTSTRUCT, [base / "rtss.dcm"]),
        (Role.RTPLAN, [base / "rtplan.dcm"]),
        derived=("'Lt Lung' - Breast",),
    )

    rois = outcome.figures["rois"]
    assert rois["Breast"]["volume_cc"] == pytest.approx(400, rel=0.01)
    assert rois["Tumor Bed"]["Coverage"] == pytest.approx(1, abs=0.01)
    assert "'Lt Lung' - Breast" in rois
    assert ("roi-empty", "Areola") in {(f.code, f.roi) for f in outcome.findings}


def test_structures_of_another_patient_are_refused(devpack, evaluate):
    dose = thorax(devpack)[0]
    other = devpack / "dev_openkbp_hn" / "pt_1" / "RTSTRUCT"

    with pytest.raises(InputRejected, match="different patients"):
        evaluate(dose, (Role.RTSTRUCT, list(other.glob("*.dcm"))))


def test_the_console_structure_set_of_three_points_is_refused(devpack, evaluate):
    cbct = devpack / "dev_obi_cbct_catphan_pelvis" / "CBCT"
    (points,) = cbct.glob("RS.*.dcm")

    with pytest.raises(InputRejected):
        evaluate(thorax(devpack)[0], (Role.RTSTRUCT, [points]))
