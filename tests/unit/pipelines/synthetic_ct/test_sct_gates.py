"""Path length, noise spectrum, local agreement: closed-form truths."""

import numpy as np
import pytest
from scipy import ndimage

from pipelines.imaging.nps import SIDE_PX, flat_squares, spectrum
from pipelines.synthetic_ct.agreement import (
    bone_ratio,
    coarse,
    local_correlation,
    low_frequency_p99,
)
from pipelines.synthetic_ct.wepl import RAYS, path_difference, path_lengths

SPACING = (3.0, 2.0, 2.0)
ROWS, COLUMNS = np.mgrid[:100, :120]
DISC = np.hypot(ROWS - 50, COLUMNS - 60) * 2.0 < 80
BODY = np.broadcast_to(DISC, (4, 100, 120))


def _water(hu: float = 0.0) -> np.ndarray:
    return np.where(BODY, hu, -1000.0).astype(np.float32)


def test_the_path_through_water_is_its_thickness():
    lengths = path_lengths(_water(), BODY, SPACING)

    assert lengths.shape == (4, RAYS)
    assert lengths == pytest.approx(80, abs=2.5)


@pytest.mark.parametrize(("hu", "factor"), [(500, 1.275), (-500, 0.5), (1000, 1.55)])
def test_the_path_scales_with_the_stopping_power(hu: float, factor: float):
    ratio = path_lengths(_water(hu), BODY, SPACING) / path_lengths(_water(), BODY, SPACING)

    assert ratio == pytest.approx(factor, rel=1e-4)


def test_the_worst_beam_is_named_with_its_sign():
    other = _water()
    other[2, 49:52, 80:90] = -1000.0  # 20 mm of air to the patient's left

    found = path_difference(other, _water(), BODY, SPACING)

    assert found.worst_slice == 2
    assert found.worst_angle_deg == 0
    assert found.worst_mm == pytest.approx(-20, abs=2)
    assert found.p95_mm == 0


def test_the_integral_of_white_noise_is_its_variance():
    """Within 2 % of the SD that was put in; the second-order surface takes 6 of 256 degrees."""
    noisy = np.random.default_rng(1).normal(0, 20, (30, 200, 200)).astype(np.float32)
    corners = np.array([(k, i, j) for k in range(30) for i in (0, 64, 128) for j in (0, 100)])

    found = spectrum(noisy, corners, (1.5, 1.5))

    assert found is not None
    assert found.variance == pytest.approx(400 * (1 - 6 / SIDE_PX**2), rel=0.02)


def test_smoothing_takes_high_frequencies():
    noisy = np.random.default_rng(1).normal(0, 20, (6, 100, 120)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noisy, (0, 1, 1))
    corners = flat_squares(noisy, np.ones(noisy.shape, np.bool_))

    before, after = (spectrum(a, corners, (2.0, 2.0)) for a in (noisy, smooth))

    assert before is not None
    assert after is not None
    assert after.variance < 0.3 * before.variance
    assert after.mean_frequency < 0.7 * before.mean_frequency
    frequencies, power = after.radial
    assert frequencies[-1] == pytest.approx(0.25)
    assert power[-1] < 0.1 * power[0]


def test_flat_squares_lie_in_flat_soft_tissue():
    image = _water(40) + np.random.default_rng(1).normal(0, 5, BODY.shape).astype(np.float32)
    image[:, :, 60:] += np.where(ROWS % 8 < 4, 120, 0)[:, 60:]  # structure on one side

    corners = flat_squares(image, BODY)

    assert len(corners) > 4
    assert (corners[:, 2] < 60 - SIDE_PX / 2).all()


def test_too_few_squares_give_no_spectrum():
    assert spectrum(_water(), np.zeros((2, 3), np.int64), (1.0, 1.0)) is None


def _textured() -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 1, BODY.shape), (1, 4, 4))
    return np.where(BODY, 40 + 100 * noise / noise.std(), -1000).astype(np.float32)


def test_other_texture_does_not_correlate_and_another_scale_does():
    image = _textured()

    same = local_correlation(coarse(np.where(BODY, 0.7 * image + 20, -1000), image, BODY, SPACING))
    other = local_correlation(coarse(np.where(BODY, -image, -1000), image, BODY, SPACING))

    assert same > 0.95
    assert other < 0


def test_a_shifted_region_is_a_low_frequency_difference():
    shifted = _textured()
    shifted[:, :, 60:] += 90
    pair = coarse(np.where(BODY, shifted, -1000), _textured(), BODY, SPACING)

    assert low_frequency_p99(pair) == pytest.approx(90, abs=8)


def test_bone_is_compared_above_soft_tissue_and_shading_is_not_bone():
    bone = _water(45)
    bone[:, 35:65, 40:46] = 845
    weak = _water(45)
    weak[:, 35:65, 40:46] = 445
    shaded = np.where(BODY, weak - 60, -1000).astype(np.float32)

    full = bone_ratio(coarse(bone, bone, BODY, SPACING))
    half = bone_ratio(coarse(weak, bone, BODY, SPACING))
    raised = bone_ratio(coarse(weak, shaded, BODY, SPACING))

    assert full == pytest.approx(1, abs=0.01)
    assert half == pytest.approx(0.5, abs=0.05)
    assert raised == pytest.approx(1, abs=0.15)
    assert bone_ratio(coarse(_water(45), _water(45), BODY, SPACING)) is None
