"""Planning contours on today's image: pulled through the rigid matrix and the deformation.

Each voxel of the CBCT asks the planning CT what covers the point that it came from, so the grids,
orientations and slice distances of both images may differ as they like. A structure is left out
with its reason where the deformation folds inside it, and marked ``~`` where the CBCT cuts it off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipelines.dicom.rtstruct import Roi
from pipelines.dicom.volume import from_sitk, to_sitk
from pipelines.geometry.contours import LEVEL
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import Mask
from pipelines.radiomics.cells import on_voxels
from pipelines.radiomics.contours import Spacing, solid
from pipelines.synthetic_ct.deform import Deformation

Field = NDArray[np.float32]
Floats = NDArray[np.float64]

CUT_SHARE: Final = 0.01
"""A structure that lies outside the CBCT with more of its volume is not whole there."""
MARGIN_VOXELS: Final = 2
"""Around the place where a structure is expected."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passage:
    """The way from today's image to the planning CT, and where today's image knows the patient."""

    planning: StackGeometry
    today: StackGeometry
    matrix: Floats
    """Shape (4, 4): points of today's image to the planning CT, patient LPS [mm]."""
    deformation: Deformation | None
    """Applied before the matrix; None: rigid."""
    seen: Mask
    """Shape of `today`: where contours may lie."""

    @property
    def transform(self) -> sitk.Transform:
        """Today's points to the planning CT's."""
        rigid = sitk.AffineTransform(3)
        rigid.SetMatrix(tuple(float(v) for v in self.matrix[:3, :3].ravel()))
        rigid.SetTranslation(tuple(float(v) for v in self.matrix[:3, 3]))
        if self.deformation is None:
            return rigid
        # the transform that was added last is applied first
        return sitk.CompositeTransform([rigid, self.deformation.transform])

    def back(self, points: Floats) -> Floats:
        """Return planning points, shape (n, 3) [mm], rigidly in today's image."""
        inverse = np.linalg.inv(self.matrix)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moved:
    """One structure on today's grid."""

    roi: Roi
    field: Field
    """Covered fraction; its 0.5 level is the surface. Cropped."""
    corner: tuple[int, int, int]
    """Index of its first voxel in today's grid."""
    planned_cc: float
    volume_cc: float
    shift_mm: Floats
    """Center today minus center of the rigidly placed plan, patient LPS [mm], shape (3,). Where
    the structure is cut both centers are those of what today's image shows."""
    cut: bool
    """Part of it lies outside today's image."""
    notes: tuple[str, ...]

    @property
    def change(self) -> float | None:
        """Change of volume as a share of the planned one; None where it is cut."""
        return None if self.cut else self.volume_cc / self.planned_cc - 1.0

    @property
    def shift(self) -> float:
        """Length of the shift of the center [mm]."""
        return float(np.linalg.norm(self.shift_mm))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A structure that is not on today's image, and why."""

    name: str
    why: str
    expected: bool = False
    """Nothing is wrong: it simply has no area, or lies elsewhere."""


def move(roi: Roi, passage: Passage) -> Moved | LeftOut:
    """Return `roi` of the planning CT on today's grid."""
    drawn = _drawn(roi, passage.planning)
    if isinstance(drawn, str):
        return LeftOut(name=roi.name, why=drawn, expected=not roi.closed)
    covered, source, notes = drawn
    inside = source.points(np.argwhere(covered > LEVEL))
    if not len(inside):
        return LeftOut(name=roi.name, why="it is smaller than a voxel of the planning CT")
    placed = passage.back(inside)
    seen = _seen(placed, passage)
    if not seen.any():
        return LeftOut(name=roi.name, why="it lies outside the CBCT", expected=True)
    window = _window(placed, passage)
    if window is None:
        return LeftOut(name=roi.name, why="it lies outside the CBCT", expected=True)
    corner, target = window
    part = tuple(slice(a, a + n) for a, n in zip(corner, target.shape, strict=True))
    field = _sampled(to_sitk(covered, source), target, passage.transform)
    field = np.where(passage.seen[part], field, np.float32(0)).astype(np.float32)
    mask = field > LEVEL
    if not mask.any():
        return LeftOut(name=roi.name, why="nothing of it remains on the CBCT's grid")
    if passage.deformation is not None:
        jacobian = _sampled(passage.deformation.jacobian, target, sitk.Transform(), outside=1.0)
        if float(jacobian[mask].min()) <= 0:
            return LeftOut(name=roi.name, why="the deformation folds inside it")
    today = target.points([np.argwhere(mask).mean(axis=0)])[0]
    return Moved(
        roi=roi,
        field=field,
        corner=corner,
        planned_cc=len(inside) * source.voxel_ml,
        volume_cc=int(mask.sum()) * target.voxel_ml,
        shift_mm=today - placed[seen].mean(axis=0),
        cut=float(seen.mean()) < 1.0 - CUT_SHARE,
        notes=notes,
    )


