"""References between objects are found where PS3.3 puts them, and nowhere else."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.store.header import parse_header
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from tests.store_kit import ct, encode, structure_set

PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
REG = "1.2.840.10008.5.1.4.1.1.66.1"


def references(ds: Dataset):
    read = parse_header(encode(ds), EXPLICIT_VR_LITTLE_ENDIAN)
    return {(r.kind, r.uid, r.within) for r in read.references}


def bare(sop_class: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = "1.2.5.1"
    ds.StudyInstanceUID = "1.2.3.1"
    ds.SeriesInstanceUID = "1.2.5"
    return ds


def pointing(uid: str) -> Sequence:
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid
    return Sequence([item])


def test_a_structure_set_names_frame_series_and_images_with_their_series():
    assert references(structure_set(["1.2.3.2.1", "1.2.3.2.2"])) == {
        ("FRAME", "1.2.3.9", None),
        ("SERIES", "1.2.3.2", None),
        ("IMAGE", "1.2.3.2.1", "1.2.3.2"),
        ("IMAGE", "1.2.3.2.2", "1.2.3.2"),
    }


def test_without_the_frame_sequence_the_contours_name_the_images():
    """Trap 3: structure sets without ReferencedFrameOfReferenceSequence exist."""
    ds = structure_set(["1.2.3.2.1"])
    del ds.ReferencedFrameOfReferenceSequence

    assert references(ds) == {("IMAGE", "1.2.3.2.1", None)}


def test_contour_types_tell_points_from_contours():
    read = parse_header(encode(structure_set(["1.2"])), EXPLICIT_VR_LITTLE_ENDIAN)

    assert read.keywords["ContourGeometricType"] == ["CLOSED_PLANAR"]


def test_a_plan_names_structure_set_and_dose():
    ds = bare(PLAN)
    ds.ReferencedStructureSetSequence = pointing("1.2.4.1")
    ds.ReferencedDoseSequence = pointing("1.2.6.1")

    assert references(ds) == {("STRUCTURE_SET", "1.2.4.1", None), ("DOSE", "1.2.6.1", None)}


def test_a_dose_names_its_plan_and_structure_set():
    ds = bare(DOSE)
    ds.ReferencedRTPlanSequence = pointing("1.2.5.9")
    ds.ReferencedStructureSetSequence = pointing("1.2.4.1")

    assert references(ds) == {("PLAN", "1.2.5.9", None), ("STRUCTURE_SET", "1.2.4.1", None)}


def test_a_registration_names_both_frames_and_the_images():
    ds = bare(REG)
    fixed, moving = Dataset(), Dataset()
    fixed.FrameOfReferenceUID = "1.2.3.9"
    moving.FrameOfReferenceUID = "1.2.8.9"
    moving.ReferencedImageSequence = pointing("1.2.8.1")
    ds.RegistrationSequence = Sequence([fixed, moving])

    assert references(ds) == {
        ("FRAME", "1.2.3.9", None),
        ("FRAME", "1.2.8.9", None),
        ("IMAGE", "1.2.8.1", None),
    }


@pytest.mark.parametrize("broken", [b"\xfe\xff\x00\xe0\xff\xff", b"garbage!", b""])
def test_a_broken_sequence_gives_no_references_and_no_error(broken):
    ds = bare(PLAN)
    data = encode(ds) + b"\x0c\x30\x60\x00SQ\0\0" + len(broken).to_bytes(4, "little") + broken

    assert parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN).references == ()


def test_each_reference_is_told_once():
    assert len(references(structure_set(["1.2.3.2.1"] * 5))) == 3


def test_an_image_has_no_references_of_ours():
    ds = ct()
    ds.ReferencedImageSequence = pointing("1.2.3")

    assert references(ds) == set()
