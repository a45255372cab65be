"""Expressions over ROIs: grammar, names, algebra."""

import numpy as np
import pytest

from pipelines.dicom.rtstruct import Roi
from pipelines.dose_radiomics.rois import find, fractions, possible
from pipelines.geometry.expressions import (
    Both,
    Either,
    ExpressionError,
    Name,
    Not,
    names,
    parse,
    uses_dose,
)


def roi(number, name, kind="ORGAN"):
    return Roi(number=number, name=name, interpreted_type=kind, codes=(), loops=())


def hits(name, *found):
    return [r.name for r in find(Name(name), [roi(n, f) for n, f in enumerate(found)])]


def test_minus_between_spaces_subtracts_and_inside_a_name_does_not():
    assert parse("Lungs - GTV-1") == Both(Name("Lungs"), Not(Name("GTV-1")))
    assert parse("Lung-Left") == Name("Lung-Left")


def test_and_binds_tighter_than_or_and_parentheses_tighter_still():
    a, b, c = Name("A"), Name("B"), Name("C")

    assert parse("A | B & C") == Either(a, Both(b, c))
    assert parse("(A | B) & C") == Both(Either(a, b), c)
    assert parse("A & not B") == Both(a, Not(b))


@pytest.mark.parametrize("text", ["'Lt Lung'", '"Lt Lung"'])
def test_names_with_spaces_are_quoted(text):
    assert parse(text) == Name("Lt Lung")


def test_names_come_from_left_to_right():
    assert [n.text for n in names(parse("/lung/i - (GTV | PTV) & D>=5Gy"))] == [
        "lung", "GTV", "PTV",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "doses"),
    [
        ("A & D>=20Gy", [20, 30]),
        ("A & D>20Gy", [30]),
        ("A & D<20Gy", [0, 10]),
        ("A & 10Gy<=D<30Gy", [10, 20]),
        ("A & 10Gy<D<=30Gy", [20, 30]),
        ("A & D>=50%", [30]),
        ("A & not D>=20Gy", [0, 10]),
        ("A - D>=20Gy", [0, 10]),
    ],
)
def test_dose_bands_select_cells(text, doses):
    dose = np.array([0.0, 10, 20, 30])

    covered = fractions(parse(text), lambda _: np.ones(4), dose, 60.0)

    assert dose[covered > 0].tolist() == doses
    assert uses_dose(parse(text))


def test_algebra_on_fractions_is_boolean_after_the_threshold():
    one, other = (m.ravel() for m in np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21)))
    leaf = {Name("A"): one, Name("B"): other}.__getitem__
    a, b = one >= 0.5, other >= 0.5

    def solid(text):
        return fractions(parse(text), leaf, one, None) >= 0.5

    assert np.array_equal(solid("A | B"), a | b)
    assert np.array_equal(solid("A & B"), a & b)
    off = other != 0.5  # a tie goes against B
    assert np.array_equal(solid("A - B")[off], (a & ~b)[off])


def test_possible_bounds_what_any_dose_could_leave():
    low, high = possible(parse("A - D>=20Gy"), lambda _: np.array([0.7]))

    assert (low, high[0]) == (0.0, 0.7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected an ROI name"),
        ("A |", "expected an ROI name"),
        ("(A", r"a \( is not closed"),
        ("A B", "expected |, &, - or the end"),
        ("D>=20Gy", "has no bounds"),
        ("not A", "has no bounds"),
        ("A & D", "needs a limit"),
        ("A & 5Gy<=D>=20Gy", "one lower and one upper"),
        ("/(/i", "no regular expression"),
        ("__import__('os')", "expected an ROI name"),
    ],
)
def test_errors_say_what_is_wrong(text, reason):
    with pytest.raises(ExpressionError, match=reason):
        parse(text)


def test_percent_needs_a_prescription():
    with pytest.raises(ExpressionError, match="prescription"):
        fractions(parse("A & D>=50%"), lambda _: np.ones(1), np.ones(1), None)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("Lung_L", ["Lung-Left"], ["Lung-Left"]),
        ("Lung_L", ["Lt Lung"], ["Lt Lung"]),
        ("Lung_L", ["LUNG LEFT", "lung_l"], ["lung_l"]),
        ("Parotid_R", ["RightParotid"], ["RightParotid"]),
        ("SpinalCord", ["Spinal-Cord"], ["Spinal-Cord"]),
        ("Lungs", ["Lung-Left", "Lung-Right", "GTV"], ["Lung-Left", "Lung-Right"]),
        ("Lungs", ["Lungs", "Lung_L", "Lung_R"], ["Lungs"]),
        ("Lungs", ["Lung_L"], []),
        ("External", ["BODY"], ["BODY"]),
        ("GTV", ["GTV-1", "GTVn", "GTV+5mm", "PTV"], ["GTV-1", "GTVn"]),
        ("Heart", ["Hear", "Heart_PRV"], []),
    ],
)
def test_names_resolve_by_spelling_side_and_parts(wanted, found, expected):
    assert hits(wanted, *found) == expected


def test_a_pattern_unites_all_hits():
    rois = [roi(1, "Lung_L"), roi(2, "Lung_R"), roi(3, "Heart")]

    assert [r.number for r in find(Name("^lung", pattern=True), rois)] == [1, 2]
