"""The vocabulary of routes: every operator, and reasons that quote the configuration alone."""

import pytest

from node.config.match import (
    Contains,
    Equals,
    Exists,
    Kind,
    Match,
    Modality,
    OneOf,
    Range,
    Regex,
)
from node.routing.match import holds, judge
from tests.routing_kit import ORIGIN, slices


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (Equals(equals="HFS"), "HFS", True),
        (Equals(equals="HFS"), "HFS ", True),
        (Equals(equals="HFS"), "hfs", False),
        (Equals(equals=120), "120.0", True),
        (Equals(equals=120), 120.0, True),
        (Equals(equals=120), "much", False),
        (Equals(equals="AXIAL"), ["ORIGINAL", "PRIMARY", "AXIAL"], True),
        (OneOf(one_of=("HFS", "FFS")), "FFS", True),
        (OneOf(one_of=("HFS", "FFS")), None, False),
        (Contains(contains="cbct"), "Daily CBCT pelvis", True),
        (Contains(contains="cbct"), None, False),
        (Regex(regex="^H(&|and)?N"), "H&N 3 mm", True),
        (Regex(regex="N$"), "x" * 300 + "N", False),
        (Range(range=(100, 140)), 120.0, True),
        (Range(range=(100, 140)), "140", True),
        (Range(range=(100, 140)), 141, False),
        (Range(range=(100, 140)), "none", False),
        (Exists(exists=True), "x", True),
        (Exists(exists=True), "  ", False),
        (Exists(exists=True), None, False),
        (Exists(exists=False), None, True),
        (Exists(exists=False), 0, False),
    ],
)
def test_operators(condition, value, expected) -> None:
    assert holds(condition, value) is expected


def test_everything_that_is_given_must_hold_and_the_reason_says_what_did() -> None:
    match = Match(
        kind=(Kind.CT,),
        calling_ae_title=("CTSIM1",),
        keywords={"SeriesDescription": Contains(contains="H&N")},
    )

    assert judge(match, Kind.CT, ORIGIN, slices([0], SeriesDescription="h&n plan")) == (
        True,
        "kind is CT, calling AE title is CTSIM1, SeriesDescription contains 'H&N'",
    )


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        (Match(kind=(Kind.CBCT,)), "the kind is not CBCT"),
        (Match(modality=(Modality.MR, Modality.PT)), "the modality is not MR or PT"),
        (Match(calling_ae_title=("LINAC1",)), "the calling AE title is not LINAC1"),
        (Match(called_ae_title=("SHADOW",)), "the called AE title is not SHADOW"),
        (
            Match(keywords={"SeriesDescription": Contains(contains="H&N")}),
            "not so: SeriesDescription contains 'H&N'",
        ),
    ],
)
def test_the_first_condition_that_fails_is_the_reason(match, reason) -> None:
    canary = slices([0], SeriesDescription="CANARY^NAME")

    assert judge(match, Kind.CT, ORIGIN, canary) == (False, reason)


def test_a_keyword_must_hold_on_every_object_of_the_series() -> None:
    match = Match(keywords={"PatientPosition": Equals(equals="HFS")})
    mixed = slices([0], PatientPosition="HFS") + slices([3], PatientPosition="FFS")

    assert judge(match, Kind.CT, ORIGIN, mixed) == (
        False,
        "not so: PatientPosition is 'HFS' (1 of 2 objects)",
    )
