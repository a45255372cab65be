"""What goes out beside the structure set: derived structures, masks, the page as PDF."""

import highdicom
import numpy as np
import pydicom
import pytest

from demo import dicom
from demo.grid import Grid
from models.phantom import thorax
from pipelines.autocontour.pipeline import run
from pipelines.report.pixels import rgb_pixels
from tests import factories
from tests.conformance.test_autocontour_result import request, saved

SPACING = (4.0, 4.0, 4.0)
TEMPLATE = (
    {"structure": "External"},
    {"structure": "SpinalCanal", "name": "Canal", "color": "#ffcc00"},
    {"expression": "Canal + 5mm", "name": "Canal_PRV05", "type": "AVOIDANCE"},
    {"expression": "Lungs - Bones", "name": "Lungs-Bones", "largest": True},
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    patient = thorax((40, 72, 96), SPACING, 2, center=(0.0, 0.0, 18.0))
    grid = Grid(shape=patient.hu.shape, spacing=SPACING, origin=patient.origin)
    folder = tmp_path_factory.mktemp("outputs")
    ct = saved(dicom.ct_series(factories.CASE, patient.hu, grid), folder / "ct")
    return run(
        request(
            ct, folder / "out", template=TEMPLATE, work_grid_mm=4.0, segmentation=True,
            report_pdf=True, report_image=True,
        )
    )  # fmt: skip


def test_the_template_decides_what_is_written_and_every_structure_comes_back(outcome):
    rois = outcome.figures["rois"]

    assert list(rois) == ["External", "Canal", "Canal_PRV05", "Lungs-Bones"]
    assert min(roi["round_trip_dice"] for roi in rois.values()) >= 0.999
    assert rois["Canal_PRV05"]["volume_cc"] > 1.5 * rois["Canal"]["volume_cc"]
    ds = pydicom.dcmread(outcome.objects[0].path)
    assert ds.StructureSetROISequence[2].ROIDescription.startswith("derived: Canal + 5mm")
    assert [o.RTROIInterpretedType for o in ds.RTROIObservationsSequence] == [
        "EXTERNAL", "ORGAN", "AVOIDANCE", "CONTROL",
    ]  # fmt: skip


def test_the_masks_go_out_as_segmentation_with_the_same_voxels(outcome):
    seg = highdicom.seg.segread(outcome.objects[1].path)

    rois = outcome.figures["rois"]
    assert [s.SegmentLabel for s in seg.SegmentSequence] == list(rois)
    for number, roi in enumerate(rois.values(), 1):
        frames = [
            f
            for f, group in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        ]
        voxels = np.count_nonzero(seg.pixel_array[frames])
        assert voxels * 0.064 == pytest.approx(roi["volume_cc"], rel=1e-3)


def test_the_page_goes_out_as_an_image_too_and_is_what_was_drawn(outcome):
    ds = pydicom.dcmread(outcome.objects[3].path)
    drawn = rgb_pixels(outcome.objects[0].path.parent / "report" / "report.png")

    assert ds.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert np.array_equal(ds.pixel_array, drawn)
    assert drawn.shape == (ds.Rows, ds.Columns, 3)
    assert ds.BurnedInAnnotation == "NO"


def test_the_page_goes_out_as_pdf_and_names_nobody(outcome):
    ds = pydicom.dcmread(outcome.objects[2].path)

    assert ds.SOPClassUID == pydicom.uid.EncapsulatedPDFStorage
    assert bytes(ds.EncapsulatedDocument).startswith(b"%PDF-")
    assert factories.CASE.patient_id.encode() not in bytes(ds.EncapsulatedDocument)
    assert (outcome.objects[0].path.parent / "report" / "report.png").exists()
