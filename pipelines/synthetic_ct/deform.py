"""Virtual CT: the planning CT deformed onto the CBCT by symmetric-forces demons (SimpleITK).

Vercauteren et al. 2009; schedule from the reference page, section 3. Runs on one thread, so that
the field is the same on every machine of one kind.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.dicom.volume import from_sitk, to_sitk
from pipelines.geometry.stack import StackGeometry

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

CLIP_HU: Final = (-1000.0, 600.0)
"""Bone beyond would outvote all soft tissue."""
WORKING_MM: Final = 3.0
"""In-plane voxel size on which the field is found."""
LEVELS: Final = (((4, 4, 2), 60), ((2, 2, 1), 40), ((1, 1, 1), 20))
"""(shrink along column, row, slice; iterations), coarse to fine."""
SMOOTHING_VOXELS: Final = 2.5
"""SD of the field's smoothing. 1.5 followed the CBCT's artefacts (smallest Jacobian .05); 2.5 gave
the best virtual CT on simulated cases with it above .57."""
AGREEMENT_HU: Final = 120.0
"""Base and virtual CT closer than this, smoothed, show the same tissue."""
AIR_HU: Final = -1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deformation:
    """Where each point of today's image lies in the planning CT that is rigidly in place."""

    field: sitk.Image
    """Displacements [mm], patient LPS, on a grid of about `WORKING_MM`: today's point plus its
    vector is the point of the planning CT (the direction in which images are resampled)."""
    min_jacobian: float
    """Above 0 where the deformation folds nowhere, inside the body."""
    displacement_p95_mm: float
    largest_mm: float

    @property
    def transform(self) -> sitk.Transform:
        """The same as a transform from today's points to the planning CT's."""
        return sitk.DisplacementFieldTransform(sitk.Image(self.field))

    @property
    def jacobian(self) -> sitk.Image:
        """Local change of volume from today to the planning CT; 0 or less where it folds."""
        return sitk.DisplacementFieldJacobianDeterminant(self.field)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualCt:
    """The deformed planning CT and how plausible its deformation is."""

    hu: Hu
    min_jacobian: float
    """Above 0 where the deformation folds nowhere, inside the body."""
    displacement_p95_mm: float


def find_deformation(
    today: Hu,
    prior: Hu,
    body: Mask,
    geometry: StackGeometry,
    *,
    smoothing: float = SMOOTHING_VOXELS,
) -> Deformation:
    """Return how `prior` is deformed today.

    Parameters
    ----------
    today : ndarray, HU
        Corrected, so that equal tissue has equal values in both.
    prior : ndarray, HU
        The planning CT, rigidly in place, on the grid of the CBCT.
    body : ndarray
        Where today is known; outside, the prior stays where it is.
    geometry : StackGeometry
        The grid of all three.
    smoothing : float
        SD of the field's smoothing, working voxels.
    """
    clipped = np.clip(prior, *CLIP_HU).astype(np.float32)
    goal = np.where(body, np.clip(today, *CLIP_HU), clipped).astype(np.float32)
    factor = [max(1, round(WORKING_MM / s)) for s in reversed(geometry.spacing[1:])]
    fixed, moving = (
        sitk.Shrink(sitk.SmoothingRecursiveGaussian(to_sitk(a, geometry), s), [*factor, 1])
        for a, s in ((goal, WORKING_MM / 2), (clipped, WORKING_MM / 2))
    )
    field = _demons(fixed, moving, smoothing)
    coarse = sitk.Resample(
        to_sitk(body, geometry), field, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    inside, _ = from_sitk(coarse)
    jacobian, _ = from_sitk(sitk.DisplacementFieldJacobianDeterminant(field))
    parts = [from_sitk(sitk.VectorIndexSelectionCast(field, i))[0] for i in range(3)]
    length = np.sqrt(sum(p.astype(np.float64) ** 2 for p in parts))
    where = inside > 0
    return Deformation(
        field=field,
        min_jacobian=float(jacobian[where].min()) if where.any() else 1.0,
        displacement_p95_mm=float(np.percentile(length[where], 95)) if where.any() else 0.0,
        largest_mm=float(length.max()),
    )


def virtual_ct(cbct: Hu, prior: Hu, body: Mask, geometry: StackGeometry) -> VirtualCt:
    """Return `prior` deformed onto `cbct`; parameters as those of `find_deformation`."""
    found = find_deformation(cbct, prior, body, geometry)
    return VirtualCt(
        hu=warped(found, prior, geometry),
        min_jacobian=found.min_jacobian,
        displacement_p95_mm=found.displacement_p95_mm,
    )


def warped(found: Deformation, prior: Hu, geometry: StackGeometry) -> Hu:
    """Return `prior` deformed by `found`, on its own grid."""
    image = to_sitk(prior.astype(np.float32), geometry)
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(image)
    resample.SetTransform(found.transform)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(AIR_HU)
    hu, _ = from_sitk(resample.Execute(image))
    return np.asarray(hu, dtype=np.float32)


def agree(base: Hu, virtual: Hu, body: Mask) -> Hu:
    """Return where the virtual CT may stand for `base`: weights from 0 to 1, blended.

    Only where the smoothed images differ by less than `AGREEMENT_HU`: gas pockets and organs that
    changed come from today's image.
    """
    smooth = ndimage.gaussian_filter(virtual - base, (0, 1, 1))
    same = body & (np.abs(smooth) < AGREEMENT_HU)
    core = ndimage.binary_erosion(same).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(core, (0, 1, 1)), dtype=np.float32)


def _demons(fixed: sitk.Image, moving: sitk.Image, smoothing: float) -> sitk.Image:
    """Return the displacement field [mm] on the grid of `fixed`, level by level."""
    field = None
    for shrink, iterations in LEVELS:
        # never below 8 voxels an axis: the filters need some
        steps = [max(1, min(s, n // 8)) for s, n in zip(shrink, fixed.GetSize(), strict=True)]
        small_fixed, small_moving = (_shrunk(i, steps) for i in (fixed, moving))
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfThreads(1)
        demons.SetNumberOfIterations(iterations)
        demons.SmoothDisplacementFieldOn()
        demons.SetStandardDeviations(smoothing)
        if field is None:
            field = demons.Execute(small_fixed, small_moving)
        else:
            start = sitk.Resample(
                field, small_fixed, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64
            )
            field = demons.Execute(small_fixed, small_moving, start)
    return field


def _shrunk(image: sitk.Image, steps: list[int]) -> sitk.Image:
    if max(steps) == 1:
        return image
    spread = zip(steps, image.GetSpacing(), strict=True)
    return sitk.Shrink(sitk.DiscreteGaussian(image, [(0.4 * n * d) ** 2 for n, d in spread]), steps)
