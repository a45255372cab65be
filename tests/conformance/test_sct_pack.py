"""The shipped synthetic CT pack: whole, honest, and refused where nothing says how well it does."""

import numpy as np
import pytest

from models.pack import PACKS, SyntheticCtManifest, load_pack
from models.phantom import thorax
from models.phantom_sites import patient
from models.training.sct_data import HELD_OUT
from models.training.sct_pairs import body_of
from pipelines.synthetic_ct.inputs import read_inputs
from pipelines.synthetic_ct.learned import open_pack
from pipelines.synthetic_ct.site import case_inputs

NAME = "sct-pelvis"


@pytest.fixture(scope="module")
def learned():
    return open_pack(NAME)


def test_it_was_measured_on_the_hold_out(learned):
    """Targets of the frozen hold-out: MAE <= 25 HU, PSNR >= 40 dB, |ME| <= 5 HU."""
    metrics = learned.manifest.metrics

    assert metrics.keys() == {*HELD_OUT, "mean"}
    assert metrics["mean"]["mae"] <= 25
    assert metrics["mean"]["psnr_db"] >= 40
    assert abs(metrics["mean"]["me"]) <= 5
    assert all(row["mae"] < 0.5 * row["raw_mae"] for row in metrics.values())


def test_its_card_says_what_it_has_not_seen(learned):
    card = (learned.pack.folder / "CARD.md").read_text()

    assert "has seen no real CBCT" in card
    assert "not a medical device" in card
    assert "CC BY 3.0" in card
    assert sum(f.bytes for f in learned.manifest.files) < 18_000_000


def test_an_onnx_file_and_safetensors_of_one_training_lie_in_it():
    files = {f.path for f in load_pack(PACKS / NAME, SyntheticCtManifest).manifest.files}

    assert {"weights.onnx", "weights.safetensors", "CARD.md"} <= files


def test_a_pelvis_of_its_kind_may_run(learned):
    spacing = (3.0, 2.0, 2.0)
    hu = patient("pelvis", (20, 150, 190), spacing, 901, noise_hu=25)

    runs, findings = learned.opinion(hu, body_of(hu), spacing)

    assert runs, findings


def test_a_thorax_is_refused(learned):
    """Trained on procedural ones, measured on none."""
    image = thorax((20, 140, 180), (4.0, 2.4, 2.4), 3, noise_hu=25)

    runs, findings = learned.opinion(image.hu, image.labels["External"], image.spacing)

    assert not runs
    assert findings[0].code in ("unfamiliar-image", "outside-contract", "wrong-body-region")


@pytest.mark.parametrize("site", ["head", "abdomen"])
def test_another_part_of_the_body_is_refused_by_what_it_shows(learned, site):
    """The likeness test let both through: their soft tissue reads like that of a pelvis."""
    spacing = (4.0, 3.0, 3.0)
    hu = patient(site, (24, 140, 140), spacing, 77, noise_hu=25)

    runs, findings = learned.opinion(hu, body_of(hu), spacing)

    assert not runs
    assert findings[0].code == "wrong-body-region"
    assert "pelvis and legs" in findings[0].message


def test_a_pelvis_that_reads_150_hu_too_low_is_still_one(learned):
    spacing = (3.0, 2.0, 2.0)
    hu = patient("pelvis", (20, 150, 190), spacing, 901, noise_hu=25)
    body = body_of(hu)

    _, findings = learned.opinion(np.where(body, hu - 150, hu), body, spacing)

    assert "wrong-body-region" not in {f.code for f in findings}


@pytest.mark.devpack
@pytest.mark.slow
def test_the_thorax_of_the_development_pack_is_refused(devpack, learned, tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "cbct").symlink_to(devpack / "dev_lung1_001_thorax" / "SIMULATED_CBCT" / "CBCT")
    read = read_inputs(case_inputs(folder))

    runs, _ = learned.opinion(read.hu, read.regions.body, read.cbct.geometry.spacing)

    assert not runs
