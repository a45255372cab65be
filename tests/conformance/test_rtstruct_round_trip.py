"""Twenty structures in eight geometries come back voxel by voxel, judged by foreign code.

The judge is Matplotlib's point-in-polygon test on the points as written, placed by the
independent grid of `demo.grid`; it shares no code with the writer or with our own reader. Where
plastimatch is installed, it is a third reader.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Outline

from demo.grid import Grid, centered_grid
from pipelines.api import Provenance
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import Structure, WriterProfile, write_structure_set
from pipelines.dicom.volume import from_sitk, pose_of
from pipelines.geometry.stack import StackGeometry
from tests import factories
from tests.conftest import program

PROVENANCE = Provenance(
    pipeline="autocontour", version="0.1.0", settings_sha256="cd" * 32, sources=(("1.2.3", "x"),)
)
SHAPE = (6, 44, 52)

GEOMETRIES = {
    "axial": centered_grid(SHAPE, (3.0, 1.5, 1.5)),
    "5 mm": centered_grid(SHAPE, (5.0, 0.98, 0.98)),
    "flipped": Grid(shape=SHAPE, spacing=(3.0, 1.6, 1.6), origin=(-40, 30, 10),
                    row_direction=(1, 0, 0), column_direction=(0, -1, 0)),
    "oblique, not square": centered_grid(SHAPE, (2.2, 1.3, 1.1), tilt_deg=17),
    "HFP": centered_grid(SHAPE, (3.0, 1.5, 1.5), position="HFP"),
    "FFS": centered_grid(SHAPE, (3.0, 1.5, 1.5), position="FFS"),
    "FFP": centered_grid(SHAPE, (3.0, 1.5, 1.5), position="FFP"),
    "decubitus": centered_grid(SHAPE, (3.0, 1.5, 1.2), position="HFDL"),
}  # fmt: skip


def shapes() -> dict[str, np.ndarray]:
    """Return twenty masks: smooth, thin, with holes, islands, single voxels, at the edge."""
    z, y, x = np.indices(SHAPE)

    def ball(center, radii):
        c, r = np.asarray(center), np.asarray(radii)
        return sum(((i - a) / b) ** 2 for i, a, b in zip((z, y, x), c, r, strict=True)) <= 1

    rng = np.random.default_rng(7)
    body = ball((3, 22, 26), (30, 20, 24))
    one = np.zeros(SHAPE, np.bool_)
    one[3, 20, 31] = True
    comb = body & (x % 4 < 2)
    return {
        "ellipsoid": ball((3, 20, 20), (4, 12, 9)),
        "body": body,
        "small": ball((4, 12, 33), (1.5, 2.2, 3.1)),
        "one_voxel": one,
        "two_diagonal": one | np.roll(one, (0, 1, 1), (0, 1, 2)),
        "line": (y == 17) & (x > 8) & (x < 40) & (z == 3),
        "slanted": (np.abs(y - x) < 1) & body,
        "shell": body & ~ball((3, 22, 26), (30, 19, 23)),
        "ring": ball((3, 22, 26), (9, 15, 15)) & ~ball((3, 22, 26), (9, 9, 9)),
        "ring_island": ball((3, 22, 26), (9, 16, 16)) & ~ball((3, 22, 26), (9, 11, 11))
        | ball((3, 22, 26), (9, 4, 4)),
        "many_holes": body & (rng.random(SHAPE) > 0.06),
        "sponge": body & (rng.random(SHAPE) > 0.5),
        "dust": body & (rng.random(SHAPE) > 0.97),
        "pair": ball((3, 22, 12), (5, 8, 8)) | ball((3, 22, 40), (5, 7, 9)),
        "touching": ball((3, 22, 18), (5, 8, 8)) | ball((3, 22, 34), (5, 8, 8)),
        "edge": ball((3, 0, 0), (6, 15, 15)),
        "whole": np.ones(SHAPE, np.bool_),
        "comb": comb,
        "checker": body & ((x + y) % 2 == 0),
        "last_slice": ball((5, 22, 26), (0.5, 10, 10)),
    }


def judged(ds, grid, uids):
    """Return the mask of each ROI by Matplotlib: every contour toggles what it encloses."""
    names = {r.ROINumber: r.ROIName for r in ds.StructureSetROISequence}
    inverse = np.linalg.inv(grid.affine)
    masks = {}
    for item in ds.ROIContourSequence:
        mask = np.zeros(grid.shape, np.bool_)
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = points @ inverse[:3, :3].T + inverse[:3, 3]
            k = uids.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
            assert np.abs(index[:, 0] - k).max() < 0.01
            low = np.maximum(np.ceil(index[:, 1:].min(axis=0)), 0).astype(int)
            high = np.floor(index[:, 1:].max(axis=0)).astype(int) + 1
            centers = np.stack(np.mgrid[low[0] : high[0], low[1] : high[1]], axis=-1)
            inside = Outline(index[:, 1:]).contains_points(centers.reshape(-1, 2))
            mask[k, low[0] : high[0], low[1] : high[1]] ^= inside.reshape(centers.shape[:2])
        masks[names[item.ReferencedROINumber]] = mask
    return masks


def written(grid, path, profile=None, fields=None):
    headers = factories.ct_series(grid=grid)
    geometry = StackGeometry.of([pose_of(h) for h in headers])
    structures = [
        Structure(number=n, name=name, field=field, interpreted_type="ORGAN", color=(255, 0, 0))
        for n, (name, field) in enumerate((fields or shapes()).items(), start=1)
    ]
    write_structure_set(structures, headers, geometry, PROVENANCE, path, profile)
    trips = check_structure_set(path, structures, headers, geometry)
    assert min(t.dice for t in trips) == 1.0
    return pydicom.dcmread(path), [h.SOPInstanceUID for h in headers]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_shape_comes_back_exactly_in_every_geometry(name, tmp_path):
    grid = GEOMETRIES[name]

    ds, uids = written(grid, tmp_path / "rs.dcm")

    masks = judged(ds, grid, uids)
    for shape, mask in shapes().items():
        assert np.count_nonzero(masks[shape] ^ mask) == 0, shape


@pytest.mark.parametrize("holes", ["nested", "xor"])
def test_nested_holes_mean_the_same_as_keyholes(holes, tmp_path):
    grid = GEOMETRIES["axial"]

    ds, uids = written(grid, tmp_path / "rs.dcm", WriterProfile(holes=holes))

    masks = judged(ds, grid, uids)
    for shape, mask in shapes().items():
        assert np.count_nonzero(masks[shape] ^ mask) == 0, shape


def test_soft_fields_come_back_exactly_too(tmp_path):
    rng = np.random.default_rng(2)
    fields = {
        name: np.clip(mask + rng.normal(0, 0.3, SHAPE), 0, 1).astype(np.float32)
        for name, mask in shapes().items()
    }
    grid = GEOMETRIES["oblique, not square"]

    ds, uids = written(grid, tmp_path / "rs.dcm", fields=fields)

    masks = judged(ds, grid, uids)
    for shape, field in fields.items():
        assert np.count_nonzero(masks[shape] ^ (field > 0.5)) == 0, shape


def test_no_value_is_longer_than_sixteen_bytes_and_no_contour_shorter_than_three_points(tmp_path):
    ds, _ = written(GEOMETRIES["oblique, not square"], tmp_path / "rs.dcm")

    raw = pydicom.dcmread(tmp_path / "rs.dcm")
    for item in raw.ROIContourSequence:
        for contour in item.ContourSequence:
            values = contour.get_item("ContourData").value.split(b"\\")
            assert max(len(v.strip()) for v in values) <= 16
            assert len(values) >= 9
    assert ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType == "CLOSED_PLANAR"


def test_uneven_slices_are_exact(tmp_path):
    """2 mm through the head, 5 mm below: every contour lies in its own image."""
    headers = factories.ct_series(grid=GEOMETRIES["axial"])
    for k, ds in enumerate(headers):
        x, y, _ = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, 5.0 * k if k < 4 else 15.0 + 2.0 * (k - 3)]
    geometry = StackGeometry.of([pose_of(h) for h in headers])
    structure = Structure(number=1, name="ring", field=shapes()["ring_island"],
                          interpreted_type="ORGAN", color=(1, 1, 1))  # fmt: skip

    write_structure_set([structure], headers, geometry, PROVENANCE, tmp_path / "rs.dcm")

    (trip,) = check_structure_set(tmp_path / "rs.dcm", [structure], headers, geometry)
    assert trip.dice == 1.0
    zs = {
        float(c.ContourData[2])
        for c in pydicom.dcmread(tmp_path / "rs.dcm").ROIContourSequence[0].ContourSequence
    }
    assert zs == {float(h.ImagePositionPatient[2]) for h in headers}


def test_all_contours_of_a_plane_with_a_hole_say_xor_and_no_other_does(tmp_path):
    """PS3.3 C.8.8.6.3: CLOSEDPLANAR_XOR holds for every contour of the ROI on a plane."""
    ds, _ = written(GEOMETRIES["axial"], tmp_path / "rs.dcm", WriterProfile(holes="xor"))

    kinds = set()
    for item in ds.ROIContourSequence:
        planes: dict[str, list[str]] = {}
        for contour in item.ContourSequence:
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            planes.setdefault(uid, []).append(contour.ContourGeometricType)
        for types in planes.values():
            assert set(types) == {"CLOSEDPLANAR_XOR" if len(types) > 1 else "CLOSED_PLANAR"}
            kinds |= set(types)
    assert kinds == {"CLOSEDPLANAR_XOR", "CLOSED_PLANAR"}


@pytest.mark.dciodvfy
@pytest.mark.parametrize("holes", ["keyhole", "xor"])
def test_the_validator_finds_no_error(holes, tmp_path: Path):
    written(GEOMETRIES["axial"], tmp_path / "rs.dcm", WriterProfile(holes=holes))

    result = subprocess.run(
        [program("dciodvfy"), tmp_path / "rs.dcm"], capture_output=True, text=True, check=False
    )

    errors = {line for line in result.stderr.splitlines() if line.startswith("Error")}
    if holes == "xor":  # dicom3tools of Debian 12 does not know the type of PS3.3 C.8.8.6.3 yet
        errors = {e for e in errors if "enumerated value <CLOSEDPLANAR_XOR>" not in e}
    assert errors == set()


@pytest.mark.plastimatch
@pytest.mark.parametrize("name", ["axial", "flipped", "oblique, not square"])
def test_plastimatch_reads_every_shape_as_it_was_written(name, tmp_path):
    """A reader with its own rasterizer (plastimatch, GPL, a program of its own)."""
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    grid = GEOMETRIES[name]
    written(grid, tmp_path / "rs.dcm")
    (tmp_path / "ct").mkdir()
    headers = factories.ct_series(grid=grid)
    for k, header in enumerate(headers):
        header.save_as(tmp_path / "ct" / f"{k}.dcm", enforce_file_format=True)

    subprocess.run(
        ["plastimatch", "convert", "--input", tmp_path / "rs.dcm", "--referenced-ct",
         tmp_path / "ct", "--output-prefix", tmp_path / "out", "--prefix-format", "mha"],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip

    place = StackGeometry.of([pose_of(header) for header in headers])
    everywhere = place.points(np.argwhere(np.ones(SHAPE)))
    for shape, mask in shapes().items():
        values, theirs = from_sitk(sitk.ReadImage(str(tmp_path / "out" / f"{shape}.mha")))
        at = np.rint(theirs.indices(everywhere)).astype(int)
        seen = values[tuple(at.T)].reshape(SHAPE) > 0
        assert np.count_nonzero(seen ^ mask) == 0, shape
