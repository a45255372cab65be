"""Shape, local intensity, resampling and the recipe on regions that are known exactly."""

import numpy as np
import pytest
from scipy.special import eval_legendre

from pipelines.dicom.rtdose import read_dose
from pipelines.dose_radiomics.recipe import method, region_features
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import Name, parse
from pipelines.radiomics.contours import box_solid
from pipelines.radiomics.engine import BinSize, features
from pipelines.radiomics.ivh import ivh
from pipelines.radiomics.mesh import surface
from pipelines.radiomics.morphology import (
    autocorrelation,
    ellipsoid_area,
    morphology,
)
from pipelines.radiomics.resample import aligned, trilinear
from pipelines.radiomics.stats import local_intensity, statistics
from tests.unit.pipelines.dose_radiomics.support import dose, linear_z, save


def ball(radius, spacing=1.0):
    n = int(radius / spacing) + 2
    z, y, x = np.mgrid[-n : n + 1, -n : n + 1, -n : n + 1] * spacing
    return z**2 + y**2 + x**2 <= radius**2


def test_one_voxel_is_an_octahedron():
    found = surface(np.ones((1, 1, 1), bool), (2.0, 2.0, 2.0))

    assert found.volume_mm3 == pytest.approx(8 / 6)
    assert found.area_mm2 == pytest.approx(4 * np.sqrt(3))


def test_the_surface_is_closed_wherever_it_lies():
    rng = np.random.default_rng(2)
    mask = rng.random((6, 6, 6)) > 0.5

    here = surface(mask, (1.0, 2.0, 3.0))
    there = surface(np.pad(mask, ((7, 0), (3, 1), (0, 5))), (1.0, 2.0, 3.0))

    assert there.volume_mm3 == pytest.approx(here.volume_mm3, rel=1e-12)
    assert there.area_mm2 == pytest.approx(here.area_mm2, rel=1e-12)


def test_a_ball_has_the_volume_and_axes_of_a_ball():
    mask = ball(15)

    found = morphology(mask, np.ones(mask.shape), mask, (1.0, 1.0, 1.0))

    assert found["RNU0"] == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.01)
    assert found["TDIC"] == pytest.approx(4 * 15 / np.sqrt(5), rel=0.01)
    assert found["L0JK"] == pytest.approx(30, rel=0.05)
    assert found["KLMA"] == pytest.approx(0, abs=1e-9)
    assert found["R3ER"] == pytest.approx(1, abs=0.06)


def test_ellipsoid_series_is_that_of_the_manual():
    alpha, beta = np.sqrt(1 - 4 / 9), np.sqrt(1 - 1 / 9)
    v = np.arange(21)
    legendre = eval_legendre(v, (alpha**2 + beta**2) / (2 * alpha * beta))
    series = 4 * np.pi * 6 * np.sum((alpha * beta) ** v / (1 - 4 * v**2) * legendre)

    assert ellipsoid_area(3.0, 2.0, 1.0) == pytest.approx(series)
    assert ellipsoid_area(2.0, 2.0, 2.0) == pytest.approx(16 * np.pi)
    assert ellipsoid_area(2.0, 2.0, 1.9) == pytest.approx(
        ellipsoid_area(2.0, 2.0 - 1e-9, 1.9), rel=1e-8
    )


def test_autocorrelation_agrees_with_all_pairs():
    rng = np.random.default_rng(3)
    values = rng.random((4, 5, 3))
    mask = rng.random((4, 5, 3)) > 0.3
    spacing = (2.0, 1.0, 1.5)
    places, x = np.argwhere(mask) * spacing, values[mask]
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    weight = np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)
    off = x - x.mean()
    n, total, power = len(x), weight.sum(), np.sum(off**2)

    found = autocorrelation(values, mask, spacing)

    assert found["N365"] == pytest.approx(n / total * off @ weight @ off / power)
    geary = (n - 1) / (2 * total) * np.sum(weight * (x[:, None] - x[None]) ** 2) / power
    assert found["NPT7"] == pytest.approx(geary)


