"""The image speaks against spoiled contours, and not against good ones."""

import numpy as np
import pytest

from benchmarks.contour_checks import halved, leaked, patient, shifted, spoiled
from pipelines.autocontour.checks import Verdict, with_evidence
from pipelines.autocontour.evidence import Scene
from pipelines.autocontour.limits import LIMITS, beyond
from pipelines.autocontour.names import Organ


@pytest.fixture(scope="module")
def found():
    return patient(7)


@pytest.fixture(scope="module")
def scene(found):
    return Scene(image=found.image, body=found.body)


@pytest.fixture(scope="module")
def masks(found):
    return {organ: surface >= 0.5 for organ, surface in found.surfaces.items()}


def told(organ, mask, scene):
    return {finding.code for finding in beyond(organ, mask, scene)}


def test_good_contours_are_beyond_no_limit(masks, scene):
    assert {organ: told(organ, mask, scene) for organ, mask in masks.items()} == {
        organ: set() for organ in masks
    }


def test_every_structure_has_limits():
    assert set(LIMITS) == set(Organ)


def test_swapped_lungs_lie_on_the_wrong_side_and_are_not_written(masks, scene):
    findings = beyond(Organ.LUNG_L, masks[Organ.LUNG_R], scene)

    assert "roi-wrong-side" in {f.code for f in findings}
    verdict = Verdict(organ=Organ.LUNG_L, write=True, cut=False, findings=())
    assert not with_evidence(verdict, findings).write
    assert "wrong" in next(f.code for f in findings if f.unit == "mm")


@pytest.mark.parametrize("organ", [Organ.LUNG_L, Organ.LUNGS, Organ.BONES, Organ.EXTERNAL])
def test_half_a_structure_is_incomplete(organ, masks, scene):
    assert "roi-incomplete" in told(organ, halved(masks[organ]), scene)


def test_half_a_canal_is_short(masks, scene):
    assert "roi-short" in told(Organ.SPINAL_CANAL, halved(masks[Organ.SPINAL_CANAL]), scene)


def test_a_leak_of_the_canal_is_uneven_and_one_of_a_lung_holds_a_lump(masks, scene):
    rng = np.random.default_rng(1)

    assert "roi-uneven" in told(Organ.SPINAL_CANAL, leaked(masks[Organ.SPINAL_CANAL], rng), scene)
    assert "roi-strange-lump" in told(Organ.LUNG_R, leaked(masks[Organ.LUNG_R], rng), scene)


def test_a_shift_of_15_mm_shows_in_the_values_or_in_what_is_left_out(masks, scene):
    for seed in range(4):
        assert told(Organ.LUNG_L, shifted(masks[Organ.LUNG_L], np.random.default_rng(seed)), scene)


def test_permuted_labels_are_told_for_every_structure(masks, scene):
    permuted = [s for s in spoiled(masks, np.random.default_rng(0)) if s[0] == "labels permuted"]

    assert len(permuted) == len(masks)
    for _, organ, mask in permuted:
        assert told(organ, mask, scene), organ


def test_findings_carry_value_and_limit(masks, scene):
    finding = beyond(Organ.LUNGS, masks[Organ.BONES], scene)[0]

    assert finding.roi == "Lungs"
    assert finding.value < finding.limit == 0.92
    assert "% of it has the HU" in finding.message
