"""What is a series: vendors, scouts, points, screenshots and our own results."""

import pytest

from node.config.match import DEFAULT_CBCT, Kind
from node.routing.recognize import is_ours, recognize, without_scouts
from tests.routing_kit import OBI, SIEMENS, instance, kind_of, slices


@pytest.mark.parametrize(
    ("maker", "model", "kind"),
    [
        ("Varian Medical Systems", "OBI Cone-beam CT", Kind.CBCT),
        ("Varian Medical Systems", "SIMULATED OBI Cone-beam CT", Kind.CBCT),
        ("Varian Medical Systems", "On-Board Imager", Kind.CBCT),
        ("ELEKTA", "XVI", Kind.CBCT),
        ("SIEMENS", "Biograph 40", Kind.CT),
        ("Philips", "Brilliance Big Bore", Kind.CT),
        ("Varian Medical Systems", "ARIA RadOnc", Kind.CT),
    ],
)
def test_cone_beam_ct_is_recognized_by_maker_and_model(maker, model, kind) -> None:
    series = slices([0, 3], Manufacturer=maker, ManufacturerModelName=model)

    assert kind_of(series) is kind


def test_the_rule_that_decided_is_the_reason() -> None:
    assert recognize(slices([0], **OBI), DEFAULT_CBCT) == (Kind.CBCT, "rule 'varian'")


def test_a_rule_must_hold_for_every_slice() -> None:
    assert kind_of(slices([0], **OBI) + slices([3], **SIEMENS)) is Kind.CT


def test_scouts_are_set_aside_and_a_series_of_scouts_is_no_ct() -> None:
    scout = instance("1.2.1.99", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])

    assert kind_of([*slices([0, 3]), scout]) is Kind.CT
    assert scout not in without_scouts([*slices([0, 3]), scout])
    assert kind_of([scout]) is Kind.LOCALIZER


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", "CT"),
        ("1.2.840.10008.5.1.4.1.1.4", "CT"),
        ("1.2.840.10008.5.1.4.1.1.2", "MR"),
        ("1.2.840.10008.5.1.4.1.1.2", ""),
    ],
    ids=["screenshot", "MR that says CT", "CT that says MR", "no modality"],
)
def test_sop_class_and_modality_must_agree(sop_class, modality) -> None:
    assert kind_of([instance("1.2.1", sop_class=sop_class, modality=modality)]) is Kind.OTHER


def test_a_structure_set_of_points_is_not_a_planning_structure_set() -> None:
    points = instance("1.2.1", modality="RTSTRUCT", ContourGeometricType=["POINT"])
    mixed = instance("1.2.1", modality="RTSTRUCT", ContourGeometricType=["CLOSED_PLANAR", "POINT"])
    empty = instance("1.2.1", modality="RTSTRUCT")

    assert kind_of([points]) is Kind.POINTS
    assert kind_of([mixed]) is Kind.RTSTRUCT
    assert kind_of([empty]) is Kind.RTSTRUCT


def test_different_kinds_under_one_series_are_no_kind() -> None:
    mixed = [instance("1.2.1"), instance("1.2.2", modality="MR")]

    assert recognize(mixed, DEFAULT_CBCT) == (
        Kind.OTHER,
        "the objects are of different kinds: CT, MR",
    )


def test_our_own_objects_are_known_by_their_manufacturer() -> None:
    assert is_ours([instance("1.2.1", Manufacturer="rtnode")])
    assert not is_ours([instance("1.2.1", Manufacturer="rtnode test data")])
