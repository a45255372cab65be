"""Our draft beside the structure set of the study: pairs by name, closed-form numbers, pictures."""

import numpy as np
import pytest

from demo import dicom
from demo.grid import Grid
from pipelines.api import Provenance
from pipelines.autocontour.compare import compare
from pipelines.dicom.rtstruct_writer import Structure, write_structure_set
from pipelines.dicom.volume import read_volume
from tests import factories
from tests.conformance.test_autocontour_result import saved

SPACING = (3.0, 2.0, 2.0)
SHAPE = (20, 48, 64)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    hu = np.full(SHAPE, -1000.0, np.float32)
    hu[:, 8:40, 10:54] = 0
    grid = Grid(shape=SHAPE, spacing=SPACING, origin=(-60, -45, 0))
    ct = dicom.ct_series(factories.CASE, hu, grid)
    return read_volume(saved(ct, tmp_path_factory.mktemp("compare") / "ct"))


def box(number, name, columns):
    mask = np.zeros(SHAPE, np.bool_)
    mask[5:15, 12:32, columns] = True
    return Structure(
        number=number, name=name, field=mask, interpreted_type="ORGAN", color=(1, 2, 3)
    )


def drawn(structures, volume, path):
    provenance = Provenance(pipeline="x", version="1", settings_sha256="0", sources=())
    write_structure_set(structures, volume.headers, volume.geometry, provenance, path)
    return [path]


def test_a_box_beside_another_has_the_numbers_of_the_formula(volume, tmp_path):
    """20 columns each, 2 columns apart: 18 of 20 are shared."""
    theirs = drawn([box(1, "Lung-Left", slice(22, 42))], volume, tmp_path / "rs.dcm")
    ours = [box(1, "Lung~_L", slice(20, 40)), box(2, "Bones", slice(20, 40))]

    result = compare(theirs, ours, volume, tmp_path)

    assert list(result.figures) == ["Lung~_L"]
    found = result.figures["Lung~_L"]
    assert found["theirs"] == "Lung-Left"
    assert found["dice"] == pytest.approx(0.9)
    assert found["hd95_mm"] == 4.0
    assert found["volume_cc"] == found["volume_theirs_cc"] == pytest.approx(10 * 20 * 20 * 0.012)
    # Left edge is 2 px off; of top and bottom 2 px each: (20 + 2 + 2) px of 2 mm on 10 slices,
    # and the right edge.
    assert found["added_path_mm"] == pytest.approx(2.0 * 10 * (18 + 18 + 2 * 2), rel=0.1)
    assert (tmp_path / "comparison-1.png").exists()
    assert result.section.tables[0].rows[0][0] == "Lung~_L"


def test_the_same_contours_agree_wholly(volume, tmp_path):
    theirs = drawn([box(1, "SpinalCanal", slice(20, 40))], volume, tmp_path / "rs.dcm")

    found = compare(theirs, [box(6, "SpinalCanal", slice(20, 40))], volume, tmp_path).figures

    assert found["SpinalCanal"]["dice"] == found["SpinalCanal"]["surface_dice_2mm"] == 1.0
    assert found["SpinalCanal"]["added_path_mm"] == 0.0


def test_without_a_structure_set_nothing_is_compared(volume, tmp_path):
    assert compare((), [box(6, "SpinalCanal", slice(20, 40))], volume, tmp_path).section is None


def test_a_set_without_a_counterpart_or_that_cannot_be_read_is_told_and_holds_nothing(
    volume, tmp_path
):
    theirs = drawn([box(1, "Heart", slice(20, 40))], volume, tmp_path / "rs.dcm")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"x" * 200)
    ours = [box(6, "SpinalCanal", slice(20, 40))]

    for paths, words in ((theirs, "no structure of it"), ([broken], "cannot be read")):
        result = compare(paths, ours, volume, tmp_path)
        assert result.section is None
        assert result.findings[0].code == "not-compared"
        assert words in result.findings[0].message
