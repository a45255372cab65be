"""What a worker left is compared with what it said, and with the inputs."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from node.domain import Job, JobInput, Uid
from node.engine.results import NotOurResult, check
from node.lifecycle import JobState
from tests.store_kit import ct, part10

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def job(tmp_path) -> Job:
    inputs = []
    for number in (1, 2):
        path = tmp_path / f"in-{number}.dcm"
        path.write_bytes(part10(ct(number)))
        inputs.append(
            JobInput(role="CT", sop_instance_uid=Uid(f"1.2.3.2.{number}"), sha256="", path=path)
        )
    return Job(
        id=7, route="r", pipeline="autocontour", pipeline_version="1", settings_json="{}",
        destinations=(), priority=50, series_instance_uid=Uid("1.2.3.2"), series_revision=0,
        revision=0, state=JobState.IN_PROGRESS, reason="", hint="", attempt=1, max_attempts=3,
        token=1, start_reason="", correlation="", created_at=datetime(2026, 1, 1, tzinfo=UTC),
        not_before=None, inputs=tuple(inputs),
    )  # fmt: skip


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def described(output, ds=None, name="a.dcm", **said):
    ds = ds or ct(1, series="1.2.99")
    path = output / name
    path.write_bytes(part10(ds))
    return {
        "path": str(path),
        "sop_class_uid": CT,
        "sop_instance_uid": str(ds.SOPInstanceUID),
        "series_instance_uid": str(ds.SeriesInstanceUID),
        "modality": "CT",
    } | said


def answer(*objects, **more):
    return {"ok": True, "objects": list(objects), **more}


def test_an_object_that_is_what_was_said_is_a_result(job, output) -> None:
    checked = check(job, answer(described(output), figures={"n": 1}), output)

    assert [r.sop_instance_uid for r in checked.results] == ["1.2.99.1"]
    assert (checked.figures, checked.hold) == ({"n": 1}, None)


def test_a_blocking_finding_asks_for_a_person(job, output) -> None:
    findings = [
        {"code": "a", "severity": "WARN", "message": "odd"},
        {"code": "b", "severity": "BLOCK", "message": "lung on the wrong side"},
    ]

    checked = check(job, answer(described(output), findings=findings), output)

    assert checked.hold is not None
    assert checked.hold[0] == "lung on the wrong side"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"sop_class_uid": "1.2"}, "has another SOPClassUID than the answer says"),
        ({"sop_instance_uid": "1.2"}, "has another SOPInstanceUID than the answer says"),
        ({"series_instance_uid": "1.2"}, "has another SeriesInstanceUID than the answer says"),
        ({"modality": "MR"}, "has another Modality than the answer says"),
        ({"path": "/etc/hostname"}, "lies outside the work folder"),
    ],
)
def test_an_object_that_is_not_what_was_said_is_no_result(job, output, said, words) -> None:
    with pytest.raises(NotOurResult, match=words):
        check(job, answer(described(output, **said)), output)


def test_a_result_belongs_to_patient_and_study_of_the_inputs(job, output) -> None:
    other_patient = described(output, ct(1, series="1.2.99", patient="P2"))
    with pytest.raises(NotOurResult, match="object 1 is of another patient than the inputs"):
        check(job, answer(other_patient), output)

    moved = ct(1, series="1.2.99")
    moved.StudyInstanceUID = "1.2.77"
    with pytest.raises(NotOurResult, match="object 1 is in another study than the inputs"):
        check(job, answer(described(output, moved)), output)


def test_a_result_never_bears_the_uid_of_an_input_or_of_another_result(job, output) -> None:
    with pytest.raises(NotOurResult, match="bears the UID of an input"):
        check(job, answer(described(output, ct(1))), output)

    twice = described(output), described(output, name="b.dcm")
    with pytest.raises(NotOurResult, match="two objects bear the same SOP Instance UID"):
        check(job, answer(*twice), output)


def test_success_without_a_readable_object_is_no_success(job, output) -> None:
    with pytest.raises(NotOurResult, match="wrote no object"):
        check(job, answer(), output)

    broken = described(output)
    (output / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(NotOurResult, match="object 1 cannot be read: CannotUnderstand"):
        check(replace(job), answer(broken), output)
