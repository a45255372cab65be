"""Names of structures: what they mean after TG-263, and what is wrong with them."""

import pytest

from pipelines.dicom.nomenclature import _KNOWN, MAX_LENGTH, Fault, judge, suggest


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Lung-Left", "Lung_L"),
        ("LT LUNG", "Lung_L"),
        ("lung_r", "Lung_R"),
        ("Spinal-Cord", "SpinalCord"),
        ("BODY", "External"),
        ("Oesophagus", "Esophagus"),
        ("ParotidLeft", "Parotid_L"),
        ("Femoral Head RT", "Femur_Head_R"),
        ("FemoralHead_L", "Femur_Head_L"),
        ("Lungs-Total", "Lungs"),
        ("Lung~_L", "Lung~_L"),
        ("Cord PRV 5mm", "SpinalCord_PRV05"),
        ("Brainstem_PRV", "Brainstem_PRV"),
        ("脊髄", "SpinalCord"),
        ("左肺", "Lung_L"),
        ("右耳下腺", "Parotid_R"),
        ("PTV_6000", "PTV_6000"),
        ("GTV-1", "GTV-1"),
        ("couch", None),
        ("lung", None),
    ],
)
def test_a_name_is_known_by_its_words(name, suggestion):
    assert suggest(name) == suggestion


def test_every_suggestion_of_the_table_is_a_name_without_fault_that_stays_as_it_is():
    for judged in judge(sorted(set(_KNOWN.values()))):
        assert judged.conforms, judged
        assert len(judged.name) <= MAX_LENGTH


def test_a_name_that_the_table_does_not_know_may_stay_unless_it_has_a_fault():
    fine, odd = judge(["Couch_Inner", "couch inner (a very long one)"])

    assert fine.conforms
    assert odd.faults == (Fault.LENGTH, Fault.CHARACTERS)
    assert not odd.conforms


def test_names_that_differ_only_in_case_are_told():
    assert [j.faults for j in judge(["Ring", "RING", "Other"])] == [
        (Fault.NOT_UNIQUE,), (Fault.NOT_UNIQUE,), (),
    ]  # fmt: skip
