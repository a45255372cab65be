"""Approved sets against our drafts: closed-form scores from files, and what is refused."""

import numpy as np
import pydicom
import pytest

from demo import dicom
from demo.grid import Grid
from pipelines.api import InputRejected, Provenance
from pipelines.autocontour.acceptance import accepted
from pipelines.dicom.rtstruct_writer import Structure, write_structure_set
from pipelines.dicom.volume import read_volume
from tests import factories
from tests.conformance.test_autocontour_result import saved

SPACING = (3.0, 2.0, 2.0)
SHAPE = (20, 48, 64)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    hu = np.full(SHAPE, -1000.0, np.float32)
    hu[:, 8:40, 10:54] = 0
    grid = Grid(shape=SHAPE, spacing=SPACING, origin=(-60, -45, 0))
    ct = dicom.ct_series(factories.CASE, hu, grid)
    return saved(ct, tmp_path_factory.mktemp("accept") / "ct")


@pytest.fixture(scope="module")
def volume(images):
    return read_volume(images)


def box(number, name, columns):
    mask = np.zeros(SHAPE, np.bool_)
    mask[5:15, 12:32, columns] = True
    return Structure(
        number=number, name=name, field=mask, interpreted_type="ORGAN", color=(1, 2, 3)
    )


def drawn(structures, volume, path, *, model="classical", status="APPROVED", **changes):
    """Write a structure set; what a planning system changes on approval is in `changes`."""
    provenance = Provenance(
        pipeline="autocontour", version="0.1.0", settings_sha256="0", sources=(), model=model
    )
    write_structure_set(structures, volume.headers, volume.geometry, provenance, path)
    ds = pydicom.dcmread(path)
    ds.ApprovalStatus = status
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
    return path


def test_a_set_that_nobody_touched_scores_one_and_says_so(images, volume, tmp_path):
    boxes = [box(1, "Lung_L", slice(20, 40)), box(2, "Parotid_L", slice(44, 54))]
    draft = drawn(boxes, volume, tmp_path / "draft.dcm", model="classical + headneck 1.0")
    approved = drawn(boxes, volume, tmp_path / "ok.dcm", SOPInstanceUID="1.2.3.4")

    found = accepted(images, draft, approved)

    for one in found:
        assert one.unchanged
        assert one.pair.agreement.dice == one.pair.agreement.surface_dice == 1.0
        assert one.pair.agreement.hd95_mm == one.pair.added_path_mm == 0.0
    assert [(one.pair.name, one.model, one.version) for one in found] == [
        ("Lung_L", "classical", "0.1.0"),
        ("Parotid_L", "headneck 1.0", "0.1.0"),
    ]


def test_a_corrected_structure_has_the_numbers_of_the_formula(images, volume, tmp_path):
    """20 columns each, 2 columns apart: 18 of 20 are shared."""
    draft = drawn([box(1, "Lung_L", slice(20, 40))], volume, tmp_path / "draft.dcm")
    other = [box(4, "Lung-Left", slice(22, 42)), box(5, "GTV", slice(30, 34))]
    approved = drawn(other, volume, tmp_path / "ok.dcm")

    (one,) = accepted(images, draft, approved)

    assert not one.unchanged
    assert (one.pair.name, one.pair.theirs) == ("Lung_L", "Lung-Left")
    assert one.pair.agreement.dice == pytest.approx(0.9)
    assert one.pair.volumes_ml == pytest.approx((48.0, 48.0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "UNAPPROVED"}, "not approved"),
        ({"FrameOfReferenceUID": "1.9", "frame": "1.9"}, "another frame of reference"),
        ({"name": "Heart"}, "no structure"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    images, volume, tmp_path, changes, reason
):
    name, frame = changes.pop("name", "Lung_L"), changes.pop("frame", None)
    draft = drawn([box(1, "Lung_L", slice(20, 40))], volume, tmp_path / "draft.dcm")
    approved = drawn([box(1, name, slice(20, 40))], volume, tmp_path / "x.dcm", **changes)
    if frame is not None:
        ds = pydicom.dcmread(approved)
        ds.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = frame
        ds.save_as(approved)

    with pytest.raises(InputRejected, match=reason):
        accepted(images, draft, approved)
