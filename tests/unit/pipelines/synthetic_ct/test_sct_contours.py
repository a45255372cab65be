"""Planning contours on today's image: the right place in every direction, and what is refused."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest

from demo.grid import DIRECTIONS, centered_grid
from models.metrics import agreement
from pipelines.api import Provenance, Severity
from pipelines.dicom.deformable_registration import write_deformable_registration
from pipelines.dicom.nomenclature import judge
from pipelines.dicom.rtstruct import Loop, Roi, read_structure_set
from pipelines.dicom.rtstruct_writer import Structure
from pipelines.dicom.volume import CtVolume, from_sitk, read_volume
from pipelines.geometry.contours import LEVEL
from pipelines.synthetic_ct.contour_outputs import Contours, names_of
from pipelines.synthetic_ct.contours import LeftOut, Moved, Passage, move
from tests.factories import ellipsoid, save
from tests.unit.pipelines.synthetic_ct import contours_support as support

PROVENANCE = Provenance(pipeline="synthetic_ct", version="0.1.0", settings_sha256="0", sources=())


Scene = tuple[dict[str, Roi], Passage]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scene]:
    """Return the planning structures and the way to today's image; reads each position once."""

    @cache
    def read(position: str, today: str) -> tuple[dict[str, Roi], CtVolume, CtVolume]:
        folder = tmp_path_factory.mktemp("scene")
        ct, structures = support.planning_structures(position)
        (path,) = save([structures], folder / "rs")
        planning = read_volume(save(ct, folder / "ct"))
        grid = centered_grid((34, 88, 92), (2.5, 2.3, 2.3), position=today)
        image = read_volume(save(support.images(grid, today), folder / "image"), check_scale=False)
        return {roi.name: roi for roi in read_structure_set(path).rois}, planning, image

    def made(position: str = "HFS", today: str = "HFS", *, deformed: bool = True) -> Scene:
        rois, planning, image = read(position, today)
        return rois, Passage(
            planning=planning.geometry,
            today=image.geometry,
            matrix=support.MATRIX,
            deformation=support.deformation(image.geometry) if deformed else None,
            seen=np.ones(image.geometry.shape, np.bool_),
        )

    return made


def _truth(name: str, passage: Passage, *, deformed: bool = True) -> np.ndarray:
    points = support.planned_point(support.points_of(passage.today), deformed=deformed)
    return np.asarray(ellipsoid(points, *support.ROIS[name]))


def _mask(moved: Moved, passage: Passage) -> np.ndarray:
    mask = np.zeros(passage.today.shape, np.bool_)
    part = tuple(slice(a, a + n) for a, n in zip(moved.corner, moved.field.shape, strict=True))
    mask[part] = moved.field > LEVEL
    return mask


@pytest.mark.parametrize("deformed", [False, True], ids=["rigid", "deformable"])
@pytest.mark.parametrize(("position", "today"), [(p, "HFS") for p in DIRECTIONS] + [("HFS", "FFP")])
def test_contours_lie_where_the_closed_form_says(
    scene: Callable[..., Scene], position: str, today: str, deformed: bool
) -> None:
    """Every patient position, other grid, oblique matrix, known deformation."""
    rois, passage = scene(position, today, deformed=deformed)

    for name, roi in rois.items():
        moved = move(roi, passage)
        assert isinstance(moved, Moved), moved
        found = agreement(
            _mask(moved, passage), _truth(name, passage, deformed=deformed), passage.today.spacing
        )
        assert found is not None
        assert found.dice > 0.92, (name, found)
        assert found.hd95_mm < 2.6, (name, found)


@pytest.mark.parametrize(
    "wrong",
    [
        np.linalg.inv,
        lambda m: np.block([[m[:3, :3].T, m[:3, 3:]], [np.array([[0, 0, 0, 1]])]]),
    ],
    ids=["inverted", "transposed"],
)
def test_a_matrix_the_wrong_way_round_would_be_seen(scene: Callable[..., Scene], wrong) -> None:
    """The test above can fail: the small markers hardly overlap with another matrix."""
    rois, passage = scene()
    other = Passage(
        planning=passage.planning, today=passage.today, matrix=wrong(support.MATRIX),
        deformation=passage.deformation, seen=passage.seen,
    )  # fmt: skip

    moved = move(rois["Marker"], other)

    assert isinstance(moved, LeftOut) or (
        2 * (_mask(moved, other) & _truth("Marker", other)).sum()
        < 0.8 * (_mask(moved, other).sum() + _truth("Marker", other).sum())
    )


