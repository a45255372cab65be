"""The demo passes a right result and fails a wrong one: mirrored, shifted, missing, unmarked."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from demo import checks, patient
from demo.checks import check_all, ct_grid, truth_masks
from demo.dicom import ct_series
from demo.grid import Grid
from demo.patient import Patient, Size
from demo.readback import MEAN, Received
from demo.rt import Roi, rings_from_mask, rtstruct

SMALL = Size(
    ct_shape=(24, 96, 96), ct_spacing=(10.0, 4.5, 4.5), cbct_shape=(8, 64, 64),
    cbct_spacing=(6.0, 7.0, 7.0), dose_shape=(40, 60, 90), dose_spacing=(6.0, 4.0, 4.0), views=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def person() -> Patient:
    return patient.generate(SMALL)


def right(person: Patient) -> Received:
    """Return results as a perfect node would send them."""
    case = patient.Case(seed=1)
    grid, truth = ct_grid(person), truth_masks(person)
    rois = [Roi(name=n, rings=rings_from_mask(truth[n], grid)) for n in checks.LEAST_DICE]
    structures = rtstruct(case, person.modality["CT"], rois)
    day = person.treatment
    x, y, z = np.subtract(day.origin, day.target).tolist()
    own = Grid(shape=person.cbct.shape, spacing=day.spacing, origin=(x, y, z))
    sct = ct_series(case, day.hu, own, series="sct")
    for ds in sct:
        ds.FrameOfReferenceUID = person.modality["CBCT"][0].FrameOfReferenceUID
    return Received(structure_sets=[structures], images={"1": sct}, reports=[report(person)])


def report(person: Patient) -> Dataset:
    groups = [group(person, name) for name in checks.DOSE_ROIS]
    ds = Dataset()
    ds.Modality, ds.VerificationFlag, ds.SOPInstanceUID = "SR", "UNVERIFIED", "2.25.1"
    ds.ContentSequence = Items(groups)
    return ds


def group(person: Patient, name: str) -> Dataset:
    dose = person.dose_gy[person.structures[name]]
    tracking = item("112039", ValueType="TEXT", TextValue=name)
    derived = Dataset()
    derived.CodeValue = MEAN
    derivation = item("121401", ValueType="CODE", ConceptCodeSequence=Items([derived]))
    mean = number("128513", float(dose.mean()))
    mean.ContentSequence = Items([derivation])
    v20 = number(checks.V20, 100 * float((dose >= 20).mean()))
    filler = [number(f"F{k}", 1.0) for k in range(checks.LEAST_FEATURES)]
    return item(
        "125007", ValueType="CONTAINER", ContentSequence=Items([tracking, mean, v20, *filler])
    )


def number(code: str, value: float) -> Dataset:
    unit, measured = Dataset(), Dataset()
    unit.CodeValue = "1"
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = f"{value:.9g}", Items([unit])
    return item(code, ValueType="NUM", MeasuredValueSequence=Items([measured]))


def item(code: str, **more: object) -> Dataset:
    ds, name = Dataset(), Dataset()
    name.CodeValue, name.CodeMeaning = code, code
    ds.ConceptNameCodeSequence = Items([name])
    for keyword, element in more.items():
        setattr(ds, keyword, element)
    return ds


def failed(received: Received, person: Patient) -> set[str]:
    return {
        f"{c.item}: {c.what.split(',')[0]}" for c in check_all(received, person) if not c.passed
    }


def test_a_perfect_result_passes_every_check(person: Patient) -> None:
    assert failed(right(person), person) == set()


def test_mirrored_contours_fail(person: Patient) -> None:
    result = right(person)
    for roi in result.structure_sets[0].ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.asarray(contour.ContourData, float).reshape(-1, 3) * (-1, 1, 1)
            contour.ContourData = [f"{c:.3f}" for c in points.ravel()]

    assert {"RTSTRUCT: Lung_L", "RTSTRUCT: Lung_R"} <= failed(result, person)


def test_an_approved_structure_set_fails(person: Patient) -> None:
    result = right(person)
    result.structure_sets[0].ApprovalStatus = "APPROVED"

    assert failed(result, person) == {"RTSTRUCT: approval"}


def test_a_missing_slice_of_the_synthetic_ct_fails(person: Patient) -> None:
    result = right(person)
    del result.images["1"][3]

    assert "synthetic CT: 7 slices" in failed(result, person)


def test_a_synthetic_ct_that_is_the_cbct_unchanged_fails(person: Patient) -> None:
    result = replace(right(person), images={"1": person.modality["CBCT"]})

    assert any(f.startswith("synthetic CT: HU error") for f in failed(result, person))


def test_a_wrong_dose_figure_fails(person: Patient) -> None:
    result = right(person)
    mean = result.reports[0].ContentSequence[0].ContentSequence[1]
    mean.MeasuredValueSequence[0].NumericValue = "1.0"

    assert failed(result, person) == {"SR: GTV mean dose"}


def test_nothing_at_all_fails(person: Patient) -> None:
    assert failed(Received(), person) == {"archive: 0 objects"}


def test_the_generated_patient_is_the_same_every_time(person: Patient) -> None:
    again = patient.generate(SMALL)

    np.testing.assert_array_equal(again.cbct, person.cbct)
    assert again.planning["RTDOSE"][0].PixelData == person.planning["RTDOSE"][0].PixelData
