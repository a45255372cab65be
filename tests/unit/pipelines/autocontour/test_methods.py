"""The classical methods on shapes and on the procedural patient, whose truth is known."""

import numpy as np
import pytest

from models.phantom import thorax
from pipelines.autocontour import morphology
from pipelines.autocontour.body import find_body
from pipelines.autocontour.bones import find_hard
from pipelines.autocontour.canal import find_canal
from pipelines.autocontour.checks import check, check_pair
from pipelines.autocontour.lungs import find_lungs
from pipelines.autocontour.names import TABLE, Organ, written_name
from pipelines.autocontour.pipeline import find_all
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import work_image

SPACING = (3.0, 3.0, 3.0)
SHAPE = (72, 96, 128)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def patient():
    return thorax(SHAPE, SPACING, 1, center=(0.0, 0.0, 20.0))


@pytest.fixture(scope="module")
def coarse_patient():
    return thorax((54, 72, 96), (4.0, 4.0, 4.0), 1, center=(0.0, 0.0, 20.0))


@pytest.fixture(scope="module")
def found(patient):
    geometry = StackGeometry.regular(shape=SHAPE, spacing=SPACING, origin=patient.origin)
    return find_all(work_image(patient.hu, geometry, 2.0), list(Organ))


def on_grid(found, organ, shape=SHAPE):
    values, corner = found.image.fine(found.surfaces[organ])
    mask = np.zeros(shape, np.bool_)
    mask[tuple(slice(a, a + n) for a, n in zip(corner, values.shape, strict=True))] = values > 0.5
    return mask


@pytest.mark.parametrize(
    ("organ", "least"),
    [
        (Organ.EXTERNAL, 0.985),
        (Organ.LUNG_L, 0.96),
        (Organ.LUNG_R, 0.96),
        (Organ.BONES, 0.85),
        (Organ.SPINAL_CANAL, 0.85),
    ],
)
def test_each_structure_of_the_procedural_patient_is_found(organ, least, patient, found):
    assert dice(on_grid(found, organ), patient.labels[organ.value]) >= least


def test_nothing_of_the_couch_is_body(patient, found):
    back = np.flatnonzero(patient.labels["External"].any(axis=(0, 2)))[-1]

    assert (patient.hu[:, back + 3 :] > -400).any()
    assert not on_grid(found, Organ.EXTERNAL)[:, back + 3 :].any()


def test_the_airway_and_the_dome_of_the_liver_are_no_lung(patient, found):
    lungs = on_grid(found, Organ.LUNGS)

    assert np.count_nonzero(lungs & patient.labels["Trachea"]) == 0
    assert np.count_nonzero(lungs & patient.labels["Liver"]) < 0.02 * patient.labels["Liver"].sum()


def test_air_is_the_airway_and_gas_and_nothing_of_the_lungs(patient, found):
    air = on_grid(found, Organ.AIR)
    trachea = patient.labels["Trachea"] & (patient.hu < -800)

    assert np.count_nonzero(air & trachea) > 0.9 * np.count_nonzero(trachea)
    assert not (air & on_grid(found, Organ.LUNGS)).any()
    assert (patient.hu[air] < -300).mean() > 0.95


def test_the_lungs_are_the_sum_of_left_and_right(found):
    left, right = on_grid(found, Organ.LUNG_L), on_grid(found, Organ.LUNG_R)

    assert not (left & right).any()
    assert dice(left | right, on_grid(found, Organ.LUNGS)) > 0.999


