"""Look-up, histogram match and shading correction on cases whose answer is known."""

import numpy as np
import pytest

from models.phantom import thorax
from pipelines.synthetic_ct.classical import (
    correct_shading,
    match_histogram,
    match_planning_ct,
    tissue_map,
)

PATIENT = thorax((10, 80, 80), (6.0, 4.5, 4.5), 1)
BODY = PATIENT.labels["External"]
TRUTH = PATIENT.hu
Y, X = (np.mgrid[:80, :80] - 39.5) * 4.5
CUPPING = (-150 * np.exp(-(X**2 + Y**2) / 120**2)).astype(np.float32)
"""Shading as scatter makes it: too low in the middle [HU]."""


def _mae(image: np.ndarray, mask: np.ndarray = BODY) -> float:
    return float(np.abs(image - TRUTH)[mask].mean())


def test_a_linear_error_of_two_tissues_is_undone() -> None:
    """Fat -100 and muscle 45 are the anchors; the map between air and muscle is linear."""
    wrong = (0.85 * (TRUTH + 1000) - 1000).astype(np.float32)

    found = tissue_map(wrong, BODY)

    assert found.bimodal
    assert _mae(found.apply(wrong)) < 0.2 * _mae(wrong)
    assert found.fat == pytest.approx(-235, abs=10)
    assert found.muscle == pytest.approx(-112, abs=10)


def test_one_mode_shifts_soft_tissue_and_keeps_air_and_lung() -> None:
    rng = np.random.default_rng(1)
    cbct = np.full(TRUTH.shape, -120, dtype=np.float32) + rng.normal(0, 40, TRUTH.shape)
    cbct[:, :20] = -800

    found = tissue_map(cbct.astype(np.float32), np.ones(TRUTH.shape, dtype=bool))

    mapped = found.apply(np.array([[[-1000.0, -800.0, -120.0]]], dtype=np.float32))
    assert not found.bimodal
    assert mapped[0, 0] == pytest.approx([-1000, -800, 15], abs=5)


@pytest.mark.parametrize("method", ["lut", "histogram"])
def test_maps_are_monotone(method: str) -> None:
    """No method may swap the order of two tissues."""
    wrong = (0.8 * TRUTH - 60).astype(np.float32)
    ramp = np.linspace(-1000, 2000, 601, dtype=np.float32).reshape(1, 1, -1)
    if method == "lut":
        mapped = tissue_map(wrong, BODY).apply(ramp)
    else:
        both = np.concatenate([wrong[BODY], ramp.ravel()]).reshape(1, 1, -1)
        known = np.zeros(both.shape, dtype=bool)
        known[..., : int(BODY.sum())] = True
        mapped = match_histogram(both, known, TRUTH[BODY])[..., int(BODY.sum()) :]

    assert np.all(np.diff(mapped.ravel()) >= -1e-3)


def test_a_monotone_error_is_undone_by_the_histogram() -> None:
    wrong = np.sign(TRUTH) * np.abs(TRUTH) ** 0.98 - 80
    wrong = wrong.astype(np.float32)

    matched = match_histogram(wrong, BODY, TRUTH[BODY])

    assert _mae(matched) < 8


def test_smooth_shading_is_taken_off_by_the_prior() -> None:
    shaded = TRUTH + CUPPING

    corrected = correct_shading(shaded, TRUTH, BODY, PATIENT.spacing)

    soft = BODY & (np.abs(TRUTH) < 150)
    assert _mae(corrected, soft) < 0.35 * _mae(shaded, soft)


def test_shading_is_corrected_in_the_body_alone() -> None:
    corrected = correct_shading(TRUTH + CUPPING, TRUTH, BODY, PATIENT.spacing)

    far = ~BODY & (np.hypot(X, Y) > 200)
    assert np.abs(corrected - TRUTH - CUPPING)[far].max() < 1


def test_today_s_gas_stays_gas_though_the_prior_has_none() -> None:
    today = TRUTH + CUPPING
    gas = np.hypot(X + 20, Y + 10) < 15
    today[:, gas] = -950

    matched = match_planning_ct(today, BODY, TRUTH, BODY, PATIENT.spacing)

    assert np.median(matched[:, gas]) < -850


def test_the_whole_match_beats_the_histogram_alone_where_there_is_shading() -> None:
    shaded = (0.85 * (TRUTH + CUPPING) - 40).astype(np.float32)

    once = match_histogram(shaded, BODY, TRUTH[BODY])
    whole = match_planning_ct(shaded, BODY, TRUTH, BODY, PATIENT.spacing)

    assert _mae(whole) < _mae(once) < _mae(shaded)
