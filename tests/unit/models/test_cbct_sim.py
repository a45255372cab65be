"""The CBCT simulator against closed forms: flatness, linearity, place, geometry, noise."""

from dataclasses import replace

import numpy as np
import pytest

from models.cbct_sim import (
    CbctSettings,
    Fan,
    ideal,
    random_settings,
    simulate,
    wide_settings,
)
from models.phantom import thorax

SIZE, PIXEL = 96, 4.0
SPACING = (5.0, PIXEL, PIXEL)
Y, X = (np.mgrid[:SIZE, :SIZE].astype(np.float32) - (SIZE - 1) / 2) * PIXEL
FANS = pytest.mark.parametrize("fan", list(Fan), ids=[f.value for f in Fan])


def _disc(x: float, y: float, radius: float) -> np.ndarray:
    """Return the filled fraction of each pixel by a disc [mm]."""
    return np.clip(0.5 - (np.hypot(X - x, Y - y) - radius) / PIXEL, 0, 1).astype(np.float32)


def _cylinder(radius: float = 110.0) -> np.ndarray:
    return (-1000 + 1000 * _disc(0, 0, radius))[None].astype(np.float32)


def _clean(fan: Fan = Fan.HALF, **changes: object) -> CbctSettings:
    return replace(ideal(CbctSettings(fan=fan, views=180, hann_cut=1.0)), **changes)


@FANS
def test_a_water_cylinder_is_flat_within_5_hu(fan: Fan) -> None:
    image = simulate(_cylinder(), SPACING, _clean(fan), 0)[0]

    rings = [
        image[(np.hypot(X, Y) >= r) & (np.hypot(X, Y) < r + 12)].mean() for r in range(0, 96, 12)
    ]
    assert np.abs(rings).max() < 5


def test_without_linearization_the_cylinder_cups() -> None:
    image = simulate(_cylinder(140), SPACING, _clean(hardening_corrected=0.0), 0)[0]

    assert image[np.hypot(X, Y) < 20].mean() < image[np.abs(np.hypot(X, Y) - 120) < 8].mean() - 10


@FANS
@pytest.mark.parametrize("hu", [250, 500, 800, 1100, 1400])
def test_inserts_come_back_within_6_percent(fan: Fan, hu: int) -> None:
    truth = _cylinder() + hu * _disc(30, -50, 20)[None]

    image = simulate(truth, SPACING, _clean(fan), 0)[0]

    assert image[np.hypot(X - 30, Y + 50) < 10].mean() == pytest.approx(hu, rel=0.06)


@FANS
def test_a_point_comes_back_where_it_was(fan: Fan) -> None:
    truth = _cylinder() + 800 * _disc(56, -32, 6)[None]

    image = simulate(truth, SPACING, _clean(fan), 0)[0]

    near = np.where(np.hypot(X - 56, Y + 32) < 20, np.maximum(image - 60, 0), 0)
    assert (near * X).sum() / near.sum() == pytest.approx(56, abs=PIXEL / 2)
    assert (near * Y).sum() / near.sum() == pytest.approx(-32, abs=PIXEL / 2)


def test_half_fan_equals_full_fan_in_the_common_field_of_view() -> None:
    truth = (-1000 + 1000 * _disc(15, -20, 85) + 300 * _disc(40, -30, 18))[None].astype(np.float32)

    full = simulate(truth, SPACING, _clean(Fan.FULL, views=360, hann_cut=0.6), 0)[0]
    half = simulate(truth, SPACING, _clean(Fan.HALF, views=360, hann_cut=0.6), 0)[0]

    common = np.hypot(X, Y) < CbctSettings(fan=Fan.FULL).fov_radius_mm - 10
    edge = np.abs(np.hypot(X - 15, Y + 20) - 85) < 8  # sampled differently by the two arcs
    assert np.abs(full - half)[common & ~edge].max() < 10


def test_an_isocenter_off_the_middle_moves_the_field_of_view_not_the_patient() -> None:
    truth = _cylinder(60)

    moved = simulate(truth, SPACING, _clean(Fan.FULL, isocenter_mm=(24.0, -32.0)), 0)[0]

    assert moved[np.hypot(X, Y) < 50].mean() == pytest.approx(0, abs=5)
    assert moved[np.hypot(X + 32, Y - 24) > 140].max() == -1000