@pytest.mark.parametrize("turns", [0, 1, 2, 3], ids=["HFS", "HFDR", "HFP", "HFDL"])
@pytest.mark.parametrize("feet_first", [False, True], ids=["head-first", "feet-first"])
def test_left_is_the_patients_left_in_every_position(turns, feet_first, coarse_patient):
    """The array is turned and its directions with it: the patient does not change."""
    row, column = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    hu, left = coarse_patient.hu, coarse_patient.labels["Lung_L"]
    if feet_first:  # seen from the other side: columns and slices run the other way
        hu, left, row = hu[::-1, :, ::-1], left[::-1, :, ::-1], -row
    for _ in range(turns):
        hu, left = np.rot90(hu, axes=(1, 2)), np.rot90(left, axes=(1, 2))
        row, column = column, -row
    geometry = StackGeometry.regular(
        shape=hu.shape,
        spacing=(4.0, 4.0, 4.0),
        row_direction=tuple(row),
        column_direction=tuple(column),
    )

    found = find_all(work_image(hu, geometry, 4.0), [Organ.LUNG_L, Organ.SPINAL_CANAL])

    assert dice(on_grid(found, Organ.LUNG_L, hu.shape), left) > 0.95
    assert Organ.SPINAL_CANAL in found.surfaces


def test_lungs_that_cannot_be_told_apart_are_written_as_one():
    """One air space from side to side: no midline is guessed."""
    hu = np.full((30, 60, 80), -1000.0, np.float32)
    hu[:, 8:52, 8:72] = 30
    hu[4:26, 16:44, 16:64] = -800 + np.random.default_rng(0).normal(0, 60, (22, 28, 48))
    geometry = StackGeometry.regular(shape=hu.shape, spacing=(4.0, 4.0, 4.0))
    image = work_image(hu, geometry, 4.0)

    lungs = find_lungs(image, find_body(image))

    assert lungs is not None
    assert lungs.left is None
    assert "could not be parted" in lungs.reason


def test_gas_without_vessels_is_no_lung():
    hu = np.full((30, 60, 80), -1000.0, np.float32)
    hu[:, 8:52, 8:72] = 30
    hu[4:26, 16:44, 16:64] = -995
    image = work_image(hu, StackGeometry.regular(shape=hu.shape, spacing=(4.0, 4.0, 4.0)), 4.0)

    assert find_lungs(image, find_body(image)) is None


def test_a_body_without_a_spine_has_no_canal():
    hu = np.full((30, 60, 80), -1000.0, np.float32)
    hu[:, 8:52, 8:72] = 30
    hu[:, 12:16, 40:44] = 600
    image = work_image(hu, StackGeometry.regular(shape=hu.shape, spacing=(4.0, 4.0, 4.0)), 4.0)
    body = find_body(image)

    canal = find_canal(image, body, find_hard(image, body))

    assert canal.mask is None
    assert "bone surrounds" in canal.reason


@pytest.mark.parametrize("pad_hu", [-150.0, -700.0], ids=["carbon", "foam"])
def test_a_couch_in_contact_with_the_patient_is_removed(pad_hu):
    yy, xx = np.mgrid[:100, :120]
    patient = ((yy - 45) / 30.0) ** 2 + ((xx - 60) / 45.0) ** 2 <= 1
    patient[70:, :] = False  # a flat back
    plane = np.where(patient, 40.0, -1000.0).astype(np.float32)
    plane[70:72, 5:115] = pad_hu
    hu = np.repeat(plane[None], 30, axis=0)
    image = work_image(hu, StackGeometry.regular(shape=hu.shape, spacing=(3.0, 3.0, 3.0)), 3.0)

    body = find_body(image)

    assert dice(body, np.repeat(patient[None], 30, axis=0)) >= 0.985


def test_a_work_image_averages_whole_blocks_and_knows_where_they_lie():
    hu = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    geometry = StackGeometry.regular(shape=hu.shape, spacing=(3.0, 1.0, 1.0))

    image = work_image(hu, geometry, 2.0)

    assert image.hu.shape == (2, 2, 3)
    assert image.spacing == (3.0, 2.0, 2.0)
    assert image.hu[0, 0].tolist() == [3.0, 5.0, 6.5]
    assert image.centers[2].tolist() == [0.5, 2.5, 4.0]


