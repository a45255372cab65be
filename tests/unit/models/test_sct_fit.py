"""Traits of a scanner in its images, and the simulator's settings back from them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from models.cbct_sim import Fan, random_settings
from models.training.sct_data import phantom
from models.training.sct_fit import (
    PARAMETERS,
    SiteScanner,
    fit_site,
    library,
    read_site,
    scanned_traits,
)
from models.training.sct_pairs import training_pair
from models.training.sct_traits import UNITS, traits

SPACING = (3.0, 2.0, 2.0)
_, ROWS, COLUMNS = np.mgrid[:4, :110, :120]
RADIUS = np.hypot(ROWS - 55, COLUMNS - 60) * 2.0
BODY, FOV = RADIUS < 80, RADIUS < 108
GRID = (5.0, 5.0)
"""(slice, pixel) of the small library, mm."""


def _disc(*, noise: float = 0.0, level: float = 40.0, seed: int = 1) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, noise, BODY.shape) if noise else 0.0
    return (np.where(BODY, level, -985.0) + grain).astype(np.float32)


def _found(hu: np.ndarray) -> dict[str, float]:
    return traits(hu, BODY, FOV, SPACING)


def test_white_noise_is_read_with_its_sd_and_no_slope():
    found = _found(_disc(noise=25))

    assert np.exp(found["noise_log"]) == pytest.approx(25, rel=0.03)
    assert found["grain_log"] == pytest.approx(0, abs=0.03)
    assert found["between_slices_log"] == pytest.approx(0, abs=0.03)


def test_smooth_grain_and_blurred_slices_show():
    noisy = _disc(noise=40)
    grainy = ndimage.gaussian_filter(noisy - _disc(), (0, 0.8, 0.8)) + _disc()
    blurred = ndimage.gaussian_filter(noisy - _disc(), (0.8, 0, 0)) + _disc()

    assert _found(grainy)["grain_log"] > 0.4
    assert _found(blurred)["between_slices_log"] < -0.3


def test_cupping_and_levels_are_in_hu():
    cup = np.where(BODY, -60 * (1 - (RADIUS / 80) ** 2), 0)

    found = _found((_disc(noise=5) + cup).astype(np.float32))

    assert found["cupping_hu"] == pytest.approx(-47, abs=8)
    assert 4 < found["shading_hu"] < 20  # a cup of 60 HU, blurred by 20 mm
    assert found["air_hu"] == pytest.approx(-985, abs=2)
    assert found["middle_hu"] == pytest.approx(40 - 30, abs=8)


def test_a_blurred_skin_is_wider():
    sharp, soft = (_found(ndimage.gaussian_filter(_disc(), (0, s, s)).astype(np.float32))
                   for s in (0.5, 2.0))  # fmt: skip

    assert soft["skin_mm"] > 1.5 * sharp["skin_mm"]


def test_an_image_without_depth_is_refused():
    with pytest.raises(ValueError, match="no tissue"):
        traits(_disc(), RADIUS < 6, FOV, SPACING)


@pytest.fixture(scope="module")
def regression():
    return library("pelvis", Fan.HALF, GRID, 36)


def _scan(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the traits of a scan that the library has not seen, and its settings."""
    settings = replace(random_settings(seed), fan=Fan.HALF)
    found = scanned_traits("pelvis", settings, GRID, seed)
    return found, {name: p.of(settings) for name, p in PARAMETERS.items()}


@pytest.fixture(scope="module")
def fresh():
    return [_scan(910_000 + k) for k in range(8)]


TOLERANCE = {
    "photons_log10": 0.55,
    "hann_cut": 0.15,
    "scatter_left": 0.06,
    "hu_gain": 0.07,
    "hu_shift": 60.0,
}
"""Root mean square error on 5 mm pixels from 36 simulated images; finer pixels tell more."""


@pytest.mark.parametrize("name", TOLERANCE)
def test_what_was_put_into_the_simulator_comes_back(name, regression, fresh):
    off = [regression.read(found)[name] - settings[name] for found, settings in fresh]

    assert float(np.sqrt(np.mean(np.square(off)))) < TOLERANCE[name]


def test_the_ranges_of_a_site_hold_its_scanner_and_say_how_sure_they_are(
    regression, fresh, tmp_path
):
    """One scanner, four patients."""
    settings = replace(random_settings(77), fan=Fan.HALF)
    images = [(scanned_traits("pelvis", settings, GRID, 920_000 + k), GRID[1]) for k in range(4)]

    site = fit_site(images, regression, "pelvis", Fan.HALF)
    (tmp_path / "site.json").write_text(site.model_dump_json())

    low, high = site.ranges["hann_cut"]
    assert low - 0.1 <= settings.hann_cut <= high + 0.1
    assert all(p.limits[0] <= site.ranges[n][0] < site.ranges[n][1] <= p.limits[1]
               for n, p in PARAMETERS.items())  # fmt: skip
    assert site.uncertainty["hardening_left"] > 0.15  # not told from scatter, and said so
    assert set(site.found) == set(UNITS)
    assert read_site(tmp_path / "site.json") == site


def test_pairs_are_drawn_around_the_site():
    fixed = {name: (p.limits[0], p.limits[0] + 1e-6) for name, p in PARAMETERS.items()}
    site = SiteScanner(
        images=1,
        region="pelvis",
        fan=Fan.FULL,
        pixel_mm=(6.0, 6.2),
        found={},
        ranges=fixed | {"hu_shift": (90.0, 90.1), "photons_log10": (5.9, 6.0)},
        uncertainty={},
    )
    ct = phantom("pelvis", 1, pixel_mm=9.0, slice_mm=6.0, slices=6)
    random = np.random.default_rng(1)

    drawn = site.settings(1, random)
    pair = training_pair(ct, 7, site)

    assert drawn.fan is Fan.FULL
    assert drawn.hu_shift == pytest.approx(90, abs=0.2)
    assert np.log10(drawn.photons) == pytest.approx(5.95, abs=0.06)
    assert 6.0 <= pair.spacing[2] <= 6.2


def test_no_cbct_no_site(regression):
    with pytest.raises(ValueError, match="no CBCT"):
        fit_site([], regression, "pelvis", Fan.HALF)


def test_another_file_is_no_site(tmp_path):
    (tmp_path / "a.json").write_text('{"images": 3}')

    with pytest.raises(ValueError, match="validation error"):
        read_site(tmp_path / "a.json")