def test_noise_falls_with_the_root_of_the_photons() -> None:
    middle = np.hypot(X, Y) < 70
    spread = [
        simulate(_cylinder(), SPACING, _clean(photons=n, electronic=0.0), 5)[0][middle].std()
        for n in (2e4, 8e4)
    ]

    assert spread[0] / spread[1] == pytest.approx(2.0, rel=0.1)


def test_more_scatter_reads_lower() -> None:
    inside = np.hypot(X, Y) < 100
    means = [
        simulate(_cylinder(), SPACING, _clean(scatter=k, scatter_corrected=0.5), 0)[0][
            inside
        ].mean()
        for k in (0.0, 0.05, 0.1, 0.2)
    ]

    assert np.all(np.diff(means) < 0)


def test_the_seed_fixes_every_byte() -> None:
    settings = CbctSettings(views=60)

    first, second = (simulate(_cylinder(), SPACING, settings, 3) for _ in range(2))

    assert first.tobytes() == second.tobytes()
    assert simulate(_cylinder(), SPACING, settings, 4).tobytes() != first.tobytes()


def test_a_patient_becomes_a_plausible_cbct() -> None:
    """Raw error 50-150 HU; fat and muscle become one mode at the default strength."""
    patient = thorax((6, 96, 96), (5.0, 4.0, 4.0), 1)

    image = simulate(patient.hu, patient.spacing, CbctSettings(views=180), 1)

    body = patient.labels["External"]
    assert 50 < np.abs(image - patient.hu)[body].mean() < 150


def test_random_settings_repeat_and_stay_in_their_ranges() -> None:
    drawn = [random_settings(seed) for seed in range(40)]

    assert random_settings(7) == drawn[7]
    assert {s.fan for s in drawn} == set(Fan)
    assert all(0.03 <= s.scatter <= 0.25 and abs(s.hu_shift) <= 150 for s in drawn)


def test_glare_brightens_the_middle_of_a_half_fan_that_a_constant_corrects() -> None:
    """The displaced panel sees less open beam on its short side: opposite rays disagree there."""
    truth, radius = _cylinder(70), np.hypot(X, Y)
    setup = {"glare": 0.04, "view_corrected": 0.25, "hann_cut": 0.8}

    blob = {
        fan: (image[radius < 12].mean() - image[(radius > 40) & (radius < 55)].mean())
        for fan in Fan
        for image in [simulate(truth, SPACING, _clean(fan, **setup), 0)[0]]
    }

    assert blob[Fan.HALF] > blob[Fan.FULL] + 10


def test_a_veil_reads_lower_and_a_constant_correction_higher() -> None:
    inside = np.hypot(X, Y) < 60
    plain, veiled, mended = (
        simulate(_cylinder(), SPACING, _clean(**changes), 0)[0][inside].mean()
        for changes in ({}, {"veil": 0.003}, {"veil": 0.003, "view_corrected": 0.2})
    )

    assert veiled < plain - 5
    assert mended > veiled + 5


def test_a_bow_tie_takes_photons_and_no_signal() -> None:
    rim = np.abs(np.hypot(X, Y) - 95) < 8
    flat, filtered = (
        simulate(_cylinder(), SPACING, _clean(photons=1e5, electronic=0.0, bow_tie=b), 5)[0][rim]
        for b in (0.0, 0.9)
    )

    assert filtered.std() > 1.15 * flat.std()
    assert filtered.mean() == pytest.approx(flat.mean(), abs=3)


def test_wide_settings_keep_what_was_drawn_and_repeat() -> None:
    drawn = [wide_settings(seed) for seed in range(60)]

    assert wide_settings(7) == drawn[7]
    assert all(s.hu_shift == random_settings(n).hu_shift for n, s in enumerate(drawn))
    assert 15 < sum(s.glare > 0 for s in drawn) < 45
    assert {s.scatter_corrected == 0 for s in drawn if s.view_corrected > 0} == {True}
    assert all(abs(sum(s.energy_weights) - 1) < 1e-9 for s in drawn)


def test_oblong_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="square pixels"):
        simulate(_cylinder(), (5.0, 4.0, 3.0), _clean(), 0)
