"""Texture: hand-counted matrices, degenerate regions, and independence of what must not matter."""

import numpy as np
import pytest
from scipy.ndimage import label

from pipelines.radiomics import texture
from pipelines.radiomics.features import FEATURES
from pipelines.radiomics.texture import Volume, glcm, gldzm, glrlm, glszm, neighborhood


def everything(levels):
    volume = Volume(levels)
    return {
        **glcm(volume)[0], **glrlm(volume)[0], **glszm(volume), **gldzm(volume),
        **neighborhood(volume),
    }  # fmt: skip


@pytest.fixture
def noise():
    rng = np.random.default_rng(5)
    return rng.integers(0, 5, (6, 7, 8))


def test_a_row_of_three_has_the_counted_cooccurrences():
    merged, averaged = glcm(Volume(np.array([[[1, 2, 2]]])))

    # one direction only: pairs 1-2 and 2-2, symmetric: (1,2) 1, (2,1) 1, (2,2) 2
    assert merged["GYBY"] == pytest.approx(0.5)
    assert merged["60VM"] == pytest.approx(1.75)
    assert merged["ACUI"] == pytest.approx(0.5)
    assert averaged == pytest.approx(merged)


def test_runs_of_a_row_are_counted_in_all_directions():
    merged, _ = glrlm(Volume(np.array([[[1, 2, 2]]])))

    # along the row: runs of 1 and 2; across: three runs of 1 in each of 12 directions
    assert merged["9ZK5"] == pytest.approx((2 + 12 * 3) / (3 * 13))


def test_zones_are_26_connected_and_agree_with_labelling(noise):
    level, size = [], []
    for grey in range(1, 5):
        zones, count = label(noise == grey, np.ones((3, 3, 3)))
        level += [grey] * count
        size += np.bincount(zones.ravel())[1:].tolist()
    level, size = np.array(level), np.array(size)

    found = glszm(Volume(noise))

    assert found["P30P"] == pytest.approx(len(size) / np.count_nonzero(noise))
    assert found["48P8"] == pytest.approx(np.mean(size**2.0))
    assert found["J17V"] == pytest.approx(np.mean(size**2.0 * level**2))


def test_neighbors_agree_with_counting_one_by_one(noise):
    padded = np.pad(noise, 1)
    sums, numbers, dependences = {}, {}, []
    for place in np.argwhere(padded):
        block = padded[tuple(slice(p - 1, p + 2) for p in place)].ravel()
        grey = padded[tuple(place)]
        others = np.delete(block, 13)
        others = others[others > 0]
        dependences.append((others == grey).sum() + 1)
        if len(others):
            sums[grey] = sums.get(grey, 0) + abs(grey - others.mean())
            numbers[grey] = numbers.get(grey, 0) + 1
    share = {g: n / sum(numbers.values()) for g, n in numbers.items()}

    found = neighborhood(Volume(noise))

    assert found["QCDE"] == pytest.approx(1 / sum(share[g] * sums[g] for g in sums))
    assert found["IMOQ"] == pytest.approx(np.mean(np.square(dependences, dtype=float)))


def test_position_and_surroundings_do_not_matter(noise):
    inside = np.pad(noise, 1)
    moved = np.pad(inside, ((0, 5), (3, 0), (2, 2)))

    assert everything(moved) == pytest.approx(everything(inside), rel=1e-12)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_order_of_the_axes_does_not_matter(noise, axes):
    assert everything(noise.transpose(axes)) == pytest.approx(everything(noise), rel=1e-10)


def test_many_levels_take_the_sparse_way_to_the_same_numbers(noise, monkeypatch):
    dense = everything(noise)
    monkeypatch.setattr(texture, "DENSE", 0)

    assert everything(noise) == pytest.approx(dense, rel=1e-12)


def test_levels_above_the_range_of_16_bits_are_kept():
    levels = np.array([[[40_000, 1, 40_000]]])

    assert glcm(Volume(levels))[0]["ACUI"] == pytest.approx(39_999**2)


def test_one_level_gives_the_agreed_values():
    found = everything(np.full((3, 3, 3), 2))

    assert found["NI2N"] == found["R8DG"] == 1
    assert found["65HE"] == found["NQ30"] == found["1X9X"] == 0
    assert found["QCDE"] == 1e6


def test_one_voxel_has_no_neighbors_and_so_no_cooccurrence():
    found = everything(np.array([[[3]]]))

    assert not set(texture.GLCM) & set(found)
    assert not set(texture.NGTDM) & set(found)
    assert found["P30P"] == 1
    assert all(np.isfinite(value) for value in found.values())


def test_every_feature_has_a_name_and_a_unit(noise):
    assert set(everything(noise)) <= set(FEATURES)
    assert len(FEATURES) == 174
    assert len({feature.name for feature in FEATURES.values()}) == 174
