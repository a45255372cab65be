"""``rtnode process``: the node's own selection on a folder; a clear line where nothing comes."""

import json

import pytest

from node import worker
from tests import factories, fake_worker
from tests.store_kit import ct, part10


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(worker, "load", lambda name: fake_worker.run)
    monkeypatch.setattr(fake_worker, "TELL", {})


@pytest.fixture
def patient(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, objects in factories.study().items():
        factories.save(objects, folder / name)
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def process(pipeline, folder, out, **overrides):
    return worker.process_folder(pipeline, folder, out, overrides)


@pytest.mark.parametrize(
    ("pipeline", "roles"),
    [
        ("autocontour", {"CT": 12, "RTSTRUCT": 1}),
        ("synthetic_ct", {"CBCT": 8, "PLANNING_CT": 12, "REG": 1, "RTSTRUCT": 1}),
        ("dose_radiomics", {"RTDOSE": 1, "RTSTRUCT": 1, "RTPLAN": 1, "CT": 12}),
    ],
)
def test_the_inputs_are_found_in_a_folder_that_holds_more(
    patient, tmp_path, capsys, pipeline, roles
) -> None:
    out = tmp_path / "out"

    assert process(pipeline, patient, out) == 0

    record = json.loads((out / "report" / "outcome.json").read_text())
    found = [i["role"] for i in record["inputs"]]
    assert {role: found.count(role) for role in found} == roles
    assert record["objects"][0]["path"] == "fake.dcm"
    assert (out / "fake.dcm").exists()
    assert f"wrote {out / 'fake.dcm'}" in capsys.readouterr().out


def test_the_same_folder_gives_the_same_bytes(patient, tmp_path) -> None:
    process("autocontour", patient, tmp_path / "a")
    process("autocontour", patient, tmp_path / "b")

    assert (tmp_path / "a/fake.dcm").read_bytes() == (tmp_path / "b/fake.dcm").read_bytes()


@pytest.mark.parametrize(
    ("pipeline", "keep", "words"),
    [
        ("autocontour", (), "autocontour needs a CT series; it holds no DICOM object"),
        ("autocontour", ("CBCT",), "autocontour needs a CT series; it holds CBCT"),
        (
            "dose_radiomics",
            ("RTDOSE",),
            "no structure set of this patient is in the frame of reference",
        ),
    ],
)
def test_a_folder_without_a_case_is_explained(
    patient, tmp_path, capsys, pipeline, keep, words
) -> None:
    for folder in patient.iterdir():
        if folder.is_dir() and folder.name not in keep:
            for path in folder.iterdir():
                path.unlink()

    assert process(pipeline, patient, tmp_path / "out") == 1

    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_cases_are_not_chosen_from(tmp_path, capsys) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for uid in ("1.2.3.2", "1.2.3.5"):
        for number in range(1, 5):
            (folder / f"{uid}-{number}").write_bytes(part10(ct(number, series=uid)))

    assert process("autocontour", folder, tmp_path / "out") == 1

    assert "the folder holds 2 cases for autocontour" in capsys.readouterr().err


def test_a_gap_is_named(patient, tmp_path, capsys) -> None:
    sorted((patient / "CT").iterdir())[5].unlink()

    assert process("autocontour", patient, tmp_path / "out") == 1

    assert "a slice is missing between" in capsys.readouterr().err


def test_results_are_never_mixed_with_what_is_there(patient, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "older.dcm").write_bytes(b"")

    assert process("autocontour", patient, out) == 2

    assert "is not empty" in capsys.readouterr().err


def test_an_unknown_setting_is_a_wrong_command_line(patient, tmp_path, capsys) -> None:
    assert process("autocontour", patient, tmp_path / "out", no_such_setting="1") == 2

    assert "no_such_setting" in capsys.readouterr().err


def test_a_rejected_input_is_one_line_with_a_hint(patient, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(fake_worker, "TELL", {"fail": "reject"})

    assert process("autocontour", patient, tmp_path / "out") == 1

    assert capsys.readouterr().err == (
        "InputRejected: a slice is missing between 27.0 and 33.0 mm"
        " (correct or re-send the input; a new revision starts by itself)\n"
    )
