"""IBSI-1, digital phantom: 210 of 210 consensus values in 3D (see `ibsi_reference`)."""

import numpy as np
import pytest

from pipelines.radiomics import ivh, morphology, stats, texture
from tests.conformance.ibsi_reference import IMAGE, MASK, SPACING_MM, VALUES, agrees


@pytest.fixture(scope="module")
def computed():
    volume = texture.Volume(np.where(MASK, IMAGE, 0).astype(int))
    glcm, glcm_averaged = texture.glcm(volume)
    glrlm, glrlm_averaged = texture.glrlm(volume)
    inside = IMAGE[MASK]
    single = {
        **morphology.morphology(MASK, IMAGE, MASK, SPACING_MM),
        **morphology.autocorrelation(IMAGE, MASK, SPACING_MM),
        **stats.statistics(inside),
        **stats.histogram(inside.astype(int)),
        **stats.local_intensity(IMAGE, MASK, SPACING_MM),
        **ivh.ivh(inside, np.arange(1.0, 7.0)),
        **texture.glszm(volume),
        **texture.gldzm(volume),
        **texture.neighborhood(volume),
    }
    return {
        "": single,
        "merged": glcm | glrlm,
        "averaged": glcm_averaged | glrlm_averaged,
    }


def test_the_table_holds_all_210_values():
    assert len(VALUES) == len({(code, how) for _, code, how, _, _ in VALUES}) == 210


@pytest.mark.parametrize(
    ("code", "how", "reference", "tolerance"),
    [row[1:] for row in VALUES],
    ids=[row[0] for row in VALUES],
)
def test_value_agrees_with_the_consensus(computed, code, how, reference, tolerance):
    value = computed[how][code]

    assert agrees(value, reference, tolerance), f"{value} is not {reference} ± {tolerance}"
