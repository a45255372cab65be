"""Bad input ends in a clear finding, never in a plausible series that is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipelines.api import InputRejected, Outcome, Role, Severity
from pipelines.dicom.volume import read_volume
from pipelines.synthetic_ct.settings import ScannerRule
from tests.unit.pipelines.synthetic_ct import sct_support as support

Series = list[Dataset]


def _codes(outcome: Outcome) -> dict[str, Severity]:
    return {f.code: f.severity for f in outcome.findings}


def _tilted(series: Series) -> Series:
    """Return slices that lean against their stack, as a gantry tilt of 15 degrees leaves them."""
    for k, ds in enumerate(series):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y + k * np.tan(np.radians(15)) * 4.0, z]
    return series


def _thinned(series: Series) -> Series:
    return [ds for k, ds in enumerate(series) if k not in (7, 8)]


def _one_pixel(series: Series) -> Series:
    for ds in series:
        ds.Rows = ds.Columns = 1
        ds.PixelData = ds.PixelData[:2]
    return series


def _truncated_file(series: Series) -> Series:
    series[4].PixelData = series[4].PixelData[:500]
    return series


def _stored_plus_1024(series: Series) -> Series:
    """Return values stored as HU + 1024 by a scanner that forgot to say so."""
    for ds in series:
        ds.RescaleIntercept = "0"
        ds.RescaleSlope = "1"
    return series


def _mr_labelled_ct(series: Series) -> Series:
    """Return an MR under the name of a CT: air around 0, tissue of a few hundred, no bone."""
    hu = support.cbct_hu()
    mr = np.where(hu > -500, 300 + 0.8 * (hu + 300), np.abs(0.02 * (hu + 1000)))
    return support.cbct(hu=mr.astype(np.float32))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_tilted, "tilt|lean|straight|normal"),
        (_thinned, "missing"),
        (_one_pixel, "small|pixel|body"),
        (_truncated_file, "pixel|bytes"),
        (_stored_plus_1024, "Hounsfield|HU|air"),
        (_mr_labelled_ct, "Hounsfield|HU|air"),
    ],
    ids=["tilted", "gapped", "1x1", "truncated-file", "hu-plus-1024", "mr-labelled-ct"],
)
def test_a_series_that_cannot_be_right_is_held(
    spoil: Callable[[Series], Series], why: str, tmp_path: Path
) -> None:
    with pytest.raises(InputRejected, match=why):
        support.run_on(tmp_path, {Role.CBCT: spoil(support.cbct())})


def test_a_body_that_the_field_of_view_cuts_is_flagged(tmp_path: Path) -> None:
    _, y, x = np.mgrid[:22, :88, :88]
    hu = np.where(np.hypot(y - 43.5, x - 43.5) < 26, support.cbct_hu(), -1000)

    outcome = support.run_on(tmp_path, {Role.CBCT: support.cbct(hu=hu.astype(np.float32))})

    assert _codes(outcome)["fov-truncation"] is Severity.WARN


def test_metal_is_flagged(tmp_path: Path) -> None:
    """Two screws of 1.5 cm3 in the middle of the body; bone alone is no metal."""
    hu = support.cbct_hu()
    hu[8:14, 44:47, 38:40] = 3000

    outcome = support.run_on(tmp_path / "a", {Role.CBCT: support.cbct(hu=hu)})
    (tmp_path / "b").mkdir()
    without = support.run_on(tmp_path / "b", {Role.CBCT: support.cbct()})

    assert _codes(outcome)["metal"] is Severity.WARN
    assert "metal" not in _codes(without)


def test_a_ct_grade_scanner_keeps_its_values(tmp_path: Path) -> None:
    truth = support.truth()
    rule = ScannerRule(manufacturer="varian*", model="*")
    objects = {Role.CBCT: support.cbct(hu=truth)}

    outcome = support.run_on(tmp_path, objects, passthrough=(rule,))

    assert outcome.figures["method"] == "passthrough"
    assert _codes(outcome)["ct-grade-scanner"] is Severity.INFO
    made = read_volume([o.path for o in outcome.objects])
    assert np.array_equal(np.asarray(made.hu), np.clip(np.rint(truth), -1024, 3071))
    ds = made.headers[0]
    assert (ds.SyntheticData, "passthrough" in ds.SeriesDescription) == ("NO", True)
    assert "Synthetic" not in ds.ImageComments


def test_a_ct_grade_scanner_that_fails_the_gates_is_corrected_as_usual(tmp_path: Path) -> None:
    """Half of its HU gone: fat, muscle and edges are not where they belong."""
    rule = ScannerRule(manufacturer="*", model="*")
    objects = {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
    }

    outcome = support.run_on(tmp_path, objects, passthrough=(rule,))

    assert outcome.figures["method"] == "hybrid"
    assert _codes(outcome)["method-fell-back"] is Severity.WARN


@pytest.mark.parametrize(
    ("manufacturer", "model", "kept"),
    [
        ("Varian Medical Systems", "TrueBeam HyperSight", True),
        ("VARIAN", "HYPERSIGHT", True),
        ("Varian Medical Systems", "On-Board Imager", False),
        ("Elekta", "HyperSight", False),
        ("", "", False),
    ],
)
def test_the_rule_asks_for_both(manufacturer: str, model: str, *, kept: bool) -> None:
    rule = ScannerRule(manufacturer="Varian*", model="*HyperSight*")

    assert rule.matches(manufacturer, model) is kept
