"""What a fix may do: a new object with a UID of its own, and not a coordinate moved."""

import hashlib
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, OutputInvalid
from pipelines.dicom import import_prepare
from pipelines.dicom.header import derived_object, save
from pipelines.dicom.import_check import points_of
from pipelines.dicom.import_prepare import judge, prepare
from pipelines.dicom.import_profiles import PROFILES, Action, TpsProfile
from tests import factories
from tests.unit.pipelines.dicom.test_import_check import (
    empty,
    long_decimal_of_zeros,
    long_label,
    long_name,
    nested,
    structure_set,
)

ECLIPSE = PROFILES[TpsProfile.ECLIPSE]
GENERIC = PROFILES[TpsProfile.GENERIC]


def written(folder: Path, *spoils) -> DerivedObject:
    ds = structure_set()
    for spoil in spoils:
        spoil(ds)
    folder.mkdir(exist_ok=True)
    save(ds, folder / "rs.dcm")
    return derived_object(ds, folder / "rs.dcm")


def coordinates(ds: Dataset) -> list[bytes]:
    return [
        points_of(contour).tobytes()
        for outline in ds.ROIContourSequence
        for contour in outline.get("ContourSequence") or []
    ]


def test_an_object_that_breaks_nothing_keeps_its_bytes(tmp_path) -> None:
    derived = written(tmp_path)
    before = derived.path.read_bytes()

    prepared = prepare([derived], {"tps": ECLIPSE})

    assert prepared.objects == (derived,)
    assert (prepared.findings, prepared.held) == ((), {})
    assert derived.path.read_bytes() == before


def test_a_fixed_object_has_its_own_uid_no_problem_left_and_the_same_coordinates(tmp_path) -> None:
    derived = written(tmp_path, long_name, long_label, long_decimal_of_zeros, empty)
    before = pydicom.dcmread(derived.path)

    prepared = prepare([derived], {"tps": ECLIPSE})

    fixed = pydicom.dcmread(prepared.objects[0].path)
    assert prepared.held == {}
    assert [f.code for f in prepared.findings] == ["tps-fixed"] * 4
    assert judge([prepared.objects[0].path], ECLIPSE) == []
    assert fixed.SOPInstanceUID == prepared.objects[0].sop_instance_uid != before.SOPInstanceUID
    assert fixed.file_meta.MediaStorageSOPInstanceUID == fixed.SOPInstanceUID
    assert fixed.SeriesInstanceUID == before.SeriesInstanceUID
    assert fixed.PatientID == before.PatientID
    assert coordinates(fixed) == coordinates(before)
    assert [r.ROIName for r in fixed.StructureSetROISequence] == ["PTV_High_Risk_L", "External"]
    assert fixed.StructureSetLabel == "AUTO CONTOURS OF"


def test_the_same_object_and_profile_give_the_same_bytes_and_another_profile_another_uid(
    tmp_path,
) -> None:
    first = prepare([written(tmp_path / "a", long_name)], {"tps": ECLIPSE}).objects[0]
    again = prepare([written(tmp_path / "b", long_name)], {"tps": ECLIPSE}).objects[0]
    shorter = ECLIPSE.adapted({}, {"name-length": 10})
    other = prepare([written(tmp_path / "c", long_name)], {"tps": shorter}).objects[0]
    plain = prepare([written(tmp_path / "d", long_name)], {"tps": GENERIC}).objects[0]

    assert first.sop_instance_uid == again.sop_instance_uid
    assert digest(first.path) == digest(again.path)
    assert len({o.sop_instance_uid for o in (first, other, plain)}) == 3


def test_what_cannot_be_fixed_is_held_for_the_destination_that_minds_alone(tmp_path) -> None:
    derived = written(tmp_path, nested)

    prepared = prepare([derived], {"tps": ECLIPSE, "pacs": GENERIC})

    reason, hint = prepared.held["tps"]
    assert prepared.held.keys() == {"tps"}
    assert "holes" in reason
    assert "rtnode check" in hint
    assert {(f.code, f.message.split(":")[0]) for f in prepared.findings} == {
        ("tps-held", "for tps"),
        ("tps-warning", "for pacs"),
    }
    assert prepared.objects == (derived,)


def test_a_site_that_ignores_a_rule_hears_nothing_of_it(tmp_path) -> None:
    derived = written(tmp_path, nested)

    own = ECLIPSE.adapted({"holes": Action.IGNORE}, {})

    assert prepare([derived], {"tps": own}).findings == ()


def test_an_object_that_refers_to_a_fixed_one_follows_it_under_a_uid_of_its_own(tmp_path) -> None:
    derived = written(tmp_path, long_name)
    plan = factories.rtplan(structures=pydicom.dcmread(derived.path))
    save(plan, tmp_path / "plan.dcm")

    fixed, follower = prepare(
        [derived, derived_object(plan, tmp_path / "plan.dcm")], {"tps": ECLIPSE}
    ).objects

    read = pydicom.dcmread(follower.path)
    named = read.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID
    assert named == fixed.sop_instance_uid
    assert follower.sop_instance_uid == read.SOPInstanceUID != plan.SOPInstanceUID


def test_a_fix_that_would_move_a_contour_stops_the_job(tmp_path, monkeypatch) -> None:
    def clumsy(ds, _rule):
        del ds.ROIContourSequence[0].ContourSequence[0]
        return ["oops"]

    monkeypatch.setattr(import_prepare, "FIXES", {"name-length": clumsy})

    with pytest.raises(OutputInvalid, match="changed contours"):
        prepare([written(tmp_path, long_name)], {"tps": ECLIPSE})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