def test_local_peak_is_the_mean_of_a_sphere_also_at_the_edge_of_the_image():
    rng = np.random.default_rng(4)
    image = rng.random((6, 9, 9))
    mask = np.ones(image.shape, bool)
    spacing = (2.0, 2.0, 2.0)
    places = np.argwhere(mask) * 2.0
    near = np.linalg.norm(places[:, None] - places[None], axis=2) <= 6.204
    means = near @ image.ravel() / near.sum(axis=1)

    found = local_intensity(image, mask, spacing)

    assert found["VJGA"] == pytest.approx(means[image.argmax()])
    assert found["0F91"] == pytest.approx(means.max())


def test_local_peak_counts_voxels_outside_the_region():
    image = np.zeros((20, 20, 20))
    image[10, 10, 10] = 1
    mask = np.zeros(image.shape, bool)
    mask[9:12, 9:12, 9:12] = True

    assert local_intensity(image, mask, (2.0,) * 3)["VJGA"] == pytest.approx(1 / 123)


def test_statistics_of_a_constant_are_finite():
    assert all(np.isfinite(v) for v in statistics(np.full(5, 3.0)).values())
    assert ivh(*BinSize(width=0.01).volume_histogram(np.full(5, 3.0))) == {}


def test_resampled_centres_are_aligned_and_cover_the_old_voxels():
    assert aligned(np.arange(5) * 3.0, 2.0) == pytest.approx(-1 + 2 * np.arange(8.0))
    assert aligned(np.arange(10) * 2.0, 2.0) == pytest.approx(2 * np.arange(10.0))


def test_trilinear_reproduces_a_linear_field_on_uneven_samples():
    z, y, x = np.array([0.0, 1, 4, 6]), np.arange(5) * 2.0, np.arange(4) * 3.0
    field = z[:, None, None] + 2 * y[:, None] + 3 * x
    at = (np.linspace(0, 6, 7), np.linspace(1, 7, 5), np.linspace(0, 9, 6))

    found = trilinear(field, (z, y, x), at)

    assert found == pytest.approx(at[0][:, None, None] + 2 * at[1][:, None] + 3 * at[2])


@pytest.fixture
def grid(tmp_path):
    return read_dose(save(dose(linear_z, step=(2.0, 2.5, 2.5)), tmp_path / "rd.dcm"))


def cube(expression="cube"):
    # dose axes count from the first sample: 8..24 mm along the planes are z = -12..4 mm
    made = box_solid(np.array([8.0, 20.0, 20.0]), np.array([24.0, 40.0, 44.0]))
    return Region(node=parse(expression), solids={Name("cube"): (made,)}, prescription=25.0)


def test_levels_are_anchored_at_zero_dose(grid):
    found = region_features(cube(), grid, None, DoseRadiomicsSettings())

    assert found.values["Q4LE"] == pytest.approx(25 - 4, abs=0.01)
    assert found.values["1PR8"] == np.floor(found.values["1GSF"] + 1e-9) + 1
    assert found.voxels == pytest.approx(16 * 20 * 24 / 8, rel=0.15)


def test_dose_bands_cut_the_region_also_in_percent(grid):
    settings = DoseRadiomicsSettings()

    upper = region_features(cube("cube & D>=20Gy"), grid, None, settings)
    relative = region_features(cube("cube & D>=80%"), grid, None, settings)

    assert upper.values["1GSF"] >= 20
    assert relative.values == upper.values


def test_a_small_region_gives_a_reason_and_no_values(grid):
    found = region_features(cube(), grid, None, DoseRadiomicsSettings(min_voxels=5000))

    assert not found.values
    assert "fewer than 5000" in found.reason


def test_only_the_families_that_are_asked_for_are_computed():
    image = np.random.default_rng(1).random((6, 6, 6)) * 10
    mask = np.ones(image.shape, bool)

    settings = DoseRadiomicsSettings(families=("ivh",))
    found = features(image, mask, mask, (2.0,) * 3, method(settings))

    assert len(found.merged) == 7
    assert found.averaged == {}
