"""MAE, ME, PSNR and SSIM against closed forms."""

import numpy as np
import pytest

from pipelines.synthetic_ct.metrics import errors, ssim

SHAPE = (12, 16, 16)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[2:10, 3:13, 3:13] = True


def test_a_constant_offset_is_mae_me_and_psnr() -> None:
    """PSNR = 20 log10(4024 / offset)."""
    truth = np.zeros(SHAPE, dtype=np.float32)

    found = errors(truth - 40, truth, MASK)

    assert found.mae == pytest.approx(40)
    assert found.me == pytest.approx(-40)
    assert found.p95 == pytest.approx(40)
    assert found.psnr_db == pytest.approx(20 * np.log10(4024 / 40))


def test_only_the_mask_counts_and_tissues_are_told_apart() -> None:
    truth = np.full(SHAPE, 40, dtype=np.float32)
    truth[:, :8], truth[:, 8] = 1000, -800
    prediction = truth.copy()
    prediction[:, :8] += 100
    prediction[~MASK] = 3000

    found = errors(prediction, truth, MASK)

    assert found.bone_mae == pytest.approx(100)
    assert found.soft_mae == 0
    assert found.air_mae == 0
    assert found.mae == pytest.approx(50)


def test_an_image_is_like_itself_and_less_like_noise() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 200, SHAPE).astype(np.float32)

    assert ssim(truth, truth, MASK) == pytest.approx(1)
    assert ssim(rng.normal(0, 200, SHAPE).astype(np.float32), truth, MASK) < 0.9


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="not empty"):
        errors(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool))
