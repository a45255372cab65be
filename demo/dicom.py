"""Image series and registrations from arrays: a clearly fake patient and two scanners.

The builders write what such devices write (module tables of PS3.3 A.3, A.39.1),
valid for ``dciodvfy``, with UIDs that follow from a seed. Each returns data sets with file meta;
`save` writes them. Used by the demo and, through `tests.factories`, by the tests.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, SpatialRegistrationStorage

from demo.elements import Case, Device, common, decimal, decimals, item, reference, set_plane
from demo.grid import Grid

STORED_OFFSET_HU: Final = 1024
"""Stored value of 0 HU: unsigned 16 bit, as CT scanners write."""


PLANNING_CT: Final = Device(
    manufacturer="SIEMENS", model="Sensation Open", description="RT Thorax 3.0 B30f", kernel="B30f"
)
VARIAN_CBCT: Final = Device(
    manufacturer="Varian Medical Systems",
    model="On-Board Imager",
    description="CBCT Thorax",
    kvp=125,
    kernel="Ram-Lak",
)
ELEKTA_CBCT: Final = Device(
    manufacturer="ELEKTA",
    model="XVI",
    description="VolumeView",
    kvp=120,
    image_type=("DERIVED", "SECONDARY", "AXIAL"),
)


def ct_series(
    case: Case,
    hu: NDArray[np.generic],
    grid: Grid,
    *,
    device: Device = PLANNING_CT,
    position: str = "HFS",
    frame: str = "planning",
    series: str = "ct",
) -> list[Dataset]:
    """Return the slices of a CT series, in the order of their index along the normal.

    Parameters
    ----------
    hu : ndarray, shape `grid.shape`
        Hounsfield units; rounded, stored as unsigned 16 bit.
    grid
        Where the voxels lie.
    device
        Scanner or cone-beam device.
    position
        Patient Position; independent of `grid`, as on a real scanner's export.
    frame, series
        Names that decide the Frame of Reference UID and the Series Instance UID.
    """
    stored = np.clip(np.rint(hu) + STORED_OFFSET_HU, 0, 65535).astype("<u2")
    slices = []
    for k in range(grid.shape[0]):
        ds = common(case, CTImageStorage, "CT", device, series, k)
        ds.SeriesNumber = 1
        ds.ImageType = list(device.image_type)
        ds.ContentDate, ds.ContentTime = case.date, case.time
        ds.AcquisitionDate, ds.AcquisitionTime = case.date, case.time
        ds.BodyPartExamined, ds.PatientPosition = "CHEST", position
        ds.FrameOfReferenceUID = case.uid("frame", frame)
        ds.PositionReferenceIndicator = ""
        ds.KVP = decimal(device.kvp)
        ds.AcquisitionNumber = 1
        ds.ConvolutionKernel = device.kernel
        ds.InstanceNumber = k + 1
        ds.SliceThickness = decimal(grid.spacing[0])
        ds.ImagePositionPatient = decimals(grid.slice_origin(k))
        set_plane(ds, grid)
        ds.Rows, ds.Columns = grid.shape[1:]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleIntercept, ds.RescaleSlope = -STORED_OFFSET_HU, 1
        ds.RescaleType = "HU"
        ds.add_new("PixelData", "OW", stored[k].tobytes())
        slices.append(ds)
    return slices


def reg(
    case: Case,
    fixed: Sequence[Dataset],
    moving: Sequence[Dataset],
    matrix: NDArray[np.float64],
    *,
    series: str = "reg",
) -> Dataset:
    """Return a rigid registration.

    Parameters
    ----------
    fixed, moving
        The image series; the object lives in the frame of reference of `fixed`.
    matrix : ndarray, shape (4, 4)
        Takes LPS points [mm] of the moving frame to the fixed frame (PS3.3 C.20.2.1.1).
    """
    ds = common(case, SpatialRegistrationStorage, "REG", PLANNING_CT, series)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = fixed[0].FrameOfReferenceUID, ""
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = case.date, case.time
    ds.BodyPartExamined = "CHEST"
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "CBCT_TO_CT", "", None
    ds.RegistrationSequence = Items(
        _registration(images, m) for images, m in ((fixed, np.eye(4)), (moving, matrix))
    )
    ds.ReferencedSeriesSequence = Items(
        item(
            SeriesInstanceUID=images[0].SeriesInstanceUID,
            ReferencedInstanceSequence=Items(map(reference, images)),
        )
        for images in (fixed, moving)
        if images[0].StudyInstanceUID == ds.StudyInstanceUID
    )
    elsewhere = [i for i in (fixed, moving) if i[0].StudyInstanceUID != ds.StudyInstanceUID]
    if elsewhere:
        ds.StudiesContainingOtherReferencedInstancesSequence = Items(
            item(
                StudyInstanceUID=i[0].StudyInstanceUID,
                ReferencedSeriesSequence=Items(
                    [
                        item(
                            SeriesInstanceUID=i[0].SeriesInstanceUID,
                            ReferencedInstanceSequence=Items(map(reference, i)),
                        )
                    ]
                ),
            )
            for i in elsewhere
        )
    return ds


def save(objects: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write each data set into `folder` and return the paths, in order.

    Names are modality and number, as an export of a workstation has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in objects:
        path = folder / f"{ds.Modality}.{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _registration(images: Sequence[Dataset], matrix: NDArray[np.float64]) -> Dataset:
    rigid = item(
        FrameOfReferenceTransformationMatrixType="RIGID",
        FrameOfReferenceTransformationMatrix=decimals(np.asarray(matrix).ravel()),
    )
    return item(
        FrameOfReferenceUID=images[0].FrameOfReferenceUID,
        ReferencedImageSequence=Items(map(reference, images)),
        MatrixRegistrationSequence=Items(
            [
                item(
                    FrameOfReferenceTransformationComment="",
                    RegistrationTypeCodeSequence=Items(),
                    MatrixSequence=Items([rigid]),
                )
            ]
        ),
    )
