"""The procedural patient: sides, anatomy, other days, repeatability."""

import numpy as np
import pytest
from scipy import ndimage

from models.phantom import Day, Phantom, dose, thorax

SHAPE, SPACING = (20, 64, 64), (8.0, 6.5, 6.5)


@pytest.fixture(scope="module")
def patient() -> Phantom:
    return thorax(SHAPE, SPACING, 1)


def _center_mm(phantom: Phantom, name: str) -> np.ndarray:
    """Return the center of mass of a label, patient LPS (x, y, z)."""
    index = np.array(ndimage.center_of_mass(phantom.labels[name]))
    return np.array(phantom.origin) + (index * phantom.spacing)[::-1]


def test_left_is_left_and_head_is_up(patient: Phantom) -> None:
    """LPS: +x left, +y posterior, +z head."""
    assert _center_mm(patient, "Lung_L")[0] > 40
    assert _center_mm(patient, "Lung_R")[0] < -40
    assert _center_mm(patient, "Heart")[0] > 10
    assert _center_mm(patient, "Liver")[0] < -20
    assert _center_mm(patient, "GTV")[0] < -50
    assert _center_mm(patient, "SpinalCord")[1] > _center_mm(patient, "Heart")[1] + 50
    assert _center_mm(patient, "Liver")[2] < _center_mm(patient, "Lung_R")[2] - 40


def test_tissues_read_their_hounsfield_units(patient: Phantom) -> None:
    median = {name: np.median(patient.hu[mask]) for name, mask in patient.labels.items()}

    assert median["Lung_L"] == pytest.approx(-800, abs=40)
    assert median["Liver"] == pytest.approx(58, abs=15)
    assert median["Bones"] > 200
    assert median["GTV"] == pytest.approx(35, abs=25)


def test_volumes_are_those_of_an_adult(patient: Phantom) -> None:
    voxel_ml = np.prod(SPACING) / 1000
    volume = {name: mask.sum() * voxel_ml for name, mask in patient.labels.items()}

    assert 1200 < volume["Lung_L"] < 2500
    assert 10 < volume["GTV"] < 60
    assert 300 < volume["Heart"] < 600


def test_structures_lie_inside_the_body_and_apart(patient: Phantom) -> None:
    labels = patient.labels
    assert not (labels["Lung_L"] & labels["Lung_R"]).any()
    assert not (labels["Lung_R"] & labels["GTV"]).any()
    assert not (labels["Bones"] & labels["SpinalCanal"]).any()
    assert (labels["SpinalCord"] <= labels["SpinalCanal"]).all()
    assert (labels["GTV"] <= labels["External"]).all()


def test_two_grids_show_the_same_patient() -> None:
    """The anatomy is continuous: a coarse grid equals every second voxel of a fine one."""
    fine = thorax((9, 41, 41), (6.0, 5.0, 5.0), 3, noise_hu=0)
    coarse = thorax((5, 21, 21), (12.0, 10.0, 10.0), 3, noise_hu=0)

    for name in ("External", "Lung_R", "Heart", "SpinalCanal"):
        assert np.array_equal(fine.labels[name][::2, ::2, ::2], coarse.labels[name])


def test_the_target_point_is_the_center_of_the_target_on_each_day() -> None:
    for day in (None, Day(shift_mm=(6.0, -4.0, 8.0), seed=4)):
        patient = thorax((24, 40, 40), (3.0, 3.0, 3.0), 2, day=day, center=(-72.0, 6.0, 24.0))

        assert _center_mm(patient, "GTV") == pytest.approx(np.array(patient.target), abs=2.5)


def test_another_day_is_the_same_patient_moved_and_deformed() -> None:
    day = Day(shift_mm=(8.0, -6.0, 10.0), amplitude_mm=2.0, seed=7)
    before, after = thorax(SHAPE, SPACING, 1), thorax(SHAPE, SPACING, 1, day=day)

    moved = _center_mm(after, "Heart") - _center_mm(before, "Heart")

    assert moved == pytest.approx(np.array(day.shift_mm), abs=4.0)
    assert after.labels["Heart"].sum() == pytest.approx(before.labels["Heart"].sum(), rel=0.15)


def test_the_same_seed_gives_the_same_bytes(patient: Phantom) -> None:
    assert thorax(SHAPE, SPACING, 1).hu.tobytes() == patient.hu.tobytes()
    assert thorax(SHAPE, SPACING, 2).hu.tobytes() != patient.hu.tobytes()


def test_the_dose_is_hot_in_the_target_and_falls_off(patient: Phantom) -> None:
    gray = dose(patient, prescription_gy=60.0)

    assert gray[patient.labels["GTV"]].min() > 54
    assert gray.max() < 68
    assert gray[patient.labels["Lung_R"]].mean() > 2 * gray[patient.labels["Lung_L"]].mean()
    assert gray[~patient.labels["External"]].mean() < 0.5


def test_the_dose_is_the_same_on_every_grid() -> None:
    fine = dose(thorax((9, 41, 41), (6.0, 5.0, 5.0), 3))
    coarse = dose(thorax((5, 21, 21), (12.0, 10.0, 10.0), 3))

    assert fine[::2, ::2, ::2] == pytest.approx(coarse, abs=1e-3)
