"""Bring the planning CT into the frame of the CBCT: by registration object, else by image.

The order: same frame of reference, a Spatial Registration object, a rigid registration of our
own. Whatever the source, the images are compared afterwards: a matrix that does not fit is not
used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from pipelines.dicom.registration import Matrix, rigid_between
from pipelines.dicom.volume import CtVolume, resample_to, to_sitk
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import Mask, Regions, body_mask
from pipelines.synthetic_ct.qa import dice, gradient_correlation

Hu = NDArray[np.float32]

LEAST_BODY_DICE: Final = 0.85
"""Body outlines of a planning CT in place agree better than this."""
LEAST_GRADIENT_CORRELATION: Final = 0.5
"""Edges of a planning CT in place correlate better than this with those of the CBCT: .75-.91 on
simulated cases of other days, .18-.31 for another patient of the same anatomy."""
LEAST_COVERAGE: Final = 0.6
"""Share of the CBCT's body that the planning CT must cover."""
OUTSIDE_HU: Final = -1024.0
COARSE_MM: Final = 8.0
SEARCH_STEP_MM: Final = 10.0
REFINE_MM: Final = 4.0


class Source(StrEnum):
    """Where the alignment comes from."""

    SAME_FRAME = "same frame of reference"
    REG = "spatial registration object"
    IMAGE = "own rigid registration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """The planning CT on the grid of the CBCT; arrays of the CBCT's shape."""

    hu: Hu
    covered: Mask
    """Where the planning CT has voxels."""
    body: Mask
    """Its body inside the field of view of the CBCT, where it is covered."""
    source: Source
    body_dice: float
    gradient_correlation: float
    coverage: float
    """Share of the CBCT's body that it covers."""
    matrix: Matrix
    """Shape (4, 4): takes points of the CBCT to the planning CT, patient LPS [mm]."""

    @property
    def fits(self) -> bool:
        """Whether the images agree well enough to be the same patient in the same place."""
        return (
            self.body_dice >= LEAST_BODY_DICE
            and self.gradient_correlation >= LEAST_GRADIENT_CORRELATION
            and self.coverage >= LEAST_COVERAGE
        )


def align(
    cbct: CtVolume, regions: Regions, planning: CtVolume, registrations: Iterable[Dataset]
) -> Prior:
    """Return `planning` in place; the caller looks at `Prior.fits`.

    Raises
    ------
    InputRejected
        For a registration object that is malformed, not rigid, or contradicts another.
    """
    frames = (cbct.frame_of_reference_uid, planning.frame_of_reference_uid)
    if frames[0] == frames[1] and frames[0]:
        return _in_place(cbct, regions, planning, np.eye(4), Source.SAME_FRAME)
    matrix = rigid_between(registrations, *frames)
    if matrix is not None:
        return _in_place(cbct, regions, planning, matrix, Source.REG)
    found = register_rigid(cbct, regions, planning)
    return _in_place(cbct, regions, planning, found, Source.IMAGE)


def register_rigid(cbct: CtVolume, regions: Regions, planning: CtVolume) -> Matrix:
    """Return the rigid matrix from CBCT to planning CT, patient LPS mm, found from the images.

    A search along the stack with aligned body centers on a coarse grid, then mutual information
    (Mattes 2003) from the best start. One thread, so that the result repeats.
    """
    fixed, fixed_grid = _coarse(cbct, COARSE_MM)
    moving, moving_grid = _coarse(planning, COARSE_MM)
    start = _search(fixed, fixed_grid, regions, cbct.geometry, moving, moving_grid)
    fixed, fixed_grid = _coarse(cbct, REFINE_MM)
    moving, moving_grid = _coarse(planning, REFINE_MM)
    seen = resample_to(regions.fov.astype(np.float32), cbct.geometry, fixed_grid, outside=0) > 0.5  # noqa: PLR2004 (half)
    center = fixed_grid.points([[(n - 1) / 2 for n in fixed_grid.shape]])[0]
    transform = sitk.Euler3DTransform()
    transform.SetCenter(tuple(float(v) for v in center))
    transform.SetTranslation(tuple(float(v) for v in start))
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricFixedMask(to_sitk(seen, fixed_grid))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.3)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.02, 150)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 0.0])
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(to_sitk(_limited(fixed), fixed_grid), to_sitk(_limited(moving), moving_grid))
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = center + np.array(transform.GetTranslation()) - rotation @ center
    return matrix


