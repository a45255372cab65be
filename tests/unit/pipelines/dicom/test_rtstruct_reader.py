"""The structure set reader takes what real exports contain, and says what it left out."""

import numpy as np
import pytest

from pipelines.api import InputRejected
from pipelines.dicom.rtstruct import read_structure_set
from tests.unit.pipelines.dose_radiomics.support import (
    FRAME,
    cylinder,
    dose,
    item,
    linear_z,
    save,
    square,
    structure_set,
)


@pytest.fixture
def plain():
    return structure_set([("PTV", "PTV", cylinder(5, [0, 1])), ("Iso", "ISOCENTER", [])])


def test_coordinates_names_and_types_come_back_as_written(tmp_path, plain):
    found = read_structure_set(save(plain, tmp_path / "rs.dcm"))

    ptv = found.named("ptv")
    assert ptv is not None
    assert (ptv.number, ptv.interpreted_type, len(ptv.loops)) == (1, "PTV", 2)
    assert ptv.loops[0].points.shape == (360, 3)
    assert np.allclose(ptv.loops[1].points, cylinder(5, [0, 1])[1][1], atol=1e-4)
    assert found.rois[1].loops == ()
    assert found.frame_of_reference_uid == FRAME


@pytest.mark.parametrize("place", ["top level", "ROI"])
def test_frame_of_reference_is_found_wherever_it_is(tmp_path, plain, place):
    del plain.ReferencedFrameOfReferenceSequence
    if place == "ROI":
        del plain.FrameOfReferenceUID

    assert read_structure_set(save(plain, tmp_path / "rs.dcm")).frame_of_reference_uid == FRAME


def test_a_structure_set_without_any_frame_is_read(tmp_path, plain):
    del plain.ReferencedFrameOfReferenceSequence, plain.FrameOfReferenceUID
    for roi in plain.StructureSetROISequence:
        del roi.ReferencedFrameOfReferenceUID

    assert read_structure_set(save(plain, tmp_path / "rs.dcm")).frame_of_reference_uid is None


def test_contours_without_sense_are_told_and_left_out(tmp_path, plain):
    contours = plain.ROIContourSequence[0].ContourSequence
    contours.append(item(ContourGeometricType="CLOSED_PLANAR", ContourData=[1, 2, 3, 4]))
    contours.append(item(ContourGeometricType="CLOSED_PLANAR"))

    ptv = read_structure_set(save(plain, tmp_path / "rs.dcm")).rois[0]

    assert len(ptv.loops) == 2
    assert ptv.notes == ("2 contours without readable coordinates",)


def test_contours_and_observations_may_be_missing_or_double(tmp_path, plain):
    plain.ROIContourSequence.append(plain.ROIContourSequence[0])
    del plain.RTROIObservationsSequence

    ptv = read_structure_set(save(plain, tmp_path / "rs.dcm")).rois[0]

    assert ptv.interpreted_type == ""
    assert len(ptv.loops) == 2


def test_points_are_not_closed_loops(tmp_path):
    point = [("POINT", np.array([[1.0, 2.0, 3.0]])), ("CLOSED_PLANAR", square(0, 4, 0))]

    roi = read_structure_set(save(structure_set([("Mix", "", point)]), tmp_path / "rs.dcm")).rois[0]

    assert len(roi.loops) == 2
    assert len(roi.closed) == 1


def test_references_codes_and_slab_thickness_are_read(tmp_path, plain):
    image = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
                 ReferencedSOPInstanceUID="2.25.7")  # fmt: skip
    for contour in plain.ROIContourSequence[0].ContourSequence:
        contour.ContourImageSequence = [image]
        contour.ContourSlabThickness = 3
    plain.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence = [
        item(CodeValue="228793007", CodingSchemeDesignator="SCT", CodeMeaning="PTV")
    ]

    found = read_structure_set(save(plain, tmp_path / "rs.dcm"))

    assert found.referenced_image_uids == ("2.25.7",)
    assert found.rois[0].loops[0].image_uid == "2.25.7"
    assert found.rois[0].slab_thickness_mm == 3.0
    assert found.rois[0].codes[0].value == "228793007"


def test_another_object_is_refused(tmp_path):
    path = save(dose(linear_z), tmp_path / "rd.dcm")

    with pytest.raises(InputRejected, match="RT Structure Set was expected"):
        read_structure_set(path)


def test_bytes_that_are_no_dicom_are_refused_without_the_path(tmp_path):
    path = tmp_path / "Doe^John.dcm"
    path.write_bytes(b"no dicom at all")

    with pytest.raises(InputRejected) as refusal:
        read_structure_set(path)
    assert "Doe" not in str(refusal.value)


@pytest.mark.devpack
def test_the_real_thorax_has_four_rois_on_134_images(devpack):
    (path,) = (devpack / "dev_lung1_001_thorax" / "RTSTRUCT").glob("*.dcm")

    found = read_structure_set(path)

    assert [roi.name for roi in found.rois] == ["GTV-1", "Spinal-Cord", "Lung-Left", "Lung-Right"]
    assert len(found.referenced_image_uids) == 134
    assert sum(len(loop.points) for roi in found.rois for loop in roi.loops) == 66372
