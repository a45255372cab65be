"""CT slices into one volume in Hounsfield units, and the only bridge to SimpleITK.

Arrays are (slice, row, column), the slice index growing along ``row × column`` direction; a
SimpleITK image of the same voxels has the axes (column, row, slice). Both conversions live here
and nowhere else, so nobody transposes, flips or multiplies by spacing by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID
from scipy import ndimage

from pipelines.api import Finding, InputRejected, Severity
from pipelines.dicom.read import read_dataset, refusing_damage, text, tolerant
from pipelines.geometry.stack import Floats, SlicePose, StackGeometry, examine

AIR_HU: Final = -1024
"""What voxels outside the reconstructed field of view are set to."""
NEGATIVE_SHARE: Final = 0.002
"""Least share of voxels below -100 HU: no patient's CT is without any air, lung and fat."""

Voxels = NDArray[np.int16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CtVolume:
    """A CT or CBCT as one array, with where each voxel lies and the headers it came from."""

    hu: Voxels
    """Shape (slices, rows, columns): int16 where exact, else float32 [HU]."""
    padded: NDArray[np.bool_] | None
    """The same shape: voxels that the scanner marked as outside its field of view."""
    geometry: StackGeometry
    headers: tuple[Dataset, ...]
    """Data sets without pixel data, in slice order."""
    frame_of_reference_uid: str
    findings: tuple[Finding, ...] = ()


def read_volume(paths: Sequence[Path], *, check_scale: bool = True) -> CtVolume:
    """Return the volume that the CT image files `paths` hold, in any order.

    Localizers are left out with a finding; a file that is there twice counts once.

    Parameters
    ----------
    paths : sequence of Path
        CT Image Storage files of one series; any transfer syntax that pydicom can decode.
    check_scale : bool
        Refuse values that cannot be Hounsfield units (HU + 1024 without its intercept).

    Raises
    ------
    InputRejected
        For another modality, several series or frames of reference, missing slices, duplicate
        positions, mixed geometry, a tilted gantry, undecodable pixels or a wrong scale.
    """
    with tolerant(), refusing_damage():
        return _read_volume(paths, "CT", check_scale=check_scale)


def read_gray(paths: Sequence[Path], modality: str) -> CtVolume:
    """Return the images `paths` of a modality without calibrated values as float32, in any order.

    As `read_volume`, but `hu` holds what the rescale of each image gives, in no unit; voxels
    outside the field of view are 0.
    """
    with tolerant(), refusing_damage():
        return _read_volume(paths, modality, check_scale=False)


def _read_volume(paths: Sequence[Path], modality: str, *, check_scale: bool) -> CtVolume:
    datasets, findings = _images(paths, modality)
    poses = [pose_of(ds) for ds in datasets]
    geometry = StackGeometry.of(poses)
    ordered = [datasets[i] for i in examine(poses).order]
    hu, padded = _stack(ordered, modality)
    if check_scale:
        _check_scale(hu, ordered)
    return CtVolume(
        hu=hu,
        padded=padded,
        geometry=geometry,
        headers=tuple(ordered),
        frame_of_reference_uid=text(ordered[0], "FrameOfReferenceUID"),
        findings=tuple(findings),
    )


def pose_of(ds: Dataset) -> SlicePose:
    """Return where the image `ds` lies; raise `InputRejected` where it does not say so."""
    try:
        x, y, z = (float(v) for v in ds.ImagePositionPatient)
        rx, ry, rz, cx, cy, cz = (float(v) for v in ds.ImageOrientationPatient)
        between_rows, between_columns = (float(v) for v in ds.PixelSpacing)
        rows, columns = int(ds.Rows), int(ds.Columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputRejected(
            "an image does not state its position, orientation, spacing or size"
        ) from error
    return SlicePose(
        position=(x, y, z),
        row_direction=(rx, ry, rz),
        column_direction=(cx, cy, cz),
        spacing=(between_rows, between_columns),
        rows=rows,
        columns=columns,
    )


def to_sitk(array: NDArray[Any], geometry: StackGeometry) -> sitk.Image:
    """Return `array` (slice, row, column) as a SimpleITK image at the same place in LPS mm.

    Raises
    ------
    InputRejected
        When the slices are unevenly spaced: SimpleITK knows one spacing only.
    """
    if array.shape != geometry.shape:
        raise ValueError(f"array {array.shape} does not fit the grid {geometry.shape}")
    voxels = array.astype(np.uint8) if array.dtype == np.bool_ else np.ascontiguousarray(array)
    image = sitk.GetImageFromArray(voxels)
    _place(image, geometry)
    return image


def from_sitk(image: sitk.Image) -> tuple[NDArray[Any], StackGeometry]:
    """Return the voxels of `image` as (slice, row, column) and their grid.

    A left-handed image (slices running against row × column) is flipped along its slices, so
    that every voxel stays where it is in the patient.
    """
    array = sitk.GetArrayFromImage(image)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    between_columns, between_rows, step = image.GetSpacing()
    origin = np.array(image.GetOrigin())
    if np.cross(axes[:, 0], axes[:, 1]) @ axes[:, 2] < 0:
        origin = origin + axes[:, 2] * step * (array.shape[0] - 1)
        array = array[::-1]
    geometry = StackGeometry.regular(
        shape=(array.shape[0], array.shape[1], array.shape[2]),
        spacing=(step, between_rows, between_columns),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        row_direction=(float(axes[0, 0]), float(axes[1, 0]), float(axes[2, 0])),
        column_direction=(float(axes[0, 1]), float(axes[1, 1]), float(axes[2, 1])),
    )
    return np.ascontiguousarray(array), geometry


def resample_to(
    array: NDArray[Any],
    source: StackGeometry,
    target: StackGeometry,
    *,
    outside: float,
    nearest: bool = False,
    target_to_source: Floats | None = None,
) -> NDArray[np.float32]:
    """Return `array` on the grid `target`.

    Parameters
    ----------
    array : ndarray, shape `source.shape`
    source, target : StackGeometry
        Even grids in the same frame of reference, unless `target_to_source` joins two.
    outside : float
        Value of voxels that lie outside `source`.
    nearest : bool
        Nearest neighbor for labels; else linear.
    target_to_source : ndarray, shape (4, 4), optional
        Rigid or affine matrix from target LPS mm to source LPS mm.

    Returns
    -------
    ndarray, shape `target.shape`, float32
    """
    moving = to_sitk(np.asarray(array, dtype=np.float32), source)
    transform = sitk.AffineTransform(3)
    if target_to_source is not None:
        transform.SetMatrix(tuple(float(v) for v in target_to_source[:3, :3].ravel()))
        transform.SetTranslation(tuple(float(v) for v in target_to_source[:3, 3]))
    reference = sitk.Image([target.shape[2], target.shape[1], target.shape[0]], sitk.sitkUInt8)
    _place(reference, target)
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moved = sitk.Resample(moving, reference, transform, method, float(outside), sitk.sitkFloat32)
    result: NDArray[np.float32] = sitk.GetArrayFromImage(moved)
    return result


def _place(image: sitk.Image, geometry: StackGeometry) -> None:
    """Give `image` origin, spacing and axes of `geometry`."""
    if not geometry.uniform:
        raise InputRejected("the slices are unevenly spaced; they must be resampled first")
    step, between_rows, between_columns = geometry.spacing
    image.SetSpacing((between_columns, between_rows, step))
    image.SetOrigin(tuple(float(v) for v in geometry.origins[0]))
    axes = np.column_stack([geometry.row_direction, geometry.column_direction, geometry.normal])
    image.SetDirection(tuple(float(v) for v in axes.ravel()))


def _images(paths: Sequence[Path], wanted: str) -> tuple[list[Dataset], list[Finding]]:
    """Read the files, drop localizers and repeats, and make sure that one series remains."""
    findings: list[Finding] = []
    images: dict[str, Dataset] = {}
    localizers = 0
    for path in paths:
        ds = read_dataset(path)
        modality = text(ds, "Modality")
        if modality != wanted:
            article = "an" if wanted == "MR" else "a"
            raise InputRejected(
                f"an image of modality {modality or 'none'} is not {article} {wanted}"
            )
        if "LOCALIZER" in [str(v).upper() for v in ds.get("ImageType") or []]:
            localizers += 1
            continue
        if int(ds.get("NumberOfFrames") or 1) > 1:
            raise InputRejected(f"multi-frame {wanted} is not read by this version")
        images.setdefault(str(ds.SOPInstanceUID), ds)
    if localizers:
        findings.append(
            Finding(
                code="localizer-left-out",
                severity=Severity.INFO,
                message=f"{localizers} localizer images were left out",
                value=float(localizers),
            )
        )
    if not images:
        raise InputRejected(f"there is no {wanted} image among the inputs")
    for keyword, words in (
        ("SeriesInstanceUID", "series"),
        ("FrameOfReferenceUID", "frames of reference"),
    ):
        count = len({text(ds, keyword) for ds in images.values()})
        if count > 1:
            raise InputRejected(f"the images belong to {count} {words}; one is needed")
    return list(images.values()), findings


def _stack(datasets: Sequence[Dataset], modality: str) -> tuple[Voxels, NDArray[np.bool_] | None]:
    """Decode the pixels of the ordered slices into values; they leave the data sets."""
    shape = (len(datasets), int(datasets[0].Rows), int(datasets[0].Columns))
    exact = modality == "CT" and all(_exact(ds) for ds in datasets)
    hu: Voxels = np.empty(shape, np.int16) if exact else np.empty(shape, np.float32)
    padded = np.zeros(shape, np.bool_)
    for k, ds in enumerate(datasets):
        stored = _stored(ds)
        slope, intercept = _rescale(ds)
        values = stored * slope + intercept
        padded[k] = _padding(ds, stored, values)
        values[padded[k]] = AIR_HU if modality == "CT" else 0
        hu[k] = np.clip(np.rint(values), -32768, 32767) if exact else values
        del ds.PixelData
    return hu, padded if padded.any() else None


def _stored(ds: Dataset) -> NDArray[np.int32]:
    """Return the stored values of one slice, sign extended from BitsStored."""
    try:
        stored = np.asarray(pixel_array(ds), dtype=np.int32)
    except Exception as error:  # each decoder plug-in raises errors of its own
        syntax = UID(str(ds.file_meta.get("TransferSyntaxUID", "")))
        raise InputRejected(
            f"the pixels of an image cannot be decoded ({syntax.name}, {type(error).__name__})"
        ) from error
    if stored.shape != (int(ds.Rows), int(ds.Columns)):
        raise InputRejected("an image has not one gray value for each pixel")
    bits = int(ds.BitsStored)
    if bits < int(ds.BitsAllocated) and int(ds.get("HighBit", bits - 1)) == bits - 1:
        stored &= (1 << bits) - 1  # overlays and dirt live in the bits above
        if int(ds.PixelRepresentation) == 1:
            stored = np.where(stored >= 1 << (bits - 1), stored - (1 << bits), stored)
    return stored


def _rescale(ds: Dataset) -> tuple[float, float]:
    """Return (slope, intercept); without them the stored values are taken as HU."""
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    try:
        return (
            1.0 if slope in (None, "") else float(slope),
            0.0 if intercept in (None, "") else float(intercept),
        )
    except (TypeError, ValueError) as error:
        raise InputRejected(
            "an image has a rescale slope or intercept that is no number"
        ) from error


def _exact(ds: Dataset) -> bool:
    slope, intercept = _rescale(ds)
    return slope.is_integer() and intercept.is_integer() and abs(slope) == 1.0


def _padding(
    ds: Dataset, stored: NDArray[np.int32], values: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    """Return the voxels outside the field of view by PixelPaddingValue (PS3.3 C.7.5.1.1.2)."""
    value = ds.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, np.bool_)
    limit = ds.get("PixelPaddingRangeLimit")
    low = _signed(ds, value)
    high = _signed(ds, limit) if isinstance(limit, int) else low
    low, high = min(low, high), max(low, high)
    found: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    if found.any() and float(values[found].max()) > -200:  # noqa: PLR2004 (no air)
        # The padding value is also a tissue value: only what hangs together with the image edge.
        labels, _ = ndimage.label(found)
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        found &= np.isin(labels, np.unique(edge[edge > 0]))
    return found


def _signed(ds: Dataset, value: int) -> int:
    """Return a padding value in the sign of the pixels, whatever VR it was written with."""
    bits = int(ds.BitsAllocated)
    if int(ds.PixelRepresentation) == 1 and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value


def _check_scale(hu: Voxels, datasets: Sequence[Dataset]) -> None:
    """Refuse a volume without air and fat: its values are not Hounsfield units."""
    sample = hu[:: max(1, len(hu) // 16), ::4, ::4]
    share = float(np.mean(sample < -100))  # noqa: PLR2004 (below fat)
    if share >= NEGATIVE_SHARE:
        return
    slope, intercept = _rescale(datasets[0])
    raise InputRejected(
        f"the values are not Hounsfield units: {100 * share:.2f} % of the voxels are below "
        f"-100 HU (rescale slope {slope:g}, intercept {intercept:g}, lowest value "
        f"{float(sample.min()):.0f}); stored HU + 1024 without its intercept looks like this",
        hint="correct the rescale intercept at the source and send the series again",
    )