def test_volume_and_shift_are_those_of_the_closed_form(scene: Callable[..., Scene]) -> None:
    rois, passage = scene()

    moved = move(rois["Parotid_L"], passage)

    assert isinstance(moved, Moved)
    truth, rigid = (_truth("Parotid_L", passage, deformed=d) for d in (True, False))
    points = support.points_of(passage.today)
    shift = points[truth].mean(axis=0) - points[rigid].mean(axis=0)
    assert moved.shift_mm == pytest.approx(shift, abs=0.3)
    assert np.linalg.norm(shift) > 3
    assert moved.change == pytest.approx(truth.sum() / rigid.sum() - 1, abs=0.05)
    assert moved.planned_cc == pytest.approx(4 / 3 * np.pi * 17 * 22 * 14 / 1000, rel=0.05)


def test_what_the_field_of_view_cuts_is_marked_and_what_it_misses_is_left_out(
    scene: Callable[..., Scene],
) -> None:
    rois, passage = scene()
    truth = _truth("Bladder", passage)
    middle = int(np.flatnonzero(truth.any(axis=(0, 1))).mean())
    passage.seen[:, :, :middle] = False

    half, gone = move(rois["Bladder"], passage), move(rois["Marker"], passage)

    assert isinstance(half, Moved)
    assert half.cut
    assert half.change is None
    assert not (_mask(half, passage) & ~passage.seen).any()
    assert half.shift < 8  # centers of what is seen, not of the whole
    assert isinstance(gone, LeftOut)
    assert gone.expected


def test_a_structure_in_which_the_deformation_folds_is_left_out(
    scene: Callable[..., Scene],
) -> None:
    rois, passage = scene()
    points = support.points_of(passage.today)
    truth = _truth("Bladder", passage)
    center = points[truth].mean(axis=0)
    near = np.exp(-np.sum((points - center) ** 2, axis=-1) / (2 * 8.0**2))
    assert passage.deformation is not None
    field, grid = from_sitk(passage.deformation.field)
    field = field - 1.6 * near[..., None] * (points - center)  # turns the middle inside out
    folded = support.deformation_of(field, grid)
    passage = Passage(
        planning=passage.planning, today=passage.today, matrix=passage.matrix,
        deformation=folded, seen=passage.seen,
    )  # fmt: skip

    bladder, far = move(rois["Bladder"], passage), move(rois["Marker"], passage)

    assert isinstance(bladder, LeftOut)
    assert "folds" in bladder.why
    assert isinstance(far, Moved)


