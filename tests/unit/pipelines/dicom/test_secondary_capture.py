"""Secondary Capture: the page pixel by pixel, the patient of the source, marked as a draft."""

import numpy as np
import pytest
from matplotlib.image import imsave
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from pipelines.api import OutputInvalid
from pipelines.dicom.secondary_capture import write_secondary_capture
from pipelines.report.pixels import rgb_pixels
from tests.unit.pipelines.dicom.test_seg import PROVENANCE, source

PAGE = np.random.default_rng(7).integers(0, 256, (31, 21, 3), np.uint8)


def written(tmp_path, page=PAGE, name="page.dcm"):
    return write_secondary_capture(
        page, [source(), source(SOPInstanceUID="2.25.9")], PROVENANCE, tmp_path / name,
        title="Auto-contours",
    )  # fmt: skip


def test_the_page_comes_back_pixel_by_pixel(tmp_path):
    ds = dcmread(written(tmp_path).path)

    assert np.array_equal(ds.pixel_array, PAGE)
    assert len(ds.PixelData) % 2 == 0
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert (ds.PatientID, ds.Modality, ds.BurnedInAnnotation) == ("P", "OT", "NO")
    assert "unapproved draft" in ds.ImageComments
    assert [s.ReferencedSOPInstanceUID for s in ds.SourceInstanceSequence] == ["2.25.1", "2.25.9"]


def test_the_same_page_gives_the_same_bytes(tmp_path):
    one, other = written(tmp_path, name="a.dcm"), written(tmp_path, name="b.dcm")

    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.sop_instance_uid == other.sop_instance_uid


@pytest.mark.parametrize(
    "page", [PAGE[..., 0], PAGE.astype(np.uint16), np.zeros((2, 2, 4), np.uint8)]
)
def test_what_is_no_rgb_picture_is_not_sent(tmp_path, page):
    with pytest.raises(OutputInvalid, match="no RGB picture"):
        written(tmp_path, page)


def test_a_png_is_read_as_it_was_drawn_and_transparent_is_white(tmp_path):
    imsave(tmp_path / "a.png", PAGE)
    clear = np.zeros((4, 4, 4), np.uint8)
    imsave(tmp_path / "b.png", clear)

    assert np.array_equal(rgb_pixels(tmp_path / "a.png"), PAGE)
    assert np.array_equal(rgb_pixels(tmp_path / "b.png"), np.full((4, 4, 3), 255))
