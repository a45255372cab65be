"""The claims of the founding research: a better image passes, the CBCT itself does not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from node.cli.sct import sct
from pipelines.synthetic_ct import reproduce
from pipelines.synthetic_ct.learned import open_pack

Hu = np.ndarray


@dataclass
class Stand:
    """Stands in for the network: whatever function of the CBCT."""

    answer: Callable[[Hu], Hu]
    pack: SimpleNamespace

    def apply(self, cbct: Hu, body: Hu, spacing: tuple[float, ...]) -> SimpleNamespace:
        return SimpleNamespace(hu=self.answer(cbct))


def _stand(answer: Callable[[Hu], Hu]) -> Stand:
    return Stand(answer=answer, pack=SimpleNamespace(label="stand-in 1"))


@pytest.fixture(scope="module")
def subject() -> reproduce.Subject:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "SHAPE", (12, 96, 96))
        patch.setattr(reproduce, "SPACING", (5.0, 4.4, 4.4))
        return next(reproduce.phantoms(1, seeds=2))


def test_the_known_deformation_leads_to_the_planning_ct(subject: reproduce.Subject) -> None:
    """The planning CT sampled at today's points plus their vectors is today's CT."""
    assert subject.field is not None
    assert subject.truth is not None
    planned = reproduce.patient("pelvis", (12, 96, 96), (5.0, 4.4, 4.4), 81_000, noise_hu=0)
    index = np.stack(np.meshgrid(*map(np.arange, planned.shape), indexing="ij"), axis=-1)
    points = subject.geometry.points(index.reshape(-1, 3)) + subject.field.reshape(-1, 3)
    back = subject.geometry.indices(points)

    today = ndimage.map_coordinates(planned, back.T, order=1, mode="nearest")

    assert np.abs(today.reshape(planned.shape) - subject.truth).max() < 1


def test_the_truth_itself_fulfills_the_claims_of_registration(
    subject: reproduce.Subject,
) -> None:
    truth = subject.truth
    assert truth is not None

    found = reproduce.measure(subject, _stand(lambda _: truth))

    for key in ("vct_gain", "field_gain", "steadiness", "valley_sct"):
        assert reproduce.CLAIMS[key].holds(found.values[key]), (key, found.values[key])
    assert found.values["steadiness"] == pytest.approx(-100)


def test_the_cbct_passed_off_as_synthetic_ct_does_not(subject: reproduce.Subject) -> None:
    found = reproduce.measure(subject, _stand(lambda cbct: cbct))

    assert not reproduce.CLAIMS["vct_gain"].holds(found.values["vct_gain"])
    assert found.values["valley_sct"] == found.values["valley_cbct"]
    assert found.values["edges"] == pytest.approx(1)


def test_the_page_says_what_fails_and_what_was_not_measured(
    subject: reproduce.Subject, tmp_path: Path
) -> None:
    alone = reproduce.Subject(
        name="case", scans=subject.scans[:1], body=subject.body, geometry=subject.geometry
    )
    learned = _stand(lambda cbct: cbct[:, ::-1])
    found = reproduce.measure(alone, learned)

    page = reproduce.write_claims(tmp_path, [found], learned, "a test").read_text()

    assert "FAILS" in page
    assert "SD of the field over noise, change [%]: no truth for it" in page
    assert {p.name for p in tmp_path.iterdir()} >= {"claims.pdf", "claims.png", "planes.png"}


def test_a_folder_of_cases_tells_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "cases" / "first" / "cbct").mkdir(parents=True)

    done = CliRunner().invoke(
        sct, ["reproduce", str(tmp_path / "out"), "--cases", str(tmp_path / "cases")]
    )

    assert done.exit_code == 1
    assert "first was left out" in done.output
    assert "no case could be measured" in done.output


@pytest.mark.slow
def test_the_shipped_network_keeps_anatomy_and_parts_fat_from_muscle() -> None:
    learned = open_pack("sct-pelvis")
    found = reproduce.measure(next(reproduce.phantoms(1, seeds=2)), learned)

    for key in ("edges", "local", "valley_sct"):
        assert reproduce.CLAIMS[key].holds(found.values[key]), (key, found.values[key])
