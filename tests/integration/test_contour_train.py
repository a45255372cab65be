"""``rtnode contour train`` from CT and structure sets to a pack that the engine runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models.engine import load_network
from models.pack import load_pack
from models.training.contour_recipe import DESIGNS
from node.cli.main import main
from pipelines.api import InputRejected
from pipelines.autocontour.patients import read_patients
from tests import factories

LUNGS = {"Lung_L": (), "Lung_R": ()}


def write_patient(folder: Path, number: int, names=("Lung_L", "Lung_R"), position="HFS") -> None:
    """Write CT and structure set of one phantom patient, all in one folder as exports are."""
    case = replace(factories.CASE, seed=number, patient_id=f"P{number}")
    grid = factories.ct_grid(position=position)
    ct = factories.ct_series(case, grid=grid, position=position)
    structures = factories.rtstruct(case, ct, grid=grid, names=names)
    factories.save([*ct, structures], folder)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_a_patient_is_learned_in_the_patients_own_axes(tmp_path, position):
    """Left lung at larger columns, whatever way the patient lay; air outside the body."""
    write_patient(tmp_path, 1, position=position)

    patients = read_patients(tmp_path, LUNGS)

    (case,) = patients.cases
    assert patients.organs == ("Lung_L", "Lung_R")
    left, right = (np.argwhere(case.labels == label).mean(axis=0) for label in (1, 2))
    assert (left - right)[2] * case.spacing[2] == pytest.approx(140, abs=5)
    body = np.argwhere(case.hu > -1000).mean(axis=0)
    spine = np.argwhere(case.hu > 400).mean(axis=0)
    assert spine[1] > body[1]
    assert case.hu[:, 0].max() == -1024


def test_names_of_the_clinic_and_missing_organs_are_understood(tmp_path):
    write_patient(tmp_path / "a", 1, names=("Lung_L", "GTV"))
    write_patient(tmp_path / "b", 2, names=("GTV",))

    patients = read_patients(tmp_path, LUNGS)

    assert patients.organs == ("Lung_L",)
    assert [c.drawn for c in patients.cases] == [(1,)]
    assert patients.left_out == ("a structure set without a wanted structure",)
    assert read_patients(tmp_path, {"Larynx": ("gtv",)}).organs == ("Larynx",)


def test_a_name_that_the_node_cannot_write_is_refused(tmp_path):
    with pytest.raises(InputRejected, match="Femurs: not a structure of this node"):
        read_patients(tmp_path, {"Femurs": ()})


@pytest.mark.parametrize(
    "options",
    [("--mode", "2.5d"), ("--mode", "3d", "--gan", "--folds", "2")],
    ids=["2.5D", "3D GAN, two folds"],
)
def test_a_site_trains_a_pack_that_runs(tmp_path, monkeypatch, options):
    """With the real frames and narrow networks, which learn nothing in a second."""
    narrow = {m: replace(d, channels=(4, 8, 8, 8), batch=1) for m, d in DESIGNS.items()}
    monkeypatch.setattr("models.training.contour_recipe.DESIGNS", narrow)
    for number in (1, 2, 3):
        names = ("Lung_L", "Lung_R") if number < 3 else ("Lung_L",)
        write_patient(tmp_path / "data" / str(number), number, names)
    command = ["contour", "train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"),
               "--organ", "Lung_L", "--organ", "Lung_R", "--minutes", "0.02", *options]  # fmt: skip

    result = CliRunner().invoke(main, command)
    again = CliRunner().invoke(main, command)

    assert result.exit_code == 0, result.output
    assert again.exit_code == 0, again.output
    pack = load_pack(tmp_path / "run" / "pack")
    frame = pack.manifest.frame
    size = frame.patch[1:] if frame.dimensions == 2 else frame.patch
    answer = load_network(pack, 1)(np.zeros((1, frame.channels, *size), np.float32))
    assert answer.shape == (1, 3, *size)
    assert [o.name for o in pack.manifest.outputs] == ["Lung_L", "Lung_R"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["Lung_L"]["n"] == (3 if "--folds" in options else 1)
    assert "unapproved draft" in (pack.folder / "CARD.md").read_text()
    page = (tmp_path / "run" / "index.html").read_text()
    assert "surface Dice 3 mm" in page
    assert page.count("data:image/png") >= 2


def test_an_organ_that_too_few_have_is_refused(tmp_path):
    for number in range(1, 6):
        names = ("Lung_L", "Lung_R") if number == 1 else ("Lung_L", "SpinalCanal")
        write_patient(tmp_path / "data" / str(number), number, names)

    result = CliRunner().invoke(
        main, ["contour", "train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"),
               "--minutes", "0.01", "--folds", "5"],
    )  # fmt: skip

    assert result.exit_code == 1
    assert "Lung_R was drawn in too few patients" in result.output


def test_a_single_patient_is_not_enough(tmp_path):
    write_patient(tmp_path / "data", 1)

    result = CliRunner().invoke(
        main, ["contour", "train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"),
               "--minutes", "0.01"],
    )  # fmt: skip

    assert result.exit_code == 1
    assert "none could be held out" in result.output
