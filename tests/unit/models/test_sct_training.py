"""One trainer: pairs repeat, a resumed run is the uninterrupted one, every mode takes steps."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.cbct_sim import CbctSettings, Fan
from models.pack import SyntheticCtManifest, load_pack
from models.sct_infer import body_box
from models.sct_net import SctNet, SctNetConfig
from models.training.loop import STATE, Budget, run
from models.training.sct_adversarial import AdversarialRecipe, CycleGan, Pix2Pix, restacked
from models.training.sct_anchor import (
    QUANTILES,
    Anchor,
    Levels,
    body_quantiles,
    edge_loss,
    scattered,
    tie_loss,
)
from models.training.sct_data import HELD_OUT, Ct, calibrated, phantom, read_nifti
from models.training.sct_pairs import (
    Pair,
    evaluation_pairs,
    load_pair,
    make_pair,
    on_grid,
    save_pair,
    training_pair,
)
from models.training.sct_sampling import PairSampler
from models.training.sct_site import Order, choose, histogram_distance, train_site
from models.training.sct_tasks import Recipe, Supervised, tissue_difference

TINY = SctNetConfig(channels=(8, 8, 8, 8), head=2, refine=4)
SIZES = ((32, 2),)
FAST = CbctSettings(fan=Fan.FULL, views=40)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _ct(seed: int = 1) -> Ct:
    return phantom("pelvis", seed, pixel_mm=9.0, slice_mm=6.0, slices=6)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [make_pair(replace(_ct(s), name=f"p{s}"), FAST, s) for s in range(10)]


def _sampler(pairs: list[Pair], *, unpaired: bool = False) -> PairSampler:
    return PairSampler(pairs, 5, 1, sizes=SIZES, others=pairs if unpaired else None)


def _supervised(pairs: list[Pair]) -> Supervised:
    return Supervised(_sampler(pairs), TINY, Recipe())


def _weights(task) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in task.average.parameters()])


def test_a_pair_is_the_same_for_the_same_seed_and_survives_its_file(tmp_path):
    one, again = (training_pair(_ct(), 7) for _ in range(2))
    save_pair(one, tmp_path / "a.npz")
    read = load_pair(tmp_path / "a.npz")

    assert one.cbct.tobytes() == again.cbct.tobytes()
    assert one.spacing == again.spacing
    assert np.abs(read.cbct - one.cbct).max() <= 0.5
    assert read.name == one.name
    assert (read.body == one.body).all()


def test_the_body_of_a_pair_ends_with_the_field_of_view():
    pair = make_pair(_ct(), replace(FAST, detector_mm=240.0), 1)

    assert pair.body.any()
    assert (pair.cbct[~pair.body & (pair.ct > -200)] <= -999).mean() > 0.5


def test_a_grid_keeps_the_middle_and_the_mean():
    ct = Ct(name="a", hu=np.full((2, 40, 30), 50, np.float32), spacing=(3.0, 2.0, 2.0))

    made = on_grid(ct, 4.0, 32)

    assert made.hu.shape == (2, 32, 32)
    inner = np.argwhere(made.hu[0] > 0)
    assert inner.min(axis=0) == pytest.approx([6, 8], abs=1)
    assert made.hu[0, 16, 16] == pytest.approx(50)


def test_the_hold_out_is_fixed_and_only_it_is_evaluated():
    cts = [Ct(name=n, hu=_ct().hu[:3], spacing=(6.0, 9.0, 9.0)) for n in ("STS_006", "STS_002")]

    found = evaluation_pairs(cts)

    assert [p.name for p in found] == ["STS_006"]
    assert len(HELD_OUT) == 6


def test_a_nifti_is_read_with_its_spacing_and_axes():
    values = np.arange(24, dtype="<i2").reshape(2, 3, 4)  # (slice, row, column)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, 4)
    struct.pack_into("<8f", header, 76, 1, 0.5, 0.6, 3.0, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352.0, 2.0, -10.0)

    ct = read_nifti("a", bytes(header) + values.tobytes())

    assert ct.spacing == pytest.approx((3.0, 0.6, 0.5))
    assert (ct.hu == 2 * values - 10).all()
    with pytest.raises(ValueError, match="NIfTI"):
        read_nifti("b", b"no")


def test_a_resumed_run_is_the_uninterrupted_one(pairs, tmp_path):
    whole = _supervised(pairs)
    run(whole, tmp_path / "whole", Budget(steps=6), {}, lambda _: None)

    class Stop(Exception):
        pass

    broken = _supervised(pairs)
    real_step = broken.step

    def step(rate, share):
        if broken.steps == 3:
            raise Stop
        return real_step(rate, share)

    broken.step = step
    monkey = pytest.MonkeyPatch()
    monkey.setattr("models.training.loop.SAVE_S", -1.0)  # save after every step
    with pytest.raises(Stop):
        run(broken, tmp_path / "broken", Budget(steps=6), {}, lambda _: None)
    monkey.undo()
    resumed = _supervised(pairs)
    run(resumed, tmp_path / "broken", Budget(steps=6), {}, lambda _: None)

    assert resumed.steps == 6
    assert torch.equal(_weights(resumed), _weights(whole))


def test_training_lowers_the_loss(pairs, tmp_path):
    task = _supervised(pairs)
    losses = [task.step(1.0, 0.0)["weighted_mae_hu"] for _ in range(40)]

    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.parametrize("kind", [CycleGan, Pix2Pix])
def test_adversarial_steps_are_finite_and_resume(kind, pairs, tmp_path):
    def task():
        torch.manual_seed(3)
        sampler = _sampler(pairs, unpaired=kind is CycleGan)
        return kind(sampler, SctNet(TINY), AdversarialRecipe())

    first = task()
    progress = run(first, tmp_path, Budget(steps=4), {}, lambda _: None)
    second = task()
    run(second, tmp_path, Budget(steps=5), {}, lambda _: None)

    assert all(np.isfinite(v) for row in progress.losses for v in row.values())
    assert (tmp_path / STATE).exists()
    assert second.steps == 5
    assert not torch.equal(_weights(first), _weights(second))


def test_unpaired_ct_is_somebody_elses(pairs):
    many = ((32, 12),)
    batch = PairSampler(pairs, 5, 1, sizes=many, others=pairs).batch()
    together = PairSampler(pairs, 5, 1, sizes=many).batch()

    def agreement(b):
        x, y = b.cbct[:, 2].flatten(), b.ct[:, 2].flatten()
        return torch.corrcoef(torch.stack([x, y]))[0, 1]

    assert agreement(batch) < agreement(together) - 0.1


def test_edges_kept_cost_nothing_and_edges_lost_do():
    image = torch.randn(2, 1, 24, 24)

    assert edge_loss(image, 0.5 * image + 3).item() == pytest.approx(0, abs=1e-5)
    assert edge_loss(image, torch.randn(2, 1, 24, 24)).item() > 0.7


def _anchor(pairs: list[Pair]) -> tuple[Anchor, torch.Tensor]:
    """Return an anchor and all values of its bank as an image (1, 1, 1, n)."""
    values = np.concatenate([p.ct[p.body][::31] for p in pairs]) / 1000
    return Anchor(body_quantiles(_sampler(pairs))), torch.from_numpy(values)[None, None, None]


def test_the_anchor_is_the_distance_of_the_histograms(pairs):
    """A body whose values are all 30 HU off is 30 HU away, but for what is beyond 98 %."""
    anchor, values = _anchor(pairs)
    body = torch.ones_like(values, dtype=torch.bool)

    same = anchor(values, body).item()
    anchor.filled.zero_()

    assert same == pytest.approx(0, abs=4e-3)
    assert anchor(values + 0.03, body).item() == pytest.approx(0.03, abs=4e-3)


def test_a_fat_patch_is_no_other_level_once_the_others_are_remembered(pairs):
    """The fattest third of all values is far from the bank alone, near it among the others."""
    anchor, values = _anchor(pairs)
    body = torch.ones_like(values, dtype=torch.bool)
    fat = values.sort().values[..., : values.shape[-1] // 3]
    there = torch.ones_like(fat, dtype=torch.bool)

    alone = anchor(fat, there).item()
    anchor.filled.zero_()
    for _ in range(40):
        anchor.remember(values, body)

    assert anchor(fat, there).item() < 0.5 * alone


def test_levels_move_each_tissue_by_what_it_is_off():
    """Fat that reads 40 HU too high and muscle 10 too low come back; beyond them all alike."""
    goal = torch.linspace(-0.12, 0.08, QUANTILES)
    source = torch.linspace(-0.08, 0.07, QUANTILES)
    image = torch.tensor([-0.08, 0.07, -0.005, -1.0, 1.2])[None, None, None]

    moved = Levels(source, goal)(image).flatten()

    assert moved.numpy() == pytest.approx([-0.12, 0.08, -0.02, -1.04, 1.21], abs=1e-4)


def test_the_grain_of_neighbouring_slices_is_another():
    grain = torch.randn(3, 1, 16, 16)

    slices = scattered(grain, 5)

    assert torch.equal(slices[:, :1], grain)
    flat = slices.transpose(0, 1).flatten(1)
    others = torch.corrcoef(flat) - torch.eye(5)
    assert others.abs().max() < 0.3
    assert flat.std(1).numpy() == pytest.approx([float(grain.std())] * 5, rel=1e-4)


def test_the_nearest_histogram_that_keeps_the_edges_is_chosen(pairs):
    """One generator reads 30 HU too low, one is right, one is right but shows no edges."""
    fake = [replace(p, cbct=p.ct) for p in pairs[:2]]

    class Shifted(SctNet):
        by, blur = 0.0, 0

        def forward(self, x):
            made = x[:, 2:3] + self.by
            return torch.nn.functional.avg_pool2d(made, 9, 1, 4) if self.blur else made

    start, low, right, blurred = (Shifted(TINY) for _ in range(4))
    start.by, low.by, blurred.blur = -0.05, -0.03, 1

    assert choose(start, [low, right, blurred], fake, pairs) is right
    with pytest.raises(ValueError, match="keep the start"):
        choose(right, [low], fake, pairs)


def test_the_tie_holds_level_and_shape_and_not_the_grain():
    image = torch.zeros(1, 1, 64, 64)
    grain = 0.05 * (2 * (torch.arange(64) % 2) - 1).expand(1, 1, 64, 64)

    assert tie_loss(image + 0.05, image).item() == pytest.approx(0.05, rel=1e-4)
    assert tie_loss(image + grain, image).item() < 0.01


def test_a_tissue_that_reads_low_is_seen_where_the_other_reads_high():
    """Half fat +20 HU, half muscle -20 HU: the mean error is 0, the tissues are 20 off."""
    truth = torch.full((1, 1, 32, 32), 0.05)
    truth[..., :16] = -0.1
    weight = torch.ones_like(truth)
    made = truth + torch.where(truth < 0, 0.02, -0.02)
    noisy = truth + 0.02 * (2 * (torch.arange(32)[:, None] % 2) - 1)

    assert (made - truth).mean().item() == pytest.approx(0, abs=1e-6)
    assert tissue_difference(made, truth, weight).item() == pytest.approx(0.02, rel=0.15)
    assert tissue_difference(noisy, truth, weight).item() == pytest.approx(0, abs=1e-4)


def test_whole_boxes_are_shown_as_the_node_shows_them(pairs):
    """The body's box with its margin, filled up to multiples of 16; slices of one image."""
    rows, columns = body_box(pairs[0].body)
    wanted = sorted(-(-(s.stop - s.start) // 16) * 16 for s in (rows, columns))

    batch = PairSampler(pairs[:1], 5, 1, whole=1.0).batch()

    assert sorted(batch.cbct.shape[2:]) == wanted
    assert 1 <= len(batch.cbct) <= 6
    assert (batch.weight >= 1).any()


def test_a_ct_is_calibrated_by_its_two_tissues_and_not_by_one():
    """Fat at -112 and muscle at 38 HU come to -100 and 50, air stays; one peak says nothing."""
    random = np.random.default_rng(1)
    hu = np.full((4, 80, 80), -1000.0, np.float32)
    hu[:, 10:40] = -112
    hu[:, 40:70] = 38
    body = hu > -500
    noisy = (hu + random.normal(0, 12, hu.shape)).astype(np.float32)

    made = calibrated(noisy, body)
    one = np.where(hu > 0, -112.0, noisy).astype(np.float32)

    assert made[:, 10:40].mean() == pytest.approx(-100, abs=4)
    assert made[:, 40:70].mean() == pytest.approx(50, abs=4)
    assert made[:, :10].mean() == pytest.approx(-1000, abs=6)
    assert calibrated(one, body) is one


def test_a_changed_centre_takes_its_neighbours_along_smoothly():
    stack = torch.zeros(1, 5, 32, 32)

    made = restacked(stack, torch.full((1, 1, 32, 32), 0.2))

    assert torch.allclose(made, torch.full_like(made, 0.2))


def _order(mode: str, **more) -> Order:
    given = {
        "mode": mode,
        "budget": Budget(steps=3),
        "seed": 1,
        "start": None,
        "threads": 1,
        "device": "cpu",
        "name": "sct-test",
        "network": TINY,
    }
    return Order(**(given | more))


def test_a_site_gets_a_pack_pictures_and_a_measured_hold_out(pairs, tmp_path):
    folder = train_site(pairs, tmp_path / "run", _order("sim"), lambda _: None)

    pack = load_pack(folder, SyntheticCtManifest)
    assert pack.manifest.metrics.keys() == {"p4", "p9", "mean"}
    assert pack.manifest.training["steps"] == 3
    assert "no real CBCT" in (folder / "CARD.md").read_text()
    assert (tmp_path / "run/losses.png").stat().st_size > 1000
    assert (tmp_path / "run/samples.png").stat().st_size > 1000


def test_too_few_pairs_are_refused_before_the_training(pairs, tmp_path):
    with pytest.raises(ValueError, match="at least 8"):
        train_site(pairs[:4], tmp_path / "run", _order("sim"), lambda _: None)


def test_images_apart_give_a_pack_without_measured_errors(pairs, tmp_path):
    """CBCTs alone and CTs of others: nothing is known of the truth, so nothing is claimed."""
    alone = [replace(p, ct=p.cbct) for p in pairs]
    first = train_site(pairs, tmp_path / "first", _order("sim"), lambda _: None)
    long = _order("cyclegan", start=first, budget=Budget(steps=4))

    try:
        folder = train_site(alone, tmp_path / "run", long, lambda _: None, cts=pairs[:3])
    except ValueError as refused:  # four steps may well make it no better
        assert "keep the start" in str(refused)  # noqa: PT017 (either way is right)
    else:
        assert load_pack(folder, SyntheticCtManifest).manifest.metrics == {}


def test_cyclegan_wants_a_start(pairs, tmp_path):
    with pytest.raises(ValueError, match="--start"):
        train_site(pairs, tmp_path / "run", _order("cyclegan"), lambda _: None)


def test_histogram_distance_is_in_hu():
    values = [np.arange(1000.0)]

    assert histogram_distance(values, [values[0] + 12]) == pytest.approx(12)