def test_the_deformation_object_means_what_the_standard_says(tmp_path: Path) -> None:
    """PS3.3 C.20.3.1.1: source = post @ (pre @ point + vector); evaluated from the bytes alone."""
    ct, _ = support.planning_structures()
    grid = centered_grid((9, 14, 11), (5.0, 6.0, 7.0), position="HFP", tilt_deg=4.0)
    image = read_volume(save(support.images(grid, "HFP"), tmp_path / "image"), check_scale=False)
    vectors = support.displacement(support.points_of(image.geometry)).astype(np.float32)
    path = tmp_path / "reg.dcm"

    write_deformable_registration(
        vectors, image.geometry, support.MATRIX, ct, image.headers, PROVENANCE, path
    )

    ds = pydicom.dcmread(path)
    (item,) = ds.DeformableRegistrationSequence
    assert ds.FrameOfReferenceUID == image.frame_of_reference_uid
    assert item.SourceFrameOfReferenceUID == ct[0].FrameOfReferenceUID
    (field,) = item.DeformableRegistrationGridSequence
    size = [int(n) for n in field.GridDimensions]
    stream = np.frombuffer(field.VectorGridData, "<f4").reshape(-1, 3)
    pre, post = (
        np.array(s[0].FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
        for s in (
            item.PreDeformationMatrixRegistrationSequence,
            item.PostDeformationMatrixRegistrationSequence,
        )
    )
    start = np.array(field.ImagePositionPatient, float)
    row, column = np.array(field.ImageOrientationPatient, float).reshape(2, 3)
    depth = np.cross(row, column)
    step = [float(v) for v in field.GridResolution]
    for i, j, k in [(0, 0, 0), (3, 0, 0), (0, 5, 0), (0, 0, 7), (10, 13, 8), (4, 9, 2)]:
        point = start + i * step[0] * row + j * step[1] * column + k * step[2] * depth
        vector = stream[(k * size[1] + j) * size[0] + i]
        source = post @ (pre @ [*point, 1] + [*vector, 0])
        assert source[:3] == pytest.approx(support.planned_point(point), abs=1e-3)
    assert len(field.VectorGridData) == int(np.prod(size)) * 3 * 4


def _roi(number: int, name: str) -> Roi:
    return Roi(number=number, name=name, interpreted_type="", codes=(), loops=())


def test_names_fit_are_unique_and_keep_their_side() -> None:
    rois = [
        _roi(n, name)
        for n, name in enumerate(
            ["Parotid_L", "PTV 70 high risk boost", "PTV 70 high risk boost 2", "Lung_R", "lung_r",
             "膀胱", "謎", "Glnd_Submand_superficial_L", "Kidney~_R", "CTV1"], 1
        )
    ]  # fmt: skip
    cut = [n in {"Lung_R", "Kidney~_R", "CTV1"} for n in (r.name for r in rois)]

    names = names_of(rois, cut, "^Def")

    assert names[0] == "Parotid_L^Def"
    assert names[3] == "Lung~_R^Def"
    assert names[4] == "lung_r^Def"
    assert names[5] == "Bladder^Def"
    assert names[6] == "ROI_7^Def"
    assert names[7].endswith("_L^Def")
    assert names[8] == "Kidney~_R^Def"
    assert names[9] == "CTV1~^Def"
    assert [j.faults for j in judge(names)] == [()] * len(names)


def test_contours_on_every_second_slice_are_no_comb(scene: Callable[..., Scene]) -> None:
    rois, passage = scene()
    whole = rois["Bladder"]
    heights = sorted({round(float(loop.points[0, 2]), 2) for loop in whole.loops})
    kept = [p for p in whole.loops if round(float(p.points[0, 2]), 2) in heights[::2]]
    sparse = Roi(number=1, name="x", interpreted_type="", codes=(), loops=tuple(kept))

    moved = move(sparse, passage)

    assert isinstance(moved, Moved)
    mask, truth = _mask(moved, passage), _truth("Bladder", passage)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.85


def test_points_and_lines_have_no_area(scene: Callable[..., Scene]) -> None:
    _, passage = scene()
    point = Loop(points=np.zeros((1, 3)), geometric_type="POINT")
    iso = Roi(number=1, name="ISO", interpreted_type="ISOCENTER", codes=(), loops=(point,))

    left_out = move(iso, passage)

    assert isinstance(left_out, LeftOut)
    assert left_out.expected


@pytest.mark.parametrize(
    ("planned", "today", "shift", "cut", "codes"),
    [
        (20.0, 21.0, 3.0, False, set()),
        (20.0, 25.0, 3.0, False, {"contour-volume"}),
        (20.0, 15.0, 3.0, False, {"contour-volume"}),
        (20.0, 15.0, 3.0, True, set()),
        (20.0, 20.0, 11.0, False, {"contour-shift"}),
    ],
    ids=["small", "larger", "smaller", "cut off", "shifted"],
)
def test_a_large_change_is_a_warning(
    planned: float, today: float, shift: float, cut: bool, codes: set[str]
) -> None:
    one = Moved(
        roi=_roi(1, "Bladder"), field=np.ones((2, 2, 2), np.float32), corner=(0, 0, 0),
        planned_cc=planned, volume_cc=today, shift_mm=np.array([0.0, 0.0, shift]), cut=cut,
        notes=(),
    )  # fmt: skip
    structure = Structure(
        number=1, name="Bladder^Def", field=one.field, interpreted_type="", color=(1, 2, 3)
    )

    told = Contours(moved=(one,), structures=(structure,)).findings

    assert {f.code for f in told if f.severity is Severity.WARN and f.roi} == codes
    assert all(f.roi == "Bladder^Def" for f in told if f.code in codes)
