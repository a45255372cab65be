"""DICOM as training images, and the scanner of a site read from its CBCTs."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from demo import dicom
from node.cli.main import main
from pipelines.synthetic_ct import fit
from pipelines.synthetic_ct.training_images import training_images
from tests.unit.pipelines.synthetic_ct import sct_support as support


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """One case: CBCT, and the CT of its day in the same place by a REG."""
    folder = tmp_path_factory.mktemp("cases")
    objects = {"cbct": support.cbct(), "ct": support.planning_ct(), "reg": [support.registration()]}
    for name, datasets in objects.items():
        (folder / "one" / name).mkdir(parents=True)
        dicom.save(datasets, folder / "one" / name)
    return folder


def _images(folder, mode, cache, **more):
    said: list[str] = []
    given = {"cache": cache, "count": 1, "seed": 1, "site": None, "tell": said.append}
    return training_images(folder, mode, **(given | more)), said


def test_a_cbct_and_its_ct_become_a_pair_in_one_place(cases, tmp_path):
    """The CT lies where the REG puts it: on the CBCT's grid it shows the same patient."""
    images, said = _images(cases, "pix2pix", tmp_path)

    (pair,) = images.pairs
    assert images.cts is None
    assert not said
    assert pair.cbct.shape == pair.ct.shape == support.CBCT_SHAPE
    assert pair.spacing == pytest.approx(support.CBCT_SPACING)
    off = np.abs(pair.ct - support.truth())[pair.body]
    assert np.median(off) < 30
    assert np.corrcoef(pair.cbct[pair.body], pair.ct[pair.body])[0, 1] > 0.9


def test_apart_every_cbct_and_every_ct_is_taken_on_one_size_of_pixel(cases, tmp_path):
    images, _ = _images(cases, "cyclegan", tmp_path)

    assert [p.name for p in images.pairs] == ["cbct_0001"]
    assert [p.name for p in images.cts] == ["ct_0001"]
    assert images.pairs[0].spacing[2] == images.cts[0].spacing[2] == pytest.approx(4.4)
    assert images.pairs[0].body.any()
    assert images.cts[0].body.any()
    assert np.median(images.cts[0].ct[images.cts[0].body]) > -700


def test_simulated_pairs_are_made_once(cases, tmp_path):
    first, said = _images(cases / "one" / "ct", "sim", tmp_path)
    again, silent = _images(cases / "one" / "ct", "sim", tmp_path)

    assert said == ["ct_0001 1/1"]
    assert not silent
    assert (first.pairs[0].cbct == again.pairs[0].cbct).all()
    assert [p.name for p in tmp_path.iterdir()] == ["ct_0001-00.npz"]


def test_a_case_that_does_not_fit_is_left_out_and_said(cases, tmp_path):
    """Five slices of a CT do not cover the CBCT."""
    wrong = tmp_path / "cases" / "two"
    for name, datasets in {"cbct": support.cbct(), "ct": support.planning_ct()[:5]}.items():
        (wrong / name).mkdir(parents=True)
        dicom.save(datasets, wrong / name)

    images, said = _images(tmp_path / "cases", "pix2pix", tmp_path / "cache")

    assert not images.pairs
    assert "case 1 of 1 was left out" in said[0]


def test_fit_simulator_writes_ranges_that_simulate_takes(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(fit.fitted, "__kwdefaults__", {"count": 8, "seed": 1})
    site = tmp_path / "site.json"

    made = CliRunner().invoke(
        main, ["sct", "fit-simulator", str(cases), str(site), "--region", "pelvis"]
    )
    pairs = CliRunner().invoke(
        main,
        ["sct", "simulate", str(cases / "one" / "ct"), str(tmp_path / "pairs"), "--count", "1",
         "--site", str(site)],
    )  # fmt: skip

    assert made.exit_code == 0, made.output
    assert "only 2 CBCTs" in made.output  # the folder holds a CT too: one protocol is yours to keep
    assert "unsure by" in made.output
    assert json.loads(site.read_text())["fan"] == "HALF"
    assert pairs.exit_code == 0, pairs.output


def test_fit_simulator_without_cbct_and_simulate_with_a_wrong_file_say_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "site.json").write_text("{}")

    none = CliRunner().invoke(
        main, ["sct", "fit-simulator", str(tmp_path / "empty"), str(tmp_path / "out.json")]
    )
    wrong = CliRunner().invoke(
        main,
        ["sct", "simulate", str(tmp_path / "empty"), str(tmp_path / "out"), "--site",
         str(tmp_path / "site.json")],
    )  # fmt: skip

    assert none.exit_code == 1
    assert "no CBCT series" in none.output
    assert wrong.exit_code == 1
    assert "no file of fit-simulator" in wrong.output
