"""Segmentation: masks come back voxel by voxel and place by place, through another's reader."""

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.api import Provenance
from pipelines.dicom.seg import Segment, cielab, write_segmentation
from pipelines.geometry.stack import StackGeometry

PROVENANCE = Provenance(
    pipeline="autocontour", version="0.1.0", settings_sha256="0" * 64, sources=(("1.2.3", "ab"),)
)


def source(**more):
    ds = Dataset()
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "2.25.1",
        "StudyInstanceUID": "2.25.2", "SeriesInstanceUID": "2.25.3",
        "FrameOfReferenceUID": "2.25.4", "PatientID": "P", "PatientName": "A^B",
        "ContentDate": "20260101", "ContentTime": "120000",
    }  # fmt: skip
    for keyword, value in (values | more).items():
        setattr(ds, keyword, value)
    return ds


def geometry(direction="HFS"):
    rows, columns = {
        "HFS": ((1, 0, 0), (0, 1, 0)),
        "FFP": ((1, 0, 0), (0, -1, 0)),
        "HFDR": ((0, -1, 0), (1, 0, 0)),
    }[direction]
    return StackGeometry.regular(
        shape=(5, 7, 9), spacing=(3.0, 1.5, 2.0), origin=(-10.123456789, 20.5, -30),
        row_direction=rows, column_direction=columns,
    )  # fmt: skip


def masks(seed=1):
    random = np.random.default_rng(seed)
    whole = random.random((5, 7, 9)) > 0.6
    whole[2] = False
    part = np.ones((2, 3, 4), bool)
    return [
        Segment(number=1, label="Lung_L", mask=whole),
        Segment(number=2, label="Heart", mask=part, corner=(3, 2, 5)),
    ]


@pytest.mark.parametrize("direction", ["HFS", "FFP", "HFDR"])
def test_another_reader_finds_each_voxel_where_it_was(tmp_path, direction):
    grid, (first, second) = geometry(direction), masks()
    write_segmentation([first, second], grid, [source()], PROVENANCE, tmp_path / "seg.dcm")

    seg = hd.seg.segread(tmp_path / "seg.dcm")

    expected = np.zeros((2, *grid.shape), bool)
    expected[0] = first.mask
    expected[1, 3:5, 2:5, 5:9] = True
    for index in range(seg.NumberOfFrames):
        item = seg.PerFrameFunctionalGroupsSequence[index]
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = item.PlanePositionSequence[0].ImagePositionPatient
        k = int(np.abs(grid.origins - np.array(place, float)).sum(axis=1).argmin())
        assert np.allclose(np.array(place, float), grid.origins[k], atol=1e-8)
        frame = seg.get_stored_frame(index + 1).astype(bool)
        assert np.array_equal(frame, expected[number - 1, k])
        expected[number - 1, k] = False
    assert not expected.any()  # every voxel had its frame, and empty slices have none


def test_the_same_masks_give_the_same_bytes_and_say_draft(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        write_segmentation(masks(), geometry(), [source()], PROVENANCE, tmp_path / name)

    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    ds = dcmread(tmp_path / "a.dcm")
    assert "draft" in ds.ContentDescription
    assert (ds.ContentDate, ds.Manufacturer) == ("20260101", "rtnode")
    assert ds.FrameOfReferenceUID == "2.25.4"


def test_frames_of_images_name_their_slice(tmp_path):
    images = [source(SOPInstanceUID=f"2.25.10{k}") for k in range(5)]

    write_segmentation(
        masks(), geometry(), images[:1], PROVENANCE, tmp_path / "seg.dcm", images=images
    )

    ds = dcmread(tmp_path / "seg.dcm")
    named = [
        g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for g in ds.PerFrameFunctionalGroupsSequence
    ]
    assert named == [f"2.25.10{k}" for k in (0, 1, 3, 4, 3, 4)]
    (series,) = ds.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 5


def test_a_label_in_another_script_survives_beside_the_name_of_the_patient(tmp_path):
    dose = source(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    segment = Segment(number=1, label="左肺", mask=np.ones((5, 7, 9), bool))

    write_segmentation([segment], geometry(), [dose], PROVENANCE, tmp_path / "seg.dcm")

    ds = dcmread(tmp_path / "seg.dcm")
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert ds.SegmentSequence[0].SegmentLabel == "左肺"
    assert str(ds.PatientName) == "Müller^Jürgen"


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([Segment(number=2, label="a", mask=np.ones((5, 7, 9), bool))], "without gaps"),
        ([Segment(number=1, label="a", mask=np.ones((5, 7, 10), bool))], "does not fit"),
        ([Segment(number=1, label="a", mask=np.zeros((5, 7, 9), bool))], "no segment has a voxel"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, segments, reason):
    with pytest.raises(ValueError, match=reason):
        write_segmentation(segments, geometry(), [source()], PROVENANCE, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (54.29, 80.81, 69.89))],
)
def test_colors_are_cielab_of_d50(rgb, lab):
    lightness, a, b = cielab(rgb)

    assert lightness / 65535 * 100 == pytest.approx(lab[0], abs=0.1)
    assert a / 257 - 128 == pytest.approx(lab[1], abs=0.1)
    assert b / 257 - 128 == pytest.approx(lab[2], abs=0.1)
