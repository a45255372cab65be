"""The loss of missing labels, the orientation guard, and one short training run."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.training.contour import CLASS_WEIGHTS, Recipe, Sampler, marginal_loss, train
from models.training.openkbp import Case, _check_orientation, held_out
from models.unet25 import UNet25, UNet25Config


def case(name: str = "pt_3") -> Case:
    random = np.random.default_rng(0)
    hu = np.full((24, 64, 64), -1024, np.int16)
    hu[:, 12:52, 12:52] = random.integers(-50, 50, (24, 40, 40))
    labels = np.zeros(hu.shape, np.uint8)
    for label in range(1, 8):
        labels[4:20, 10 + 5 * label : 13 + 5 * label, 20:30] = label
        hu[labels == label] += 30 * label
    return Case(name=name, hu=hu, labels=labels, drawn=tuple(range(1, 8)), spacing=(2.5, 3.9, 3.9))


def test_an_organ_that_was_not_drawn_is_no_mistake():
    """Calling an undrawn organ costs no more than calling background."""
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    drawn = torch.ones(1, 8, dtype=torch.bool)
    drawn[0, 6] = False
    weights = torch.tensor(CLASS_WEIGHTS)
    says_background = torch.zeros(1, 8, 8, 8)
    says_background[:, 0] = 20
    says_undrawn = torch.zeros(1, 8, 8, 8)
    says_undrawn[:, 6] = 20
    says_drawn = torch.zeros(1, 8, 8, 8)
    says_drawn[:, 5] = 20

    background = marginal_loss(says_background, target, drawn, weights)
    undrawn = marginal_loss(says_undrawn, target, drawn, weights)
    wrong = marginal_loss(says_drawn, target, drawn, weights)

    assert undrawn.item() == pytest.approx(background.item(), abs=1e-3)
    assert wrong.item() > background.item() + 1


def test_a_mirrored_patient_is_refused():
    labels = np.zeros((10, 10, 20), np.uint8)
    labels[5, 5, 15] = 3  # left parotid at the patient's left: the larger column
    labels[5, 5, 4] = 4
    _check_orientation("pt_3", labels)

    with pytest.raises(ValueError, match="left parotid"):
        _check_orientation("pt_3", labels[:, :, ::-1])


def test_a_flipped_patient_is_refused():
    labels = np.zeros((20, 10, 10), np.uint8)
    labels[15, 5, 5] = 1
    labels[4, 5, 5] = 6
    _check_orientation("pt_3", labels)

    with pytest.raises(ValueError, match="brainstem"):
        _check_orientation("pt_3", labels[::-1])


def test_the_split_never_changes():
    """46 patients by hash and the two of the development data; written down in the card."""
    names = [f"pt_{n}" for n in range(1, 201)]

    assert held_out("pt_1")
    assert held_out("pt_2")
    assert [n for n in names if held_out(n)][:8] == [
        "pt_1", "pt_2", "pt_6", "pt_11", "pt_12", "pt_16", "pt_17", "pt_22",
    ]  # fmt: skip


def test_a_batch_shows_image_and_labels_in_the_same_place():
    sampler = Sampler([case()], UNet25Config(), Recipe(batch=4, noise_hu=0, offset_hu=0, gain=0))

    image, target, drawn = sampler.batch()

    assert image.shape == (4, 8, 80, 80)
    assert drawn.all()
    brighter = image[:, 3][target == 7].mean() - image[:, 3][target == 1].mean()
    assert brighter.item() > 0.5  # 180 HU apart in a window of 400


def test_a_short_training_leaves_weights_that_load(tmp_path):
    train([case()], tmp_path, minutes=0.03, recipe=Recipe(batch=2))

    UNet25(UNet25Config()).load_state_dict(load_file(tmp_path / "weights.safetensors"))
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["steps"] >= 1
