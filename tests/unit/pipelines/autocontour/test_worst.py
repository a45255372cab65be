"""The page shows first where a contour changes most, and what has a finding."""

import numpy as np

from pipelines.autocontour.worst import SHOWN, worst_slices
from pipelines.report.figures import Overlay, Scan, axial_planes


def tower(jump: int, width: int = 4) -> np.ndarray:
    """Return a square column that is wider on one slice."""
    field = np.zeros((10, 20, 20), np.float32)
    field[2:8, 8:12, 8:12] = 1.0
    field[jump, 8 - width : 12 + width, 8:12] = 1.0
    return field


def test_the_slice_with_the_largest_change_is_found():
    (place,) = worst_slices({"A": tower(5)}, ())

    assert place.slice in (5, 6)
    assert place.change == round((12 - 4) / 12, 3)


def test_structures_with_findings_come_first_and_the_page_is_bounded():
    fields = {f"S{n}": tower(5, width=n % 5) for n in range(9)}

    places = worst_slices(fields, {"S0"})

    assert places[0].name == "S0"
    assert len(places) == SHOWN
    assert [p.change for p in places[1:]] == sorted((p.change for p in places[1:]), reverse=True)


def test_a_structure_on_one_slice_and_an_empty_one_break_nothing(tmp_path):
    single = np.zeros((10, 20, 20), np.float32)
    single[4, 5:9, 5:9] = 1.0

    places = worst_slices({"one": single, "none": np.zeros_like(single)}, ())

    assert [(p.name, p.slice) for p in places] == [("one", 4)]
    scan = Scan(hu=np.zeros(single.shape), spacing=(2.0, 2.0, 2.0))
    overlays = [Overlay(name="one", mask=single > 0)]
    planes = [(p.slice, p.name) for p in places]
    first = axial_planes(scan, tmp_path / "a.png", planes, overlays=overlays)
    second = axial_planes(scan, tmp_path / "b.png", planes, overlays=overlays)
    assert first.read_bytes() == second.read_bytes()
