"""The generated objects are consistent: same anatomy in every orientation, closed references."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from demo import readback
from demo.grid import DIRECTIONS
from tests import factories
from tests.conftest import program


def encoded(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_uids() -> None:
    once, twice = (factories.study()["RTDOSE"][0] for _ in range(2))
    other = factories.study(factories.Case(seed=2))["RTDOSE"][0]

    assert encoded(once) == encoded(twice)
    assert once.SOPInstanceUID != other.SOPInstanceUID


def test_every_uid_of_a_study_is_its_own() -> None:
    objects = [ds for kind in factories.study().values() for ds in kind]

    assert len({ds.SOPInstanceUID for ds in objects}) == len(objects)
    assert all(len(ds.SOPInstanceUID) <= 64 for ds in objects)


def test_references_close_from_dose_to_ct_and_from_registration_to_both_images() -> None:
    study = factories.study()
    dose, plan, structures = (study[k][0] for k in ("RTDOSE", "RTPLAN", "RTSTRUCT"))
    slices = {ds.SOPInstanceUID for ds in study["CT"]}

    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    reference = plan.ReferencedStructureSetSequence[0]
    assert reference.ReferencedSOPInstanceUID == structures.SOPInstanceUID
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {i.ReferencedSOPInstanceUID for i in series.ContourImageSequence} == slices
    frames = [i.FrameOfReferenceUID for i in study["REG"][0].RegistrationSequence]
    assert frames == [study["CT"][0].FrameOfReferenceUID, study["CBCT"][0].FrameOfReferenceUID]


@pytest.mark.parametrize("position", sorted(DIRECTIONS))
def test_the_marker_is_seen_at_its_place_in_every_position(position: str) -> None:
    slices = factories.ct_series(position=position)

    hu, grid = readback.volume(slices)
    seen = grid.to_patient(np.argwhere(hu > 1500)).mean(axis=0)

    assert np.abs(seen - factories.MARKER).max() < 4
    assert slices[0].PatientPosition == position


def test_contours_lie_on_the_slice_that_they_reference() -> None:
    ct = {ds.SOPInstanceUID: ds for ds in factories.ct_series()}

    structures = factories.rtstruct()

    for roi in structures.ROIContourSequence:
        for contour in roi.ContourSequence:
            image = ct[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            z = np.asarray(contour.ContourData, float)[2::3]
            np.testing.assert_allclose(z, float(image.ImagePositionPatient[2]), atol=1e-3)


def test_contours_enclose_the_voxels_that_they_were_drawn_on() -> None:
    grid = factories.ct_grid()
    structures = factories.rtstruct(names=("GTV", "Lung_L"))

    for name in ("GTV", "Lung_L"):
        truth = factories.ellipsoid(grid.positions(), *factories.TISSUES[name][:2])
        np.testing.assert_array_equal(readback.mask(structures, name, grid), truth)


@pytest.mark.parametrize("bits", [16, 32])
def test_stored_dose_times_scaling_is_the_dose(bits: int) -> None:
    ds = factories.rtdose(bits=bits)

    dose = ds.pixel_array * float(ds.DoseGridScaling)

    x = float(ds.ImagePositionPatient[0]) + 25 * float(ds.PixelSpacing[1])
    assert dose[5, 20, 25] == pytest.approx(30 + 0.2 * x, abs=0.002)
    assert dose.shape == (ds.NumberOfFrames, ds.Rows, ds.Columns)


def test_the_registration_carries_the_marker_from_cbct_to_ct() -> None:
    hu, grid = readback.volume(factories.cbct_series())
    matrix = factories.reg().RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    to_ct = np.asarray(matrix.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)

    seen = np.append(grid.to_patient(np.argwhere(hu > 1200)).mean(axis=0), 1)

    assert np.abs((to_ct @ seen)[:3] - factories.MARKER).max() < 4


def test_a_series_without_a_slice_has_a_gap() -> None:
    whole = factories.ct_series()

    gapped = factories.without(whole, 3)

    z = np.diff([float(ds.ImagePositionPatient[2]) for ds in gapped])
    assert z.max() == pytest.approx(2 * z.min())


@pytest.mark.dciodvfy
@pytest.mark.parametrize("kind", ["CT", "CBCT", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG"])
def test_generated_objects_are_valid_dicom(kind: str, tmp_path: Path) -> None:
    """RTDOSE with 16 bits: this dciodvfy cannot read 32-bit pixels (an assertion of its own)."""
    dciodvfy = program("dciodvfy")
    study = factories.study() | {"RTDOSE": [factories.rtdose(bits=16)]}
    path = factories.save(study[kind], tmp_path)[0]

    report = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr

    assert "Error" not in report
    assert "Abort" not in report


def test_saved_files_are_read_back_with_nothing_lost(tmp_path: Path) -> None:
    series = factories.ct_series()

    paths = factories.save(series, tmp_path)

    assert [pydicom.dcmread(p).SOPInstanceUID for p in paths] == [s.SOPInstanceUID for s in series]
