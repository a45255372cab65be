"""The gates: good answers pass, each gross fault fails, and bounds hold by construction."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from pipelines.dicom.volume import CtVolume
from pipelines.geometry.stack import StackGeometry
from pipelines.image_quality.classical import averages, consistent, diffused, parted
from pipelines.image_quality.pipeline import Scene, judge_image, judged, run_chain
from pipelines.image_quality.settings import ImageQualitySettings
from pipelines.imaging.body import find_regions
from pipelines.imaging.verdict import Verdict
from tests.unit.pipelines.image_quality import quality_support as support

FACTORS = {"noise_reduction": 1, "super_resolution": 2}


def scene(task: str, hu: np.ndarray | None = None) -> Scene:
    hu = np.rint(support.noisy() if hu is None else hu).astype(np.float32)
    ct = CtVolume(
        hu=hu,
        padded=None,
        geometry=StackGeometry.regular(shape=support.SHAPE, spacing=support.SPACING),
        headers=(),
        frame_of_reference_uid="1.2",
    )
    body = find_regions(hu, support.SPACING).body
    settings = ImageQualitySettings(task=task)
    return Scene(ct=ct, body=body, factor=FACTORS[task], settings=settings)


def answer(where: Scene) -> np.ndarray:
    (candidate,) = run_chain(where, None)
    assert candidate.verdict is Verdict.PASS
    return candidate.case.after


GOOD = {task: answer(scene(task)) for task in FACTORS}
SPOT = (5, 74, 101)
"""In the middle of the pelvis (slice, row, column)."""


def ball(shape: tuple[int, ...], factor: int) -> np.ndarray:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    k, i, j = SPOT[0] * factor, *SPOT[1:]
    step, rows, columns = support.SPACING
    off = ((z - k) * step / factor) ** 2 + ((y - i) * rows) ** 2 + ((x - j) * columns) ** 2
    return off < 9.0**2


FAULTS = {
    "over-smoothed": lambda a, f: ndimage.gaussian_filter(a, (0, 1.5, 1.5)),
    "HU shifted": lambda a, f: a + 15,
    "one tissue shifted": lambda a, f: np.where((a > 0) & (a < 100), a + 10, a),
    "painted in": lambda a, f: np.where(ball(a.shape, f), a + 60, a),
    "moved by a slice": lambda a, f: np.roll(a, 1, axis=0),
    "wrong order": lambda a, f: a[::-1],
    "grain": lambda a, f: a + np.random.default_rng(1).normal(0, 20, a.shape),
    "bone lost": lambda a, f: np.minimum(a, 60),
}


@pytest.mark.parametrize("task", FACTORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_gross_fault_fails(task, fault):
    spoiled = np.asarray(FAULTS[fault](GOOD[task], FACTORS[task]), np.float32)

    assert judge_image(scene(task), spoiled, "fault", {}).verdict is Verdict.FAIL


@pytest.mark.parametrize("task", FACTORS)
def test_a_lesion_that_is_lost_fails(task):
    plain = support.noisy()
    with_it = np.where(ball(plain.shape, 1), plain + 60, plain)

    assert judge_image(scene(task, with_it), GOOD[task], "fault", {}).verdict is Verdict.FAIL


def test_thin_slices_in_the_wrong_order_inside_a_thick_one_fail():
    """Their average is right all the same: only the slope tells."""
    thin = GOOD["super_resolution"]
    swapped = thin.reshape(-1, 2, *thin.shape[1:])[:, ::-1].reshape(thin.shape)
    found = judge_image(scene("super_resolution"), swapped, "fault", {})

    assert {g.name: g.verdict for g in found.gates}["slice-slope"] is Verdict.FAIL


def test_a_bad_network_falls_back_to_the_classical_method():
    wrong = SimpleNamespace(
        apply=lambda hu: hu + 30,
        pack=SimpleNamespace(manifest=SimpleNamespace(gates={})),
    )

    first, last = run_chain(scene("noise_reduction"), wrong)

    assert (first.method, first.verdict) == ("network", Verdict.FAIL)
    assert (last.method, last.verdict) == ("classical", Verdict.PASS)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("cubic", [True, False])
def test_parted_slices_average_to_the_thick_one(factor, cubic):
    hu = support.noisy()[:, 20:40, 30:60]

    assert averages(parted(hu, factor, cubic=cubic), factor) == pytest.approx(hu, abs=0.01)


def test_a_slope_along_the_slices_is_continued_exactly():
    hu = np.arange(8, dtype=np.float32)[:, None, None] * np.full((8, 3, 3), 12.0, np.float32)

    thin = parted(hu, 3)

    assert np.diff(thin[:, 0, 0])[3:-3] == pytest.approx(4.0, abs=0.05)


def test_whatever_is_given_the_thin_slices_are_consistent_bounded_and_within_twelve_bits():
    random = np.random.default_rng(1)
    hu = random.uniform(-1024, 3071, (6, 9, 9)).astype(np.float32)
    wild = random.uniform(-9000, 9000, (18, 9, 9)).astype(np.float32)

    thin = consistent(wild, hu, 3, most_hu=50.0)

    assert averages(thin, 3) == pytest.approx(hu, abs=0.01)
    assert thin.min() >= -1024.01
    assert thin.max() <= 3071.01


def test_diffusion_leaves_values_beyond_its_window_alone():
    hu = support.noisy()
    hu[4, 30:33, 30:33] = 2900
    geometry = StackGeometry.regular(shape=support.SHAPE, spacing=support.SPACING)

    assert (diffused(hu, geometry)[4, 30:33, 30:33] == 2900).all()


def test_the_bound_of_the_change_holds_for_any_answer():
    where = scene("noise_reduction")

    made = judged(where, where.hu + 5000, "wild", {}).case.after

    source = np.clip(where.hu, -1024, 3071)
    assert np.abs(made - source).max() <= where.settings.max_change_hu + 0.5