def _drawn(roi: Roi, planning: StackGeometry) -> tuple[Field, StackGeometry, tuple[str, ...]] | str:
    """Return the covered fraction of the voxels around `roi`, their grid, notes; or why not."""
    if not roi.closed:
        return "it has no closed contour"
    spacing = np.array(planning.spacing)
    loops = [planning.indices(loop.points) * spacing for loop in roi.closed]
    step = planning.spacing[0]
    body = solid(roi, loops, Spacing(image_mm=step, dose_mm=step))
    if not body.slabs:
        return "its contours do not lie in the slices of the planning CT"
    low, high = body.box
    first = np.floor(low / spacing).astype(int) - 1
    count = np.ceil(high / spacing).astype(int) + 2 - first
    planes, rows, columns = (
        (a + np.arange(n)) * s for a, n, s in zip(first, count, spacing, strict=True)
    )
    covered = on_voxels(body.slabs, (planes, rows, columns)).astype(np.float32)
    shape = (int(count[0]), int(count[1]), int(count[2]))
    notes = tuple(n.replace("dose grid", "planning CT") for n in body.notes)
    return covered, _part(planning, first, shape), notes


def _seen(points: Floats, passage: Passage) -> NDArray[np.bool_]:
    """Return which points [mm], shape (n, 3), lie where today's image knows the patient."""
    index = np.rint(passage.today.indices(points)).astype(int)
    inside = np.all((index >= 0) & (index < passage.today.shape), axis=1)
    found = np.zeros(len(points), dtype=np.bool_)
    found[inside] = passage.seen[tuple(index[inside].T)]
    return found


def _window(placed: Floats, passage: Passage) -> tuple[tuple[int, int, int], StackGeometry] | None:
    """Return where in today's grid the structure may lie: its first voxel and the grid of it."""
    grid = passage.today
    index = grid.indices(placed)
    reach = 0.0 if passage.deformation is None else passage.deformation.largest_mm
    margin = np.ceil(reach / np.array(grid.spacing)).astype(int) + MARGIN_VOXELS
    first = np.maximum(np.floor(index.min(axis=0)).astype(int) - margin, 0)
    end = np.minimum(np.ceil(index.max(axis=0)).astype(int) + margin + 1, grid.shape)
    if np.any(end <= first):
        return None
    shape = (int(end[0] - first[0]), int(end[1] - first[1]), int(end[2] - first[2]))
    return (int(first[0]), int(first[1]), int(first[2])), _part(grid, first, shape)


def _part(grid: StackGeometry, first: Sequence[int], shape: tuple[int, int, int]) -> StackGeometry:
    """Return the part of an even grid that begins at the index `first`, inside it or not."""
    origin = grid.points([first])[0]
    rows, columns = grid.row_direction, grid.column_direction
    return StackGeometry.regular(
        shape=shape,
        spacing=grid.spacing,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        row_direction=(float(rows[0]), float(rows[1]), float(rows[2])),
        column_direction=(float(columns[0]), float(columns[1]), float(columns[2])),
    )


def _sampled(
    image: sitk.Image, target: StackGeometry, transform: sitk.Transform, *, outside: float = 0.0
) -> Field:
    """Return `image` at the voxels of `target`, whose points `transform` takes to it."""
    reference = to_sitk(np.zeros(target.shape, np.bool_), target)
    found, _ = from_sitk(
        sitk.Resample(image, reference, transform, sitk.sitkLinear, outside, sitk.sitkFloat32)
    )
    return np.asarray(found, dtype=np.float32)
