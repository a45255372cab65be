"""The network in the chain: contract, likeness, fallback, validation report, resampling."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.pack import (
    DataSource,
    Familiar,
    InputContract,
    Pack,
    SyntheticCtManifest,
)
from models.sct_ood import features, fit
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import find_regions
from pipelines.imaging.verdict import Verdict
from pipelines.synthetic_ct.learned import Learned
from pipelines.synthetic_ct.methods import Method, Scene, order, run_chain
from pipelines.synthetic_ct.validation import (
    Criteria,
    PairResult,
    ReportRefused,
    ValidationReport,
    judge,
    read_report,
)
from tests.unit.pipelines.synthetic_ct import sct_support as support

CBCT, SPACING = support.cbct_hu(), support.CBCT_SPACING
REGIONS = find_regions(CBCT, SPACING, diameter_mm=376.0)
TRUTH = support.truth()


def _familiar() -> Familiar:
    random = np.random.default_rng(1)
    rows = []
    for _ in range(40):
        body = np.roll(REGIONS.body, int(random.integers(-3, 4)), axis=1)
        noise = random.normal(0, random.uniform(5, 30), CBCT.shape)
        hu = (CBCT * random.uniform(0.95, 1.05) + random.normal(0, 20) + noise).astype(np.float32)
        spacing = tuple(float(s * random.uniform(0.9, 1.1)) for s in SPACING)
        rows.append(features(hu, body, (spacing[0], spacing[1], spacing[1])))
    return fit(rows)


FAMILIAR = _familiar()


def _learned(network, **contract) -> Learned:
    given = {
        "modality": "CT",
        "pixel_mm": (3.0, 6.0),
        "slice_mm": (1.0, 6.5),
        "hu": (-1000.0, 3000.0),
    }
    manifest = SyntheticCtManifest(
        schema_version=1,
        id="test",
        version="1",
        title="",
        kind="synthetic-ct",
        body_region="thorax",
        slices=5,
        weights_licence="",
        data=(DataSource(name="", licence="", source="", patients=0),),
        intended_use="",
        contraindications="",
        metrics={},
        training={},
        files=(),
        contract=InputContract(**(given | contract)),
        familiar=FAMILIAR,
        gates={},
    )
    pack = Pack(folder=Path(), manifest=manifest, sha256="0" * 64)
    return Learned(pack=pack, network=network)


def _oracle(batch: np.ndarray) -> np.ndarray:
    """Undo the scale and most of the shading of the made-up CBCT: a network that learned it."""
    centre = 1000 * batch[:, 2:3]
    return ((centre + 1000) / 0.85 - 1000 + 45 * (centre > -900)) / 1000


def _scene(learned: Learned | None) -> Scene:
    grid = StackGeometry.regular(shape=CBCT.shape, spacing=SPACING, origin=(0.0, 0.0, 0.0))
    return Scene(cbct=CBCT, regions=REGIONS, geometry=grid, prior=None, learned=learned)


def test_a_cbct_like_the_training_images_may_run():
    runs, findings = _learned(_oracle).opinion(CBCT, REGIONS.body, SPACING)

    assert runs
    assert findings == []


@pytest.mark.parametrize(
    "image",
    [CBCT + 1024, np.where(CBCT > 200, 3000, CBCT), -CBCT],
    ids=["HU+1024", "metal", "inverted"],
)
def test_another_kind_of_image_is_refused_with_its_reason(image: np.ndarray):
    runs, findings = _learned(_oracle).opinion(image.astype(np.float32), REGIONS.body, SPACING)

    assert not runs
    assert [f.code for f in findings] == ["unfamiliar-image"]
    assert "mostly" in findings[0].message


@pytest.mark.parametrize("spacing", [(20.0, 4.4, 4.4), (4.0, 30.0, 30.0)], ids=["slices", "pixels"])
def test_voxels_outside_the_contract_are_refused(spacing):
    runs, findings = _learned(_oracle).opinion(CBCT, REGIONS.body, spacing)

    assert not runs
    assert [f.code for f in findings] == ["outside-contract"]


def test_pixels_outside_the_trained_range_are_resampled_and_back():
    """A network of 6 mm and more on a CBCT of 4.4 mm."""
    learned = _learned(lambda batch: batch[:, 2:3], pixel_mm=(6.0, 9.0))

    answer = learned.apply(CBCT, REGIONS.body, SPACING)

    assert answer.hu.shape == CBCT.shape
    inside = REGIONS.body
    assert np.corrcoef(answer.hu[inside], CBCT[inside])[0, 1] > 0.95
    assert answer.disagreement_p95 == pytest.approx(0, abs=1e-3)


def test_a_good_network_is_taken_and_a_broken_one_falls_back():
    good = run_chain(_scene(_learned(_oracle)), order("network", has_prior=False, has_network=True))
    broken = run_chain(
        _scene(_learned(lambda batch: 0 * batch[:, 2:3])),
        order("network", has_prior=False, has_network=True),
    )

    assert [c.method for c in good] == [Method.NETWORK]
    assert [c.method for c in broken] == [Method.NETWORK, Method.LUT]
    assert broken[0].verdict is Verdict.FAIL


def test_a_network_that_changes_its_mind_is_a_warning():
    def moody(batch: np.ndarray) -> np.ndarray:
        ramp = np.linspace(0, 0.3, batch.shape[2], dtype=np.float32)[None, None, :, None]
        return _oracle(batch) + np.where(batch[:, 2:3] > -0.9, ramp, 0)

    answer = _learned(moody).apply(CBCT, REGIONS.body, SPACING)

    assert answer.disagreement_p95 > 100


@pytest.mark.parametrize(
    ("asked", "prior", "network", "methods"),
    [
        ("auto", True, False, (Method.HYBRID, Method.HISTMATCH, Method.LUT)),
        ("auto", False, False, (Method.LUT,)),
        ("auto", True, True, (Method.NETWORK, Method.HYBRID, Method.HISTMATCH, Method.LUT)),
        ("histmatch", True, False, (Method.HISTMATCH, Method.LUT)),
        ("network", False, True, (Method.NETWORK, Method.LUT)),
        ("network", True, False, (Method.HYBRID, Method.HISTMATCH, Method.LUT)),
        ("hybrid", False, True, (Method.LUT,)),
    ],
)
def test_the_chain_follows_what_is_there(asked, prior, network, methods):
    assert order(asked, has_prior=prior, has_network=network) == methods


def _result(**more) -> PairResult:
    given = {
        "name": "case",
        "raw_mae": 100.0,
        "classical_mae": 60.0,
        "network_mae": 40.0,
        "network_me": 2.0,
        "path_p95_mm": 1.0,
        "verdict": "PASS",
    }
    return PairResult(**(given | more))


def _report(pairs: tuple[PairResult, ...]) -> ValidationReport:
    reasons = judge(pairs, Criteria())
    return ValidationReport(
        pack="test 1",
        pack_sha256="a" * 64,
        made_at="2026-11-20T00:00:00+00:00",
        signed_by="A. Physicist",
        criteria=Criteria(),
        pairs=pairs,
        accepted=not reasons,
        reasons=reasons,
    ).sealed()


def test_five_good_pairs_switch_the_network_on(tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text(_report((_result(),) * 5).model_dump_json())

    assert read_report(str(path), "a" * 64).accepted


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ((_result(),) * 4, "at least 5"),
        ((_result(network_mae=70.0),) * 5, "classical method"),
        ((_result(network_me=-30.0),) * 5, "mean error"),
        ((_result(),) * 4 + (_result(path_p95_mm=6.0),), "path length"),
        ((_result(),) * 4 + (_result(verdict="FAIL"),), "failed by the gates"),
        ((_result(network_mae=None, verdict="refused"),) * 5, "refused on every pair"),
    ],
    ids=["few", "worse", "biased", "path", "gates", "refused"],
)
def test_what_does_not_suffice_is_said(pairs, why):
    assert why in "; ".join(judge(pairs, Criteria()))


@pytest.mark.parametrize("fault", ["none", "changed", "other", "not-accepted", "nonsense", "gone"])
def test_a_report_that_does_not_hold_is_refused(fault: str, tmp_path: Path):
    path = tmp_path / "report.json"
    report = _report((_result(),) * (4 if fault == "not-accepted" else 5))
    text = report.model_dump_json()
    if fault == "changed":
        text = text.replace("A. Physicist", "Somebody Else")
    if fault != "gone":
        path.write_text("{}" if fault == "nonsense" else text)
    asked = None if fault == "none" else str(path)

    with pytest.raises(ReportRefused):
        read_report(asked, ("b" if fault == "other" else "a") * 64)


def test_the_seal_covers_everything_but_itself():
    report = _report((_result(),) * 5)

    assert json.loads(report.model_dump_json())["seal_sha256"] == report.seal()
    assert report.seal() != report.model_copy(update={"accepted": False}).seal()