def _in_place(
    cbct: CtVolume, regions: Regions, planning: CtVolume, matrix: Matrix, source: Source
) -> Prior:
    grid = cbct.geometry
    hu = resample_to(
        planning.hu, planning.geometry, grid, outside=OUTSIDE_HU, target_to_source=matrix
    )
    ones = np.ones(planning.geometry.shape, dtype=np.float32)
    reach = resample_to(ones, planning.geometry, grid, outside=0, target_to_source=matrix)
    covered = reach > 0.99  # noqa: PLR2004 (interpolated fully from inside)
    body = body_mask(hu, grid.spacing) & covered & regions.fov
    common = regions.body & covered
    image = np.asarray(cbct.hu, dtype=np.float32)
    share = float(common.sum()) / max(int(regions.body.sum()), 1)
    return Prior(
        hu=hu,
        covered=covered,
        body=body,
        source=source,
        body_dice=dice(body, common) if common.any() else 0.0,
        gradient_correlation=gradient_correlation(hu, image, common) if common.any() else 0.0,
        coverage=share,
        matrix=matrix,
    )


def _coarse(volume: CtVolume, voxel_mm: float) -> tuple[Hu, StackGeometry]:
    """Return the volume averaged onto voxels of about `voxel_mm`."""
    geometry = volume.geometry
    sigma = [max(0.0, voxel_mm / s / 2.5) for s in geometry.spacing]
    smooth = ndimage.gaussian_filter(np.asarray(volume.hu, dtype=np.float32), sigma)
    counts = [
        max(4, round(n * s / voxel_mm))
        for n, s in zip(geometry.shape, geometry.spacing, strict=True)
    ]
    spacing = [n * s / c for n, s, c in zip(geometry.shape, geometry.spacing, counts, strict=True)]
    first = [(ratio / s - 1) / 2 for ratio, s in zip(spacing, geometry.spacing, strict=True)]
    origin = geometry.points([first])[0]
    grid = StackGeometry.regular(
        shape=(counts[0], counts[1], counts[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        row_direction=_triple(geometry.row_direction),
        column_direction=_triple(geometry.column_direction),
    )
    return resample_to(smooth, geometry, grid, outside=OUTSIDE_HU), grid


def _triple(v: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])


def _limited(hu: Hu) -> Hu:
    return np.clip(hu, -1000, 600)


def _search(
    fixed: Hu,
    fixed_grid: StackGeometry,
    regions: Regions,
    full_grid: StackGeometry,
    moving: Hu,
    moving_grid: StackGeometry,
) -> NDArray[np.float64]:
    """Return the best translation [mm] from CBCT to planning CT among steps along the stack."""
    body = resample_to(regions.body.astype(np.float32), full_grid, fixed_grid, outside=0) > 0.5  # noqa: PLR2004 (half)
    axis = moving_grid.normal
    target = body_mask(moving, moving_grid.spacing)
    from_center = fixed_grid.points([ndimage.center_of_mass(body)] if body.any() else [[0, 0, 0]])[
        0
    ]
    to_center = moving_grid.points(
        [ndimage.center_of_mass(target)] if target.any() else [[0, 0, 0]]
    )[0]
    reach = moving_grid.shape[0] * moving_grid.spacing[0] / 2
    best, score = to_center - from_center, -np.inf
    for step in np.arange(-reach, reach + 1, SEARCH_STEP_MM):
        shift = to_center - from_center + axis * step
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        there = resample_to(
            moving, moving_grid, fixed_grid, outside=OUTSIDE_HU, target_to_source=matrix
        )
        # slices beyond the planning CT count as air, which no body correlates with
        value = _correlation(_limited(fixed)[body], _limited(there)[body])
        if value > score:
            best, score = shift, value
    return np.asarray(best, dtype=np.float64)


def _correlation(a: Hu, b: Hu) -> float:
    if a.size == 0:
        return -1.0
    x, y = a - a.mean(), b - b.mean()
    norm = float(np.sqrt(np.sum(x**2, dtype=np.float64) * np.sum(y**2, dtype=np.float64)))
    return float(np.sum(x * y, dtype=np.float64)) / norm if norm > 0 else -1.0
