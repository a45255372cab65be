"""What is no CT of the right region, with Hounsfield units, is refused or held."""

import dataclasses

import numpy as np
import pytest

from benchmarks.contour_checks import scan, spoiled_outlines
from models.phantom import thorax
from models.phantom_sites import patient
from pipelines.api import InputRejected, Severity
from pipelines.autocontour.body import find_body
from pipelines.autocontour.gate import check_contrast, check_headers, check_values
from pipelines.autocontour.outline import doubts
from pipelines.autocontour.pipeline import find_all, with_learned
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import work_image
from pipelines.imaging.region import Region, check_region, regions
from tests import factories
from tests.unit.pipelines.autocontour.test_learned import manifest

SHAPE, SPACING = (50, 72, 96), (4.0, 4.0, 4.0)
SITES = {"head": Region.HEAD_NECK, "abdomen": Region.ABDOMEN, "pelvis": Region.PELVIS}


def geometry(**directions):
    return StackGeometry.regular(
        shape=SHAPE, spacing=SPACING, origin=(-190.0, -140.0, -100.0), **directions
    )


def volume(hu):
    return CtVolume(
        hu=hu.astype(np.float32), padded=None, geometry=geometry(), headers=(),
        frame_of_reference_uid="1",
    )  # fmt: skip


def seen(hu, **directions):
    image = work_image(hu, geometry(**directions), 4.0)
    return regions(image, find_body(image))


@pytest.fixture(scope="module")
def chest():
    return thorax(SHAPE, SPACING, 5, center=(0.0, 0.0, 20.0)).hu


@pytest.mark.parametrize("site", SITES)
def test_a_region_is_recognized(site):
    found = seen(patient(site, SHAPE, SPACING, 11))

    assert max(found, key=found.get) is SITES[site]


def test_a_thorax_is_recognized_and_has_no_head(chest):
    found = seen(chest)

    assert max(found, key=found.get) is Region.THORAX
    assert Region.HEAD_NECK not in found


def test_the_region_does_not_depend_on_the_order_of_the_slices():
    """Head and feet come from the orientation: flipped slices of a flipped stack are the same."""
    hu = patient("head", SHAPE, SPACING, 11)

    upright = seen(hu)
    turned = seen(hu[::-1, ::-1], column_direction=(0.0, -1.0, 0.0))

    assert turned == upright


@pytest.mark.parametrize(
    ("found", "severity"),
    [
        ({Region.HEAD_NECK: 200.0}, None),
        ({Region.HEAD_NECK: 30.0, Region.THORAX: 60.0}, Severity.WARN),
        ({Region.HEAD_NECK: 30.0, Region.THORAX: 200.0}, Severity.BLOCK),
        ({}, Severity.WARN),
    ],
    ids=["right", "unsure", "wrong", "nothing"],
)
def test_a_model_of_another_region_is_held_where_the_region_is_sure(found, severity):
    told = manifest().model_copy(update={"body_region": "head and neck"})

    finding = check_region(told, found)

    assert (finding and finding.severity) == severity
    assert check_region(manifest().model_copy(update={"body_region": "any"}), found) is None


def test_a_network_is_not_even_asked_about_another_region(chest):
    told = manifest(Larynx=(5, 20)).model_copy(update={"body_region": "head and neck"})
    found = find_all(work_image(chest, geometry(), 4.0), [])

    answer = with_learned(found, told, [lambda _: pytest.fail("asked")], {"Larynx"})

    assert [(f.code, f.severity) for f in answer.findings] == [
        ("wrong-body-region", Severity.BLOCK)
    ]
    assert answer.surfaces == {}


def test_good_values_pass(chest):
    image = work_image(chest, geometry(), 4.0)

    check_contrast(image)
    check_values(image, find_body(image), volume(chest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu * 2, "air around the body reads -19"),
        (lambda hu: hu / 2, "air around the body reads -49"),
        (lambda hu: hu + 300, "not Hounsfield units"),
        (lambda hu: np.exp(hu / 500) * 300 - 900, "not Hounsfield units"),
    ],
    ids=["doubled", "halved", "shifted", "curved"],
)
def test_another_scale_is_refused(change, words, chest):
    hu = change(chest)
    image = work_image(hu, geometry(), 4.0)

    with pytest.raises(InputRejected, match=words):
        check_values(image, find_body(image), volume(hu))


@pytest.mark.parametrize("change", [lambda hu: -hu, lambda hu: 1000 - hu], ids=["sign", "inverse"])
def test_reversed_contrast_is_refused(change, chest):
    with pytest.raises(InputRejected, match="dark and bright are reversed"):
        check_contrast(work_image(change(chest), geometry(), 4.0))


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ManufacturerModelName", "OBI Cone-beam CT", "cone-beam"),
        ("ImageType", ["DERIVED", "SECONDARY", "MIP"], "projection"),
    ],
    ids=["cbct", "mip"],
)
def test_headers_that_say_it_is_no_planning_ct_are_believed(keyword, value, words, tmp_path):
    paths = []
    for k, ds in enumerate(factories.ct_series()):
        setattr(ds, keyword, value)
        paths.append(tmp_path / f"{k}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)

    with pytest.raises(InputRejected, match=words):
        check_headers(read_volume(paths))


def test_a_wrong_outline_of_the_body_is_told_and_a_right_one_is_not():
    image = scan(9)
    body = find_body(image)

    assert doubts(image, body) == ()
    codes = {kind: {f.code for f in doubts(image, o)} for kind, o in spoiled_outlines(body)}
    assert codes["couch taken in"] == {"body-with-couch"}
    assert codes["lower half missing"] == {"body-incomplete"}
    assert all(codes.values())


def test_a_headless_image_has_no_region():
    empty = np.full(SHAPE, -1000.0, np.float32)
    image = work_image(empty, geometry(), 4.0)

    assert regions(image, np.zeros(SHAPE, np.bool_)) == {}
    assert dataclasses.replace(image).hu is image.hu
