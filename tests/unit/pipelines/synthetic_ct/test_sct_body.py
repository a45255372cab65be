"""Body, couch and field of view of a CBCT."""

import numpy as np
import pytest

from models.phantom import thorax
from pipelines.imaging.body import body_mask, field_of_view, find_regions

PATIENT = thorax((8, 96, 96), (6.0, 4.0, 4.0), 1)
SPACING = PATIENT.spacing
Y, X = (np.mgrid[:96, :96] - 47.5) * 4.0


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_body_is_found_with_its_lungs_and_without_the_couch() -> None:
    found = body_mask(PATIENT.hu, SPACING)

    assert _overlap(found, PATIENT.labels["External"]) > 0.98
    assert (found & PATIENT.labels["Lung_L"]).sum() > 0.99 * PATIENT.labels["Lung_L"].sum()
    assert not found[:, 85:].any()


def test_fine_pixels_are_as_good_as_coarse_ones() -> None:
    """Below 2.6 mm the search is thinned out; the skin must not become coarse."""
    fine = thorax((3, 300, 300), (6.0, 1.3, 1.3), 1)

    found = body_mask(fine.hu, fine.spacing)

    assert _overlap(found, fine.labels["External"]) > 0.985
    assert found[fine.labels["Lung_R"]].mean() > 0.99


def test_the_field_of_view_is_what_the_scanner_filled() -> None:
    inside = np.hypot(X, Y) < 150
    image = np.where(inside, PATIENT.hu, -1000).astype(np.float32)

    seen = field_of_view(image, SPACING)

    assert _overlap(seen, np.broadcast_to(inside, seen.shape)) > 0.98


def test_the_stated_diameter_and_padding_limit_the_field_of_view() -> None:
    padded = np.zeros(PATIENT.hu.shape, dtype=bool)
    padded[:, :20] = True

    seen = field_of_view(PATIENT.hu, SPACING, padded=padded, diameter_mm=300.0)

    assert not seen[:, :20].any()
    assert not seen[:, np.hypot(X, Y) > 152].any()
    assert seen[:, np.hypot(X, Y) < 50].all()


def test_a_whole_image_has_no_truncation() -> None:
    assert find_regions(PATIENT.hu, SPACING).truncated_cm3 == 0


def test_a_cut_body_is_reported_and_its_open_lung_belongs_to_it() -> None:
    inside = np.hypot(X, Y) < 120
    image = np.where(inside, PATIENT.hu, -1000).astype(np.float32)

    regions = find_regions(image, SPACING)

    lung = PATIENT.labels["Lung_L"] & regions.fov
    assert regions.truncated_cm3 > 5
    assert (regions.body & lung).sum() > 0.97 * lung.sum()


@pytest.mark.parametrize("value", [-1000.0, 0.0], ids=["air", "water"])
def test_an_even_image_does_not_break_the_search(value: float) -> None:
    flat = np.full((5, 40, 40), value, dtype=np.float32)

    assert find_regions(flat, (3.0, 3.0, 3.0)).body.any() == (value == 0)
