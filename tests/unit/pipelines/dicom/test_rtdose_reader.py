"""The dose reader: one geometry for all ways to write it, and plain reasons for refusals."""

import numpy as np
import pytest

from pipelines.api import InputRejected
from pipelines.dicom.rtdose import read_dose
from tests.unit.pipelines.dose_radiomics.support import dose, linear_z, save

POINTS = np.array([[0.0, 0.0, 0.0], [6.0, -4.0, 8.0], [-10.0, 12.0, -14.0]])


def sample(grid, points):
    """Return the dose at points that are samples of the grid."""
    place = grid.to_axes(points)
    index = [
        np.abs(line[:, None] - place[:, axis]).argmin(axis=0)
        for axis, line in enumerate(grid.positions)
    ]
    nearest = np.stack([grid.positions[a][index[a]] for a in range(3)], axis=1)
    assert np.allclose(nearest, place, atol=1e-3)
    return grid.dose[tuple(index)]


ORIENTATIONS = {
    "HFS": ((1, 0, 0, 0, 1, 0), (-40, -30, -20)),
    "HFP": ((-1, 0, 0, 0, -1, 0), (40, 30, -20)),
    "FFS": ((-1, 0, 0, 0, 1, 0), (40, -30, 20)),
    "FFP": ((1, 0, 0, 0, -1, 0), (-40, 30, 20)),
    "HFDL": ((0, 1, 0, -1, 0, 0), (30, -40, -20)),
    "HFDR": ((0, -1, 0, 1, 0, 0), (-30, 40, -20)),
    "FFDL": ((0, -1, 0, -1, 0, 0), (30, 40, 20)),
    "FFDR": ((0, 1, 0, 1, 0, 0), (-30, -40, 20)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (20, -40, 30)),
}


def field(points):
    return 30 + 0.5 * points[..., 0] + 0.1 * points[..., 1] + 0.25 * points[..., 2]


@pytest.mark.parametrize("position", ORIENTATIONS)
def test_every_patient_position_gives_the_same_dose_at_the_same_point(tmp_path, position):
    orientation, first = ORIENTATIONS[position]

    grid = read_dose(save(dose(field, orientation=orientation, first=first), tmp_path / "rd.dcm"))

    assert np.allclose(sample(grid, POINTS), field(POINTS), atol=1e-5)


@pytest.mark.parametrize("position", [p for p in ORIENTATIONS if p != "sagittal"])
def test_absolute_offsets_hold_in_every_axial_position(tmp_path, position):
    orientation, first = ORIENTATIONS[position]
    rd = dose(field, orientation=orientation, first=first, absolute=True)

    grid = read_dose(save(rd, tmp_path / "rd.dcm"))

    assert float(rd.GridFrameOffsetVector[0]) == first[2]
    assert np.allclose(sample(grid, POINTS), field(POINTS), atol=1e-5)


def test_absolute_offsets_of_a_sagittal_dose_are_refused(tmp_path):
    orientation, first = ORIENTATIONS["sagittal"]
    rd = dose(field, orientation=orientation, first=first)
    rd.GridFrameOffsetVector = [30 - 2 * k for k in range(21)]

    with pytest.raises(InputRejected, match="axial dose planes only"):
        read_dose(save(rd, tmp_path / "rd.dcm"))


@pytest.mark.parametrize("form", ["relative", "absolute", "descending", "16 bit", "uneven"])
def test_every_way_to_write_frames_gives_the_same_dose(tmp_path, form):
    options = {
        "relative": {},
        "absolute": {"absolute": True},
        "descending": {"order": range(20, -1, -1)},
        "16 bit": {"bits": 16, "scaling": 1e-3},
        "uneven": {"offsets": [0, 4, 6, 20, 24, 28, 40], "shape": (7, 31, 41)},
    }[form]

    grid = read_dose(save(dose(linear_z, **options), tmp_path / "rd.dcm"))

    points = np.array([[0, 0, 0], [2, 4, -16], [-4, 2, 20]], float)
    assert np.all(np.diff(grid.positions[0]) > 0)
    assert np.allclose(sample(grid, points), linear_z(points), atol=1e-3)


def test_non_square_pixels_keep_rows_and_columns_apart(tmp_path):
    rd = dose(field, step=(2.0, 3.0, 1.5), shape=(21, 21, 54), first=(-40.5, -30, -20))

    grid = read_dose(save(rd, tmp_path / "rd.dcm"))

    assert grid.spacing_mm == pytest.approx((2.0, 3.0, 1.5))
    assert np.allclose(sample(grid, np.array([[0.0, 3.0, 2.0]])), field(np.array([0.0, 3.0, 2.0])))


def test_scaling_in_an_odd_notation_is_read(tmp_path):
    rd = dose(linear_z, scaling=8.434326e-05)
    rd.DoseGridScaling = "8.434326e-005"

    grid = read_dose(save(rd, tmp_path / "rd.dcm"))

    assert np.allclose(sample(grid, POINTS), linear_z(POINTS), atol=1e-4)


def change(**values):
    def apply(rd):
        for keyword, value in values.items():
            if value is None:
                delattr(rd, keyword)
            else:
                setattr(rd, keyword, value)

    return apply


def one_by_one(rd):
    rd.Rows = rd.Columns = 1
    rd.PixelData = rd.PixelData[: 4 * rd.NumberOfFrames]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change(DoseUnits="RELATIVE"), "units are RELATIVE"),
        (change(DoseType="ERROR"), "dose type is ERROR"),
        (change(PixelData=None), "no pixels"),
        (change(DoseGridScaling=None), "DoseGridScaling"),
        (change(DoseGridScaling="0"), "not positive"),
        (change(GridFrameOffsetVector=[0, 2, 4]), "21 numbers in GridFrameOffsetVector"),
        (change(GridFrameOffsetVector=[5 + 2 * k for k in range(21)]), "neither 0"),
        (change(GridFrameOffsetVector=[0, 0, *range(2, 21)]), "same place"),
        (change(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "orientation"),
        (change(ImagePositionPatient=None), "ImagePositionPatient"),
        (change(PixelData=b"\0\0"), "cannot be decoded"),
        (one_by_one, "dose grid is 21x1x1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_absolute_volume_dose_is_refused_with_the_reason(tmp_path, spoil, reason):
    rd = dose(linear_z)
    spoil(rd)

    with pytest.raises(InputRejected, match=reason):
        read_dose(save(rd, tmp_path / "rd.dcm"))
