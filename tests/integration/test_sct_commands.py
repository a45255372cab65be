"""``rtnode sct`` and ``rtnode models`` at a terminal, one after the other on phantoms."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from demo import dicom
from models.cbct_sim import CbctSettings, Fan
from models.pack import SyntheticCtManifest, load_pack
from models.training.sct_data import phantom
from models.training.sct_pairs import make_pair, save_pair
from node.cli.main import main
from tests.unit.pipelines.synthetic_ct import sct_support as support


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sct")


@pytest.fixture(scope="module")
def pairs(folder):
    (folder / "ct").mkdir()
    dicom.save(support.planning_ct(), folder / "ct")
    (folder / "ct" / "note.txt").write_text("no DICOM")
    result = CliRunner().invoke(
        main, ["sct", "simulate", str(folder / "ct"), str(folder / "pairs"), "--count", "1"]
    )
    assert result.exit_code == 0, result.output
    return folder / "pairs"


@pytest.fixture(scope="module")
def trained(folder):
    for seed in range(8):
        ct = phantom("pelvis", seed, pixel_mm=9.0, slice_mm=6.0, slices=6)
        pair = make_pair(replace(ct, name="p"), CbctSettings(fan=Fan.FULL, views=40), seed)
        save_pair(pair, folder / "small" / f"{seed}.npz")
    result = CliRunner().invoke(
        main,
        [
            "sct",
            "train",
            str(folder / "small"),
            str(folder / "run"),
            "--steps",
            "1",
            "--threads",
            "1",
        ],
    )
    assert result.exit_code == 0, result.output
    return folder / "run" / "pack"


def test_simulate_writes_pairs_without_identifiers_and_a_picture(pairs):
    names = sorted(p.name for p in pairs.iterdir())

    assert names == ["ct_0001-00.npz", "pictures.png"]


def test_simulate_says_when_there_is_no_ct(tmp_path):
    result = CliRunner().invoke(main, ["sct", "simulate", str(tmp_path), str(tmp_path / "out")])

    assert result.exit_code == 1
    assert "no CT series" in result.output


def test_train_writes_a_pack_that_verifies(trained):
    result = CliRunner().invoke(main, ["models", "verify", str(trained)])

    assert result.exit_code == 0, result.output
    assert "ok       sct-site 0.1.0" in result.output
    assert "no hold-out with a truth" in (trained / "CARD.md").read_text()


def test_a_changed_pack_does_not_verify(trained, tmp_path):
    copy = tmp_path / "pack"
    copy.mkdir()
    (copy / "model.json").write_text((trained / "model.json").read_text())

    result = CliRunner().invoke(main, ["models", "verify", str(copy)])

    assert result.exit_code == 1
    assert "REFUSED" in result.output


def test_models_lists_what_is_installed():
    result = CliRunner().invoke(main, ["models", "list", "--json"])

    rows = {row["name"]: row for row in json.loads(result.output)}
    assert rows["sct-pelvis"]["kind"] == "synthetic-ct"
    assert rows["headneck-openkbp"]["kind"] == "contour"


def test_an_untrained_network_is_not_accepted_and_the_report_says_why(trained, folder):
    case = folder / "cases" / "one"
    objects = {"cbct": support.cbct(), "ct": support.planning_ct(), "reg": [support.registration()]}
    for name, datasets in objects.items():
        (case / name).mkdir(parents=True)
        dicom.save(datasets, case / name)
    report = folder / "report.json"
    signed = ("--signed-by", "A. Physicist")

    result = CliRunner().invoke(
        main,
        ["sct", "validate", str(folder / "cases"), str(report), "--pack", str(trained), *signed],
    )

    made = json.loads(report.read_text())
    assert result.exit_code == 1
    assert "at least 5 are needed" in result.output
    assert made["accepted"] is False
    assert made["pack_sha256"] == load_pack(trained, SyntheticCtManifest).sha256
    assert made["pairs"][0]["classical_mae"] < made["pairs"][0]["raw_mae"]
