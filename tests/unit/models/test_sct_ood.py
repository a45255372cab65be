"""Unlike the training images: other modality, scale, voxels, metal; like them: another patient."""

import numpy as np
import pytest

from models.phantom_sites import SITES, patient
from models.sct_ood import features, fit, likeness
from models.training.sct_pairs import body_of

SHAPE, SPACING = (8, 60, 72), (5.0, 6.0, 6.0)


def _image(seed: int, noise: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    hu = patient("pelvis", SHAPE, SPACING, seed, noise_hu=noise)
    shift = np.random.default_rng(seed).uniform(-60, 60)
    body = body_of(hu)
    return np.where(hu > -900, hu + shift, hu).astype(np.float32), body


@pytest.fixture(scope="module")
def familiar():
    rows = [features(*_image(seed, 15 + seed), SPACING) for seed in range(40)]
    return fit(rows)


def _distance(familiar, hu, body, spacing=SPACING):
    return likeness(features(hu.astype(np.float32), body, spacing), familiar)


def test_another_patient_is_familiar(familiar):
    found = [_distance(familiar, *_image(seed)) for seed in range(100, 110)]

    assert sum(f.distance > familiar.warn for f in found) <= 1
    assert all(f.distance <= familiar.refuse for f in found)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda hu: hu + 1024, "quantile"),
        (lambda hu: np.abs(hu) * 0.8, "quantile"),
        (lambda hu: np.where(hu > 600, 3000, hu), "metal"),
        (lambda hu: hu + np.random.default_rng(1).normal(0, 900, hu.shape), ""),
    ],
    ids=["HU+1024", "MR-like", "metal", "noise"],
)
def test_other_images_are_refused_and_the_reason_is_named(familiar, change, name):
    hu, body = _image(200)

    found = _distance(familiar, change(hu), body)

    assert found.distance > familiar.refuse
    assert name in " ".join(found.largest)


def test_voxels_of_twice_the_size_are_noticed(familiar):
    hu, body = _image(201)

    found = _distance(familiar, hu, body, (10.0, 12.0, 12.0))

    assert found.distance > familiar.refuse


@pytest.mark.parametrize("site", SITES)
def test_procedural_sites_repeat_and_hold_all_tissues(site):
    one, again = (patient(site, SHAPE, SPACING, 3) for _ in range(2))

    assert one.tobytes() == again.tobytes()
    assert (one > 400).any()
    assert (np.abs(one - 40) < 30).sum() > 500
    assert not np.array_equal(one, patient(site, SHAPE, SPACING, 4))
