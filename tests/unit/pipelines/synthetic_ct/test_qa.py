"""The gates: a good image passes, gross faults fail (reference, section 9, F1-F8)."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from models.phantom import thorax
from pipelines.synthetic_ct.qa import Case, Limits, Verdict, examine, modes, noise, overall

PATIENT = thorax((10, 96, 96), (5.0, 4.0, 4.0), 1, couch=False)
BODY = PATIENT.labels["External"]
CBCT = ndimage.gaussian_filter(0.85 * (PATIENT.hu + 1000) - 1000, (0, 0.8, 0.8)).astype(np.float32)


def _verdict(image: np.ndarray, prior: np.ndarray | None = PATIENT.hu) -> Verdict:
    case = Case(
        sct=np.clip(np.rint(image), -1024, 3071).astype(np.float32),
        cbct=CBCT,
        body=BODY,
        outline=BODY,
        fov=np.ones_like(BODY),
        spacing=PATIENT.spacing,
        prior=prior,
    )
    return overall(examine(case))


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hu-too-high": lambda a: a + 60,
    "hu-too-low": lambda a: a - 60,
    "shifted-12-mm": lambda a: np.roll(a, 3, axis=1),
    "lung-filled": lambda a: np.where(BODY & (a < -300), 0, a),
    "over-smoothed": lambda a: ndimage.gaussian_filter(a, (1, 4, 4)),
    "body-shrunk": lambda a: np.where(
        ndimage.binary_erosion(BODY, np.ones((1, 3, 3)), iterations=2), a, -1000
    ),
    "constant": lambda a: np.full_like(a, 40),
    "not-a-number": lambda a: np.where(a > 100, np.nan, a),
}


@pytest.mark.parametrize("prior", [PATIENT.hu, None], ids=["prior", "no-prior"])
def test_a_good_image_does_not_fail(prior: np.ndarray | None) -> None:
    assert _verdict(PATIENT.hu, prior) is not Verdict.FAIL


@pytest.mark.parametrize("fault", FAULTS)
def test_gross_faults_fail(fault: str) -> None:
    assert _verdict(FAULTS[fault](PATIENT.hu)) is Verdict.FAIL


def test_a_cbct_passed_off_as_ct_fails() -> None:
    """0.85 x (HU + 1000): muscle reads 107 HU too low."""
    assert _verdict(CBCT) is Verdict.FAIL


def test_two_tissues_are_two_modes_and_a_blurred_one_is_not() -> None:
    sharp = modes(PATIENT.hu, BODY)
    noisy = PATIENT.hu + np.random.default_rng(1).normal(0, 120, PATIENT.hu.shape)

    assert sharp.fat == pytest.approx(-100, abs=10)
    assert sharp.muscle == pytest.approx(45, abs=10)
    assert sharp.valley < 0.6
    assert modes(noisy.astype(np.float32), BODY).valley > 0.9


def test_noise_is_measured_and_anatomy_is_not() -> None:
    """White noise of known SD on top of the phantom's own 12 HU."""
    added = np.random.default_rng(2).normal(0, 50, PATIENT.hu.shape).astype(np.float32)

    assert noise(PATIENT.hu + added, BODY) == pytest.approx(np.hypot(50, 12), rel=0.25)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(10, Verdict.PASS), (30, Verdict.WARN), (50, Verdict.FAIL), (np.nan, Verdict.FAIL)],
    ids=["good", "middling", "bad", "nan"],
)
def test_limits_judge_small_is_good(value: float, verdict: Verdict) -> None:
    assert Limits(passes=25, fails=45).judge(value) is verdict


def test_limits_judge_large_is_good() -> None:
    limits = Limits(passes=0.85, fails=0.75)

    assert [limits.judge(v) for v in (0.9, 0.8, 0.7)] == [Verdict.PASS, Verdict.WARN, Verdict.FAIL]
