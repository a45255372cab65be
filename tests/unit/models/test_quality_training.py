"""Networks for image quality: bounded, local, consistent, repeatable; a pack that checks itself."""

import json

import numpy as np
import pytest
import torch

from models.engine import load_network
from models.pack import DataSource, ImageQualityManifest, PackRefused, load_pack
from models.quality_infer import improved
from models.quality_net import QualityNet, QualityNetConfig
from models.training.loop import LOSSES, Budget
from models.training.quality import CONFIGS, train
from models.training.quality_data import (
    QualitySampler,
    clean_of,
    fbp_noise,
    quiet_phantom,
    thickened,
)
from models.training.quality_pack import build_pack
from models.training.sct_pack import Description

DESCRIBED = Description(
    id="tiny",
    version="1.0.0",
    title="A network for a test",
    body_region="phantom",
    data=(DataSource(name="phantoms", licence="Apache-2.0", source="models", patients=0),),
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    return [
        clean_of(quiet_phantom("pelvis", seed, pixel_mm=5.0, slice_mm=4.0, slices=7))
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def packs(images, tmp_path_factory):
    """A pack for each task, of a few steps."""
    made = {}
    for task in CONFIGS:
        folder = tmp_path_factory.mktemp(task)
        train(images, task, folder, Budget(steps=4), tell=lambda _: None)
        made[task] = build_pack(folder, folder / "pack", DESCRIBED, {})
    return made


def _wild(factor: int) -> QualityNet:
    torch.manual_seed(1)
    net = QualityNet(QualityNetConfig(factor=factor, channels=8, blocks=1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 3)
    return net.eval()


def test_whatever_the_weights_say_the_change_is_bounded():
    x = torch.randn(1, 5, 20, 24)

    with torch.inference_mode():
        change = _wild(1)(x) - x[:, 2:3]

    assert 0.05 < change.abs().max() <= 0.1001


def test_whatever_the_weights_say_two_thin_slices_average_to_the_thick_one():
    x = torch.randn(1, 5, 20, 24)

    with torch.inference_mode():
        thin = _wild(2)(x)

    assert torch.allclose(thin.mean(1), x[:, 2], atol=1e-5)
    near = x[:, 1:4]
    room = 0.1 + (near.amax(1) - near.amin(1)) / 2 + (near[:, 2] - near[:, 0]).abs() / 8
    assert ((thin[:, 1] - x[:, 2]).abs() <= room + 1e-5).all()


@pytest.mark.parametrize("factor", [1, 2])
def test_a_pixel_sees_no_further_than_the_stated_reach(factor):
    net = _wild(factor)
    x = torch.zeros(1, 5, 40, 40)
    y = x.clone()
    y[:, :, 20, 20] = 1.0

    with torch.inference_mode():
        rows, columns = np.nonzero(((net(x) - net(y)).abs().amax(1)[0] > 0).numpy())

    reach = net.config.reach_px + 1
    assert max(abs(rows - 20).max(), abs(columns - 20).max()) <= reach


def test_noise_has_the_strength_that_is_asked_for_and_little_low_frequency():
    noise = fbp_noise(np.random.default_rng(1), (4, 64, 64), 20.0)

    power = np.abs(np.fft.fft2(noise)) ** 2
    assert noise.std() == pytest.approx(20, rel=1e-3)
    assert power[:, 0, 0].max() < 1e-6 * power.mean()
    assert power[:, :2, :2].mean() < power.mean()


def test_a_patch_of_thick_slices_is_the_average_of_its_truth(images):
    batch = QualitySampler(images, 2, 5, 1, size=32).batch()

    assert torch.allclose(batch.cbct[:, 2], batch.ct.mean(1), atol=1e-6)


def test_slices_that_fill_no_group_are_left_out():
    thin = np.arange(7, dtype=np.float32)[:, None, None]

    assert thickened(thin, 2).ravel().tolist() == [0.5, 2.5, 4.5]


def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(images, tmp_path):
    for budget in (3, 6):
        train(images, "noise-reduction", tmp_path / "a", Budget(steps=budget), tell=lambda _: None)
    train(images, "noise-reduction", tmp_path / "b", Budget(steps=6), tell=lambda _: None)

    one, two = (json.loads((tmp_path / n / "training.json").read_text()) for n in "ab")
    assert one["steps"] == two["steps"] == 6
    assert (tmp_path / "a" / LOSSES).exists()


@pytest.mark.parametrize("task", CONFIGS)
def test_the_network_of_a_pack_answers_as_torch_did_and_keeps_the_size(packs, task):
    pack = load_pack(packs[task], ImageQualityManifest)
    network = load_network(pack, 1)
    hu = np.random.default_rng(1).normal(0, 50, (4, 31, 33)).astype(np.float32)
    hu[1, 3, 3] = 3100.0

    made = improved(hu, network, pack.manifest)

    assert made.shape == (4 * pack.manifest.factor, 31, 33)
    assert made[pack.manifest.factor, 3, 3] == 3100.0
    assert "Nothing: there was no image to hold out." in (packs[task] / "CARD.md").read_text()
    assert sum(f.bytes for f in pack.manifest.files) < 2_000_000


def test_a_pack_with_a_changed_byte_is_refused(packs, tmp_path):
    (folder := tmp_path / "pack" / "test").mkdir(parents=True)
    for path in packs["noise-reduction"].rglob("*"):
        if path.is_file():
            target = folder.parent / path.relative_to(packs["noise-reduction"])
            target.write_bytes(path.read_bytes())
    weights = folder.parent / "weights.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(PackRefused, match=r"weights.onnx differs"):
        load_pack(folder.parent, ImageQualityManifest)
