"""The synthetic CT series as other software sees it: validator, SimpleITK, DCMTK, same bytes."""

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pipelines.api import Outcome, OutputInvalid, Provenance, Role
from pipelines.dicom.ct_series import SeriesText, write_ct_series
from pipelines.dicom.volume import read_volume
from tests.conftest import program
from tests.unit.pipelines.synthetic_ct import sct_support as support

OLDER_THAN_THE_STANDARD = "(0x0008,0x001c)"
"""Synthetic Data came into the standard after dicom3tools 2022-06 (Debian 12): that release calls
every attribute it does not know an error. Nothing else is let through."""


def _objects() -> dict[Role, list[pydicom.Dataset]]:
    return {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return support.run_on(tmp_path_factory.mktemp("sct"), _objects())


@pytest.mark.dciodvfy
def test_every_slice_is_valid_dicom(outcome: Outcome) -> None:
    dciodvfy = program("dciodvfy")

    for item in outcome.objects[::7]:
        done = subprocess.run([dciodvfy, item.path], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if OLDER_THAN_THE_STANDARD not in line]
        assert [line for line in lines if line.startswith("Error")] == []


def test_simpleitk_reads_the_same_hounsfield_units_in_the_same_place(outcome: Outcome) -> None:
    reader = sitk.ImageSeriesReader()
    folder = str(outcome.objects[0].path.parent)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))

    image = reader.Execute()

    ours = read_volume([o.path for o in outcome.objects])
    assert np.array_equal(sitk.GetArrayFromImage(image), ours.hu)
    assert image.GetSpacing() == pytest.approx(tuple(reversed(ours.geometry.spacing)))
    assert image.GetOrigin() == pytest.approx(tuple(ours.geometry.origins[0]), abs=1e-3)


@pytest.mark.dcmtk
def test_dcmtk_reads_every_attribute_and_the_rescale(outcome: Outcome) -> None:
    dcmdump = program("dcmdump")

    done = subprocess.run(
        [dcmdump, "+P", "RescaleIntercept", "+P", "ImageType", outcome.objects[0].path],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "[-1024]" in done.stdout
    assert "DERIVED\\SECONDARY\\AXIAL" in done.stdout
    assert "W:" not in done.stderr


def test_the_same_inputs_give_the_same_bytes(outcome: Outcome, tmp_path: Path) -> None:
    again = support.run_on(tmp_path, _objects())

    first = [o.path.read_bytes() for o in outcome.objects]
    assert [o.path.read_bytes() for o in again.objects] == first


def test_other_settings_give_other_uids(outcome: Outcome, tmp_path: Path) -> None:
    other = support.run_on(tmp_path, _objects(), couch="remove")

    ours = {o.sop_instance_uid for o in outcome.objects}
    assert ours.isdisjoint(o.sop_instance_uid for o in other.objects)


def test_slices_are_uniform_and_numbered_along_the_stack(outcome: Outcome) -> None:
    slices = [pydicom.dcmread(o.path) for o in outcome.objects]
    z = np.array([float(ds.ImagePositionPatient[2]) for ds in slices])

    assert np.ptp(np.diff(z)) < 0.01
    assert [int(ds.InstanceNumber) for ds in slices] == list(range(1, len(slices) + 1))
    assert len({ds.SeriesInstanceUID for ds in slices}) == 1


def test_an_image_on_another_grid_is_not_written(outcome: Outcome, tmp_path: Path) -> None:
    source = read_volume([o.path for o in outcome.objects])
    words = SeriesText(description="x", derivation="x", hu_curve_source=None)
    provenance = Provenance(pipeline="p", version="1", settings_sha256="", sources=())

    with pytest.raises(OutputInvalid):
        write_ct_series(np.zeros((3, 4, 5), np.float32), source, words, provenance, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_twelve_bits_are_clipped(outcome: Outcome, tmp_path: Path) -> None:
    source = read_volume([o.path for o in outcome.objects])
    words = SeriesText(description="x", derivation="x", hu_curve_source=None)
    provenance = Provenance(pipeline="p", version="1", settings_sha256="", sources=())
    hu = np.full(source.geometry.shape, 9000, np.float32)
    hu[0] = -9000

    written = write_ct_series(hu, source, words, provenance, tmp_path)

    again = read_volume([o.path for o in written], check_scale=False)
    assert (again.hu.min(), again.hu.max()) == (-1024, 3071)
