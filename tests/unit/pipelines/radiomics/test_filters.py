"""Image filters: closed-form responses, invariances, reach. Consensus maps: tests/conformance."""

import numpy as np
import pytest

from pipelines.radiomics.filter_settings import (
    Gabor,
    LaplacianOfGaussian,
    Laws,
    Mean,
    Simoncelli,
    Wavelet,
)
from pipelines.radiomics.filters import filtered, quarter_turns, reach_voxels, rotations

RANDOM = np.random.default_rng(3).random((24, 26, 22))
FINITE = [
    Mean(support=5),
    LaplacianOfGaussian(sigma_mm=2.0),
    Laws(kernels="L5E5S5", energy=3),
    Gabor(sigma_mm=1.0, wavelength_mm=3.0, step_pi=0.5),
    Wavelet(family="db3", bands="LHH"),
    Wavelet(family="coif1", bands="HHH", level=2, pooling=None),
]
INVARIANT = [
    Mean(),
    LaplacianOfGaussian(sigma_mm=2.0),
    Laws(kernels="L5E5S5", energy=None),
    Wavelet(family="haar", bands="LHL"),
    Wavelet(family="db2", bands="LLH", level=2),
    Gabor(sigma_mm=2.0, step_pi=0.25),
]


def test_there_are_24_rotations_of_a_cube_and_4_of_a_square():
    turns = {
        tuple(np.transpose(np.arange(27).reshape(3, 3, 3), axes)[
            tuple(slice(None, None, s) for s in signs)].ravel())
        for axes, signs in rotations()
    }  # fmt: skip

    assert len(turns) == len(rotations()) == 24
    assert len(quarter_turns()) == 4


@pytest.mark.parametrize("chosen", FINITE, ids=lambda f: f.label)
def test_a_filter_sees_no_farther_than_its_reach(chosen):
    """Cutting the image there changes nothing inside: so regions may be filtered one by one."""
    voxel, reach = 1.0, reach_voxels(chosen, 1.0)
    image = np.random.default_rng(4).random((2 * reach + 9,) * 3)
    inner = (slice(reach + 3, reach + 5),) * 3

    whole = filtered(image, chosen, voxel)[inner]
    cut = filtered(image[3:-3, 3:-3, 3:-3], chosen, voxel)[(slice(reach, reach + 2),) * 3]

    assert cut == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("chosen", INVARIANT, ids=lambda f: f.label)
def test_a_rotation_invariant_filter_commutes_with_turns_of_the_image(chosen):
    response = filtered(RANDOM, chosen, 1.0)

    for axes in ((0, 1), (1, 2), (0, 2)):
        turned = filtered(np.rot90(RANDOM, axes=axes), chosen, 1.0)
        assert turned == pytest.approx(np.rot90(response, axes=axes), abs=1e-9)


def test_the_laplacian_of_a_wave_is_the_wave_times_its_eigenvalue():
    """LoG of cos(k x) is -k^2 exp(-k^2 sigma^2 / 2) cos(k x)."""
    x = np.arange(64)
    wave = np.cos(2 * np.pi * x / 16)[None, None] + np.zeros((8, 8, 1))
    k, sigma = 2 * np.pi / 16, 2.0

    found = filtered(wave, LaplacianOfGaussian(sigma_mm=4.0, cutoff=6.0, boundary="periodic"), 2.0)

    assert found == pytest.approx(-(k**2) * np.exp(-(k**2) * sigma**2 / 2) * wave, abs=1e-6)


def test_the_bands_of_a_wavelet_hold_all_energy_of_the_image():
    """A filter bank without decimation of unit-norm kernels is a tight frame of bound 2^3."""
    for family in ("haar", "db2", "db3", "coif1"):
        energy = 0.0
        for bands in ("LLL", "LLH", "LHL", "HLL", "LHH", "HLH", "HHL", "HHH"):
            chosen = Wavelet(family=family, bands=bands, pooling=None, boundary="periodic")
            energy += float((filtered(RANDOM, chosen, 1.0) ** 2).sum())
        assert energy == pytest.approx(8 * float((RANDOM**2).sum()))


def test_high_bands_do_not_see_what_their_wavelet_cannot():
    """Daubechies 2 has two vanishing moments: a ramp leaves nothing."""
    ramp = np.arange(30.0)[None, None] + np.zeros((6, 6, 1))

    found = filtered(ramp, Wavelet(family="db2", bands="HLL", pooling=None), 1.0)

    assert np.abs(found[:, :, 6:-6]).max() < 1e-12


def test_gabor_answers_to_the_wave_of_its_length_and_direction():
    x = np.arange(48)
    across = np.cos(2 * np.pi * x / 6)[None, None] + np.zeros((4, 48, 1))
    along = np.cos(2 * np.pi * x / 6)[None, :, None] + np.zeros((4, 1, 48))
    chosen = Gabor(sigma_mm=4.0, wavelength_mm=6.0, aspect=1.0, step_pi=None, planes="axial",
                   boundary="periodic")  # fmt: skip

    seen, unseen = (filtered(image, chosen, 1.0) for image in (across, along))

    # half the integral of the bell: the other half of the cosine runs the other way
    assert seen[:, 24, 24] == pytest.approx(np.pi * 4**2, rel=1e-3)
    assert unseen[:, 24, 24].max() < 1e-3 * seen[:, 24, 24].min()


def test_riesz_turns_a_cosine_into_a_sine_along_its_axis_only():
    x = np.arange(64)
    angle = 2 * np.pi * x / 4
    wave = np.cos(angle)[None, None] + np.zeros((16, 16, 1))

    plain = filtered(wave, Simoncelli(), 1.0)
    turned = filtered(wave, Simoncelli(riesz=(1, 0, 0)), 1.0)
    aside = filtered(wave, Simoncelli(riesz=(0, 1, 0)), 1.0)

    gain = plain[0, 0, 0]
    assert gain > 0.9
    assert turned[0, 0] == pytest.approx(gain * np.sin(angle), abs=0.02)
    assert np.abs(aside).max() < 1e-9


def test_riesz_of_one_order_share_the_energy_of_the_band():
    """The weights make the components of an order a partition of one."""
    orders = [(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1)]
    image = np.random.default_rng(5).random((21, 21, 21))

    parts = sum((filtered(image, Simoncelli(riesz=o), 1.0) ** 2).sum() for o in orders)

    assert parts == pytest.approx((filtered(image, Simoncelli(), 1.0) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_a_band_keeps_no_mean_whatever_its_level(level):
    assert np.abs(filtered(np.full((16, 16, 16), 7.0), Simoncelli(level=level), 1.0)).max() < 1e-9


def test_a_label_names_what_changes_the_response_most():
    labels = [f.label for f in (*FINITE, Mean(dimensions=2), Simoncelli(riesz=(1, 0, 2)))]

    assert labels == [
        "mean 5", "LoG 2 mm", "Laws L5E5S5 max energy 3", "Gabor 1/3/1.5 inv", "db3 LHH 1 avg",
        "coif1 HHH 2", "mean 5 2D", "Simoncelli 1 Riesz 102",
    ]  # fmt: skip