def test_a_linear_field_comes_back_linear_on_the_fine_grid():
    geometry = StackGeometry.regular(shape=(4, 12, 12), spacing=(3.0, 1.0, 1.0))
    image = work_image(np.zeros((4, 12, 12)), geometry, 3.0)
    coarse = np.broadcast_to(image.centers[2].astype(np.float32), image.hu.shape)

    values, corner = image.fine(coarse)

    assert corner == (0, 0, 0)
    np.testing.assert_allclose(values[0, 0, 1:11], np.arange(1, 11), atol=1e-6)


def test_holes_are_filled_up_to_a_size_and_never_to_the_edge():
    mask = np.ones((1, 20, 20), np.bool_)
    mask[0, 3:5, 3:5] = False
    mask[0, 8:14, 8:14] = False
    mask[0, 0:3, 17] = False

    filled = morphology.fill_slices(mask, (1.0, 10.0, 10.0), largest_cm2=5.0)

    assert filled[0, 3:5, 3:5].all()
    assert not filled[0, 8:14, 8:14].any()
    assert not filled[0, 0:3, 17].any()


def test_operations_work_in_millimeters_on_flat_voxels():
    mask = np.zeros((9, 21, 21), np.bool_)
    mask[4, 10, 10] = True

    grown = morphology.dilate(mask, 5.0, (5.0, 1.0, 1.0))

    assert grown.any(axis=(1, 2)).sum() == 3
    assert grown.any(axis=(0, 1)).sum() == 11
    assert morphology.erode(grown, 4.9, (5.0, 1.0, 1.0))[4, 10, 10]


@pytest.mark.parametrize(
    ("organ", "cut", "name"),
    [
        (Organ.LUNG_L, True, "Lung~_L"),
        (Organ.LUNGS, True, "Lungs~"),
        (Organ.LUNG_R, False, "Lung_R"),
        (Organ.SPINAL_CANAL, True, "SpinalCanal"),
    ],
)
def test_a_cut_organ_is_named_as_a_part(organ, cut, name):
    assert written_name(organ, cut=cut) == name


def test_all_names_fit_every_planning_system():
    names = [written_name(o, cut=c) for o in TABLE for c in (True, False)]

    assert max(map(len, names)) <= 16
    assert len({n.casefold() for n in names}) == len(set(names))
    assert len({e.number for e in TABLE.values()}) == len(TABLE) == len(Organ)


def plausibility(volume_voxels, *, first_slice=2):
    image = work_image(
        np.zeros((40, 60, 60)),
        StackGeometry.regular(shape=(40, 60, 60), spacing=(3.0, 3.0, 3.0)),
        3.0,
    )
    surface = np.zeros((40, 60, 60), np.float32)
    side = round((volume_voxels / 20) ** 0.5)
    surface[first_slice : first_slice + 20, 5 : 5 + side, 5 : 5 + side] = 1
    return surface, image, np.ones(surface.shape, np.bool_)


def test_an_implausible_volume_leaves_the_structure_out():
    verdict = check(Organ.LUNG_L, *plausibility(100))

    assert not verdict.write
    assert verdict.findings[0].code == "roi-implausible-volume"
    assert verdict.findings[0].roi == "Lung_L"


def test_an_organ_in_the_first_image_is_cut_and_flagged():
    verdict = check(Organ.LUNG_L, *plausibility(20_000, first_slice=0))

    assert verdict.write
    assert verdict.cut
    assert verdict.remark.startswith("WARN: Lung_L reaches the end of the image")


def test_a_whole_plausible_organ_passes():
    verdict = check(Organ.LUNG_L, *plausibility(20_000))

    assert not verdict.cut
    assert verdict.remark.startswith("PASS")


def test_a_lung_much_larger_than_the_other_is_flagged():
    large, image, _ = plausibility(40_000)
    small, _, _ = plausibility(8_000)

    assert check_pair(large, small, image)[0].code == "lungs-unequal"
    assert check_pair(large, large, image) == ()
