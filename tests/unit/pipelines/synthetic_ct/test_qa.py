"""The gates: a good image passes, gross faults fail (reference, section 9, F1-F8)."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from models.phantom import thorax
from pipelines.imaging.verdict import Gate, Limits, Verdict, overall
from pipelines.synthetic_ct.classical import match_planning_ct
from pipelines.synthetic_ct.gates import Case
from pipelines.synthetic_ct.qa import examine, modes, noise

PATIENT = thorax((10, 96, 96), (5.0, 4.0, 4.0), 1, couch=False)
BODY = PATIENT.labels["External"]
CBCT = ndimage.gaussian_filter(0.85 * (PATIENT.hu + 1000) - 1000, (0, 0.8, 0.8)).astype(np.float32)
REFERENCE = match_planning_ct(CBCT, BODY, PATIENT.hu, BODY, PATIENT.spacing)
SOMEBODY_ELSE = thorax((10, 96, 96), (5.0, 4.0, 4.0), 7, couch=False, center=(14.0, -8.0, 30.0)).hu


def _verdict(image: np.ndarray, prior: np.ndarray | None = PATIENT.hu) -> Verdict:
    return overall(examine_image(image, prior))


def examine_image(image: np.ndarray, prior: np.ndarray | None = PATIENT.hu) -> tuple[Gate, ...]:
    case = Case(
        sct=np.clip(np.rint(image), -1024, 3071).astype(np.float32),
        cbct=CBCT,
        body=BODY,
        outline=BODY,
        fov=np.ones_like(BODY),
        spacing=PATIENT.spacing,
        prior=prior,
        reference=None if prior is None else REFERENCE,
    )
    return examine(case)


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hu-too-high": lambda a: a + 60,
    "hu-too-low": lambda a: a - 60,
    "shifted-12-mm": lambda a: np.roll(a, 3, axis=1),
    "lung-filled": lambda a: np.where(BODY & (a < -300), 0, a),
    "bone-lost": lambda a: np.where(a > 150, 150 + 0.4 * (a - 150), a),
    "another-patient": lambda a: SOMEBODY_ELSE,
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


@pytest.mark.parametrize("prior", [PATIENT.hu, None], ids=["prior", "no-prior"])
@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "bone-lost"])
def test_gross_faults_fail(fault: str, prior: np.ndarray | None) -> None:
    assert _verdict(FAULTS[fault](PATIENT.hu), prior) is Verdict.FAIL


def test_lost_bone_fails_with_a_planning_ct_and_where_the_cbct_shows_it() -> None:
    """F5: without a planning CT a CBCT that lost the bone itself cannot tell."""
    lost = FAULTS["bone-lost"](PATIENT.hu).astype(np.float32)
    clear = ndimage.gaussian_filter(PATIENT.hu, (0, 0.4, 0.4))
    case = Case(
        sct=lost,
        cbct=clear,
        body=BODY,
        outline=BODY,
        fov=np.ones_like(BODY),
        spacing=PATIENT.spacing,
    )

    assert _verdict(lost) is Verdict.FAIL
    assert "bone-lost" in [g.name for g in examine(case) if g.verdict is Verdict.FAIL]


def test_an_invented_lesion_passes_every_gate() -> None:
    """F9: a mass of 20 mm at +80 HU in soft tissue; why the network's correction is bounded."""
    lesion = np.zeros(BODY.shape, dtype=np.bool_)
    lesion[4:7, 60:65, 40:45] = True
    good, invented = (examine_image(a) for a in (PATIENT.hu, PATIENT.hu + 80 * lesion))

    assert overall(good) is not Verdict.FAIL
    assert overall(invented) is overall(good)


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
