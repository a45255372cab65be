"""The loss of missing labels, the patches, the orientation guard, and short training runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.engine import load_members
from models.metrics import added_path_mm
from models.organs import answer
from models.pack import load_pack
from models.training.cases import Case, folds
from models.training.contour import train_network
from models.training.contour_loss import marginal_loss
from models.training.contour_recipe import DESIGNS, Recipe
from models.training.contour_sampling import Sampler, other_sides
from models.training.evaluate_contour import score, summary
from models.training.loop import Budget
from models.training.openkbp import ORGANS, _check_orientation, held_out
from models.training.pack_contour import HEAD_AND_NECK, build_pack

STILL = {"noise_hu": 0.0, "offset_hu": 0.0, "gain": 0.0, "rotation_rad": 0.0, "tilt_rad": 0.0,
         "scale": 0.0, "anisotropy": 0.0, "shift_mm": 0.0}  # fmt: skip
"""No augmentation but mirroring."""


def case(name: str = "pt_3", drawn: tuple[int, ...] = tuple(range(1, 8))) -> Case:
    """A block of noise whose organs are brighter by 30 HU a label, left and right apart."""
    random = np.random.default_rng(0)
    hu = np.full((24, 64, 64), -1024, np.int16)
    hu[:, 12:52, 12:52] = random.integers(-50, 50, (24, 40, 40))
    labels = np.zeros(hu.shape, np.uint8)
    columns = {3: (40, 46), 4: (18, 24)}
    for label in range(1, 8):
        first, last = columns.get(label, (28, 36))
        labels[4:20, 10 + 5 * label : 13 + 5 * label, first:last] = label
        hu[labels == label] = 30 * label
    return Case(name=name, hu=hu, labels=labels, drawn=drawn, spacing=(2.5, 3.25, 3.25))


def test_an_organ_that_was_not_drawn_is_no_mistake():
    """Calling an undrawn organ costs no more than calling background."""
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    drawn = torch.ones(1, 8, dtype=torch.bool)
    drawn[0, 6] = False

    def cost(called: int) -> float:
        logits = torch.zeros(1, 8, 8, 8)
        logits[:, called] = 20
        return marginal_loss(logits, target, drawn, 2.0).item()

    assert cost(6) == pytest.approx(cost(0), abs=1e-3)
    assert cost(5) > cost(0) + 1


def test_the_dice_term_is_that_of_its_definition():
    """Closed form: probabilities of a half, one organ of 16 of 64 voxels."""
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[0, :2] = 1
    logits = torch.zeros(1, 2, 8, 8)
    drawn = torch.ones(1, 2, dtype=torch.bool)

    loss = marginal_loss(logits, target, drawn, 1.0).item()

    dice = (2 * 16 * 0.5 + 1) / (64 * 0.5 + 16 + 1)
    assert loss == pytest.approx(np.log(2) + 1 - dice, abs=1e-5)


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


def test_all_images_of_a_patient_fall_into_one_part():
    cases = [case(f"pt_{n // 2}") for n in range(20)]

    parts = folds(cases, 3)

    assert sorted(len(p) for p in parts) == [6, 6, 8]
    owners = [{c.name for c in part} for part in parts]
    assert not owners[0] & owners[1]
    assert not owners[1] & owners[2]


@pytest.mark.parametrize("mode", ["2.5d", "3d"])
def test_a_patch_shows_image_and_labels_in_the_same_place(mode):
    """Whatever is done to a patient, mirroring too, label k keeps its 30 k HU."""
    recipe = Recipe(mode=mode, **(STILL | {"rotation_rad": 0.2, "tilt_rad": 0.1}))
    sampler = Sampler([case()], ORGANS, recipe)

    batch = sampler.batch(4)

    assert batch.image.shape == (4, recipe.frame.channels, *batch.target.shape[1:])
    assert batch.drawn.all()
    soft = batch.image[:, recipe.frame.offsets.index(0)] if mode == "2.5d" else batch.image[:, 0]
    low, high = (soft[batch.target == label].median() for label in (1, 7))
    assert (high - low).item() * 200 == pytest.approx(180, abs=20)


def test_a_mirrored_patch_has_left_and_right_exchanged():
    """The left parotid lies at larger columns in every patch, mirrored or not."""
    sampler = Sampler([case()], ORGANS, Recipe(mode="3d", **STILL))

    batch = sampler.batch(6)

    mirrored = 0
    for image, target in zip(batch.image, batch.target, strict=True):
        left, right = ((target == label).nonzero()[:, 2].float().mean() for label in (3, 4))
        assert left > right
        mirrored += int(image[0][target == 3].median() > image[0][target == 4].median())
    assert 0 < mirrored < 6  # the organ at the left has the other one's values in a mirror


def test_the_weight_of_organs_falls_once_they_are_found():
    """The first weight holds up to the first share of ``settling``, the last from the second on."""
    recipe = Recipe(organ_weights=(5.0, 1.0), settling=(0.6, 0.8))

    weights = [recipe.organ_weight(share) for share in (0.0, 0.6, 0.7, 0.8, 1.0)]

    assert weights == pytest.approx([5, 5, 3, 1, 1])


def test_an_organ_without_a_counterpart_is_not_mirrored():
    assert other_sides(("Brainstem", "Parotid_L", "Parotid_R")) == [0, 1, 3, 2]

    with pytest.raises(ValueError, match="no counterpart"):
        other_sides(("Lung_L",))


def test_the_length_to_be_drawn_anew_is_that_of_the_missing_edge():
    """A square of 6 x 6 pixels of 2 mm has 20 edge pixels; shifted by 3 it keeps 6 of them."""
    truth = np.zeros((1, 20, 20), bool)
    truth[0, 4:10, 4:10] = True

    assert added_path_mm(truth, truth, (3.0, 2.0, 2.0)) == 0
    assert added_path_mm(np.zeros_like(truth), truth, (3.0, 2.0, 2.0)) == 40
    assert added_path_mm(np.roll(truth, 3, axis=2), truth, (3.0, 2.0, 2.0)) == 28


def test_a_missed_organ_counts_as_nothing_found_and_has_no_distance():
    whole = case()
    missed = np.where(whole.labels == 6, 0, whole.labels).astype(np.uint8)

    table = summary(
        {o: [score(whole, labels, ORGANS)[o] for labels in (whole.labels, missed)] for o in ORGANS}
    )

    assert table["Brainstem"]["dice"] == 1
    assert table["Larynx"]["dice"] == 0.5
    assert table["Larynx"]["missed"] == 1
    assert table["Larynx"]["hd95_mm"] == 0


def smaller(mode: str, monkeypatch) -> Recipe:
    """Return a recipe whose network is tiny."""
    patch = (1, 32, 32) if mode == "2.5d" else (16, 32, 32)
    frame = DESIGNS[mode].frame.model_copy(
        update={"patch": patch, "field": (32, 32), "voxel_mm": (2.5, 3.9, 3.9)}
    )
    small = replace(DESIGNS[mode], frame=frame, channels=(8, 16), batch=1)
    monkeypatch.setattr("models.training.contour_recipe.DESIGNS", {mode: small})
    return Recipe(mode=mode)


def test_a_pack_takes_over_the_network_of_another_and_is_half_as_large(tmp_path, monkeypatch):
    """Kernels are stored as float16; both networks pass their self-tests and see their own."""
    packs = []
    for mode in ("2.5d", "3d"):
        recipe = smaller(mode, monkeypatch)
        train_network([case()], ORGANS, recipe, tmp_path / mode, Budget(steps=2), lambda _: None)
        packs.append(
            load_pack(
                build_pack(tmp_path / mode, tmp_path / f"pack-{mode}", HEAD_AND_NECK, [case()], {},
                           also=[p.folder for p in packs])
            )
        )  # fmt: skip

    flat, both = packs
    networks = load_members(both, threads=1)
    said = answer(case().hu, case().spacing, networks, both.manifest.frames)

    assert [frame.dimensions for frame in both.manifest.frames] == [3, 2]
    assert said.agreement().keys() == set(range(1, 8))
    name = "weights.safetensors"
    assert (flat.folder / name).stat().st_size < 0.8 * (tmp_path / "2.5d" / name).stat().st_size
    with np.load(both.folder / "test/input.npz") as given:
        assert set(given) == {"batch", "batch-2"}
    taken = both.manifest.training["averaged_with"]
    assert [row["sha256"] for row in taken] == [flat.sha256]


@pytest.mark.parametrize("gan", [False, True], ids=["U-Net", "GAN"])
def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, gan):
    recipe = Recipe(gan=gan)
    small = replace(
        recipe.design,
        frame=recipe.frame.model_copy(update={"patch": (1, 32, 32), "field": (32, 32)}),
        channels=(4, 8),
        batch=2,
    )
    monkeypatch.setattr("models.training.contour_recipe.DESIGNS", {"2.5d": small})
    monkeypatch.setattr("models.training.loop.SAVE_S", -1.0)

    def go(folder: str) -> dict[str, torch.Tensor]:
        train_network([case()], ORGANS, recipe, tmp_path / folder, Budget(steps=3), lambda _: None)
        return load_file(tmp_path / folder / "weights.safetensors")

    whole = go("whole")
    drawn = []

    def stops(self: Sampler, size: int) -> object:
        drawn.append(size)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return batch(self, size)

    batch = Sampler.batch
    monkeypatch.setattr(Sampler, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        go("parts")
    half = load_file(tmp_path / "parts" / "weights.safetensors")
    monkeypatch.setattr(Sampler, "batch", batch)
    parts = go("parts")

    assert any(not torch.equal(whole[k], half[k]) for k in whole)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    record = json.loads((tmp_path / "parts" / "training.json").read_text())
    assert record["steps"] == 3
    assert record["recipe"]["gan"] is gan
