"""The demo's second opinion is right where the truth is known in closed form."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from demo import readback
from demo.grid import Grid
from demo.push import Sent
from demo.rt import Roi, rtstruct
from tests import factories

GRID = Grid(shape=(1, 20, 20), spacing=(3.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low, 0], [high, low, 0], [high, high, 0], [low, high, 0]], float)


def test_a_hole_inside_a_shell_is_not_part_of_the_structure() -> None:
    ct = factories.ct_series(grid=GRID)
    roi = Roi(name="ring", rings=(square(1.5, 10.5), square(3.5, 5.5)))

    found = readback.mask(rtstruct(factories.CASE, ct, [roi]), "ring", GRID)

    assert found.sum() == 9 * 9 - 2 * 2
    assert not found[0, 4, 4]


def test_a_contour_outside_the_grid_adds_nothing() -> None:
    ct = factories.ct_series(grid=GRID)
    above = np.add(square(1.5, 4.5), (0, 0, 30))

    found = readback.mask(rtstruct(factories.CASE, ct, [Roi(name="a", rings=(above,))]), "a", GRID)

    assert not found.any()


def test_dice_of_two_halves() -> None:
    left, both = np.array([True, False]), np.array([True, True])

    assert readback.dice(left, both) == pytest.approx(2 / 3)
    assert readback.dice(~both, ~both) == 1


def test_slices_are_sorted_by_position_whatever_their_order_and_names(tmp_path) -> None:
    series = factories.ct_series()
    paths = factories.save(reversed(series), tmp_path)

    (slices,) = readback.read(paths).images.values()

    assert [s.SOPInstanceUID for s in slices] == [s.SOPInstanceUID for s in series]


def coded(value: str, **more: object) -> Dataset:
    ds = Dataset()
    name = Dataset()
    name.CodeValue, name.CodeMeaning = value, value
    ds.ConceptNameCodeSequence = Items([name])
    for keyword, element in more.items():
        setattr(ds, keyword, element)
    return ds


def test_numbers_are_found_by_region_with_code_derivation_and_unit() -> None:
    unit, derived = Dataset(), Dataset()
    unit.CodeValue, derived.CodeValue = "Gy", readback.MEAN
    value = Dataset()
    value.NumericValue, value.MeasurementUnitsCodeSequence = "12.5", Items([unit])
    derivation = coded("121401", ValueType="CODE", ConceptCodeSequence=Items([derived]))
    number = coded(
        "128513", ValueType="NUM", MeasuredValueSequence=Items([value]),
        ContentSequence=Items([derivation]),
    )  # fmt: skip
    tracking = coded("112039", ValueType="TEXT", TextValue="Lung_L")
    group = coded("125007", ValueType="CONTAINER", ContentSequence=Items([tracking, number]))
    middle = coded("126010", ValueType="CONTAINER", ContentSequence=Items([group]))
    report = Dataset()
    report.ContentSequence = Items([middle])

    (found,) = readback.measurements(report)["Lung_L"]

    assert (found.code, found.derivation, found.value, found.unit) == (
        "128513", readback.MEAN, 12.5, "Gy",
    )  # fmt: skip


def test_what_came_back_is_timed_from_the_last_response(tmp_path) -> None:
    structures = factories.rtstruct()
    received = readback.Received(structure_sets=[structures])
    sent = [Sent(path=tmp_path, sop_instance="1", status=0, at=t) for t in (1.0, 4.0)]

    rows = readback.came_back(received, {str(structures.SOPInstanceUID): 6.5}, sent)

    assert rows == [("RTSTRUCT", 1, "2.5 s")]
