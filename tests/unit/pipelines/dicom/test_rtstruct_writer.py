"""What stands in an RT Structure Set, beside the shapes (see tests/conformance)."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.api import InputRejected, OutputInvalid, Provenance
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import (
    ConceptCode,
    Structure,
    WriterProfile,
    decimal_strings,
    write_structure_set,
)
from pipelines.dicom.volume import pose_of
from pipelines.geometry.stack import StackGeometry
from tests import factories

PROVENANCE = Provenance(
    pipeline="autocontour", version="0.1.0", settings_sha256="ab" * 32, sources=(("1.2.3", "x"),)
)


@pytest.fixture
def headers():
    found = factories.ct_series(grid=factories.ct_grid(6))
    for ds in found:
        del ds.PixelData
    return found


@pytest.fixture
def geometry(headers):
    return StackGeometry.of([pose_of(ds) for ds in headers])


def structure(name="Lung_L", number=1, field=None, **changes):
    if field is None:
        field = np.zeros((6, 64, 64), np.bool_)
        field[1:5, 20:40, 30:50] = True
    return Structure(number=number, name=name, field=field, interpreted_type="ORGAN",
                     color=(1, 2, 3), **changes)  # fmt: skip


def write(structures, headers, geometry, path, profile=None):
    write_structure_set(structures, headers, geometry, PROVENANCE, path, profile)
    return pydicom.dcmread(path)


def test_the_object_refers_to_every_image_and_is_never_approved(headers, geometry, tmp_path):
    ds = write([structure()], headers, geometry, tmp_path / "a.dcm")

    frame = ds.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    uids = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert uids == [h.SOPInstanceUID for h in headers]
    assert series.SeriesInstanceUID == headers[0].SeriesInstanceUID
    assert frame.FrameOfReferenceUID == headers[0].FrameOfReferenceUID == ds.FrameOfReferenceUID
    assert ds.ApprovalStatus == "UNAPPROVED"
    assert ds.StudyInstanceUID == headers[0].StudyInstanceUID


def test_each_contour_names_the_one_image_that_it_lies_in(headers, geometry, tmp_path):
    ds = write([structure()], headers, geometry, tmp_path / "a.dcm")

    for contour in ds.ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        positions = {h.SOPInstanceUID: h.ImagePositionPatient[2] for h in headers}
        z = {float(v) for v in contour.ContourData[2::3]}
        assert z == {float(positions[image.ReferencedSOPInstanceUID])}
        assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)


def test_name_type_color_code_and_algorithm_are_written(headers, geometry, tmp_path):
    code = ConceptCode(value="44029006", scheme="SCT", meaning="Left lung")
    ds = write([structure(code=code, remark="PASS", description="by hand")], headers, geometry,
               tmp_path / "a.dcm")  # fmt: skip

    (region,) = ds.StructureSetROISequence
    (observation,) = ds.RTROIObservationsSequence
    assert (region.ROIName, region.ROIGenerationAlgorithm) == ("Lung_L", "AUTOMATIC")
    assert region.ROIDescription.startswith("by hand; autocontour 0.1.0; model classical")
    (algorithm,) = region.ROIDerivationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123104"
    assert observation.RTROIIdentificationCodeSequence[0].CodeValue == "44029006"
    assert (observation.RTROIInterpretedType, observation.ROIObservationDescription) == (
        "ORGAN", "PASS")  # fmt: skip
    assert list(ds.ROIContourSequence[0].ROIDisplayColor) == [1, 2, 3]


def test_decimal_strings_have_two_decimals_and_no_negative_zero():
    points = np.array([[-0.001, 1234.5678, -99999.99], [0.005, -0.0, 3.0]])

    text = decimal_strings(points)

    assert text == "0.00\\1234.57\\-99999.99\\0.00\\0.00\\3.00"
    assert max(map(len, text.split("\\"))) <= 16


def test_the_same_input_gives_the_same_bytes(headers, geometry, tmp_path):
    for name in ("a.dcm", "b.dcm"):
        write([structure()], headers, geometry, tmp_path / name)

    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


@pytest.mark.parametrize(
    ("most", "syntax"),
    [(1000, ExplicitVRLittleEndian), (100_000, ImplicitVRLittleEndian)],
    ids=["split", "whole"],
)
def test_a_contour_too_long_for_explicit_vr_makes_the_file_implicit(most, syntax, tmp_path):
    """65534 bytes is the longest DS value of Explicit VR; a wider one would be written as UN."""
    grid = factories.ct_grid(2, rows=8, columns=1300, spacing=(5.0, 1.0, 0.5))
    headers = factories.ct_series(grid=grid)
    comb = np.zeros((2, 8, 1300), np.bool_)
    comb[0, 2:7, 1:1299:2] = True
    comb[0, 6, 1:1299] = True

    ds = write([structure(field=comb)], headers, StackGeometry.of([pose_of(h) for h in headers]),
               tmp_path / "a.dcm", WriterProfile(max_points=most))  # fmt: skip

    points = [c.NumberOfContourPoints for c in ds.ROIContourSequence[0].ContourSequence]
    assert max(points) <= most
    assert (len(points) == 1) == (syntax == ImplicitVRLittleEndian)
    assert ds.file_meta.TransferSyntaxUID == syntax


def test_empty_structures_are_left_out_and_named(headers, geometry, tmp_path):
    empty = structure(name="Bones", number=2, field=np.zeros((6, 64, 64), np.bool_))

    written = write_structure_set(
        [structure(), empty], headers, geometry, PROVENANCE, tmp_path / "a.dcm"
    )

    assert written.empty == ("Bones",)
    assert len(pydicom.dcmread(tmp_path / "a.dcm").StructureSetROISequence) == 1


@pytest.mark.parametrize(
    "structures",
    [
        [structure(), structure(name="LUNG_L", number=2)],
        [structure(), structure(name="Bones")],
        [structure(name="X" * 17)],
        [structure(name="肺")],
        [structure(field=np.zeros((6, 64, 65), np.bool_))],
        [structure(corner=(1, 0, 0))],
    ],
    ids=["same-name", "same-number", "long", "not-ascii", "shape", "corner"],
)
def test_what_a_planning_system_would_refuse_is_not_written(
    structures, headers, geometry, tmp_path
):
    with pytest.raises(ValueError, match=r"structures|name|field"):
        write(structures, headers, geometry, tmp_path / "a.dcm")


def test_a_series_without_frame_of_reference_is_refused(headers, geometry, tmp_path):
    del headers[0].FrameOfReferenceUID

    with pytest.raises(InputRejected, match="Frame of Reference"):
        write([structure()], headers, geometry, tmp_path / "a.dcm")


def test_a_cropped_field_lands_where_its_corner_says(headers, geometry, tmp_path):
    whole = structure()
    cropped = structure(field=whole.field[1:5, 20:40, 30:50], corner=(1, 20, 30))

    write([whole], headers, geometry, tmp_path / "a.dcm")
    write([cropped], headers, geometry, tmp_path / "b.dcm")

    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


@pytest.mark.parametrize("damage", ["moved", "other-image", "missing"])
def test_a_file_that_does_not_mean_what_was_found_is_never_sent(
    damage, headers, geometry, tmp_path
):
    path = tmp_path / "a.dcm"
    ds = write([structure()], headers, geometry, path)
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    if damage == "moved":
        contour.ContourData = [
            v + 6 if i % 3 == 0 else v for i, v in enumerate(contour.ContourData)
        ]
    elif damage == "other-image":
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID = headers[4].SOPInstanceUID
    else:
        ds.StructureSetROISequence[0].ROIName = "Lung_R"
    ds.save_as(path)

    with pytest.raises(OutputInvalid):
        check_structure_set(path, [structure()], headers, geometry)
