"""Smallest box and ellipsoid: points whose answer is known, and densities of masks."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from pipelines.radiomics.enclosing import ENCLOSING, enclosing, smallest_box, smallest_ellipsoid
from pipelines.radiomics.morphology import MORPHOLOGY, morphology

TURNS = [Rotation.from_euler("zyx", angles) for angles in ((0, 0, 0), (0.3, 0.7, -0.4), (1, 2, 3))]


@pytest.mark.parametrize("turn", TURNS, ids=["straight", "turned", "turned-more"])
def test_the_smallest_box_about_a_box_is_the_box(turn):
    corners = np.array([[x, y, z] for x in (0, 3) for y in (0, 5) for z in (0, 11)], float)
    points = turn.apply(corners)

    found = smallest_box(points, ConvexHull(points).equations[:, :3])

    assert sorted(found) == pytest.approx([3, 5, 11])


@pytest.mark.parametrize("turn", TURNS, ids=["straight", "turned", "turned-more"])
def test_the_smallest_ellipsoid_about_an_ellipsoid_is_the_ellipsoid(turn):
    steps = np.arange(2000) + 0.5
    polar, around = np.arccos(1 - 2 * steps / 2000), np.pi * (1 + 5**0.5) * steps
    sphere = np.stack(
        [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1
    )

    found = smallest_ellipsoid(turn.apply(sphere * [4, 7, 9]) + 2.0)

    assert found == pytest.approx((4, 7, 9), rel=2e-3)


def test_the_smallest_ellipsoid_about_a_box_touches_its_corners():
    """Semi-axes are half the edges times the root of 3 (John's ellipsoid of a box)."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-2, 2) for z in (-5, 5)], float)

    assert smallest_ellipsoid(corners) == pytest.approx(np.array([1, 2, 5]) * 3**0.5, rel=1e-5)


def test_densities_of_a_box_are_those_of_its_mesh():
    mask = np.ones((6, 8, 10), bool)
    spacing = (2.0, 1.5, 1.0)

    found = enclosing(mask, spacing)
    shape = morphology(mask, np.ones(mask.shape), mask, spacing)

    assert tuple(found) == ENCLOSING
    assert found["ZH1A"] == pytest.approx(shape["PBX1"])
    assert found["IQYR"] == pytest.approx(shape["R59B"])
    assert not set(ENCLOSING) & set(MORPHOLOGY)


def test_an_oblique_slab_fills_its_own_box_but_not_that_of_the_axes():
    """A slab of 6 x 20 x 30 mm turned by 35 degrees about the last axis."""
    grid = np.stack(np.meshgrid(*(np.arange(-20, 21),) * 3, indexing="ij"), axis=-1)
    turned = Rotation.from_euler("z", 35, degrees=True).apply(grid.reshape(-1, 3))
    mask = np.all(np.abs(turned) < [3, 10, 15], axis=1).reshape(grid.shape[:3])

    found = enclosing(mask, (1.0,) * 3)
    shape = morphology(mask, np.ones(mask.shape), mask, (1.0,) * 3)

    assert shape["PBX1"] < 0.6
    assert found["ZH1A"] == pytest.approx(1, abs=0.16)


def test_an_ellipsoid_fills_its_smallest_ellipsoid():
    grid = np.stack(np.meshgrid(*(np.arange(-20, 21),) * 3, indexing="ij"), axis=-1)
    mask = ((grid / [17.5, 11.5, 13.5]) ** 2).sum(axis=-1) < 1

    found = enclosing(mask, (1.0,) * 3)

    assert 0.9 < found["SWZ1"] < 1
    assert found["BRI8"] == pytest.approx(1.02, abs=0.06)
    assert found["ZH1A"] == pytest.approx(np.pi / 6, rel=0.05)
