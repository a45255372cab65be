"""Learned organs are held against other patients: gross failures are told, good ones not."""

import numpy as np
import pytest

from benchmarks.organ_checks import moved, with_gap
from pipelines.autocontour.anatomy import (
    LEAST_PARTNERS,
    PLACE,
    Shape,
    relations,
    shape_of,
    unusual,
    usual,
)
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import work_image

SPACING = (3.0, 3.0, 3.0)
SHAPE = (64, 64, 64)
KNOWN = usual()["head and neck"]
SIZES = {
    "Brainstem": (8, 5, 5),
    "Parotid_L": (7, 7, 5),
    "Parotid_R": (7, 7, 5),
    "Larynx": (5, 5, 5),
}
"""Half axes of ellipsoids [voxels]."""


def image(**directions):
    """Return a volume of muscle."""
    place = StackGeometry.regular(shape=SHAPE, spacing=SPACING, origin=(0, 0, 0), **directions)
    return work_image(np.full(SHAPE, 40, np.int16), place, 3.0)


def head():
    """Return ellipsoids that lie to each other as the organs of an average patient do."""
    index = np.indices(SHAPE, sparse=True)
    base = np.array([40.0, 32.0, 32.0])
    masks = {}
    for name, radii in SIZES.items():
        way = np.zeros(3)
        if name != "Brainstem":
            way = np.array(KNOWN.places[name]["Brainstem"][0][::-1]) / SPACING
        square = sum(((i - c) / r) ** 2
                     for i, c, r in zip(index, base + way, radii, strict=True))  # fmt: skip
        masks[name] = square <= 1
    return masks


def told(masks, name, seen=None, **given):
    seen = seen or image()
    shapes = {n: shape_of(n, m, seen) for n, m in masks.items()}
    return {f.code: f for f in unusual(name, shapes, KNOWN, **given)}


@pytest.mark.parametrize("name", SIZES)
def test_an_organ_of_usual_shape_in_its_usual_place_is_not_told(name):
    assert told(head(), name).keys() <= {"roi-unusual-mean"}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shifted_organ_is_told_and_its_neighbors_are_not(axis):
    masks = head()
    masks["Brainstem"] = moved(masks["Brainstem"], axis, 12)

    assert "roi-unusual-place" in told(masks, "Brainstem")
    assert "roi-unusual-place" not in told(masks, "Parotid_L")


def test_swapped_parotids_are_told_on_both_sides():
    masks = head()
    masks["Parotid_L"], masks["Parotid_R"] = masks["Parotid_R"], masks["Parotid_L"]

    for name in ("Parotid_L", "Parotid_R"):
        assert "roi-unusual-place" in told(masks, name)


def test_missing_slices_and_an_organ_of_the_wrong_size_are_told_with_the_usual_range():
    masks = head()

    assert "roi-unusual-gap" in told(masks | {"Larynx": with_gap(masks["Larynx"])}, "Larynx")
    assert "roi-unusual-place" in told(masks | {"Parotid_L": masks["Larynx"]}, "Parotid_L")
    finding = told(masks | {"Brainstem": np.ones(SHAPE, bool)}, "Brainstem")["roi-unusual-volume"]
    assert finding.value > finding.limit
    assert "usual:" in finding.message


def test_an_organ_that_the_image_cuts_may_be_small_and_elsewhere():
    masks = head()
    masks["Brainstem"] = moved(masks["Brainstem"], 0, 22)

    assert told(masks, "Brainstem", cut=True).keys() <= {"roi-unusual-mean"}
    assert "roi-unusual-place" in told(masks, "Brainstem")


def test_traits_do_not_depend_on_how_the_series_lies():
    """The same patient scanned feet first is measured alike: LPS counts, not the index."""
    turned = {"row_direction": (-1.0, 0.0, 0.0), "column_direction": (0.0, 1.0, 0.0)}
    masks = head()

    here = shape_of("Parotid_L", masks["Parotid_L"], image())
    there = shape_of("Parotid_L", masks["Parotid_L"][::-1, :, ::-1], image(**turned))

    assert there.traits == pytest.approx(here.traits)


def test_a_place_is_not_judged_by_a_single_other_organ():
    shapes = {
        n: Shape(traits={"volume_ml": 1.0}, anchor=np.zeros(3)) for n in ("Brainstem", "Larynx")
    }

    assert LEAST_PARTNERS == 2
    assert PLACE not in relations("Larynx", shapes, KNOWN)
